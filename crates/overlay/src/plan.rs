//! What a node's network should be ([`NodeNetwork`]), and what that means for the kernel and the helper
//! ([`Realization`]). Pure: no clock, no IO; the same input gives the same output, byte for byte.
//!
//! The agent makes the first from its assignments; `plan` makes the second; `realize` compares it with what the
//! kernel has and changes the difference; the helper is sent the snapshot. A part that contradicts another is left
//! out and named in `problems`: one bad network must not take the node's others down.

pub mod balance;
mod driver;
mod ingress;
mod names;
pub mod peers;
mod problem;
mod routes;
mod rules;
mod twins;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

pub use balance::{Balance, Choice, Led};
pub use driver::Driver;
pub use ingress::{BACK_MARK, BACK_MASK, INGRESS, INGRESS_NETWORK, INGRESS_PORT, Ingress, Number, PUBLISHED_MARK, Way};
pub use peers::{Mesh, MeshPeer};
pub use problem::Problem;
pub use routes::Via;
pub use rules::{PortKey, Rules};

use self::twins::{Twins, both};
pub use crate::snapshot::Protocol;
use crate::snapshot::Snapshot;
use crate::tunnel::Tunnel;

/// Everything that one node's network should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeNetwork {
    pub networks: Vec<Network>,
    /// This node's containers; one entry per container and network, in the container's order of networks.
    pub endpoints: Vec<Endpoint>,
    /// Other nodes' containers that have names here.
    pub elsewhere: Vec<Elsewhere>,
    pub services: Vec<Service>,
    pub published: Vec<Published>,
    /// The range that networks' addresses are taken from when no subnet is asked for.
    pub pool: Ipv4Net,
    /// Resolvers for names outside the cluster.
    pub upstreams: Vec<SocketAddr>,
    /// The search domains that containers' `resolv.conf` carries.
    pub search: Vec<String>,
    /// The node's place among others; none: it is alone, and nothing listens for others.
    pub mesh: Option<Mesh>,
    /// The cluster's own IPv6 range; none: it has none, or nobody has said it.
    pub prefix: Option<Ipv6Net>,
    /// Other nodes' containers that have no IPv6 address, though their network has a range of them.
    pub v4_only: BTreeSet<Ipv4Addr>,
}

/// A network as it is cluster-wide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    pub id: String,
    pub name: String,
    /// The whole network's range, over all nodes.
    pub subnet: Ipv4Net,
    /// Where the twins of `subnet`'s addresses are; none: the network is IPv4 alone.
    pub subnet_v6: Option<Ipv6Net>,
    /// The node's own address in the network, inside `subnet`: every container's next hop.
    pub gateway: Ipv4Addr,
    /// The parts of `subnet` that this node hands out addresses from.
    pub blocks: Vec<Ipv4Net>,
    /// Without a way out: neither to other networks, nor to the node itself.
    pub internal: bool,
    pub driver: Driver,
}

/// A container's place on one network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The task's id.
    pub sandbox: String,
    /// The network's id.
    pub network: String,
    pub address: Ipv4Addr,
    /// Container, slot and host names and network aliases, best first: the first answers reverse questions.
    pub names: Vec<String>,
    /// Whether it takes requests: healthy and not draining. Shared aliases resolve to those that do.
    pub serving: bool,
}

/// Another node's container, on one network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elsewhere {
    /// The network's id.
    pub network: String,
    pub address: Ipv4Addr,
    /// As [`Endpoint::names`].
    pub names: Vec<String>,
}

/// A service on one network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// The network's id.
    pub network: String,
    /// None: the service's names resolve to its tasks (`endpoint_mode: dnsrr`).
    pub vip: Option<Ipv4Addr>,
    /// The service's name, its name within the stack, and its aliases.
    pub names: Vec<String>,
    /// Every task of the service on every node.
    pub backends: Vec<Backend>,
    pub balance: Balance,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    pub address: Ipv4Addr,
    /// Whether it takes requests: healthy and not draining.
    pub serving: bool,
}

/// A port of this node that leads to containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    pub protocol: Protocol,
    /// The port on the node.
    pub published: u16,
    /// The one address of the node that it is published on; none (or `0.0.0.0`, `::`) is all of them.
    pub bind: Option<IpAddr>,
    /// The port in the container.
    pub target: u16,
    /// Those that serve. Empty: connections are refused at once.
    pub backends: Vec<Ipv4Addr>,
    pub mode: PublishMode,
    pub balance: Balance,
}

