//! What one node needs to run its tasks: computed from the cluster, sent as a full set and then as deltas.
//!
//! Pure. A node gets its own tasks, the contents and networks that these use, the endpoints of the services that these
//! can reach or that are published on every node, and its peers in the tunnel; nothing of anybody else's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use skep_api::{
    AssignedContent, AssignedNetwork, Assignment, AssignmentKey, Assignments, Backend, EndpointNetwork, ServiceEndpoint,
};
use skep_model::{
    Cluster, DesiredState, Meta, Network, NetworkDriver, NetworkId, NodeId, NodeState, PublishMode, Service, Task,
    TaskState, TaskStatus,
};

use crate::peers::peers_for;

/// One node's whole set.
pub type AssignmentSet = BTreeMap<AssignmentKey, Assignment>;

/// Everything that `node` is to have.
pub fn assignments_for(cluster: &Cluster, node: NodeId) -> AssignmentSet {
    let (mut set, networks) = own_assignments(cluster, node);
    set.extend(peers_for(cluster, node, &networks));
    set
}

/// What `node` is to have but for its peers, and the networks among it.
pub fn own_assignments(cluster: &Cluster, node: NodeId) -> (AssignmentSet, BTreeSet<NetworkId>) {
    let mut set = AssignmentSet::new();
    let mut add = |assignment: Assignment| drop(set.insert(assignment.key(), assignment));
    let mut networks: BTreeSet<NetworkId> = BTreeSet::new();
    for task in cluster.tasks_of_node(node) {
        if !task.status.state.is_terminal() {
            networks.extend(&task.networks);
            contents_of(cluster, task).into_iter().for_each(&mut add);
        }
        add(Assignment::Task(Box::new(as_assigned(task))));
    }
    let mut answered = networks.clone();
    for service in cluster.services.values() {
        let reachable = service.spec.task.networks.iter().any(|attachment| {
            cluster.network_named(&attachment.network).is_some_and(|network| networks.contains(&network.id))
        });
        let published = service.endpoint.ports.iter().any(|port| port.mode == PublishMode::Ingress);
        if reachable || published {
            add(Assignment::Endpoint(endpoint(cluster, service)));
        }
        if published {
            answered.extend(way_in(cluster, service));
        }
    }
    for network in answered.iter().filter_map(|id| cluster.networks.get(id)) {
        add(Assignment::Network(assigned_network(cluster, network, node)));
    }
    (set, answered)
}

/// The network over which a node without a task of the service leads its published ports on: one with a way out first,
/// as its own nodes have it.
fn way_in(cluster: &Cluster, service: &Service) -> Option<NetworkId> {
    let attachments = service.spec.task.networks.iter();
    let named = || attachments.clone().filter_map(|attachment| cluster.network_named(&attachment.network));
    // A node does not reach stations of its own local network.
    let on = || named().filter(|network| network.spec.driver() != NetworkDriver::Macvlan);
    on().find(|network| !network.spec.internal).or_else(|| on().next()).map(|network| network.id)
}

/// The difference from what the agent has to what it is to have; `None` when there is none.
pub fn delta(base: u64, have: &AssignmentSet, want: &AssignmentSet) -> Option<Assignments> {
    Difference::between(have, want).after(base)
}

/// What one set has and another has not, or not so.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Difference {
    set: Vec<Assignment>,
    removed: Vec<AssignmentKey>,
}

impl Difference {
    pub fn between(have: &AssignmentSet, want: &AssignmentSet) -> Self {
        let news = want.iter().filter(|(key, value)| have.get(key) != Some(value));
        let removed = have.keys().filter(|key| !want.contains_key(key));
        Self { set: news.map(|(_, value)| value.clone()).collect(), removed: removed.cloned().collect() }
    }

    pub fn extend(&mut self, other: Self) {
        self.set.extend(other.set);
        self.removed.extend(other.removed);
    }

    /// As it is sent to an agent that has nothing, and has revision `revision` afterwards.
    pub fn whole(self, revision: u64) -> Assignments {
        Assignments { base: None, revision, set: self.set, removed: self.removed }
    }

