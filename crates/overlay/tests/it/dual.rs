//! IPv6 beside IPv4 on one node: who reaches whom, and what is dropped, must be the same for both.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use skep_overlay::snapshot::Protocol;

use crate::lab::{
    self, INTERNET_V6, NEIGHBOUR_V6, NODE_V6, Node, Place, host, is_silent, publish, service, start, twin, vip,
};

fn host_v6(network: u8, last: u8) -> Ipv6Addr {
    twin(host(network, last))
}

#[test]
fn neighbours_reach_each_other_by_their_own_addresses() {
    lab::run(|lab| {
        let overlay = lab.overlay();
        let mut node = lab::empty();
        let a = start(&overlay, &mut node, "a", &[(1, 2)]);
        let b = start(&overlay, &mut node, "b", &[(1, 3)]);
        overlay.apply(&node).unwrap();
        b.serve(80, "b");
        assert_eq!(a.ask(host_v6(1, 3), 80).unwrap(), format!("b {}", host_v6(1, 2)));
        assert_eq!(a.ask_udp(host_v6(1, 3), 80).unwrap(), format!("b {}", host_v6(1, 2)));
        assert_eq!(a.ask(host(1, 3), 80).unwrap(), format!("b {}", host(1, 2)));
        assert_eq!(Node.ask(host_v6(1, 3), 80).unwrap(), format!("b {}", host_v6(1, 1)), "the node by the gateway");
        let addresses = a.run(|| lab::ip("-6 -o addr show dev eth0"));
        assert!(addresses.contains(&format!("{}/116", host_v6(1, 2))), "{addresses}");
        assert!(!addresses.contains("fe80") && !addresses.contains("tentative"), "{addresses}");
    });
}

#[test]
fn networks_are_closed_to_each_other_and_nobody_is_refused_at_once() {
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
        assert!(is_silent(&a, host_v6(2, 2), 80));
        assert!(is_silent(&b, host_v6(1, 2), 80));
        assert!(is_silent(&a, host_v6(2, 4), 80), "the other address of a container on both");
        assert_eq!(both.ask(host_v6(1, 2), 80).unwrap(), format!("open {}", host_v6(1, 4)));
        assert_eq!(both.ask(host_v6(2, 2), 80).unwrap(), format!("open {}", host_v6(2, 4)));
        assert_eq!(a.ask(host_v6(1, 77), 80).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        assert_eq!(a.ask_udp(host_v6(1, 77), 80).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        assert!(is_silent(&b, host_v6(1, 77), 80), "other networks learn nothing");
    });
}

#[test]
fn the_way_out_is_behind_the_nodes_address_and_none_leads_in() {
    lab::run(|lab| {
        let overlay = lab.overlay();
        let mut node = lab::empty();
        let a = start(&overlay, &mut node, "a", &[(1, 2)]);
        overlay.apply(&node).unwrap();
        let outside = lab.outside();
        outside.serve_at(INTERNET_V6, 80, "internet");
        assert_eq!(a.ask(INTERNET_V6, 80).unwrap(), format!("internet {NODE_V6}"));
        assert_eq!(a.ask_udp(INTERNET_V6, 80).unwrap(), format!("internet {NODE_V6}"));
        a.serve(80, "a");
        outside.run(|| lab::ip(&format!("route add fd64::/48 via {NODE_V6}")));
        assert!(is_silent(&outside, host_v6(1, 2), 80));
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
        assert_eq!(a.ask(host_v6(9, 3), 80).unwrap(), format!("neighbour {}", host_v6(9, 2)));
        assert_eq!(both.ask(INTERNET_V6, 80).unwrap(), format!("internet {NODE_V6}"), "by its other network");
        assert!(is_silent(&a, host_v6(9, 1), 22), "the node by the gateway");
        // Even with a route of its own making, as a container with NET_ADMIN could.
        a.run(|| lab::ip(&format!("route add default via {}", host_v6(9, 1))));
        for (to, port) in [(NEIGHBOUR_V6, 80), (INTERNET_V6, 80), (NODE_V6, 22), (host_v6(1, 4), 80)] {
            assert!(is_silent(&a, to, port), "{to}");
        }
    });
}