/// Who decided on `backends`; the kernel state is the same for both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishMode {
    /// Any task of the service, on any node.
    Ingress,
    /// The one task on this node.
    Host,
}

/// What the kernel and the helper should have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Realization {
    /// By interface name.
    pub bridges: BTreeMap<String, Bridge>,
    /// The sandboxes that are expected to exist.
    pub sandboxes: BTreeSet<String>,
    /// Where packets to containers and nodes go. A container's link may not be there yet.
    pub routes: BTreeMap<IpNet, Via>,
    /// None: the node is alone.
    pub ingress: Option<Ingress>,
    pub rules: Rules,
    /// The same for IPv6; none: no network has it.
    pub rules_v6: Option<Rules>,
    /// The way to other nodes; none while the node is alone.
    pub tunnel: Option<Tunnel>,
    /// Every container that connections may lead to, those that serve no more included: this node's, and others' as far
    /// as services name them.
    pub places: BTreeSet<IpAddr>,
    pub snapshot: Snapshot,
    /// What was left out, and why.
    pub problems: Vec<Problem>,
}

/// One network's device on this node: a bridge without ports. It holds the gateway's address, and routes lead there for
/// addresses that no container here has, but should; containers' links are routed, not bridged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    pub network: String,
    /// The gateway's addresses, each with the whole network's prefix length.
    pub addresses: BTreeSet<IpNet>,
}

/// The kernel state and the snapshot that `node` asks for. `namespaces` is the folder of the pinned namespaces.
pub fn plan(node: &NodeNetwork, namespaces: &Path) -> Realization {
    let (whole, problems) = checked(node);
    let node = driver::routed(&whole);
    let twins = Twins::of(&node);
    let rules = rules::rules(&node);
    let bridges = node.networks.iter().map(|network| (bridge_name(&network.id), bridge(network))).collect();
    Realization {
        bridges,
        sandboxes: whole.endpoints.iter().map(|endpoint| endpoint.sandbox.clone()).collect(),
        routes: routes::routes(&node, twins.as_ref()),
        ingress: node.mesh.as_ref().and_then(|mesh| ingress::ingress(mesh, twins.as_ref())),
        rules_v6: twins.as_ref().map(|twins| rules::twin(&rules, &node, twins)),
        rules,
        tunnel: peers::tunnel(&node, twins.as_ref()),
        places: both(places(&node), |place| twins.as_ref()?.address_of(place)),
        snapshot: names::snapshot(&whole, twins.as_ref(), namespaces),
        problems,
    }
}

fn places(node: &NodeNetwork) -> impl Iterator<Item = IpAddr> {
    let served = node.services.iter().flat_map(|service| &service.backends).map(|backend| backend.address);
    let published = node.published.iter().flat_map(|port| &port.backends).copied();
    node.endpoints.iter().map(|endpoint| endpoint.address).chain(served).chain(published).map(IpAddr::V4)
}

/// The bridge that a network has on this node.
pub fn bridge(network: &Network) -> Bridge {
    let addresses = network.own(network.gateway);
    Bridge { network: network.id.clone(), addresses }
}

impl Network {
    /// An address of the network and its twin, each with the whole network's prefix length.
    pub fn own(&self, address: Ipv4Addr) -> BTreeSet<IpNet> {
        let v4 = Ipv4Net::new(address, self.subnet.prefix_len()).expect("the prefix length comes from a valid subnet");
        let v6 = self.twin(address).zip(self.subnet_v6);
        let v6 = v6.and_then(|(twin, range)| Ipv6Net::new(twin, range.prefix_len()).ok());
        [Some(v4.into()), v6.map(IpNet::V6)].into_iter().flatten().collect()
    }
}

impl NodeNetwork {
    /// This node's containers.
    fn here(&self) -> BTreeSet<Ipv4Addr> {
        self.endpoints.iter().map(|endpoint| endpoint.address).collect()
    }

    /// Of a node that has part in nothing.
    pub fn nothing(pool: Ipv4Net) -> Self {
        Self {
            networks: Vec::new(),
            endpoints: Vec::new(),
            elsewhere: Vec::new(),
            services: Vec::new(),
            published: Vec::new(),
            pool,
            upstreams: Vec::new(),
            search: Vec::new(),
            mesh: None,
            prefix: None,
            v4_only: BTreeSet::new(),
        }
    }
}

/// What all of skep's bridges' names begin with.
pub const BRIDGE_PREFIX: &str = "skb-";
/// What all of skep's container links' names begin with, on the node's side.
pub const LINK_PREFIX: &str = "skv-";