    /// As it is sent to an agent that has revision `base`; `None` when there is nothing to send.
    pub fn after(self, base: u64) -> Option<Assignments> {
        let Self { set, removed } = self;
        let empty = set.is_empty() && removed.is_empty();
        (!empty).then_some(Assignments { base: Some(base), revision: base + 1, set, removed })
    }
}

/// A task without what its own agent reported, which would only come back to it; an end is kept, so that
/// an agent that lost its memory does not run the task again.
fn as_assigned(task: &Task) -> Task {
    let mut assigned = task.clone();
    assigned.meta = Meta { version: Default::default(), ..task.meta };
    assigned.meta.updated_at = task.meta.created_at;
    if !task.status.state.is_terminal() {
        assigned.status = TaskStatus::new(TaskState::Assigned, task.meta.created_at, "");
    }
    assigned
}

fn contents_of(cluster: &Cluster, task: &Task) -> Vec<Assignment> {
    let container = &task.spec.container;
    let secrets = container.secrets.iter().filter_map(|reference| {
        let contents = &cluster.secret_named(&reference.secret)?.contents;
        let digest = reference.digest.as_ref().unwrap_or(&contents.current);
        Some(Assignment::Secret(content(&reference.secret, digest, &contents.get(digest)?.data)))
    });
    let configs = container.configs.iter().filter_map(|reference| {
        let contents = &cluster.config_named(&reference.config)?.contents;
        let digest = reference.digest.as_ref().unwrap_or(&contents.current);
        Some(Assignment::Config(content(&reference.config, digest, &contents.get(digest)?.data)))
    });
    secrets.chain(configs).collect()
}

fn content(name: &str, digest: &skep_model::ContentDigest, data: &Arc<[u8]>) -> AssignedContent {
    AssignedContent { digest: digest.clone(), name: name.to_owned(), data: Bytes::from_owner(Arc::clone(data)) }
}

fn assigned_network(cluster: &Cluster, network: &Network, node: NodeId) -> AssignedNetwork {
    AssignedNetwork {
        id: network.id,
        spec: network.spec.clone(),
        subnet: network.subnet,
        gateway: network.gateway,
        blocks: network.blocks_of(node).collect(),
        subnet_v6: network.subnet_v6,
        reserved: cluster.reserved_addresses(network).into_iter().collect(),
    }
}

fn endpoint(cluster: &Cluster, service: &Service) -> ServiceEndpoint {
    let attachments = service.spec.task.networks.iter();
    let networks = attachments.filter_map(|attachment| {
        let network = cluster.network_named(&attachment.network)?.id;
        let vip = service.endpoint.virtual_ips.iter().find(|vip| vip.network == network);
        Some(EndpointNetwork { network, virtual_ip: vip.map(|vip| vip.address), aliases: attachment.aliases.clone() })
    });
    let tasks = || cluster.tasks_of_service(service.id);
    ServiceEndpoint {
        service: service.id,
        name: service.name().to_owned(),
        mode: service.spec.endpoint.mode,
        networks: networks.collect(),
        ports: service.endpoint.ports.clone(),
        backends: tasks().filter(|task| serves(task)).filter_map(|task| backend(task)).collect(),
        draining: tasks().filter(|task| drains(cluster, task)).filter_map(|task| backend(task)).collect(),
        session_affinity: service.spec.endpoint.session_affinity,
        prefer_local: service.spec.endpoint.prefer_local,
    }
}

/// A task that is to stop leaves the maps before it gets its signal.
fn serves(task: &Task) -> bool {
    task.status.state == TaskState::Running && task.desired == DesiredState::Running
}

/// It ends its connections in order, unless its node is lost, and they with it.
fn drains(cluster: &Cluster, task: &Task) -> bool {
    let node = task.node.and_then(|node| cluster.nodes.get(&node));
    task.status.state == TaskState::Running
        && task.desired > DesiredState::Running
        && node.is_some_and(|node| node.status.state != NodeState::Down)
}

fn backend(task: &Task) -> Option<Backend> {
    Some(Backend {
        task: task.id,
        slot: task.slot,
        node: task.node?,
        addresses: task.status.addresses.clone(),
        hostname: task.spec.container.hostname.clone(),
    })
}
