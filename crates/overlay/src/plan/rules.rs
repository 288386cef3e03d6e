//! The data of the nftables table: what the maps and sets of the static ruleset hold.
//!
//! Which rules read them is in `realize::nft::ruleset`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

use ipnet::Ipv4Net;

use super::{Mesh, NodeNetwork, Number, PUBLISHED_MARK, Protocol, PublishMode, link_group, link_name};

/// The contents of the table `ip skep`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// A network's links, by their group, and its range: what may be reached through them.
    pub inside: BTreeSet<(u32, Ipv4Net)>,
    /// A container's link and the source addresses that may come from it.
    pub sources: BTreeSet<(String, Ipv4Addr)>,
    /// Internal networks, by their links' group.
    pub internal: BTreeSet<u32>,
    /// All containers' and nodes' addresses: the pool and what lies outside it.
    pub containers: BTreeSet<Ipv4Net>,
    /// Those of them that are given out: the rest of the pool may be in somebody's local network.
    pub given: BTreeSet<Ipv4Net>,
    /// Service addresses and where they lead, in the order of their slots. Empty: rejected.
    pub vips: BTreeMap<Ipv4Addr, Vec<Ipv4Addr>>,
    /// Published ports and where they lead, in the order of their slots. Empty: rejected.
    pub ports: BTreeMap<PortKey, Vec<SocketAddrV4>>,
    /// Local containers, which may be their own service's backend.
    pub hairpin: BTreeSet<Ipv4Addr>,
    /// The range of nodes' own addresses in the tunnel; empty: the node is alone.
    pub nodes: BTreeSet<Ipv4Net>,
    /// Other nodes' blocks.
    pub elsewhere: BTreeSet<Ipv4Net>,
    /// The ports of containers that other nodes may lead clients to.
    pub entrances: BTreeSet<(Protocol, u16)>,
    /// Other nodes by their hardware addresses on `sk-ingress`, and the marks of connections that they send.
    pub senders: BTreeMap<[u8; 6], u32>,
    /// Where another node is found, and its blocks: a client there that is led to a container there.
    pub returning: BTreeSet<(Ipv4Addr, Ipv4Net)>,
}

impl Rules {
    /// What is here and not, or not the same, in `other`. Work on the result grows with the change, not the cluster.
    pub fn beyond(&self, other: &Self) -> Self {
        fn missing<T: Ord + Clone>(here: &BTreeSet<T>, there: &BTreeSet<T>) -> BTreeSet<T> {
            here.difference(there).cloned().collect()
        }
        fn changed<K: Ord + Clone, V: PartialEq + Clone>(
            here: &BTreeMap<K, V>,
            there: &BTreeMap<K, V>,
        ) -> BTreeMap<K, V> {
            let differs = |(key, value): &(&K, &V)| there.get(*key) != Some(*value);
            here.iter().filter(differs).map(|(key, value)| (key.clone(), value.clone())).collect()
        }
        let Self {
            inside,
            sources,
            internal,
            containers,
            given,
            vips,
            ports,
            hairpin,
            nodes,
            elsewhere,
            entrances,
            senders,
            returning,
        } = self;
        // Neighbouring ranges are joined in the kernel, so they change together.
        let joined = |here: &BTreeSet<Ipv4Net>, there| if here == there { BTreeSet::new() } else { here.clone() };
        Self {
            inside: missing(inside, &other.inside),
            sources: missing(sources, &other.sources),
            internal: missing(internal, &other.internal),
            containers: joined(containers, &other.containers),
            given: joined(given, &other.given),
            vips: changed(vips, &other.vips),
            ports: changed(ports, &other.ports),
            hairpin: missing(hairpin, &other.hairpin),
            nodes: joined(nodes, &other.nodes),
            elsewhere: joined(elsewhere, &other.elsewhere),
            entrances: missing(entrances, &other.entrances),
            senders: changed(senders, &other.senders),
            returning: missing(returning, &other.returning),
        }
    }
}

/// A published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortKey {
    /// Unspecified: every address of the node but the loopback ones.
    pub address: Ipv4Addr,
    pub protocol: Protocol,
    pub port: u16,
}

