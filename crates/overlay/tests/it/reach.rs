//! Who reaches whom: neighbours, other networks, the node, the outside.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use skep_overlay::snapshot::{RESOLVER, RESOLVER_PORT};

use crate::lab::{self, INTERNET, NEIGHBOUR, NODE, Node, Place, host, is_silent, start};

#[test]
fn neighbours_reach_each_other_by_their_own_addresses() {
    lab::run(|lab| {
        let overlay = lab.overlay();
        let mut node = lab::empty();
        let a = start(&overlay, &mut node, "a", &[(1, 2)]);
        let b = start(&overlay, &mut node, "b", &[(1, 3)]);
        overlay.apply(&node).unwrap();
        b.serve(80, "b");
        assert_eq!(a.ask(host(1, 3), 80).unwrap(), "b 10.64.16.2");
        assert_eq!(a.ask_udp(host(1, 3), 80).unwrap(), "b 10.64.16.2");
        assert_eq!(b.ask(host(1, 3), 80).unwrap(), "b 10.64.16.3");
    });
}

#[test]
fn networks_are_closed_to_each_other() {
    lab::run(|lab| {
        let overlay = lab.overlay();
        let mut node = lab::empty();
        let a = start(&overlay, &mut node, "a", &[(1, 2)]);
        let b = start(&overlay, &mut node, "b", &[(2, 2)]);
        let both = start(&overlay, &mut node, "both", &[(1, 4), (2, 4)]);
        overlay.apply(&node).unwrap();
        for place in [&a, &b, &both] {
            place.serve(80, "open");
        }
        assert!(is_silent(&a, host(2, 2), 80));
        assert!(is_silent(&b, host(1, 2), 80));
        assert!(is_silent(&a, host(2, 4), 80), "the other address of a container on both");
        assert_eq!(both.ask(host(1, 2), 80).unwrap(), "open 10.64.16.4");
        assert_eq!(both.ask(host(2, 2), 80).unwrap(), "open 10.64.32.4");
    });
}

#[test]
fn addresses_without_a_container_are_refused_at_once() {
    lab::run(|lab| {
        let overlay = lab.overlay();
        let mut node = lab::empty();
        let a = start(&overlay, &mut node, "a", &[(1, 2), (9, 2)]);
        let b = start(&overlay, &mut node, "b", &[(2, 2)]);
        overlay.apply(&node).unwrap();
        assert_eq!(a.ask(host(1, 77), 80).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        assert_eq!(a.ask_udp(host(1, 77), 80).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        assert_eq!(a.ask(host(9, 77), 80).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        assert!(is_silent(&b, host(1, 77), 80), "other networks learn nothing");
    });
}

#[test]
fn the_way_out_is_behind_the_nodes_address() {
    lab::run(|lab| {
        let overlay = lab.overlay();
        let mut node = lab::empty();
        let a = start(&overlay, &mut node, "a", &[(1, 2)]);
        overlay.apply(&node).unwrap();
        lab.outside().serve_at(INTERNET, 80, "internet");
        assert_eq!(a.ask(INTERNET, 80).unwrap(), format!("internet {NODE}"));
        assert_eq!(a.ask_udp(INTERNET, 80).unwrap(), format!("internet {NODE}"));
        assert_eq!(Node.ask(INTERNET, 80).unwrap(), format!("internet {NODE}"));
    });
}

#[test]
fn nobody_outside_reaches_a_container_that_publishes_nothing() {
    lab::run(|lab| {
        let overlay = lab.overlay();
        let mut node = lab::empty();
        let a = start(&overlay, &mut node, "a", &[(1, 2)]);
        overlay.apply(&node).unwrap();
        a.serve(80, "a");
        let outside = lab.outside();
        outside.run(|| lab::ip(&format!("route add 10.64.0.0/10 via {NODE}")));
        assert!(is_silent(&outside, host(1, 2), 80));
        assert_eq!(Node.ask(host(1, 2), 80).unwrap(), "a 10.64.16.1");
    });
}

#[test]
fn internal_networks_have_neighbours_and_nothing_else() {
    lab::run(|lab| {
        let overlay = lab.overlay();
        let mut node = lab::empty();
        let a = start(&overlay, &mut node, "a", &[(9, 2)]);
        let b = start(&overlay, &mut node, "b", &[(9, 3)]);
        let both = start(&overlay, &mut node, "both", &[(9, 4), (1, 4)]);
        overlay.apply(&node).unwrap();
        Node.serve(22, "node");
        lab.outside().serve(80, "internet");
        for place in [&b, &both] {
            place.serve(80, "neighbour");
        }
        assert_eq!(a.ask(host(9, 3), 80).unwrap(), "neighbour 10.64.144.2");
        assert_eq!(a.ask(host(9, 4), 80).unwrap(), "neighbour 10.64.144.2");
        assert_eq!(both.ask(INTERNET, 80).unwrap(), format!("internet {NODE}"), "by its other network");
        assert!(is_silent(&a, host(9, 1), 22), "the node by the gateway");
        // Even with a route of its own making, as a container with NET_ADMIN could.
        a.run(|| lab::ip("route add default via 10.64.144.1"));
        assert!(is_silent(&a, NEIGHBOUR, 80));
        assert!(is_silent(&a, INTERNET, 80));
        assert!(is_silent(&a, NODE, 22));
        assert!(is_silent(&a, host(1, 4), 80));
    });
}

#[test]
fn foreign_sources_are_dropped() {
    lab::run(|lab| {
        let overlay = lab.overlay();
        let mut node = lab::empty();
        let a = start(&overlay, &mut node, "a", &[(1, 2)]);
        let b = start(&overlay, &mut node, "b", &[(1, 3)]);
        start(&overlay, &mut node, "neighbour", &[(1, 4)]);
        overlay.apply(&node).unwrap();
        let receiver = b.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 9000)).unwrap());
        receiver.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        a.run(|| {
            lab::ip("addr add 10.64.32.2/32 dev eth0");
            lab::ip("addr add 192.0.2.7/32 dev eth0");
            lab::ip("addr add 10.64.16.4/32 dev eth0");
            for source in [[10, 64, 32, 2], [192, 0, 2, 7], [10, 64, 16, 4], [10, 64, 16, 2]] {
                let socket = UdpSocket::bind((Ipv4Addr::from(source), 0)).unwrap();
                socket.send_to(b"hello", (host(1, 3), 9000)).unwrap();
            }
        });
        let (_, first) = receiver.recv_from(&mut [0; 16]).unwrap();
        assert_eq!(first.ip(), host(1, 2), "the honest one, sent last, is the first to arrive");
    });
}

#[test]
fn the_resolver_answers_on_port_53_and_leaves_that_port_free() {
    lab::run(|lab| {
        let overlay = lab.overlay();
        let mut node = lab::empty();
        let a = start(&overlay, &mut node, "a", &[(9, 2)]);
        overlay.apply(&node).unwrap();
        a.serve_at(RESOLVER, RESOLVER_PORT, "helper");
        a.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 53)).map(drop)).unwrap();
        assert!(a.ask_udp(RESOLVER, 53).unwrap().starts_with("helper"));
        assert!(a.ask(RESOLVER, 53).unwrap().starts_with("helper"));
    });
}
