//! The allocator: subnets for networks, virtual addresses and published ports for services, address
//! blocks for nodes.
//!
//! Everything here is chosen from what the cluster shows as free, lowest first; addresses that were given
//! back are therefore found again, and nothing has to be remembered.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use skep_model::{
    Cluster, Endpoint, EndpointMode, Feature, Network, NetworkDriver, NetworkId, NetworkSpec, PortProtocol, PortSpec,
    PublishMode, Service, TaskSpec, VirtualIp,
};

/// Ports that are chosen for services which publish without naming one, as in Swarm.
const DYNAMIC_PORTS: std::ops::RangeInclusive<u16> = 30000..=32767;

/// Why something cannot be allocated, in words for the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal(pub String);

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// The range and gateway of a new network: the user's, or the first free part of the cluster's pool. Never a part of
/// what nodes' own addresses come from.
pub fn subnet_for(cluster: &Cluster, spec: &NetworkSpec) -> Result<(Ipv4Net, Ipv4Addr), Refusal> {
    let taken: Vec<&Network> = cluster.networks.values().map(|network| &**network).collect();
    let overlapping = |subnet: &Ipv4Net| taken.iter().find(|n| n.subnet.contains(subnet) || subnet.contains(&n.subnet));
    let nodes = cluster.node_range();
    let of_nodes = |subnet: &Ipv4Net| nodes.contains(subnet) || subnet.contains(&nodes);
    let subnet = match spec.subnet {
        Some(subnet) if of_nodes(&subnet) => {
            let name = &spec.name;
            return Err(Refusal(format!(
                "subnet {subnet} of network {name} overlaps {nodes}, the part of the cluster's address pool that nodes' \
                 own addresses come from; take another, in the pool or outside it"
            )));
        }
        Some(subnet) => match overlapping(&subnet) {
            None => subnet,
            Some(other) => {
                let (name, range) = (&other.spec.name, other.subnet);
                let problem = format!("subnet {subnet} of network {} overlaps {range} of network {name}", spec.name);
                return Err(Refusal(problem));
            }
        },
        None => {
            let settings = cluster.config.as_ref().map(|config| config.spec.clone()).unwrap_or_default();
            let free = settings.address_pool.subnets(settings.subnet_prefix).ok().into_iter().flatten();
            let mut free = free.into_iter().filter(|subnet| !of_nodes(subnet));
            free.find(|subnet| overlapping(subnet).is_none()).ok_or_else(|| {
                let pool = settings.address_pool;
                Refusal(format!(
                    "the address pool {pool} has no /{} left for network {}; its last part, {nodes}, is for nodes' own \
                     addresses",
                    settings.subnet_prefix, spec.name
                ))
            })?
        }
    };
    let first = Ipv4Addr::from_bits(subnet.network().to_bits() + 1);
    Ok((subnet, spec.gateway.unwrap_or(first)))
}

/// The IPv6 range of a new network with the IPv4 range `subnet`: the user's, or the one of the cluster's own in which
/// each IPv4 address is found again. None: it is to have none, or older managers would lose it.
pub fn subnet_v6_for(cluster: &Cluster, spec: &NetworkSpec, subnet: Ipv4Net) -> Result<Option<Ipv6Net>, Refusal> {
    let name = &spec.name;
    let is_asked_for = spec.ipv6.unwrap_or(spec.subnet_v6.is_some());
    if is_asked_for && !cluster.has(Feature::Services) {
        return Err(Refusal(format!(
            "network {name} asks for IPv6, which some managers of this cluster are too old for; upgrade them first"
        )));
    }
    let Some(config) = cluster.config.as_ref().filter(|_| is_asked_for) else { return Ok(None) };
    let own = |range: Ipv4Net| {
        let first = config.prefix().network().to_bits() | u128::from(range.network().to_bits());
        Ipv6Net::new(Ipv6Addr::from_bits(first), 96 + range.prefix_len()).expect("96 and at most 32 bits")
    };
    let Some(wanted) = spec.subnet_v6 else { return Ok(Some(own(subnet))) };
    if wanted.max_prefix_len() - wanted.prefix_len() < subnet.max_prefix_len() - subnet.prefix_len() {
        return Err(Refusal(format!(
            "subnet {wanted} of network {name} is shorter than its IPv4 subnet {subnet}; take a /{} or longer range, \
             such as a /64",
            96 + subnet.prefix_len()
        )));
    }
    let overlaps = |other: &Ipv6Net| other.contains(&wanted) || wanted.contains(other);
    let whole = own(Ipv4Net::default());
    if overlaps(&whole) {
        return Err(Refusal(format!(
            "subnet {wanted} of network {name} overlaps {whole}, where the cluster has its own IPv6 addresses; take another"
        )));
    }
    let other = cluster.networks.values().find(|network| network.subnet_v6.as_ref().is_some_and(overlaps));
    match other.and_then(|other| Some((&other.spec.name, other.subnet_v6?))) {
        Some((other, range)) => {
            Err(Refusal(format!("subnet {wanted} of network {name} overlaps {range} of network {other}")))
        }
        None => Ok(Some(wanted)),
    }
}