pub(super) fn rules(node: &NodeNetwork) -> Rules {
    let networks = || node.networks.iter();
    let mut rules = Rules {
        inside: networks().map(|n| (link_group(&n.id), n.subnet)).collect(),
        sources: node.endpoints.iter().map(|e| (link_name(&e.sandbox, &e.network), e.address)).collect(),
        internal: networks().filter(|n| n.internal).map(|n| link_group(&n.id)).collect(),
        given: given(node),
        containers: given(node).into_iter().chain([node.pool.trunc()]).collect(),
        hairpin: node.endpoints.iter().map(|endpoint| endpoint.address).collect(),
        entrances: entrances(node),
        ..Rules::default()
    };
    rules.sources.extend(other_ways_out(node));
    node.mesh.iter().for_each(|mesh| add_mesh(&mut rules, mesh));
    for service in &node.services {
        if let Some(vip) = service.vip {
            let serving = service.backends.iter().filter(|backend| backend.serving);
            let backends: BTreeSet<_> = serving.map(|backend| backend.address).collect();
            rules.vips.insert(vip, backends.into_iter().collect());
        }
    }
    for port in &node.published {
        let address = match port.bind {
            None => Ipv4Addr::UNSPECIFIED,
            Some(IpAddr::V4(address)) if !address.is_loopback() => address,
            // The helper alone serves these: what it says on loopback never leaves the node, and IPv6 is proxied.
            Some(IpAddr::V4(_) | IpAddr::V6(_)) => continue,
        };
        let key = PortKey { address, protocol: port.protocol, port: port.published };
        let backends: BTreeSet<_> = port.backends.iter().map(|ip| SocketAddrV4::new(*ip, port.target)).collect();
        rules.ports.insert(key, backends.into_iter().collect());
    }
    rules
}

/// While a container drains it is no backend any more, but whoever has not heard of that is let in: so ports are kept
/// and not containers.
fn entrances(node: &NodeNetwork) -> BTreeSet<(Protocol, u16)> {
    let ingress = node.published.iter().filter(|port| port.mode == PublishMode::Ingress && node.mesh.is_some());
    ingress.map(|port| (port.protocol, port.target)).collect()
}

fn given(node: &NodeNetwork) -> BTreeSet<Ipv4Net> {
    let networks = node.networks.iter().map(|network| network.subnet);
    let elsewhere = node.mesh.iter().flat_map(|mesh| mesh.peers.iter().flat_map(|peer| &peer.blocks));
    networks
        .chain(node.mesh.iter().map(|mesh| mesh.nodes))
        .chain(elsewhere.copied())
        .map(|range| range.trunc())
        .collect()
}

fn add_mesh(rules: &mut Rules, mesh: &Mesh) {
    rules.nodes = BTreeSet::from([mesh.nodes.trunc()]);
    for peer in &mesh.peers {
        let blocks = || peer.blocks.iter().map(Ipv4Net::trunc);
        rules.elsewhere.extend(blocks());
        if let Some(number) = Number::of(peer.address, mesh.nodes) {
            rules.senders.insert(number.hardware_address(), PUBLISHED_MARK | number.mark());
        }
        if let Some(IpAddr::V4(address)) = peer.endpoint.map(|endpoint| endpoint.ip()) {
            rules.returning.extend(blocks().map(|block| (address, block)));
        }
    }
}

/// A container on several networks has one default route, and answers through it whichever of its addresses was
/// asked from outside. Those other addresses are its own, so they may come from that link too.
fn other_ways_out(node: &NodeNetwork) -> BTreeSet<(String, Ipv4Addr)> {
    let internal: BTreeMap<&str, bool> = node.networks.iter().map(|n| (n.id.as_str(), n.internal)).collect();
    let mut default: BTreeMap<&str, &str> = BTreeMap::new();
    for endpoint in &node.endpoints {
        if internal.get(endpoint.network.as_str()) == Some(&false) {
            default.entry(&endpoint.sandbox).or_insert(&endpoint.network);
        }
    }
    let mut ways = BTreeSet::new();
    for endpoint in &node.endpoints {
        if let Some(network) = default.get(endpoint.sandbox.as_str()).filter(|network| **network != endpoint.network) {
            ways.insert((link_name(&endpoint.sandbox, network), endpoint.address));
        }
    }
    ways
}
