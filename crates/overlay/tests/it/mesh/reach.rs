//! Containers of different nodes, and who keeps them apart.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use skep_overlay::plan::Backend;

use super::{Peer, client, host, nodes, tunneled, uplink};
use crate::lab::{self, Place, ip, is_silent, service, vip};

#[test]
fn neighbours_on_two_nodes_reach_each_other_by_their_own_addresses() {
    lab::run(|lab| {
        let ([mut one, mut two], _outside) = nodes(&lab);
        let a = one.start("a", &[(1, 2), (9, 2)]);
        let b = two.start("b", &[(1, 2), (9, 2)]);
        b.serve(80, "b");
        a.serve(80, "a");
        assert_eq!(a.ask(host(1, 2, 2), 80).unwrap(), format!("b {}", host(1, 1, 2)));
        assert_eq!(a.ask_udp(host(1, 2, 2), 80).unwrap(), format!("b {}", host(1, 1, 2)));
        assert_eq!(b.ask(host(9, 1, 2), 80).unwrap(), format!("a {}", host(9, 2, 2)), "an internal network is one too");
    });
}

#[test]
fn a_service_address_leads_to_backends_of_every_node() {
    lab::run(|lab| {
        let ([mut one, mut two, mut three], _outside) = nodes(&lab);
        let a = one.start("a", &[(1, 2)]);
        a.serve(80, "itself");
        let backends = [(&mut one, "one"), (&mut two, "two"), (&mut three, "three")].map(|(node, name)| {
            node.start(name, &[(1, 5)]).serve(80, name);
            host(1, node.number, 5)
        });
        for node in [&mut one, &mut two, &mut three] {
            node.wanted.services.push(service(1, vip(1, 1), &backends));
            node.apply();
        }
        for name in ["one", "two", "three"] {
            let expected = format!("{name} {}", host(1, 1, 2));
            while a.ask(vip(1, 1), 80).unwrap() != expected {}
            while a.ask_udp(vip(1, 1), 80).unwrap() != expected {}
        }
        // And a container among them to itself.
        for node in [&mut one, &mut two, &mut three] {
            node.wanted.services[0].backends.push(Backend { address: host(1, 1, 2), serving: true });
            node.apply();
        }
        while a.ask(vip(1, 1), 80).unwrap() != "itself 10.64.16.1" {}
        // The node's own processes come from its address in the tunnel.
        let expected = format!("two {}", tunneled(3));
        while three.ask(vip(1, 1), 80).unwrap() != expected {}
    });
}

#[test]
fn networks_are_closed_to_each_other_also_across_nodes() {
    lab::run(|lab| {
        let ([mut one, mut two], _outside) = nodes(&lab);
        let places = [1, 2, 9];
        let here = places.map(|network| one.start(&format!("a{network}"), &[(network, 2)]));
        let there = places.map(|network| two.start(&format!("b{network}"), &[(network, 2)]));
        there.iter().for_each(|place| place.serve(80, "open"));
        for (from, network) in here.iter().zip(places) {
            // As a container with NET_ADMIN could.
            if network == 9 {
                from.run(|| ip("route add default via 10.64.144.1"));
            }
            for to in places {
                let target = host(to, 2, 2);
                match network == to {
                    true => assert!(from.ask(target, 80).is_ok(), "{network}"),
                    false => assert!(is_silent(from, target, 80), "{network} to {to}"),
                }
            }
        }
    });
}

#[test]
fn what_a_dishonest_node_sends_goes_no_further_than_its_own_networks() {
    lab::run(|lab| {
        let ([one, mut two], outside) = nodes(&lab);
        let inner = two.start("inner", &[(1, 2)]);
        let closed = two.start("closed", &[(9, 2)]);
        inner.serve(80, "inner");
        closed.serve(80, "closed");
        outside.serve(80, "outside");
        two.serve(22, "two");
        // A node whose rules are gone sends whatever it likes, by the tunnel; WireGuard still has it say its own addresses.
        one.run(|| {
            crate::netfilter::flush();
            ip("addr add 10.64.32.5/32 dev lo");
            ip("route add 198.51.2.1/32 dev sk-tunnel");
        });
        let from = |source: Ipv4Addr, to: Ipv4Addr| {
            let socket = UdpSocket::bind((source, 0)).unwrap();
            socket.connect((to, 80)).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(400))).unwrap();
            // The kernel's tunnel refuses at once what no node is to have.
            socket.send(b"?").and_then(|_| socket.recv(&mut [0; 64])).is_ok()
        };
        let another_network = Ipv4Addr::new(10, 64, 32, 5);
        one.run(|| {
            assert!(from(tunneled(1), host(1, 2, 2)), "the node itself is welcome");
            assert!(!from(another_network, host(1, 2, 2)), "from network 2 to network 1");
            assert!(!from(another_network, host(9, 2, 2)));
            assert!(!from(tunneled(1), host(9, 2, 2)), "an internal network is closed to nodes too");
            assert!(!from(tunneled(1), client(2)), "on to the outside");
        });
        assert!(is_silent_from(&one, another_network, tunneled(2), 22), "a container of another node, to the node");
    });
}

fn is_silent_from(place: &impl Place, source: Ipv4Addr, to: Ipv4Addr, port: u16) -> bool {
    place.run(move || {
        let socket = UdpSocket::bind((source, 0)).unwrap();
        socket.connect((to, port)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(400))).unwrap();
        socket.send(b"?").unwrap();
        socket.recv(&mut [0; 64]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    })
}

