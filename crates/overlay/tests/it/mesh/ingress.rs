//! Published ports whose containers are on other nodes.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use skep_overlay::Attachment;
use skep_overlay::plan::Protocol::{Tcp, Udp};
use skep_overlay::plan::{Network, Published};

use super::{Peer, block_of_a_user, client, host, nodes, tunneled, uplink};
use crate::lab::{self, Place, ip, is_silent, publish};

/// Both protocols' port 8080 leads to port 80 of these.
fn publish_on(nodes: &mut [&mut Peer], backends: &[Ipv4Addr]) {
    for node in nodes {
        node.wanted.published = [Tcp, Udp].map(|protocol| publish(protocol, 8080, 80, backends)).to_vec();
        node.apply();
    }
}

#[test]
fn the_clients_address_arrives_on_another_node_and_answers_go_back_as_they_came() {
    lab::run(|lab| {
        let ([mut one, mut two, mut three], outside) = nodes(&lab);
        let near = one.start("near", &[(1, 5)]);
        let far = two.start("far", &[(1, 5)]);
        let other = three.start("other", &[(2, 5)]);
        // As many distributions have it.
        for node in [&one, &two, &three] {
            node.run(|| std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "1").unwrap());
        }
        for (place, name) in [(&near, "near"), (&far, "far"), (&other, "other")] {
            place.serve(80, name);
        }
        publish_on(&mut [&mut one, &mut two, &mut three], &[host(1, 1, 5), host(1, 2, 5), host(2, 3, 5)]);
        for name in ["near", "far", "other"] {
            let expected = format!("{name} {}", client(1));
            while outside.ask(uplink(1), 8080).unwrap() != expected {}
            while outside.ask_udp(uplink(1), 8080).unwrap() != expected {}
        }
    });
}

#[test]
fn the_nodes_own_processes_and_its_containers_of_other_networks_are_clients_too() {
    lab::run(|lab| {
        let ([mut one, mut two], _outside) = nodes(&lab);
        let neighbour = one.start("neighbour", &[(1, 2)]);
        let stranger = one.start("stranger", &[(2, 2)]);
        let closed = one.start("closed", &[(9, 2)]);
        two.start("far", &[(1, 5)]).serve(80, "far");
        publish_on(&mut [&mut one, &mut two], &[host(1, 2, 5)]);
        assert_eq!(one.ask(uplink(1), 8080).unwrap(), format!("far {}", uplink(1)));
        assert_eq!(one.ask_udp(uplink(1), 8080).unwrap(), format!("far {}", uplink(1)));
        assert_eq!(one.ask(tunneled(1), 8080).unwrap(), format!("far {}", tunneled(1)));
        assert_eq!(neighbour.ask(uplink(1), 8080).unwrap(), format!("far {}", host(1, 1, 2)));
        assert_eq!(stranger.ask(uplink(1), 8080).unwrap(), format!("far {}", host(2, 1, 2)));
        assert_eq!(stranger.ask_udp(uplink(1), 8080).unwrap(), format!("far {}", host(2, 1, 2)));
        for loopback in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
            assert_eq!(one.ask(loopback, 8080).unwrap(), format!("far {}", tunneled(1)));
        }
        assert_eq!(one.ask_udp(Ipv4Addr::LOCALHOST, 8080).unwrap(), format!("far {}", tunneled(1)));
        closed.run(|| ip("route add default via 10.64.144.1"));
        assert!(is_silent(&closed, uplink(1), 8080));
    });
}

#[test]
fn a_client_on_the_backends_own_node_is_answered() {
    lab::run(|lab| {
        let ([mut one, mut two], _outside) = nodes(&lab);
        let far = two.start("far", &[(1, 5)]);
        far.serve(80, "far");
        publish_on(&mut [&mut one, &mut two], &[host(1, 2, 5)]);
        assert_eq!(far.ask(uplink(1), 8080).unwrap(), format!("far {}", tunneled(1)));
        assert_eq!(two.ask(uplink(1), 8080).unwrap(), format!("far {}", tunneled(1)));
        assert_eq!(two.ask_udp(uplink(1), 8080).unwrap(), format!("far {}", tunneled(1)));
    });
}

#[test]
fn networks_with_subnets_of_their_own_are_reached_by_nodes_without_a_part_in_them() {
    lab::run(|lab| {
        let ([mut one, mut two], outside) = nodes(&lab);
        let user = Network {
            id: "user".to_owned(),
            name: "user".to_owned(),
            subnet: "172.30.0.0/16".parse().unwrap(),
            subnet_v6: None,
            gateway: Ipv4Addr::new(172, 30, 0, 1),
            blocks: vec![block_of_a_user()],
            internal: false,
            driver: skep_overlay::plan::Driver::Overlay,
        };
        let address = Ipv4Addr::new(172, 30, 4, 2);
        one.wanted.mesh.as_mut().unwrap().peers[0].blocks.push(block_of_a_user());
        two.start_on("far", &[Attachment { network: user, address }]).serve(80, "far");
        publish_on(&mut [&mut one, &mut two], &[address]);
        assert_eq!(outside.ask(uplink(1), 8080).unwrap(), format!("far {}", client(1)));
        assert_eq!(outside.ask_udp(uplink(1), 8080).unwrap(), format!("far {}", client(1)));
        assert_eq!(one.ask(address, 80).unwrap(), format!("far {}", tunneled(1)), "as the net helper's proxies do");
        let stranger = one.start("stranger", &[(1, 2)]);
        assert!(is_silent(&stranger, address, 80), "its network is another");
    });
}

