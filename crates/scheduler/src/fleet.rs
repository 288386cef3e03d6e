//! What the scheduler knows of the nodes: what is free on each, and what the service at hand has there.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use skep_model::{
    Availability, Cluster, MemoryBytes, NanoCpus, Node, NodeId, NodeState, PortProtocol, PortSpec, ServiceId, Task,
    TaskState, Timestamp, Version,
};

use crate::filter::Filter;
use crate::loads::Loads;

/// A service that failed this often on a node within [`FAILURE_MEMORY`] is placed there last.
const FAILURES_TO_AVOID: u32 = 5;
const FAILURE_MEMORY: Duration = Duration::from_secs(5 * 60);

/// All nodes, by id; elsewhere a node is its position here.
#[derive(Debug)]
pub struct Fleet<'a> {
    pub views: Vec<NodeView<'a>>,
    pub loads: Loads,
    /// Tasks placed so far, of all services.
    pub placed: u64,
    ids: Vec<NodeId>,
    /// Where tasks of the services to place are; a node stands there once for each task.
    occupied: BTreeMap<ServiceId, Vec<usize>>,
    /// Where tasks of these services failed lately, sorted.
    failed: Vec<(ServiceId, Version, usize)>,
    /// Nodes with a standing, in no order.
    standing: Vec<usize>,
    /// Nodes that took a task of the service at hand.
    taken: Vec<usize>,
}

#[derive(Debug)]
pub struct NodeView<'a> {
    pub node: &'a Node,
    pub free_cpus: NanoCpus,
    pub free_memory: MemoryBytes,
    pub tasks: u32,
    pub host_ports: BTreeSet<(PortProtocol, u16)>,
    pub standing: Standing,
}

/// What a node is to the service at hand; most nodes have none of its tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Standing {
    /// Recent failures that count against the node; 0 below the threshold.
    pub failures: u32,
    pub tasks: u32,
}

impl<'a> Fleet<'a> {
    /// The nodes as they are, with the history of `services`.
    pub fn new(cluster: &'a Cluster, services: impl Iterator<Item = ServiceId>, now: Timestamp) -> Self {
        let mut fleet = Self {
            views: cluster.nodes.values().map(|node| NodeView::new(node)).collect(),
            loads: Loads::default(),
            placed: 0,
            ids: cluster.nodes.keys().copied().collect(),
            occupied: services.map(|service| (service, Vec::new())).collect(),
            failed: Vec::new(),
            standing: Vec::new(),
            taken: Vec::new(),
        };
        for task in cluster.tasks.values() {
            if let Some(at) = task.node.and_then(|node| fleet.position(node)) {
                fleet.remember(at, task, now);
            }
        }
        fleet.failed.sort_unstable();
        fleet.loads = Loads::new(fleet.views.iter().map(|view| view.tasks));
        fleet
    }

    fn remember(&mut self, at: usize, task: &Task, now: Timestamp) {
        if task.occupies_node() {
            self.views[at].take(&Filter::new(task));
            if let Some(nodes) = self.occupied.get_mut(&task.service) {
                nodes.push(at);
            }
        }
        let failed = matches!(task.status.state, TaskState::Failed | TaskState::Rejected);
        if failed && now.since(task.status.at) < FAILURE_MEMORY && self.occupied.contains_key(&task.service) {
            self.failed.push((task.service, task.spec_version, at));
        }
    }

    pub fn position(&self, node: NodeId) -> Option<usize> {
        self.ids.binary_search(&node).ok()
    }

    /// Turns to the service and version of `task`: every node's standing becomes its own.
    pub fn begin(&mut self, task: &Task) {
        let of_version = |(service, version, _): &(ServiceId, Version, usize)| (*service, *version);
        let key = (task.service, task.spec_version);
        let first = self.failed.partition_point(|failure| of_version(failure) < key);
        let failed = self.failed[first..].iter().take_while(|failure| of_version(failure) == key);
        for at in failed.map(|(.., at)| *at) {
            self.views[at].standing.failures += 1;
            self.standing.push(at);
        }
        for at in &self.standing {
            let failures = &mut self.views[*at].standing.failures;
            // Repeated positions see the whole count, or what it was cut to.
            *failures = if *failures >= FAILURES_TO_AVOID { *failures } else { 0 };
        }
        for at in self.occupied.get(&task.service).into_iter().flatten() {
            self.views[*at].standing.tasks += 1;
            self.standing.push(*at);
        }
    }

    /// Nodes that are not like any other for the service at hand, each once.
    pub fn with_standing(&self) -> BTreeSet<usize> {
        self.standing.iter().copied().filter(|at| self.views[*at].standing != Standing::default()).collect()
    }

    /// Sets aside on a node what one task of the service at hand needs.
    pub fn take(&mut self, at: usize, filter: &Filter) {
        let nodes = self.views.len();
        let view = &mut self.views[at];
        self.loads.raise(at, view.tasks, nodes);
        view.take(filter);
        view.standing.tasks += 1;
        self.taken.push(at);
        self.placed += 1;
    }

    /// Whether no node has a task or a failure of the service at hand, those just placed included.
    pub fn knows_nothing(&self) -> bool {
        self.standing.is_empty() && self.taken.is_empty()
    }

    /// Turns away from `service`, and remembers what its tasks took.
    pub fn end(&mut self, service: ServiceId) {
        for at in self.standing.drain(..).chain(self.taken.iter().copied()) {
            self.views[at].standing = Standing::default();
        }
        self.occupied.entry(service).or_default().append(&mut self.taken);
    }
}

impl<'a> NodeView<'a> {
    fn new(node: &'a Node) -> Self {
        let total = node.description.as_ref().map(|description| description.resources).unwrap_or_default();
        Self {
            node,
            free_cpus: total.nano_cpus,
            free_memory: total.memory,
            tasks: 0,
            host_ports: BTreeSet::new(),
            standing: Standing::default(),
        }
    }

    fn take(&mut self, filter: &Filter) {
        self.free_cpus.0 = self.free_cpus.0.saturating_sub(filter.cpus.0);
        self.free_memory.0 = self.free_memory.0.saturating_sub(filter.memory.0);
        self.host_ports.extend(filter.ports.iter().copied());
        self.tasks += 1;
    }

    pub fn takes_tasks(&self) -> bool {
        self.node.status.state == NodeState::Ready && self.node.spec.availability == Availability::Active
    }
}

/// The port that a host-mode publication takes of its node; none when the node chooses a free one.
pub fn claimed_port(port: &PortSpec) -> Option<(PortProtocol, u16)> {
    (port.published != 0).then_some((port.protocol, port.published))
}