#[test]
fn foreign_and_link_local_sources_are_dropped() {
    lab::run(|lab| {
        let overlay = lab.overlay();
        let mut node = lab::empty();
        let a = start(&overlay, &mut node, "a", &[(1, 2)]);
        let b = start(&overlay, &mut node, "b", &[(1, 3)]);
        overlay.apply(&node).unwrap();
        b.serve(80, "b");
        Node.serve(22, "node");
        a.run(|| {
            fs::write("/proc/sys/net/ipv6/conf/eth0/accept_dad", "0").unwrap();
            lab::ip(&format!("addr add {}/128 dev eth0 nodad", host_v6(1, 9)));
            lab::ip("addr add fe80::2/64 dev eth0 nodad");
        });
        let link = node_link(&a);
        let from = |source: Ipv6Addr, to: Ipv6Addr, port: u16, scope: u32| {
            a.run(move || {
                let socket = UdpSocket::bind((source, 0))
                    .unwrap_or_else(|_| UdpSocket::bind(std::net::SocketAddrV6::new(source, 0, 0, scope)).unwrap());
                socket.set_read_timeout(Some(Duration::from_millis(400))).unwrap();
                socket.send_to(b"?", std::net::SocketAddrV6::new(to, port, 0, scope)).is_ok()
                    && socket.recv(&mut [0; 64]).is_ok()
            })
        };
        assert!(from(host_v6(1, 2), host_v6(1, 3), 80, 0));
        assert!(!from(host_v6(1, 9), host_v6(1, 3), 80, 0), "an address that it was not given");
        let own_link = a.run(|| lab::ip("-o link show eth0")).split(':').next().unwrap().trim().parse().unwrap();
        assert!(!from("fe80::2".parse().unwrap(), host_v6(1, 1), 22, own_link), "a link's own");
        assert!(link.is_empty(), "the node's end has none: {link}");
    });
}

/// Link-local addresses of interfaces of ours, which nobody gave them.
fn node_link(_: &impl Place) -> String {
    let all = Node.run(|| lab::ip("-6 -o addr show scope link"));
    all.lines().filter(|line| line.contains("skv-") || line.contains("skb-") || line.contains("sk-")).collect()
}

#[test]
fn a_service_address_leads_to_its_backends_and_itself() {
    lab::run(|lab| {
        let overlay = lab.overlay();
        let mut node = lab::empty();
        let client = start(&overlay, &mut node, "client", &[(1, 2)]);
        let first = start(&overlay, &mut node, "first", &[(1, 3)]);
        let second = start(&overlay, &mut node, "second", &[(1, 4)]);
        node.services = vec![service(1, vip(1, 1), &[host(1, 3), host(1, 4)]), service(1, vip(1, 2), &[])];
        overlay.apply(&node).unwrap();
        first.serve(80, "first");
        second.serve(80, "second");
        for name in ["first", "second"] {
            let expected = format!("{name} {}", host_v6(1, 2));
            while client.ask(twin(vip(1, 1)), 80).unwrap() != expected {}
            while client.ask_udp(twin(vip(1, 1)), 80).unwrap() != expected {}
            while Node.ask(twin(vip(1, 1)), 80).unwrap() != format!("{name} {}", host_v6(1, 1)) {}
        }
        while first.ask(twin(vip(1, 1)), 80).unwrap() != format!("first {}", host_v6(1, 1)) {}
        assert_eq!(client.ask(twin(vip(1, 2)), 80).unwrap_err().kind(), ErrorKind::ConnectionRefused, "nobody serves");
        // Elsewhere, on a node that has no IPv6: then the address leads to the others alone.
        node.v4_only.insert(host(1, 4));
        overlay.apply(&node).unwrap();
        for _ in 0..16 {
            assert_eq!(client.ask(twin(vip(1, 1)), 80).unwrap(), format!("first {}", host_v6(1, 2)));
        }
        let snapshot = overlay.plan(&node).snapshot;
        let addresses = |name: &str| snapshot.zones["network1"].names[name].addresses.clone();
        let expected: [IpAddr; 3] = [host(1, 3).into(), host(1, 4).into(), host_v6(1, 3).into()];
        assert_eq!(addresses("tasks.service"), expected);
        node.v4_only.insert(host(1, 3));
        let snapshot = overlay.plan(&node).snapshot;
        assert!(!snapshot.zones["network1"].names["service"].addresses.contains(&twin(vip(1, 1)).into()));
    });
}

