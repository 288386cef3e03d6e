//! Nodes' places in the tunnel: who gets which address, and what is refused.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use skep_model::*;

use crate::{AT, node};

fn spec(pool: &str, subnet_prefix: u8) -> ClusterSpec {
    ClusterSpec { address_pool: pool.parse().unwrap(), subnet_prefix, ..ClusterSpec::default() }
}

fn cluster(nodes: usize) -> (Cluster, Vec<NodeId>) {
    let mut ids = IdSource::from_seed(1);
    let mut cluster = Cluster::default();
    let mut all = Vec::new();
    for _ in 0..nodes {
        let node = node(&mut ids);
        all.push(node.id);
        cluster.apply(&Change::CreateNode { node: Box::new(node) }, 1).unwrap();
    }
    (cluster, all)
}

fn key(number: u8) -> TunnelKey {
    TunnelKey([number; 32])
}

fn set(node: NodeId, number: u8) -> Change {
    Change::SetNodeTunnel { node, key: key(number), endpoint: "192.0.2.1:7377".parse().ok(), at: AT }
}

fn address(cluster: &Cluster, node: NodeId) -> Ipv4Addr {
    cluster.nodes[&node].tunnel.unwrap().address
}

fn network(subnet: &str) -> Change {
    let subnet: Ipv4Net = subnet.parse().unwrap();
    let spec = NetworkSpec { name: format!("n{subnet}"), ..NetworkSpec::default() };
    let id = IdSource::from_seed(u128::from(subnet.network().to_bits())).next_id();
    let gateway = subnet.hosts().next().unwrap();
    let network = Network { id, meta: Meta::new(AT), spec, subnet, gateway, blocks: BTreeMap::new(), subnet_v6: None };
    Change::CreateNetwork { network: Box::new(network) }
}

#[test]
fn nodes_addresses_come_from_the_pools_end() {
    let range = |pool: &str| spec(pool, 24).node_range().to_string();
    assert_eq!(range("10.64.0.0/10"), "10.127.240.0/20");
    assert_eq!(range("10.20.0.0/16"), "10.20.240.0/20");
    assert_eq!(range("10.20.0.0/20"), "10.20.12.0/22");
    assert_eq!(range("10.20.30.0/24"), "10.20.30.192/26");
    assert_eq!(range("10.20.30.16/28"), "10.20.30.28/30");
    assert_eq!(range("10.20.30.16/30"), "10.20.30.16/30");
}

#[test]
fn a_pool_must_have_room_for_a_network_beside_the_nodes() {
    assert_eq!(ClusterSpec::default().check_pool(), Ok(()));
    assert_eq!(spec("10.20.0.0/23", 24).check_pool(), Ok(()));
    let problem = spec("10.20.0.0/24", 24).check_pool().unwrap_err();
    assert!(problem.contains("10.20.0.0/24") && problem.contains("10.20.0.192/26"), "{problem}");
    assert!(spec("10.20.0.0/24", 16).check_pool().is_err(), "no part of it is that large");
}

#[test]
fn a_node_keeps_its_address_and_one_that_was_removed_leaves_it_to_the_next() {
    let (mut cluster, nodes) = cluster(3);
    cluster.apply(&set(nodes[0], 1), 2).unwrap();
    cluster.apply(&set(nodes[1], 2), 3).unwrap();
    assert_eq!(address(&cluster, nodes[0]), Ipv4Addr::new(10, 127, 240, 1));
    assert_eq!(address(&cluster, nodes[1]), Ipv4Addr::new(10, 127, 240, 2));
    // Another key (a new disk), the same place.
    cluster.apply(&set(nodes[0], 9), 4).unwrap();
    assert_eq!(address(&cluster, nodes[0]), Ipv4Addr::new(10, 127, 240, 1));
    cluster.apply(&Change::RemoveNode { node: nodes[0] }, 5).unwrap();
    cluster.apply(&set(nodes[2], 3), 6).unwrap();
    assert_eq!(address(&cluster, nodes[2]), Ipv4Addr::new(10, 127, 240, 1));
    let before = cluster.clone();
    cluster.apply(&set(nodes[2], 3), 7).unwrap();
    assert_eq!(cluster.nodes, before.nodes, "the same again changes nothing");
    assert_eq!(cluster.check(), []);
}

#[test]
fn a_key_that_another_node_has_is_refused() {
    let (mut cluster, nodes) = cluster(2);
    cluster.apply(&set(nodes[0], 1), 2).unwrap();
    let refused = cluster.apply(&set(nodes[1], 1), 3).unwrap_err();
    assert!(refused.to_string().contains(&nodes[0].to_string()), "{refused}");
    assert_eq!(cluster.nodes[&nodes[1]].tunnel, None);
}

#[test]
fn networks_of_older_clusters_keep_their_ranges_and_new_ones_keep_off() {
    let (mut cluster, nodes) = cluster(2);
    // Given by a user before nodes had addresses.
    cluster.apply(&network("10.127.240.0/24"), 2).unwrap();
    cluster.apply(&set(nodes[0], 1), 3).unwrap();
    assert_eq!(address(&cluster, nodes[0]), Ipv4Addr::new(10, 127, 241, 0));
    assert_eq!(cluster.check(), []);
    let refused = cluster.apply(&network("10.127.241.0/24"), 4).unwrap_err();
    assert!(refused.to_string().contains("10.127.241.0/24"), "{refused}");
}

#[test]
fn a_range_that_is_used_up_is_said() {
    let (mut cluster, nodes) = cluster(2);
    cluster.apply(&network("10.127.240.0/20"), 2).unwrap();
    let refused = cluster.apply(&set(nodes[0], 1), 3).unwrap_err();
    assert!(refused.to_string().contains("no address left") && refused.to_string().contains("10.127.240.0/20"));
}

#[test]
fn a_key_is_written_as_wireguard_does() {
    let text = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
    assert_eq!(key(1).to_string(), text);
    assert_eq!(text.parse(), Ok(key(1)));
    assert!("AQEB".parse::<TunnelKey>().is_err() && "?".parse::<TunnelKey>().is_err());
}
