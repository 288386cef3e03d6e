//! What the scheduler knows of one node: what is free on it, and what runs there.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use skep_model::{
    Availability, Cluster, MemoryBytes, NanoCpus, Node, NodeId, NodeState, PortProtocol, PortSpec, ServiceId, Task,
    TaskState, Timestamp, Version,
};

/// A service that failed this often on a node within [`FAILURE_MEMORY`] is placed there last.
const FAILURES_TO_AVOID: u32 = 5;
const FAILURE_MEMORY: Duration = Duration::from_secs(5 * 60);

#[derive(Debug)]
pub struct NodeView<'a> {
    pub id: NodeId,
    pub node: &'a Node,
    pub free_cpus: NanoCpus,
    pub free_memory: MemoryBytes,
    pub tasks: u32,
    pub host_ports: BTreeSet<(PortProtocol, u16)>,
    of_service: BTreeMap<ServiceId, u32>,
    recent_failures: BTreeMap<(ServiceId, Version), u32>,
}

impl<'a> NodeView<'a> {
    pub fn new(cluster: &'a Cluster, node: &'a Node, now: Timestamp) -> Self {
        let total = node.description.as_ref().map(|description| description.resources).unwrap_or_default();
        let mut view = Self {
            id: node.id,
            node,
            free_cpus: total.nano_cpus,
            free_memory: total.memory,
            tasks: 0,
            host_ports: BTreeSet::new(),
            of_service: BTreeMap::new(),
            recent_failures: BTreeMap::new(),
        };
        for task in cluster.tasks_of_node(node.id) {
            if task.occupies_node() {
                view.take(task);
            }
            let failed = matches!(task.status.state, TaskState::Failed | TaskState::Rejected);
            if failed && now.since(task.status.at) < FAILURE_MEMORY {
                *view.recent_failures.entry((task.service, task.spec_version)).or_default() += 1;
            }
        }
        view
    }

    /// Sets aside what `task` needs.
    pub fn take(&mut self, task: &Task) {
        let reserved = task.spec.resources.reservations;
        self.free_cpus.0 = self.free_cpus.0.saturating_sub(reserved.nano_cpus.unwrap_or_default().0);
        self.free_memory.0 = self.free_memory.0.saturating_sub(reserved.memory.unwrap_or_default().0);
        self.host_ports.extend(task.host_ports.iter().filter_map(claimed_port));
        self.tasks += 1;
        *self.of_service.entry(task.service).or_default() += 1;
    }

    pub fn tasks_of(&self, service: ServiceId) -> u32 {
        self.of_service.get(&service).copied().unwrap_or(0)
    }

    /// Failures that count against this node; 0 below the threshold.
    pub fn failures_to_avoid(&self, task: &Task) -> u32 {
        let failures = self.recent_failures.get(&(task.service, task.spec_version)).copied().unwrap_or(0);
        if failures >= FAILURES_TO_AVOID { failures } else { 0 }
    }

    pub fn takes_tasks(&self) -> bool {
        self.node.status.state == NodeState::Ready && self.node.spec.availability == Availability::Active
    }
}

/// The port that a host-mode publication takes of its node; none when the node chooses a free one.
pub fn claimed_port(port: &PortSpec) -> Option<(PortProtocol, u16)> {
    (port.published != 0).then_some((port.protocol, port.published))
}