#[test]
fn a_published_port_keeps_the_clients_address() {
    lab::run(|lab| {
        let overlay = lab.overlay();
        let mut node = lab::empty();
        let a = start(&overlay, &mut node, "a", &[(1, 2)]);
        let old = start(&overlay, &mut node, "old", &[(7, 2)]);
        a.serve(80, "a");
        old.serve(80, "old");
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            node.published.push(publish(protocol, 8080, 80, &[host(1, 2)]));
            // The helper's to serve: in the kernel nothing leads there.
            node.published.push(publish(protocol, 8081, 80, &[host(7, 2)]));
        }
        overlay.apply(&node).unwrap();
        let outside = lab.outside();
        assert_eq!(outside.ask(NODE_V6, 8080).unwrap(), format!("a {NEIGHBOUR_V6}"));
        assert_eq!(outside.ask_udp(NODE_V6, 8080).unwrap(), format!("a {NEIGHBOUR_V6}"));
        assert_eq!(outside.ask(NODE_V6, 8081).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        assert_eq!(Node.ask(NODE_V6, 8080).unwrap(), format!("a {NODE_V6}"));
        Node.serve_at(Ipv6Addr::LOCALHOST, 8080, "helper");
        assert_eq!(Node.ask(Ipv6Addr::LOCALHOST, 8080).unwrap(), "helper ::1", "loopback is the helper's");
    });
}

#[test]
fn a_node_goes_on_listening_to_routers() {
    lab::run(|lab| {
        let conf =
            |file: &str| fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{file}")).unwrap().trim().to_owned();
        let overlay = lab.overlay();
        let mut node = lab::empty();
        let old = start(&overlay, &mut node, "old", &[(7, 2)]);
        overlay.apply(&node).unwrap();
        assert_eq!(conf("all/forwarding"), "0", "without a network that has IPv6, nothing is changed");
        assert!(!old.run(|| lab::ip("-6 -o addr show dev eth0")).contains("inet6"));
        lab::ip("link add up1 type bridge");
        fs::write("/proc/sys/net/ipv6/conf/up1/accept_ra", "0").unwrap();
        start(&overlay, &mut node, "a", &[(1, 2)]);
        overlay.apply(&node).unwrap();
        assert_eq!((conf("all/forwarding").as_str(), conf("up0/accept_ra").as_str()), ("1", "2"));
        assert_eq!(conf("up1/accept_ra"), "0", "somebody wanted it so");
    });
}

#[test]
fn connections_of_a_container_that_is_gone_are_forgotten_and_nothing_is_left() {
    lab::run(|lab| {
        let before = ways();
        let overlay = lab.overlay();
        let mut node = lab::empty();
        let a = start(&overlay, &mut node, "a", &[(1, 2)]);
        let b = start(&overlay, &mut node, "b", &[(1, 3)]);
        overlay.apply(&node).unwrap();
        let listener = b.run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, 80)).unwrap());
        let mut stream = a.run(|| TcpStream::connect((host_v6(1, 3), 80)).unwrap());
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let led = |overlay: &skep_overlay::Overlay| overlay.connections(&[host_v6(1, 3).into()].into()).unwrap();
        assert_eq!(led(&overlay), 1);
        let (accepted, _) = listener.accept().unwrap();
        drop((listener, b));
        node.endpoints.retain(|endpoint| endpoint.sandbox != "b");
        overlay.apply(&node).unwrap();
        overlay.remove_sandbox("b").unwrap();
        stream.write_all(b"still there?").unwrap();
        let error = stream.read(&mut [0; 8]).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused), "{error}");
        assert_eq!(led(&overlay), 0);
        drop((a, stream, accepted));
        overlay.teardown().unwrap();
        assert_eq!(ways(), before);
    });
}

/// But for what the kernel makes of itself when it becomes a router.
fn ways() -> Vec<String> {
    let all = lab::ip("-6 route show table all") + &lab::ip("-6 rule");
    all.lines().filter(|line| !line.starts_with("anycast")).map(str::to_owned).collect()
}
