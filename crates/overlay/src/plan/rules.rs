//! The data of the nftables table: what the maps and sets of the static ruleset hold.
//!
//! Which rules read them is in `realize::nft::ruleset`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net};

use super::twins::Twins;
use super::{Led, Mesh, NodeNetwork, Number, PUBLISHED_MARK, Protocol, PublishMode, link_group, link_name};

/// The contents of the table `ip skep`, or of `ip6 skep`: all addresses are of one family.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// A network's links, by their group, and its range: what may be reached through them.
    pub inside: BTreeSet<(u32, IpNet)>,
    /// A container's link and the source addresses that may come from it.
    pub sources: BTreeSet<(String, IpAddr)>,
    /// Internal networks, by their links' group.
    pub internal: BTreeSet<u32>,
    /// All containers' and nodes' addresses: the pool and what lies outside it.
    pub containers: BTreeSet<IpNet>,
    /// Those of them that are given out: the rest of the pool may be in somebody's local network.
    pub given: BTreeSet<IpNet>,
    /// Service addresses and where they lead.
    pub vips: BTreeMap<IpAddr, Led<IpAddr>>,
    /// Published ports and where they lead.
    pub ports: BTreeMap<PortKey, Led<SocketAddr>>,
    /// Local containers, which may be their own service's backend.
    pub hairpin: BTreeSet<IpAddr>,
    /// The range of nodes' own addresses in the tunnel; empty: the node is alone.
    pub nodes: BTreeSet<IpNet>,
    /// Other nodes' blocks.
    pub elsewhere: BTreeSet<IpNet>,
    /// The ports of containers that other nodes may lead clients to.
    pub entrances: BTreeSet<(Protocol, u16)>,
    /// Other nodes by their hardware addresses on `sk-ingress`, and the marks of connections that they send.
    pub senders: BTreeMap<[u8; 6], u32>,
    /// Where another node is found, and its blocks: a client there that is led to a container there.
    pub returning: BTreeSet<(IpAddr, IpNet)>,
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
        let joined = |here: &BTreeSet<IpNet>, there| if here == there { BTreeSet::new() } else { here.clone() };
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
    pub address: IpAddr,
    pub protocol: Protocol,
    pub port: u16,
}

pub(super) fn rules(node: &NodeNetwork) -> Rules {
    let networks = || node.networks.iter();
    let mut rules = Rules {
        inside: networks().map(|n| (link_group(&n.id), n.subnet.into())).collect(),
        sources: node.endpoints.iter().map(|e| (link_name(&e.sandbox, &e.network), e.address.into())).collect(),
        internal: networks().filter(|n| n.internal).map(|n| link_group(&n.id)).collect(),
        given: given(node),
        containers: given(node).into_iter().chain([node.pool.trunc().into()]).collect(),
        hairpin: node.endpoints.iter().map(|endpoint| endpoint.address.into()).collect(),
        entrances: entrances(node),
        ports: ports(node, Ipv4Addr::UNSPECIFIED.into(), |backend| Some(backend.into())),
        ..Rules::default()
    };
    rules.sources.extend(other_ways_out(node));
    node.mesh.iter().for_each(|mesh| add_mesh(&mut rules, mesh));
    let here = node.here();
    for service in &node.services {
        if let Some(vip) = service.vip {
            let serving = service.backends.iter().filter(|backend| backend.serving);
            let chosen = service.balance.chosen(serving.map(|backend| backend.address), &here);
            let to = chosen.into_iter().map(IpAddr::V4).collect();
            rules.vips.insert(vip.into(), Led { choice: service.balance.choice, to });
        }
    }
    rules
}