#[test]
fn much_data_passes_both_ways_and_segments_fit() {
    lab::run(|lab| {
        let ([mut one, mut two], outside) = nodes(&lab);
        let far = two.start("far", &[(1, 5)]);
        publish_on(&mut [&mut one, &mut two], &[host(1, 2, 5)]);
        let listener = far.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 80)).unwrap());
        let echo = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).unwrap();
            stream.write_all(&all).unwrap();
        });
        let sent: Vec<u8> = (0..2_000_000u32).map(|n| (n % 251) as u8).collect();
        let mut stream = outside.run(|| TcpStream::connect((uplink(1), 8080)).unwrap());
        // 1420 of the tunnel, 50 for the frame around it, 40 of IP and TCP, and 12 of its time stamps.
        let sockets = outside.run(|| lab::program("ss", "-tin dst 198.51.1.2"));
        assert!(sockets.contains(" mss:1318 "), "{sockets}");
        stream.write_all(&sent).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        assert!(sent == received);
        echo.join().unwrap();
    });
}

#[test]
fn a_container_that_is_gone_from_another_node_refuses_through_the_first() {
    lab::run(|lab| {
        let ([mut one, mut two], outside) = nodes(&lab);
        let far = two.start("far", &[(1, 5)]);
        publish_on(&mut [&mut one, &mut two], &[host(1, 2, 5)]);
        let listener = far.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 80)).unwrap());
        let mut open = outside.run(|| TcpStream::connect((uplink(1), 8080)).unwrap());
        let _held = listener.accept().unwrap();
        // The first node has not heard of it yet.
        two.wanted.endpoints.clear();
        two.wanted.published.iter_mut().for_each(|port| port.backends.clear());
        two.apply();
        two.run(|| two.overlay.remove_sandbox("far").unwrap());
        assert_eq!(outside.ask(uplink(1), 8080).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        assert_eq!(outside.ask_udp(uplink(1), 8080).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        open.write_all(b"?").unwrap();
        assert_eq!(open.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn what_is_not_published_is_closed_to_other_nodes_clients() {
    lab::run(|lab| {
        let ([mut one, mut two], outside) = nodes(&lab);
        two.start("far", &[(1, 5)]).serve(81, "far");
        let closed = two.start("closed", &[(9, 5)]);
        closed.serve(80, "closed");
        publish_on(&mut [&mut two], &[host(1, 2, 5)]);
        // A node that leads clients where nobody asked it to.
        let lead = |published, target, backend| Published { published, ..publish(Tcp, 0, target, &[backend]) };
        one.wanted.published = vec![lead(8081, 81, host(1, 2, 5)), lead(8080, 80, host(9, 2, 5))];
        one.apply();
        assert!(is_silent(&outside, uplink(1), 8081));
        assert!(is_silent(&outside, uplink(1), 8080));
    });
}

#[test]
fn frames_that_come_past_the_tunnel_are_dropped() {
    lab::run(|lab| {
        let ([mut one, mut two], outside) = nodes(&lab);
        let far = two.start("far", &[(1, 5)]);
        publish_on(&mut [&mut one, &mut two], &[host(1, 2, 5)]);
        let receiver = far.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 80)).unwrap());
        receiver.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        outside.run(|| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
            for to in [uplink(2), tunneled(2)] {
                ip(&format!("route replace {} via {}", tunneled(2), uplink(2)));
                socket.send_to(&frame(client(1), host(1, 2, 5), b"forged"), (to, 7378)).unwrap();
            }
            let honest = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
            honest.send_to(b"honest", (uplink(1), 8080)).unwrap();
        });
        let mut buffer = [0; 16];
        let length = receiver.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"honest");
    });
}

/// A VXLAN's packet as the first node would send it to the second: a datagram to port 80 in a frame.
fn frame(from: Ipv4Addr, to: Ipv4Addr, text: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x08, 0, 0, 0];
    bytes.extend((7377u32 << 8).to_be_bytes());
    bytes.extend([2, b's', b'k', 0, 0, 2, 2, b's', b'k', 0, 0, 1, 0x08, 0]);
    let mut header = vec![0x45, 0, 0, 28 + text.len() as u8, 0, 0, 0, 0, 64, 17, 0, 0];
    header.extend(from.octets());
    header.extend(to.octets());
    let sum: u32 = header.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    bytes.extend(header);
    bytes.extend([0x30, 0x39, 0, 80, 0, 8 + text.len() as u8, 0, 0]);
    bytes.extend(text);
    bytes
}
