//! Service addresses and published ports: spread, refusals, sources, hairpins.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::IpAddr;

use skep_overlay::plan::Protocol::{Tcp, Udp};

use crate::lab::{self, NEIGHBOUR, NODE, Node, Place, host, is_silent, publish, service, start, vip};

/// Enough connections that one of two backends stays out with a chance of 2^-63.
const MANY: usize = 64;

fn answers(ask: impl Fn() -> std::io::Result<String>) -> BTreeSet<String> {
    (0..MANY).map(|_| ask().unwrap()).collect()
}

fn set(items: &[&str]) -> BTreeSet<String> {
    items.iter().map(ToString::to_string).collect()
}

#[test]
fn a_service_address_spreads_over_backends_on_any_port() {
    lab::run(|lab| {
        let overlay = lab.overlay();
        let mut node = lab::empty();
        let client = start(&overlay, &mut node, "client", &[(1, 2)]);
        let one = start(&overlay, &mut node, "one", &[(1, 3)]);
        let two = start(&overlay, &mut node, "two", &[(1, 4)]);
        node.services.push(service(1, vip(1, 1), &[host(1, 3), host(1, 4)]));
        overlay.apply(&node).unwrap();
        for (place, name) in [(&one, "one"), (&two, "two")] {
            place.serve(80, name);
            place.serve(5432, name);
        }
        let both = set(&["one 10.64.16.2", "two 10.64.16.2"]);
        assert_eq!(answers(|| client.ask(vip(1, 1), 80)), both);
        assert_eq!(answers(|| client.ask(vip(1, 1), 5432)), both);
        assert_eq!(answers(|| client.ask_udp(vip(1, 1), 80)), both);
        assert_eq!(answers(|| Node.ask(vip(1, 1), 80)), set(&["one 10.64.16.1", "two 10.64.16.1"]));

        // One leaves: all go to the other; both leave: refused at once, not lost.
        node.services[0].backends[0].serving = false;
        overlay.apply(&node).unwrap();
        assert_eq!(answers(|| client.ask(vip(1, 1), 80)), set(&["two 10.64.16.2"]));
        node.services[0].backends[1].serving = false;
        overlay.apply(&node).unwrap();
        assert_eq!(client.ask(vip(1, 1), 80).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        assert_eq!(client.ask_udp(vip(1, 1), 80).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        assert_eq!(Node.ask(vip(1, 1), 80).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn a_service_address_is_its_networks_own() {
    lab::run(|lab| {
        let overlay = lab.overlay();
        let mut node = lab::empty();
        let stranger = start(&overlay, &mut node, "stranger", &[(2, 2)]);
        let one = start(&overlay, &mut node, "one", &[(1, 3)]);
        node.services.push(service(1, vip(1, 1), &[host(1, 3)]));
        node.services.push(service(1, vip(1, 2), &[]));
        overlay.apply(&node).unwrap();
        one.serve(80, "one");
        assert!(is_silent(&stranger, vip(1, 1), 80));
        assert!(is_silent(&stranger, vip(1, 2), 80));
    });
}

#[test]
fn a_container_reaches_itself_through_its_service() {
    lab::run(|lab| {
        let overlay = lab.overlay();
        let mut node = lab::empty();
        let one = start(&overlay, &mut node, "one", &[(1, 3)]);
        node.services.push(service(1, vip(1, 1), &[host(1, 3)]));
        node.published.push(publish(Tcp, 8080, 80, &[host(1, 3)]));
        overlay.apply(&node).unwrap();
        one.serve(80, "one");
        assert_eq!(one.ask(vip(1, 1), 80).unwrap(), "one 10.64.16.1");
        assert_eq!(one.ask_udp(vip(1, 1), 80).unwrap(), "one 10.64.16.1");
        assert_eq!(one.ask(NODE, 8080).unwrap(), "one 10.64.16.1");
    });
}

#[test]
fn a_published_port_spreads_and_keeps_the_clients_address() {
    lab::run(|lab| {
        let overlay = lab.overlay();
        let mut node = lab::empty();
        let one = start(&overlay, &mut node, "one", &[(1, 3)]);
        let two = start(&overlay, &mut node, "two", &[(1, 4)]);
        let other = start(&overlay, &mut node, "other", &[(2, 2)]);
        let closed = start(&overlay, &mut node, "closed", &[(9, 2)]);
        let backends = [host(1, 3), host(1, 4)];
        node.published.push(publish(Tcp, 8080, 80, &backends));
        node.published.push(publish(Udp, 8080, 80, &backends));
        overlay.apply(&node).unwrap();
        one.serve(80, "one");
        two.serve(80, "two");
        let outside = lab.outside();
        let kept = set(&[&format!("one {NEIGHBOUR}"), &format!("two {NEIGHBOUR}")]);
        assert_eq!(answers(|| outside.ask(NODE, 8080)), kept);
        assert_eq!(answers(|| outside.ask_udp(NODE, 8080)), kept);
        assert_eq!(answers(|| Node.ask(NODE, 8080)), set(&[&format!("one {NODE}"), &format!("two {NODE}")]));
        assert_eq!(answers(|| other.ask(NODE, 8080)), set(&["one 10.64.32.2", "two 10.64.32.2"]));
        assert_eq!(answers(|| other.ask(host(2, 1), 8080)), set(&["one 10.64.32.2", "two 10.64.32.2"]));
        closed.run(|| lab::ip("route add default via 10.64.144.1"));
        assert!(is_silent(&closed, NODE, 8080));
    });
}

#[test]
fn a_published_port_without_backends_refuses() {
    lab::run(|lab| {
        let overlay = lab.overlay();
        let mut node = lab::empty();
        node.published.push(publish(Tcp, 8080, 80, &[]));
        overlay.apply(&node).unwrap();
        // What holds the port would otherwise accept.
        Node.serve(8080, "holder");
        assert_eq!(lab.outside().ask(NODE, 8080).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        assert_eq!(Node.ask(NODE, 8080).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn a_port_bound_to_an_address_is_open_there_only() {
    lab::run(|lab| {
        let overlay = lab.overlay();
        lab::ip("addr add 198.51.100.3/24 dev up0");
        let mut node = lab::empty();
        let one = start(&overlay, &mut node, "one", &[(1, 3)]);
        node.published.push(publish(Tcp, 8080, 80, &[host(1, 3)]));
        node.published[0].bind = Some(IpAddr::from([198, 51, 100, 3]));
        overlay.apply(&node).unwrap();
        one.serve(80, "one");
        let outside = lab.outside();
        assert_eq!(outside.ask([198, 51, 100, 3], 8080).unwrap(), format!("one {NEIGHBOUR}"));
        assert_eq!(outside.ask(NODE, 8080).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn a_container_on_two_networks_answers_for_either_of_its_addresses() {
    lab::run(|lab| {
        let overlay = lab.overlay();
        let mut node = lab::empty();
        let one = start(&overlay, &mut node, "one", &[(1, 3), (2, 3)]);
        node.published.push(publish(Tcp, 8080, 80, &[host(2, 3)]));
        overlay.apply(&node).unwrap();
        one.serve(80, "one");
        assert_eq!(lab.outside().ask(NODE, 8080).unwrap(), format!("one {NEIGHBOUR}"));
    });
}
