//! From a node's assignments and its own containers to what its network should be.
//!
//! Pure: the whole picture is made anew each time and handed to the overlay, which changes the difference.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};

use ipnet::Ipv4Net;
use skep_api::{AssignedNetwork, AssignedPeer, AssignedPlace, EndpointNetwork, ServiceEndpoint};
use skep_model::{
    NetworkDriver, NetworkId, NetworkSpec, NodeId, PARENT, PortProtocol, PortSpec, PublishMode, ServiceId,
    SessionAffinity, Slot, Task, TaskId,
};
use skep_overlay::plan::{self, Balance, Choice, Mesh, NodeNetwork, Protocol, Published};

/// What the node was told of the cluster's network.
#[derive(Debug, Clone, Default)]
pub struct ClusterView {
    pub networks: BTreeMap<NetworkId, AssignedNetwork>,
    pub endpoints: BTreeMap<ServiceId, ServiceEndpoint>,
    /// The node itself in the tunnel, and the others.
    pub place: Option<AssignedPlace>,
    pub peers: BTreeMap<NodeId, AssignedPeer>,
    /// The node's own tasks, as long as no manager has said anything since the daemon's start: then the node itself says
    /// which of them take requests.
    pub unconfirmed: Option<BTreeSet<TaskId>>,
}

/// One container of this node on the network.
#[derive(Debug, Clone)]
pub struct LocalEndpoint {
    pub service: ServiceId,
    /// In the order of the task's networks.
    pub addresses: Vec<(NetworkId, Ipv4Addr)>,
    /// Names on each network, best first.
    pub names: BTreeMap<NetworkId, Vec<String>>,
    /// Takes requests: running, healthy, and not about to stop.
    pub serving: bool,
    /// It is about to stop, whatever the managers know.
    pub withdrawn: bool,
    /// Ports of this node that lead to this container alone, every number filled in.
    pub host_ports: Vec<PortSpec>,
}

/// The node's whole network. `pool` is the range of the cluster's networks, where no manager has said another.
pub fn node_network(
    cluster: &ClusterView,
    local: &BTreeMap<TaskId, LocalEndpoint>,
    pool: Ipv4Net,
    upstreams: &[SocketAddr],
    mesh: Option<Mesh>,
) -> NodeNetwork {
    NodeNetwork {
        networks: cluster.networks.values().map(overlay_network).collect(),
        endpoints: endpoints(local),
        elsewhere: elsewhere(cluster, local),
        services: cluster.endpoints.values().flat_map(|endpoint| services(cluster, local, endpoint)).collect(),
        published: published(cluster, local),
        pool: cluster.place.map_or(pool, |place| place.pool),
        upstreams: upstreams.to_vec(),
        search: Vec::new(),
        mesh,
        prefix: cluster.place.and_then(|place| place.prefix),
        v4_only: v4_only(cluster, local),
    }
}

/// Other nodes' tasks that have no IPv6 address: their kernel has none, or their agent is older.
fn v4_only(cluster: &ClusterView, local: &BTreeMap<TaskId, LocalEndpoint>) -> BTreeSet<Ipv4Addr> {
    let tasks = cluster.endpoints.values().flat_map(|endpoint| endpoint.backends.iter().chain(&endpoint.draining));
    let others = tasks.filter(|backend| !local.contains_key(&backend.task)).flat_map(|backend| &backend.addresses);
    others.filter(|at| at.address_v6.is_none()).map(|at| at.address).collect()
}

pub fn overlay_network(network: &AssignedNetwork) -> plan::Network {
    plan::Network {
        id: network.id.to_string(),
        name: network.spec.name.clone(),
        subnet: network.subnet,
        subnet_v6: network.subnet_v6,
        gateway: network.gateway,
        blocks: network.blocks.clone(),
        internal: network.spec.internal,
        driver: driver(&network.spec),
    }
}

fn driver(spec: &NetworkSpec) -> plan::Driver {
    match spec.driver() {
        NetworkDriver::Overlay => plan::Driver::Overlay,
        NetworkDriver::Bridge => plan::Driver::Bridge,
        NetworkDriver::Macvlan => {
            plan::Driver::Macvlan { parent: spec.driver_options.get(PARENT).cloned().unwrap_or_default() }
        }
    }
}

/// Whether this node's containers meet only each other there.
fn is_of_node(cluster: &ClusterView, network: NetworkId) -> bool {
    cluster.networks.get(&network).is_some_and(|network| network.spec.driver() == NetworkDriver::Bridge)
}

/// The names that a task's container answers to on one network: container, slot, host name.
///
/// Aliases belong to the service: they stand for all of its tasks.
pub fn container_names(task: &Task, hostname: &str) -> Vec<String> {
    names_of(&task.service_name, task.slot, task.id, hostname)
}