/// The same for IPv6: everything that has a twin, and what is published on IPv6 addresses.
pub(super) fn twin(rules: &Rules, node: &NodeNetwork, twins: &Twins) -> Rules {
    let address = |address: &IpAddr| twins.address_of(*address);
    let ranges = |ranges: &BTreeSet<IpNet>| ranges.iter().filter_map(|range| twins.range_of(*range)).collect();
    let given: BTreeSet<IpNet> = ranges(&rules.given);
    let led = |led: &Led<IpAddr>| Led { choice: led.choice, to: led.to.iter().filter_map(address).collect() };
    let vip = |(vip, to): (&IpAddr, &Led<IpAddr>)| Some((address(vip)?, led(to)));
    let mut twin = Rules {
        inside: rules.inside.iter().filter_map(|(group, range)| Some((*group, twins.range_of(*range)?))).collect(),
        sources: rules.sources.iter().filter_map(|(link, from)| Some((link.clone(), address(from)?))).collect(),
        internal: rules.internal.clone(),
        containers: given.iter().copied().chain(node.prefix.map(IpNet::from)).collect(),
        given,
        vips: rules.vips.iter().filter_map(vip).collect(),
        ports: ports(node, Ipv6Addr::UNSPECIFIED.into(), |backend| twins.address(backend).map(IpAddr::V6)),
        hairpin: rules.hairpin.iter().filter_map(address).collect(),
        nodes: ranges(&rules.nodes),
        elsewhere: ranges(&rules.elsewhere),
        entrances: rules.entrances.clone(),
        senders: rules.senders.clone(),
        returning: BTreeSet::new(),
    };
    for peer in node.mesh.iter().flat_map(|mesh| &mesh.peers) {
        if let Some(at @ IpAddr::V6(_)) = peer.endpoint.map(|endpoint| endpoint.ip()) {
            let blocks = peer.blocks.iter().filter_map(|block| twins.range(*block));
            twin.returning.extend(blocks.map(|block| (at, block.into())));
        }
    }
    // The helper alone can lead a port to containers without IPv6, and says so to the others too while none is there.
    twin.ports.retain(|_, led| !led.to.is_empty());
    twin
}

/// Published ports of the family of `any`, which stands for every address.
fn ports(
    node: &NodeNetwork,
    any: IpAddr,
    backend: impl Fn(Ipv4Addr) -> Option<IpAddr>,
) -> BTreeMap<PortKey, Led<SocketAddr>> {
    let here = node.here();
    let mut ports = BTreeMap::new();
    for port in &node.published {
        let address = port.bind.unwrap_or(any);
        // The helper alone serves loopback addresses: what it says there never leaves the node.
        if address.is_loopback() || address.is_ipv4() != any.is_ipv4() {
            continue;
        }
        let key = PortKey { address, protocol: port.protocol, port: port.published };
        let chosen = port.balance.chosen(port.backends.iter().copied(), &here).into_iter().filter_map(&backend);
        let to = chosen.map(|address| SocketAddr::new(address, port.target)).collect();
        ports.insert(key, Led { choice: port.balance.choice, to });
    }
    ports
}

/// While a container drains it is no backend any more, but whoever has not heard of that is let in: so ports are kept
/// and not containers.
fn entrances(node: &NodeNetwork) -> BTreeSet<(Protocol, u16)> {
    let ingress = node.published.iter().filter(|port| port.mode == PublishMode::Ingress && node.mesh.is_some());
    ingress.map(|port| (port.protocol, port.target)).collect()
}

fn given(node: &NodeNetwork) -> BTreeSet<IpNet> {
    let networks = node.networks.iter().map(|network| network.subnet);
    let elsewhere = node.mesh.iter().flat_map(|mesh| mesh.peers.iter().flat_map(|peer| &peer.blocks));
    networks
        .chain(node.mesh.iter().map(|mesh| mesh.nodes))
        .chain(elsewhere.copied())
        .map(|range: Ipv4Net| range.trunc().into())
        .collect()
}

fn add_mesh(rules: &mut Rules, mesh: &Mesh) {
    rules.nodes = BTreeSet::from([mesh.nodes.trunc().into()]);
    for peer in &mesh.peers {
        let blocks = || peer.blocks.iter().map(|block| IpNet::from(block.trunc()));
        rules.elsewhere.extend(blocks());
        if let Some(number) = Number::of(peer.address, mesh.nodes) {
            rules.senders.insert(number.hardware_address(), PUBLISHED_MARK | number.mark());
        }
        if let Some(address @ IpAddr::V4(_)) = peer.endpoint.map(|endpoint| endpoint.ip()) {
            let single = |range: &IpNet| range.prefix_len() == range.max_prefix_len();
            // Ranges that share their first part may not overlap; two nodes may be behind one address.
            let wide: Vec<IpNet> = blocks().filter(|block| !single(block)).collect();
            let all = wide.iter().copied().chain(blocks().filter(single));
            let known = |rules: &Rules, block: &IpNet| {
                rules.returning.iter().any(|(at, other)| *at == address && other.contains(block))
            };
            for block in all {
                if !known(rules, &block) {
                    rules.returning.insert((address, block));
                }
            }
        }
    }
}

/// A container on several networks has one default route, and answers through it whichever of its addresses was
/// asked from outside. Those other addresses are its own, so they may come from that link too.
fn other_ways_out(node: &NodeNetwork) -> BTreeSet<(String, IpAddr)> {
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
            ways.insert((link_name(&endpoint.sandbox, network), endpoint.address.into()));
        }
    }
    ways
}