/// The interface name of a network's bridge: 12 of the 15 characters that the kernel allows.
pub fn bridge_name(network: &str) -> String {
    format!("{BRIDGE_PREFIX}{:08x}", link_group(network))
}

/// The group of all links to a network, by which rules know them: nftables compares it as one number.
pub fn link_group(network: &str) -> u32 {
    digest(network.as_bytes()) as u32
}

/// The interface name of the node's end of a sandbox's link to a network.
pub fn link_name(sandbox: &str, network: &str) -> String {
    let digest = digest(format!("{sandbox}/{network}").as_bytes());
    format!("{LINK_PREFIX}{:011x}", digest & 0xfff_ffff_ffff)
}

/// FNV-1a with a final mix: names must be equal over restarts and builds, so no hasher of the standard library.
pub(crate) fn digest(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325, step);
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}

/// `node` without its contradictions.
fn checked(node: &NodeNetwork) -> (NodeNetwork, Vec<Problem>) {
    let mut problems = Vec::new();
    let mut kept = NodeNetwork { networks: Vec::new(), ..node.clone() };
    for network in &node.networks {
        match contradiction(network, &kept.networks) {
            Some(problem) => problems.push(problem),
            None => kept.networks.push(network.clone()),
        }
    }
    let subnets: BTreeMap<String, Ipv4Net> = kept.networks.iter().map(|n| (n.id.clone(), n.subnet)).collect();
    let outside = |network: &str, address: Option<Ipv4Addr>, what: &dyn Fn() -> String| {
        let Some(subnet) = subnets.get(network) else {
            return Some(Problem::NetworkUnknown { network: network.to_owned(), what: what() });
        };
        let address = address.filter(|address| !subnet.contains(address))?;
        Some(Problem::AddressOutside { network: network.to_owned(), subnet: *subnet, address, what: what() })
    };
    let mut holders = BTreeMap::new();
    kept.endpoints.retain(|endpoint| {
        let what = || format!("container {}", endpoint.sandbox);
        let mut problem = outside(&endpoint.network, Some(endpoint.address), &what);
        if problem.is_none() {
            let first = holders.entry(endpoint.address).or_insert_with(|| endpoint.sandbox.clone()).clone();
            problem = (first != endpoint.sandbox).then(|| Problem::AddressTwice {
                network: endpoint.network.clone(),
                address: endpoint.address,
                first: format!("container {first}"),
                second: what(),
            });
        }
        let keep = problem.is_none();
        problems.extend(problem);
        keep
    });
    kept.services.retain(|service| {
        let name = service.names.first().map(String::as_str).unwrap_or_default();
        let problem = outside(&service.network, service.vip, &|| format!("service {name}"));
        let keep = problem.is_none();
        problems.extend(problem);
        keep
    });
    let mut ports = BTreeSet::new();
    kept.published.iter_mut().for_each(|port| port.bind = port.bind.filter(|address| !address.is_unspecified()));
    kept.published.retain(|port| {
        let keep = ports.insert((port.protocol, port.published, port.bind));
        if !keep {
            let Published { protocol, published, bind, .. } = *port;
            problems.push(Problem::PortTwice { protocol, port: published, bind });
        }
        keep
    });
    peers::check(&mut kept, &mut problems);
    (kept, problems)
}

/// What speaks against `network` beside those that were taken before it.
fn contradiction(network: &Network, before: &[Network]) -> Option<Problem> {
    if !network.subnet.contains(&network.gateway) {
        return Some(Problem::AddressOutside {
            network: network.id.clone(),
            subnet: network.subnet,
            address: network.gateway,
            what: format!("network {}", network.id),
        });
    }
    for other in before {
        let v6 = network.subnet_v6.zip(other.subnet_v6).map(|(own, theirs)| (IpNet::V6(own), IpNet::V6(theirs)));
        let pairs = [Some((network.subnet.into(), other.subnet.into())), v6];
        let overlap = |(own, theirs): &(IpNet, IpNet)| theirs.contains(own) || own.contains(theirs);
        if let Some((subnet, other_subnet)) = pairs.into_iter().flatten().find(overlap) {
            let (network, other) = (network.id.clone(), other.id.clone());
            return Some(Problem::SubnetsOverlap { network, subnet, other, other_subnet });
        }
        let interface = bridge_name(&network.id);
        if interface == bridge_name(&other.id) {
            return Some(Problem::NetworkIdsCollide {
                network: network.id.clone(),
                other: other.id.clone(),
                interface,
            });
        }
    }
    None
}

#[cfg(test)]
mod tests;