fn names_of(service: &str, slot: Slot, task: TaskId, hostname: &str) -> Vec<String> {
    let mut names = vec![format!("{service}.{slot}.{task}"), format!("{service}.{slot}"), task.short()];
    if let Slot::Replica(number) = slot
        && let Some(short) = short_name(service)
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

/// Other nodes' tasks of the services that this node knows, by the names that they have where they are.
fn elsewhere(cluster: &ClusterView, local: &BTreeMap<TaskId, LocalEndpoint>) -> Vec<plan::Elsewhere> {
    let each = cluster.endpoints.values().flat_map(|endpoint| {
        let tasks = endpoint.backends.iter().chain(&endpoint.draining);
        tasks.filter(|backend| !local.contains_key(&backend.task)).flat_map(|backend| {
            // A template is filled in by the task's own node.
            let hostname = backend.hostname.clone().filter(|name| !name.contains("{{"));
            let hostname = hostname.unwrap_or_else(|| backend.task.short());
            let names = names_of(&endpoint.name, backend.slot, backend.task, &hostname);
            let known = backend
                .addresses
                .iter()
                .filter(|at| cluster.networks.contains_key(&at.network) && !is_of_node(cluster, at.network));
            known.map(move |at| plan::Elsewhere {
                network: at.network.to_string(),
                address: at.address,
                names: names.clone(),
            })
        })
    });
    each.collect()
}

fn services(
    cluster: &ClusterView,
    local: &BTreeMap<TaskId, LocalEndpoint>,
    endpoint: &ServiceEndpoint,
) -> Vec<plan::Service> {
    let serving = serving(cluster, local, endpoint);
    let here = endpoint.networks.iter().filter(|on| cluster.networks.contains_key(&on.network));
    let service = |on: &EndpointNetwork| {
        let mut names = vec![endpoint.name.clone()];
        names.extend(on.aliases.iter().filter(|alias| **alias != endpoint.name).cloned());
        let is_here = |at: &Ipv4Addr| local.values().any(|here| here.addresses.contains(&(on.network, *at)));
        let of_node = is_of_node(cluster, on.network);
        let meets = |at: &Ipv4Addr| !of_node || is_here(at);
        let addresses = serving.iter().flatten().filter(|(network, address)| *network == on.network && meets(address));
        let draining = endpoint.draining.iter().flat_map(|backend| &backend.addresses);
        let draining = draining.filter(|address| address.network == on.network).map(|address| address.address);
        let draining = draining.filter(meets);
        let backend = |serving| move |address| plan::Backend { address, serving };
        plan::Service {
            network: on.network.to_string(),
            vip: on.virtual_ip,
            names,
            backends: addresses
                .map(|(_, address)| *address)
                .map(backend(true))
                .chain(draining.map(backend(false)))
                .collect(),
            balance: balance(endpoint),
        }
    };
    here.map(service).collect()
}

/// The addresses of each task of a service that takes requests.
///
/// Of its own containers the node knows best where they are: after a power cut a task may have come back under another
/// address, which the managers have not heard of yet.
fn serving(
    cluster: &ClusterView,
    local: &BTreeMap<TaskId, LocalEndpoint>,
    endpoint: &ServiceEndpoint,
) -> Vec<Vec<(NetworkId, Ipv4Addr)>> {
    let own = |task: &TaskId| cluster.unconfirmed.as_ref().is_some_and(|own| own.contains(task));
    let told = endpoint.backends.iter().filter(|backend| !own(&backend.task));
    let told = told.filter_map(|backend| match local.get(&backend.task) {
        // Found to be unhealthy, perhaps, which no manager has heard of yet.
        Some(here) => (!here.withdrawn).then(|| here.addresses.clone()),
        None => Some(backend.addresses.iter().map(|address| (address.network, address.address)).collect()),
    });
    let here = local.iter().filter(|(task, here)| own(task) && here.serving && here.service == endpoint.service);
    told.chain(here.map(|(_, here)| here.addresses.clone())).collect()
}

/// Ingress ports of every service, then the ports of this node's own containers.
fn published(cluster: &ClusterView, local: &BTreeMap<TaskId, LocalEndpoint>) -> Vec<Published> {
    let mut published = Vec::new();
    for endpoint in cluster.endpoints.values() {
        let serving = serving(cluster, local, endpoint);
        for port in endpoint.ports.iter().filter(|port| port.mode == PublishMode::Ingress) {
            let backends = serving.iter().filter_map(|addresses| reachable(cluster, addresses)).collect();
            published
                .push(Published { balance: balance(endpoint), ..publish(port, backends, plan::PublishMode::Ingress) });
        }
    }
    for endpoint in local.values() {
        let routed = endpoint.addresses.iter().find(|(network, _)| !is_local(cluster, *network));
        let first = routed.map(|(_, address)| *address);
        for port in &endpoint.host_ports {
            let backends = first.filter(|_| endpoint.serving).into_iter().collect();
            published.push(publish(port, backends, plan::PublishMode::Host));
        }
    }
    published
}

/// Whether its containers are stations of the local network, which their own node does not reach.
fn is_local(cluster: &ClusterView, network: NetworkId) -> bool {
    cluster.networks.get(&network).is_some_and(|network| network.spec.driver() == NetworkDriver::Macvlan)
}

/// A task's address on a network that this node is on, one with a way out first.
fn reachable(cluster: &ClusterView, addresses: &[(NetworkId, Ipv4Addr)]) -> Option<Ipv4Addr> {
    let routed = || addresses.iter().filter(|(network, _)| !is_local(cluster, *network));
    let on = || routed().filter_map(|(network, address)| Some((cluster.networks.get(network)?, *address)));
    let outward = on().find(|(network, _)| !network.spec.internal);
    outward.or_else(|| on().next()).map(|(_, address)| address)
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
        balance: Balance::default(),
    }
}

