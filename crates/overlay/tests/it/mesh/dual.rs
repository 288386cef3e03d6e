//! IPv6 within the tunnel: the same ways, and the same that is closed.

use std::io::{Read, Write};
use std::net::{Ipv6Addr, Shutdown, TcpListener, TcpStream};
use std::thread;

use skep_overlay::plan::PublishMode;
use skep_overlay::snapshot::Protocol;

use super::{Peer, client_v6, host, nodes, tunneled, uplink_v6};
use crate::lab::{self, Place, ip, is_silent, publish, service, twin, vip};

fn publish_on(nodes: &mut [&mut Peer], backends: &[std::net::Ipv4Addr]) {
    for node in nodes {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let port = publish(protocol, 8080, 80, backends);
            assert_eq!(port.mode, PublishMode::Ingress);
            node.wanted.published.push(port);
        }
        node.apply();
    }
}

#[test]
fn neighbours_and_service_addresses_are_reached_on_other_nodes() {
    lab::run(|lab| {
        let ([mut one, mut two, mut three], _outside) = nodes(&lab);
        let a = one.start("a", &[(1, 2), (9, 2)]);
        let b = two.start("b", &[(1, 2), (9, 2)]);
        b.serve(80, "b");
        assert_eq!(a.ask(twin(host(1, 2, 2)), 80).unwrap(), format!("b {}", twin(host(1, 1, 2))));
        assert_eq!(a.ask_udp(twin(host(1, 2, 2)), 80).unwrap(), format!("b {}", twin(host(1, 1, 2))));
        assert_eq!(a.ask(twin(host(9, 2, 2)), 80).unwrap(), format!("b {}", twin(host(9, 1, 2))));
        for node in [&mut one, &mut two, &mut three] {
            node.wanted.services.push(service(1, vip(1, 1), &[host(1, 2, 2)]));
            node.apply();
        }
        assert_eq!(a.ask(twin(vip(1, 1)), 80).unwrap(), format!("b {}", twin(host(1, 1, 2))));
        assert_eq!(three.ask(twin(vip(1, 1)), 80).unwrap(), format!("b {}", twin(tunneled(3))), "a node's own process");
        let nobody = a.ask(twin(host(1, 2, 40)), 80).unwrap_err();
        assert_eq!(nobody.kind(), std::io::ErrorKind::ConnectionRefused);
    });
}

#[test]
fn networks_are_closed_to_each_other_and_forgeries_go_nowhere() {
    lab::run(|lab| {
        let ([mut one, mut two], _outside) = nodes(&lab);
        let places = [1, 2, 9];
        let here = places.map(|network| one.start(&format!("a{network}"), &[(network, 2)]));
        let there = places.map(|network| two.start(&format!("b{network}"), &[(network, 2)]));
        there.iter().for_each(|place| place.serve(80, "open"));
        two.serve(22, "node");
        for (from, network) in here.iter().zip(places) {
            // As a container with NET_ADMIN could.
            if network == 9 {
                from.run(|| ip(&format!("route add default via {}", twin(lab::host(9, 1)))));
            }
            for to in places {
                let target = twin(host(to, 2, 2));
                match network == to {
                    true => assert!(from.ask(target, 80).is_ok(), "{network}"),
                    false => assert!(is_silent(from, target, 80), "{network} to {to}"),
                }
            }
            assert!(is_silent(from, twin(tunneled(2)), 22), "{network} to another node");
        }
        let receiver = there[0].run(|| std::net::UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 9000)).unwrap());
        receiver.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
        here[0].run(|| {
            for source in [host(1, 1, 3), host(2, 1, 2), tunneled(1), host(1, 1, 2)].map(twin) {
                if source != twin(host(1, 1, 2)) {
                    ip(&format!("addr add {source}/128 dev eth0 nodad"));
                }
                let socket = std::net::UdpSocket::bind((source, 0)).unwrap();
                socket.send_to(b"hello", (twin(host(1, 2, 2)), 9000)).unwrap();
            }
        });
        let (_, from) = receiver.recv_from(&mut [0; 64]).unwrap();
        assert_eq!(from.ip(), twin(host(1, 1, 2)), "the only one that is its own");
    });
}

#[test]
fn a_client_of_any_node_is_seen_by_its_own_address() {
    lab::run(|lab| {
        let ([mut one, mut two], outside) = nodes(&lab);
        let far = two.start("far", &[(1, 5)]);
        far.serve(80, "far");
        publish_on(&mut [&mut one, &mut two], &[host(1, 2, 5)]);
        for number in [1, 2] {
            let client = client_v6(number);
            assert_eq!(outside.ask(uplink_v6(number), 8080).unwrap(), format!("far {client}"));
            assert_eq!(outside.ask_udp(uplink_v6(number), 8080).unwrap(), format!("far {client}"));
        }
        let stranger = one.start("stranger", &[(2, 2)]);
        let seen = stranger.ask(uplink_v6(1), 8080).unwrap();
        assert_eq!(
            seen,
            format!("far {}", twin(host(2, 1, 2))),
            "a container of another network by the published port"
        );
    });
}

#[test]
fn much_data_passes_both_ways() {
    lab::run(|lab| {
        let ([mut one, mut two], outside) = nodes(&lab);
        let near = one.start("near", &[(1, 5)]);
        let far = two.start("far", &[(1, 5)]);
        publish_on(&mut [&mut one, &mut two], &[host(1, 2, 5)]);
        let listener = far.run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, 80)).unwrap());
        let echo = thread::spawn(move || {
            for _ in 0..2 {
                let (mut stream, _) = listener.accept().unwrap();
                let mut all = Vec::new();
                stream.read_to_end(&mut all).unwrap();
                stream.write_all(&all).unwrap();
            }
        });
        let sent: Vec<u8> = (0..2_000_000u32).map(|n| (n % 251) as u8).collect();
        let streams = [
            near.run(|| TcpStream::connect((twin(host(1, 2, 5)), 80)).unwrap()),
            outside.run(|| TcpStream::connect((uplink_v6(1), 8080)).unwrap()),
        ];
        for mut stream in streams {
            stream.write_all(&sent).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut received = Vec::new();
            stream.read_to_end(&mut received).unwrap();
            assert!(sent == received);
        }
        echo.join().unwrap();
    });
}
