//! Which nodes can take a task: Swarm's filters, in Swarm's order.
//!
//! A node counts for the first filter that refuses it, and `explain` tells the user how many nodes each
//! filter refused.

use std::collections::{BTreeMap, BTreeSet};

use skep_model::{GenericRequest, MemoryBytes, NanoCpus, NodeId, Placement, PortProtocol, PortSpec, Task, TaskSpec};

use crate::fleet::{NodeView, claimed_port};
use crate::platform;

/// What one group of equal tasks asks of a node.
#[derive(Debug)]
pub struct Filter<'a> {
    pub placement: &'a Placement,
    pub cpus: NanoCpus,
    pub memory: MemoryBytes,
    pub generic: &'a [GenericRequest],
    pub ports: Vec<(PortProtocol, u16)>,
    /// The feature level that the node's skep must have to run the task as it was asked for.
    pub level: u32,
    /// The nodes that other services' tasks allow; absent for nearly all services, which mind none.
    pub company: Option<BTreeSet<NodeId>>,
}

/// Why a node cannot take a task; the order is that of the filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    Fits,
    NotReady,
    Resources,
    Constraints,
    Platform,
    Level,
    HostPort,
    MaxReplicas,
    Company,
}

impl Verdict {
    /// The filter's name; none of a node that fits.
    pub fn word(self) -> Option<&'static str> {
        Some(match self {
            Verdict::Fits => return None,
            Verdict::NotReady => "ready",
            Verdict::Resources => "resources",
            Verdict::Constraints => "constraints",
            Verdict::Platform => "platform",
            Verdict::Level => "version",
            Verdict::HostPort => "host-port",
            Verdict::MaxReplicas => "max-replicas",
            Verdict::Company => "affinity",
        })
    }
}

impl<'a> Filter<'a> {
    pub fn new(task: &'a Task) -> Self {
        Self::of(&task.spec, &task.host_ports)
    }

    pub fn of(spec: &'a TaskSpec, host_ports: &[PortSpec]) -> Self {
        let reserved = spec.resources.reservations;
        Self {
            placement: &spec.placement,
            cpus: reserved.nano_cpus.unwrap_or_default(),
            memory: reserved.memory.unwrap_or_default(),
            generic: &spec.resources.generic,
            ports: host_ports.iter().filter_map(claimed_port).collect(),
            level: spec.level_of_agent(),
            company: None,
        }
    }

    pub fn check(&self, view: &NodeView) -> Verdict {
        let placement = self.placement;
        if !view.takes_tasks() {
            Verdict::NotReady
        } else if !self.has_resources(view) {
            Verdict::Resources
        } else if !view.node.satisfies(&placement.constraints) {
            Verdict::Constraints
        } else if !platform::runs(view.node, &placement.platforms) {
            Verdict::Platform
        } else if view.node.level() < self.level {
            Verdict::Level
        } else if self.ports.iter().any(|port| view.host_ports.contains(port)) {
            Verdict::HostPort
        } else if self.has_enough(view) {
            Verdict::MaxReplicas
        } else if self.company.as_ref().is_some_and(|company| !company.contains(&view.node.id)) {
            Verdict::Company
        } else {
            Verdict::Fits
        }
    }

    /// Whether the node has what one more task takes; once it has not, it never has again while tasks are placed.
    pub fn has_room(&self, view: &NodeView) -> bool {
        self.has_resources(view) && !self.ports.iter().any(|port| view.host_ports.contains(port))
    }

    fn has_resources(&self, view: &NodeView) -> bool {
        view.free_cpus >= self.cpus
            && view.free_memory >= self.memory
            && self.generic.iter().all(|wanted| view.free_generic(&wanted.kind) >= wanted.amount)
    }

    /// Whether the node has as many tasks of the service as it may.
    pub fn has_enough(&self, view: &NodeView) -> bool {
        let most = self.placement.max_replicas_per_node;
        most > 0 && u64::from(view.standing.tasks) >= most
    }

    /// `no suitable node (…)`, most frequent reason first.
    pub fn explain<'v, 'n: 'v>(&self, views: impl Iterator<Item = &'v NodeView<'n>>) -> String {
        let mut refused: BTreeMap<Verdict, usize> = BTreeMap::new();
        for view in views {
            *refused.entry(self.check(view)).or_default() += 1;
        }
        refused.remove(&Verdict::Fits);
        let mut counted: Vec<_> = refused.into_iter().collect();
        counted.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let reasons: Vec<String> = counted.into_iter().map(|(verdict, count)| self.words(verdict, count)).collect();
        match reasons.is_empty() {
            true => "no suitable node".to_owned(),
            false => format!("no suitable node ({})", reasons.join("; ")),
        }
    }

    fn words(&self, verdict: Verdict, count: usize) -> String {
        let nodes = if count == 1 { "1 node".to_owned() } else { format!("{count} nodes") };
        match verdict {
            Verdict::Fits => nodes,
            Verdict::NotReady => format!("{nodes} not available for new tasks"),
            Verdict::Resources => format!("insufficient resources on {nodes}"),
            Verdict::Constraints => format!("scheduling constraints not satisfied on {nodes}"),
            Verdict::Platform => format!("unsupported platform on {nodes}"),
            Verdict::Level => format!("skep is too old on {nodes}"),
            Verdict::HostPort => format!("host-mode port already in use on {nodes}"),
            Verdict::MaxReplicas => format!("max replicas per node limit exceeded on {nodes}"),
            Verdict::Company => format!("service affinity not satisfied on {nodes}"),
        }
    }
}