fn balance(endpoint: &ServiceEndpoint) -> Balance {
    let choice = match endpoint.session_affinity {
        None => Choice::Random,
        Some(SessionAffinity::ClientIp) => Choice::ByClient,
    };
    Balance { choice, local_first: endpoint.prefer_local }
}

#[cfg(test)]
mod tests {
    use skep_api::Backend;
    use skep_model::{EndpointMode, IdSource, NetworkAddress};

    use super::*;

    #[test]
    fn until_a_manager_speaks_the_node_says_which_of_its_own_tasks_serve_and_always_where() {
        let mut ids = IdSource::from_seed(1);
        let (service, network) = (ids.next_id(), ids.next_id());
        let (here, starting, elsewhere) = (ids.next_id(), ids.next_id(), ids.next_id());
        let at = |last| Ipv4Addr::new(10, 0, 0, last);
        let backend = |task, last| Backend {
            task,
            slot: Slot::Replica(1),
            node: IdSource::from_seed(2).next_id(),
            addresses: vec![NetworkAddress { network, address: at(last), address_v6: None }],
            hostname: None,
        };
        let local = |last, serving| LocalEndpoint {
            service,
            addresses: vec![(network, at(last))],
            names: BTreeMap::new(),
            serving,
            withdrawn: false,
            host_ports: Vec::new(),
        };
        let endpoint = ServiceEndpoint {
            service,
            name: "s_web".to_owned(),
            mode: EndpointMode::Vip,
            networks: Vec::new(),
            ports: Vec::new(),
            backends: vec![backend(here, 2), backend(starting, 3), backend(elsewhere, 4)],
            draining: Vec::new(),
            session_affinity: None,
            prefer_local: false,
        };
        let containers = BTreeMap::from([(here, local(12, true)), (starting, local(13, false))]);
        let found = |unconfirmed| {
            let cluster = ClusterView { unconfirmed, ..ClusterView::default() };
            serving(&cluster, &containers, &endpoint).into_iter().flatten().map(|(_, address)| address)
        };
        let confirmed: Vec<_> = found(None).collect();
        assert_eq!(confirmed, [at(12), at(13), at(4)]);
        let alone: Vec<_> = found(Some(BTreeSet::from([here, starting]))).collect();
        assert_eq!(alone, [at(4), at(12)]);
    }

    #[test]
    fn a_task_that_drains_elsewhere_takes_nothing_but_is_not_forgotten() {
        let mut ids = IdSource::from_seed(1);
        let (service, network) = (ids.next_id(), ids.next_id());
        let at = |last| Ipv4Addr::new(10, 0, 0, last);
        let mut backend = |last| Backend {
            task: ids.next_id(),
            slot: Slot::Replica(1),
            node: ids.next_id(),
            addresses: vec![NetworkAddress { network, address: at(last), address_v6: None }],
            hostname: None,
        };
        let endpoint = ServiceEndpoint {
            service,
            name: "s_web".to_owned(),
            mode: EndpointMode::Vip,
            networks: vec![EndpointNetwork { network, virtual_ip: Some(at(200)), aliases: Vec::new() }],
            ports: Vec::new(),
            backends: vec![backend(2)],
            draining: vec![backend(3)],
            session_affinity: None,
            prefer_local: false,
        };
        let subnet: Ipv4Net = "10.0.0.0/24".parse().expect("a network");
        let assigned = AssignedNetwork {
            id: network,
            spec: skep_model::NetworkSpec::default(),
            subnet,
            gateway: at(1),
            blocks: Vec::new(),
            subnet_v6: None,
            reserved: Vec::new(),
        };
        let networks = BTreeMap::from([(network, assigned)]);
        let endpoints = BTreeMap::from([(service, endpoint)]);
        let cluster = ClusterView { networks, endpoints, ..ClusterView::default() };
        let node = node_network(&cluster, &BTreeMap::new(), subnet, &[], None);
        let backends = &node.services[0].backends;
        assert_eq!(
            backends.iter().map(|b| (b.address, b.serving)).collect::<Vec<_>>(),
            [(at(2), true), (at(3), false)]
        );
    }
}
