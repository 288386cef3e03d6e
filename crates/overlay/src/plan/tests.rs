//! The plan of a node, as data in and data out: no kernel is touched.

use std::net::Ipv4Addr;
use std::path::Path;

use expect_test::{Expect, expect};

use super::*;

fn ip(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

fn network(id: &str, subnet: &str, internal: bool) -> Network {
    let subnet: Ipv4Net = subnet.parse().unwrap();
    let gateway = subnet.hosts().next().unwrap();
    Network {
        id: id.into(),
        name: format!("shop_{id}"),
        subnet,
        subnet_v6: None,
        gateway,
        blocks: vec![],
        internal,
        driver: Driver::Overlay,
    }
}

fn endpoint(sandbox: &str, network: &str, address: &str, names: &[&str], serving: bool) -> Endpoint {
    let names = names.iter().map(ToString::to_string).collect();
    Endpoint { sandbox: sandbox.into(), network: network.into(), address: ip(address), names, serving }
}

fn service(network: &str, vip: Option<&str>, names: &[&str], backends: &[(&str, bool)]) -> Service {
    Service {
        network: network.into(),
        vip: vip.map(ip),
        names: names.iter().map(ToString::to_string).collect(),
        backends: backends.iter().map(|(a, serving)| Backend { address: ip(a), serving: *serving }).collect(),
        balance: Balance::default(),
    }
}

fn published(port: u16, bind: Option<&str>, backends: &[&str]) -> Published {
    Published {
        protocol: Protocol::Tcp,
        published: port,
        bind: bind.map(|bind| bind.parse().unwrap()),
        target: 80,
        backends: backends.iter().map(|a| ip(a)).collect(),
        balance: Balance::default(),
        mode: PublishMode::Ingress,
    }
}

fn node() -> NodeNetwork {
    NodeNetwork {
        networks: vec![network("front", "10.64.0.0/18", false), network("back", "10.64.64.0/18", true)],
        endpoints: vec![
            endpoint("t1", "front", "10.64.0.2", &["shop_web.1", "web.1"], true),
            endpoint("t1", "back", "10.64.64.2", &["shop_web.1"], true),
            endpoint("t2", "back", "10.64.64.3", &["Shop_db.1", "store"], false),
            endpoint("t3", "back", "10.64.64.4", &["shop_db.2", "store"], true),
        ],
        services: vec![
            service("front", Some("10.64.56.1"), &["shop_web", "web"], &[("10.64.0.2", true), ("10.64.0.9", false)]),
            service("back", None, &["db"], &[("10.64.64.3", false), ("10.64.64.4", true)]),
        ],
        published: vec![
            published(8080, None, &["10.64.0.2"]),
            published(8081, Some("127.0.0.1"), &["10.64.0.2"]),
            published(8082, Some("0.0.0.0"), &[]),
        ],
        ..NodeNetwork::nothing("10.64.0.0/10".parse().unwrap())
    }
}

fn check(lines: impl IntoIterator<Item = String>, expected: Expect) {
    expected.assert_eq(&lines.into_iter().collect::<Vec<_>>().join("\n"));
}

fn planned(node: &NodeNetwork) -> Realization {
    plan(node, Path::new("/run/skep/net/ns"))
}

#[test]
fn services_resolve_to_their_address_tasks_to_those_that_serve() {
    let snapshot = planned(&node()).snapshot;
    let lines = snapshot.zones.iter().flat_map(|(id, zone)| {
        zone.names.iter().map(move |(name, to)| format!("{id} {name} {:?} {:?}", to.kind, to.addresses))
    });
    check(
        lines,
        expect![[r#"
            back db Tasks [10.64.64.4]
            back shop_db.1 Container [10.64.64.3]
            back shop_db.2 Container [10.64.64.4]
            back shop_web.1 Container [10.64.64.2]
            back store Tasks [10.64.64.4]
            back tasks.db Tasks [10.64.64.4]
            front shop_web Vip [10.64.56.1]
            front shop_web.1 Container [10.64.0.2]
            front tasks.shop_web Tasks [10.64.0.2]
            front tasks.web Tasks [10.64.0.2]
            front web Vip [10.64.56.1]
            front web.1 Container [10.64.0.2]"#]],
    );
}

#[test]
fn containers_of_other_nodes_have_their_names_here_and_services_win_over_them() {
    let mut node = node();
    let names = ["shop_db.3", "store", "db"].map(str::to_owned).to_vec();
    node.elsewhere = vec![
        Elsewhere { network: "back".into(), address: ip("10.64.64.70"), names: names.clone() },
        Elsewhere { network: "unknown".into(), address: ip("10.65.0.2"), names },
    ];
    let snapshot = planned(&node).snapshot;
    let back = &snapshot.zones["back"];
    let addresses = |name: &str| back.names[name].addresses.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(addresses("shop_db.3"), ["10.64.64.70"]);
    assert_eq!(addresses("store"), ["10.64.64.4", "10.64.64.70"], "of those here the one that serves");
    assert_eq!(addresses("db"), ["10.64.64.4"], "the service's tasks");
    assert_eq!(back.reverse[&IpAddr::V4(ip("10.64.64.70"))], "shop_db.3.shop_back");
    assert_eq!(snapshot.zones.len(), 2);
}

#[test]
fn a_container_on_internal_networks_only_asks_nobody_outside() {
    let snapshot = planned(&node()).snapshot;
    check(
        snapshot.sandboxes.iter().map(|(id, view)| format!("{id} {:?} {:?}", view.networks, view.outside)),
        expect![[r#"
            t1 ["front", "back"] Forward
            t2 ["back"] Deny
            t3 ["back"] Deny"#]],
    );
}

#[test]
fn loopback_ports_are_the_helpers_alone_and_idle_ones_are_kept_to_be_refused() {
    let realization = planned(&node());
    check(
        realization.rules.ports.iter().map(|(key, to)| format!("{}:{} {:?}", key.address, key.port, to.to)),
        expect![[r#"
            0.0.0.0:8080 [10.64.0.2:80]
            0.0.0.0:8082 []"#]],
    );
    check(
        realization.snapshot.listeners.iter().map(|l| format!("{:?} {} {:?}", l.bind, l.port, l.backends)),
        expect![[r#"
            None 8080 [10.64.0.2:80]
            None 8082 []
            Some(127.0.0.1) 8081 [10.64.0.2:80]"#]],
    );
}

#[test]
fn a_container_on_two_networks_may_answer_for_both_through_its_default_route() {
    let sources = planned(&node()).rules.sources;
    assert!(sources.contains(&(link_name("t1", "front"), ip("10.64.64.2").into())));
    assert_eq!(sources.len(), node().endpoints.len() + 1, "{sources:?}");
}

#[test]
fn contradictions_are_left_out_and_named() {
    let mut bad = node();
    bad.networks.push(network("third", "10.64.32.0/24", false));
    bad.endpoints.push(endpoint("t4", "front", "10.64.0.2", &[], true));
    bad.endpoints.push(endpoint("t5", "front", "10.99.0.2", &[], true));
    bad.endpoints.push(endpoint("t6", "gone", "10.99.0.2", &[], true));
    bad.published.push(published(8082, None, &["10.64.0.2"]));
    let realization = planned(&bad);
    check(
        realization.problems.iter().map(ToString::to_string),
        expect![[r#"
            network third is left out: its subnet 10.64.32.0/24 overlaps 10.64.0.0/18 of network front; give one of them another subnet
            container t4 is left out: container t1 has 10.64.0.2 on network front already
            container t5 is left out: 10.99.0.2 lies outside the subnet 10.64.0.0/18 of network front
            container t6 is left out: this node has no network gone
            port 8082/tcp is published twice; the second is left out"#]],
    );
    assert_eq!(Realization { problems: vec![], ..realization }, planned(&node()));
}

#[test]
fn interface_names_fit_the_kernel() {
    assert!(bridge_name("k2v5h3m0v8yx9b3zq1p7wxr4t").len() <= 15);
    assert!(link_name("k2v5h3m0v8yx9b3zq1p7wxr4t", "k2v5h3m0v8yx9b3zq1p7wxr4t").len() <= 15);
    assert_ne!(link_name("a", "b"), link_name("b", "a"));
}

fn peer(node: &str, key: u8, address: &str, blocks: &[&str]) -> MeshPeer {
    MeshPeer {
        node: node.into(),
        key: crate::tunnel::PublicKey::from_bytes([key; 32]),
        endpoint: None,
        address: ip(address),
        blocks: blocks.iter().map(|block| block.parse().unwrap()).collect(),
        keepalive_s: None,
    }
}

fn mesh(peers: &[MeshPeer]) -> Mesh {
    Mesh {
        key: crate::tunnel::PrivateKey::from_bytes([9; 32]),
        port: 7377,
        address: ip("10.127.0.1"),
        nodes: "10.127.0.0/18".parse().unwrap(),
        mtu: 1420,
        path: None,
        peers: peers.to_vec(),
    }
}

fn routes(node: &NodeNetwork) -> impl Iterator<Item = String> {
    planned(node).routes.into_iter().map(|(to, Via { interface, source, mtu: _ })| format!("{to} {interface} {source}"))
}

#[test]
fn a_node_alone_has_the_whole_of_its_networks() {
    check(
        routes(&node()),
        expect![[r#"
            10.64.0.0/18 skb-c20061be 10.64.0.1
            10.64.0.2/32 skv-1d5b9a6980c 10.64.0.1
            10.64.64.0/18 skb-2ecd0ee7 10.64.64.1
            10.64.64.2/32 skv-a28d8f22d4e 10.64.64.1
            10.64.64.3/32 skv-1d0019bc2c0 10.64.64.1
            10.64.64.4/32 skv-8d8d68d0a28 10.64.64.1"#]],
    );
}

#[test]
fn among_others_a_node_has_its_blocks_and_the_tunnel_has_the_rest() {
    let mut node = node();
    node.networks[0].blocks = vec!["10.64.0.0/26".parse().unwrap()];
    let peers = [
        peer("n2", 2, "10.127.0.2", &["10.64.0.64/26", "10.64.64.0/26"]),
        peer("n3", 3, "10.127.1.3", &["172.30.4.0/26"]),
    ];
    node.mesh = Some(mesh(&peers));
    check(
        routes(&node),
        expect![[r#"
            10.64.0.0/18 sk-tunnel 10.127.0.1
            10.64.0.0/26 skb-c20061be 10.64.0.1
            10.64.0.2/32 skv-1d5b9a6980c 10.64.0.1
            10.64.64.0/18 sk-tunnel 10.127.0.1
            10.64.64.2/32 skv-a28d8f22d4e 10.64.64.1
            10.64.64.3/32 skv-1d0019bc2c0 10.64.64.1
            10.64.64.4/32 skv-8d8d68d0a28 10.64.64.1
            10.127.0.0/18 sk-tunnel 10.127.0.1
            172.30.4.0/26 sk-tunnel 10.127.0.1"#]],
    );
    let ingress = planned(&node).ingress.unwrap();
    let peers = ingress.peers.iter().map(|(number, (address, blocks))| {
        format!("{} {:#x} {:02x?} {address} {blocks:?}", number.0, number.mark(), number.hardware_address())
    });
    check(
        peers,
        expect![[r#"
        2 0x2000200 [02, 73, 6b, 00, 00, 02] 10.127.0.2 {10.64.0.64/26}
        259 0x3000201 [02, 73, 6b, 00, 01, 03] 10.127.1.3 {172.30.4.0/26}"#]],
    );
}

#[test]
fn nodes_that_have_no_number_are_left_out() {
    let stray = peer("n2", 2, "10.128.0.2", &["10.64.1.0/26"]);
    let realization = planned(&NodeNetwork { mesh: Some(mesh(&[stray])), ..node() });
    check(
        realization.problems.iter().map(ToString::to_string),
        expect!["node n2 is left out: its address 10.128.0.2 is none of the first 65536 of 10.127.0.0/18"],
    );
    assert_eq!(realization.rules.senders.len(), 0);
    let alone = NodeNetwork { mesh: Some(Mesh { address: ip("10.128.0.1"), ..mesh(&[]) }), ..node() };
    check(
        planned(&alone).problems.iter().map(ToString::to_string),
        expect!["the node is left alone: its own address 10.128.0.1 is none of the first 65536 of 10.127.0.0/18"],
    );
    assert_eq!(Realization { problems: vec![], ..planned(&alone) }, planned(&node()));
}

#[test]
fn marks_of_nodes_are_their_own_and_leave_other_programs_bits_alone() {
    let mut seen = BTreeSet::new();
    for number in 0..=u16::MAX {
        let mark = Number(number).mark();
        assert_eq!(mark & !BACK_MASK, 0, "{number}");
        assert_ne!(mark & BACK_MARK, 0, "{number}");
        assert!(seen.insert(mark), "{number}");
    }
    let others = [PUBLISHED_MARK, 0x00ff_0000, 0xc000, 0x2000];
    assert!(others.iter().all(|bits| BACK_MASK & bits == 0));
}

#[test]
fn no_address_is_behind_two_nodes() {
    let mesh = mesh(&[
        peer("n2", 2, "10.127.0.2", &["10.64.1.0/26", "10.64.1.0/28", "10.64.65.0/26"]),
        peer("n3", 3, "10.127.0.3", &["10.64.1.32/27", "10.64.2.0/26", "10.64.0.0/26"]),
        peer("n4", 4, "10.127.0.2", &["10.64.3.0/26"]),
        peer("n5", 2, "10.127.0.5", &["10.64.4.0/26"]),
    ]);
    let realization = plan(&NodeNetwork { mesh: Some(mesh), ..node() }, Path::new("/run/skep/net/ns"));
    let mut seen = String::new();
    for peer in realization.tunnel.unwrap().peers.values() {
        seen += &format!("{:?}\n", peer.allowed);
    }
    for problem in realization.problems {
        seen += &format!("{problem}\n");
    }
    expect![[r#"
        {10.64.1.0/26, 10.64.1.0/28, 10.64.65.0/26, 10.127.0.2/32}
        {10.64.2.0/26, 10.127.0.3/32}
        10.64.0.0/26 of node n3 is left out of the tunnel: it overlaps 10.64.0.2/32 of this node
        10.64.1.32/27 of node n3 is left out of the tunnel: it overlaps 10.64.1.0/26 of n2
        10.127.0.2/32 of node n4 is left out of the tunnel: it overlaps 10.127.0.2/32 of n2
        node n5 is left out of the tunnel: it says the same key as n2, so one is a copy of the other's disk; let one of them leave and join again
    "#]]
    .assert_eq(&seen);
}