/// The ids of a task's networks in the order of its spec, or which one is not there.
pub fn resolve_networks(cluster: &Cluster, spec: &TaskSpec) -> Result<Vec<NetworkId>, String> {
    let resolve =
        |name: &str| cluster.network_named(name).map(|network| network.id).ok_or(format!("network {name} not found"));
    spec.networks.iter().map(|attachment| resolve(&attachment.network)).collect()
}

/// The ports that each task of the service publishes on its own node.
pub fn host_ports(service: &Service) -> Vec<PortSpec> {
    service.spec.endpoint.ports.iter().filter(|port| port.mode == PublishMode::Host).cloned().collect()
}

/// What the service's endpoint should be, when it differs from what it has.
pub fn missing_endpoint(cluster: &Cluster, service: &Service) -> Option<Result<Endpoint, Refusal>> {
    let wanted = endpoint_for(cluster, service);
    match wanted {
        Ok(endpoint) if endpoint == service.endpoint => None,
        other => Some(other),
    }
}

/// Virtual addresses and published ports; what the service already has and still asks for is kept.
pub fn endpoint_for(cluster: &Cluster, service: &Service) -> Result<Endpoint, Refusal> {
    Ok(Endpoint { ports: ports_for(cluster, service)?, virtual_ips: virtual_ips_for(cluster, service)? })
}

fn ports_for(cluster: &Cluster, service: &Service) -> Result<Vec<PortSpec>, Refusal> {
    let others = cluster.services.values().filter(|other| other.id != service.id);
    let mut taken: BTreeSet<(PortProtocol, u16)> = others
        .flat_map(|other| other.endpoint.ports.iter())
        .filter(|port| port.mode == PublishMode::Ingress)
        .map(|port| (port.protocol, port.published))
        .collect();
    let explicit = service.spec.endpoint.ports.iter().filter(|port| port.published != 0);
    taken.extend(explicit.map(|port| (port.protocol, port.published)));
    let mut ports = Vec::new();
    for port in &service.spec.endpoint.ports {
        let mut port = port.clone();
        if port.mode == PublishMode::Ingress && port.published == 0 {
            let asked = |have: &&PortSpec| PortSpec { published: 0, ..(*have).clone() } == port;
            let had = service
                .endpoint
                .ports
                .iter()
                .find(asked)
                .map(|have| have.published)
                .filter(|p| !taken.contains(&(port.protocol, *p)));
            let free = || DYNAMIC_PORTS.into_iter().find(|number| !taken.contains(&(port.protocol, *number)));
            port.published =
                had.or_else(free).ok_or_else(|| Refusal("no published port of 30000-32767 is free".to_owned()))?;
            taken.insert((port.protocol, port.published));
        }
        ports.push(port);
    }
    Ok(ports)
}

fn virtual_ips_for(cluster: &Cluster, service: &Service) -> Result<Vec<VirtualIp>, Refusal> {
    if service.spec.endpoint.mode == EndpointMode::DnsRr {
        return Ok(Vec::new());
    }
    let attachments = service.spec.task.networks.iter();
    let networks = attachments.filter_map(|attachment| cluster.network_named(&attachment.network));
    // Nobody rewrites addresses on a local network: there a service's names stand for its tasks.
    let routed = networks.filter(|network| network.spec.driver() != NetworkDriver::Macvlan);
    routed
        .map(|network| {
            let had = service.endpoint.virtual_ips.iter().find(|vip| vip.network == network.id).copied();
            match had {
                Some(vip) => Ok(vip),
                None => Ok(VirtualIp { network: network.id, address: free_virtual_ip(cluster, network)? }),
            }
        })
        .collect()
}

fn free_virtual_ip(cluster: &Cluster, network: &Network) -> Result<Ipv4Addr, Refusal> {
    let endpoints = cluster.services.values().flat_map(|service| service.endpoint.virtual_ips.iter());
    let mut taken: BTreeSet<Ipv4Addr> =
        endpoints.filter(|vip| vip.network == network.id).map(|vip| vip.address).collect();
    taken.extend(cluster.reserved_addresses(network));
    let range = network.vip_range();
    let usable = (range.network().to_bits()..=range.broadcast().to_bits()).map(Ipv4Addr::from_bits);
    usable
        .into_iter()
        .find(|address| !taken.contains(address) && !network.is_reserved(*address))
        .ok_or_else(|| Refusal(format!("network {} has no virtual address left in {range}", network.spec.name)))
}

/// Whether an ingress port that a spec names is already another service's: the words for the refusal.
pub fn port_conflict(cluster: &Cluster, service: &Service) -> Option<Refusal> {
    let (port, other) = cluster.port_of_another(service)?;
    let (number, name, id) = (port.published, other.name(), other.id);
    Some(Refusal(format!("port '{number}' is already in use by service '{name}' ({id})")))
}