#[test]
fn forged_sources_are_dropped_where_they_begin() {
    lab::run(|lab| {
        let ([mut one, mut two], _outside) = nodes(&lab);
        let a = one.start("a", &[(1, 2)]);
        let b = two.start("b", &[(1, 2)]);
        one.start("neighbour", &[(1, 3)]);
        let receiver = b.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 9000)).unwrap());
        receiver.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        a.run(|| {
            for forged in [host(1, 1, 3), host(2, 1, 2), tunneled(1)] {
                ip(&format!("addr add {forged}/32 dev eth0"));
                let socket = UdpSocket::bind((forged, 0)).unwrap();
                socket.send_to(b"hello", (host(1, 2, 2), 9000)).unwrap();
            }
            let socket = UdpSocket::bind((host(1, 1, 2), 0)).unwrap();
            socket.send_to(b"hello", (host(1, 2, 2), 9000)).unwrap();
        });
        let (_, first) = receiver.recv_from(&mut [0; 16]).unwrap();
        assert_eq!(first.ip(), host(1, 1, 2), "the honest one, sent last, is the first to arrive");
    });
}

#[test]
fn nobody_outside_passes_for_a_container_or_uses_a_node_as_its_way() {
    lab::run(|lab| {
        let ([mut one, mut two], outside) = nodes(&lab);
        let a = one.start("a", &[(1, 2)]);
        let b = two.start("b", &[(1, 2)]);
        let receiver = a.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 9000)).unwrap());
        receiver.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        outside.run(|| {
            ip(&format!("route add 10.64.0.0/10 via {}", uplink(1)));
            for forged in [host(1, 2, 2), host(1, 1, 3), tunneled(2)] {
                ip(&format!("addr add {forged}/32 dev lo"));
                let socket = UdpSocket::bind((forged, 0)).unwrap();
                socket.send_to(b"forged", (host(1, 1, 2), 9000)).unwrap();
                ip(&format!("addr del {forged}/32 dev lo"));
            }
        });
        b.run(|| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
            socket.send_to(b"honest", (host(1, 1, 2), 9000)).unwrap();
        });
        let mut buffer = [0; 16];
        let length = receiver.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"honest");
        // What the pool has not given to anybody may be a local network's.
        outside.run(|| ip("addr add 10.100.0.7/32 dev lo"));
        one.run(|| ip(&format!("route add 10.100.0.7 via {}", client(1))));
        one.serve(22, "one");
        let local = outside.run(|| UdpSocket::bind(("10.100.0.7", 0)).unwrap());
        local.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        local.send_to(b"?", (uplink(1), 22)).unwrap();
        local.recv(&mut buffer).unwrap();
        b.serve(80, "b");
        assert!(is_silent(&outside, host(1, 1, 2), 80));
        assert!(is_silent(&outside, host(1, 2, 2), 80), "through the first node to the second");
    });
}

#[test]
fn addresses_without_a_container_are_refused_wherever_they_would_be() {
    lab::run(|lab| {
        let ([mut one, _two], _outside) = nodes(&lab);
        let a = one.start("a", &[(1, 2), (9, 2)]);
        for nobody in
            [host(1, 1, 33), host(1, 2, 33), host(9, 1, 33), host(9, 2, 33), host(1, 3, 33), vip(1, 7), vip(9, 7)]
        {
            assert_eq!(a.ask(nobody, 80).unwrap_err().kind(), ErrorKind::ConnectionRefused, "{nobody}");
        }
        assert_eq!(a.ask_udp(host(1, 2, 33), 80).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        // And the net helper's proxy, which asks as the node, goes on to another backend.
        for nobody in [host(1, 1, 33), host(1, 2, 33), host(1, 3, 33), vip(1, 7)] {
            assert_eq!(one.ask(nobody, 80).unwrap_err().kind(), ErrorKind::ConnectionRefused, "{nobody}");
        }
    });
}

#[test]
fn a_node_reaches_containers_of_others_but_not_of_internal_networks() {
    lab::run(|lab| {
        let ([one, mut two], _outside) = nodes(&lab);
        let b = two.start("b", &[(1, 2), (9, 2)]);
        b.serve(80, "b");
        assert_eq!(one.ask(host(1, 2, 2), 80).unwrap(), format!("b {}", tunneled(1)));
        assert_eq!(one.ask_udp(host(1, 2, 2), 80).unwrap(), format!("b {}", tunneled(1)));
        assert!(is_silent(&one, host(9, 2, 2), 80));
    });
}

#[test]
fn a_node_reaches_its_own_containers_through_their_services() {
    lab::run(|lab| {
        let ([mut one, _two], _outside): ([Peer; 2], _) = nodes(&lab);
        let both = [1, 9].map(|network| {
            let place = one.start(&format!("a{network}"), &[(network, 2)]);
            place.serve(80, "a");
            one.wanted.services.push(service(network, vip(network, 1), &[host(network, 1, 2)]));
            place
        });
        one.apply();
        assert_eq!(one.ask(vip(1, 1), 80).unwrap(), format!("a {}", tunneled(1)));
        assert_eq!(one.ask(vip(9, 1), 80).unwrap(), "a 10.64.144.1", "its only way back is the gateway");
        drop(both);
    });
}
