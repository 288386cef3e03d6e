//! From a node's assignments and its own containers to what its network should be.
//!
//! Pure: the whole picture is made anew each time and handed to the overlay, which changes the difference.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use ipnet::Ipv4Net;
use skep_api::{AssignedNetwork, Backend, ServiceEndpoint};
use skep_model::{NetworkId, PortProtocol, PortSpec, PublishMode, ServiceId, Slot, Task, TaskId};
use skep_overlay::plan::{self, NodeNetwork, Protocol, Published};

/// What the node was told of the cluster's network.
#[derive(Debug, Clone, Default)]
pub struct ClusterView {
    pub networks: BTreeMap<NetworkId, AssignedNetwork>,
    pub endpoints: BTreeMap<ServiceId, ServiceEndpoint>,
}

/// One container of this node on the network.
#[derive(Debug, Clone)]
pub struct LocalEndpoint {
    /// In the order of the task's networks.
    pub addresses: Vec<(NetworkId, Ipv4Addr)>,
    /// Names on each network, best first.
    pub names: BTreeMap<NetworkId, Vec<String>>,
    /// Takes requests: running, healthy, and not about to stop.
    pub serving: bool,
    /// Ports of this node that lead to this container alone, every number filled in.
    pub host_ports: Vec<PortSpec>,
}

/// The node's whole network. `pool` is the range of the cluster's networks.
pub fn node_network(
    cluster: &ClusterView,
    local: &BTreeMap<TaskId, LocalEndpoint>,
    pool: Ipv4Net,
    upstreams: &[SocketAddr],
) -> NodeNetwork {
    NodeNetwork {
        networks: cluster.networks.values().map(overlay_network).collect(),
        endpoints: endpoints(local),
        services: cluster.endpoints.values().flat_map(|endpoint| services(cluster, endpoint)).collect(),
        published: published(cluster, local),
        pool,
        upstreams: upstreams.to_vec(),
        search: Vec::new(),
    }
}

pub fn overlay_network(network: &AssignedNetwork) -> plan::Network {
    plan::Network {
        id: network.id.to_string(),
        name: network.spec.name.clone(),
        subnet: network.subnet,
        gateway: network.gateway,
        internal: network.spec.internal,
    }
}

/// The names that a task's container answers to on one network: container, slot, host name.
///
/// Aliases belong to the service: they stand for all of its tasks.
pub fn container_names(task: &Task, hostname: &str) -> Vec<String> {
    let mut names = vec![task.container_name(), task.name(), task.id.short()];
    if let Slot::Replica(number) = task.slot
        && let Some(short) = short_name(&task.service_name)
    {
        names.push(format!("{short}.{number}"));
    }
    if !names.iter().any(|name| name == hostname) {
        names.push(hostname.to_owned());
    }
    names
}

/// `web` of `shop_web`: the name that the stack's own file uses.
///
/// Stack and service may hold underscores; every suffix after one would be a guess, so the service's
/// aliases carry the short name and this is only the container's.
fn short_name(service: &str) -> Option<&str> {
    service.split_once('_').map(|(_, short)| short)
}

fn endpoints(local: &BTreeMap<TaskId, LocalEndpoint>) -> Vec<plan::Endpoint> {
    let each = local.iter().flat_map(|(task, endpoint)| {
        endpoint.addresses.iter().map(move |(network, address)| plan::Endpoint {
            sandbox: task.to_string(),
            network: network.to_string(),
            address: *address,
            names: endpoint.names.get(network).cloned().unwrap_or_default(),
            serving: endpoint.serving,
        })
    });
    each.collect()
}

fn services<'a>(cluster: &'a ClusterView, endpoint: &'a ServiceEndpoint) -> impl Iterator<Item = plan::Service> + 'a {
    let here = endpoint.networks.iter().filter(|on| cluster.networks.contains_key(&on.network));
    here.map(|on| {
        let mut names = vec![endpoint.name.clone()];
        names.extend(on.aliases.iter().filter(|alias| **alias != endpoint.name).cloned());
        plan::Service {
            network: on.network.to_string(),
            vip: on.virtual_ip,
            names,
            backends: addresses_on(&endpoint.backends, on.network)
                .map(|address| plan::Backend { address, serving: true })
                .collect(),
        }
    })
}

fn addresses_on(backends: &[Backend], network: NetworkId) -> impl Iterator<Item = Ipv4Addr> + '_ {
    let addresses = backends.iter().flat_map(|backend| backend.addresses.iter());
    addresses.filter(move |address| address.network == network).map(|address| address.address)
}

/// Ingress ports of every service, then the ports of this node's own containers.
fn published(cluster: &ClusterView, local: &BTreeMap<TaskId, LocalEndpoint>) -> Vec<Published> {
    let mut published = Vec::new();
    for endpoint in cluster.endpoints.values() {
        for port in endpoint.ports.iter().filter(|port| port.mode == PublishMode::Ingress) {
            let backends = endpoint.backends.iter().filter_map(|backend| reachable(cluster, backend)).collect();
            published.push(publish(port, backends, plan::PublishMode::Ingress));
        }
    }
    for endpoint in local.values() {
        let first = endpoint.addresses.first().map(|(_, address)| *address);
        for port in &endpoint.host_ports {
            let backends = first.filter(|_| endpoint.serving).into_iter().collect();
            published.push(publish(port, backends, plan::PublishMode::Host));
        }
    }
    published
}

/// A backend's address on a network that this node is on, one with a way out first.
fn reachable(cluster: &ClusterView, backend: &Backend) -> Option<Ipv4Addr> {
    let known = |network: &NetworkId| cluster.networks.get(network);
    let on = || backend.addresses.iter().filter(|address| known(&address.network).is_some());
    let outward = on().find(|address| known(&address.network).is_some_and(|network| !network.spec.internal));
    outward.or_else(|| on().next()).map(|address| address.address)
}

fn publish(port: &PortSpec, backends: Vec<Ipv4Addr>, mode: plan::PublishMode) -> Published {
    Published {
        protocol: match port.protocol {
            PortProtocol::Tcp => Protocol::Tcp,
            PortProtocol::Udp => Protocol::Udp,
        },
        published: port.published,
        bind: port.host_ip,
        target: port.target,
        backends,
        mode,
    }
}
