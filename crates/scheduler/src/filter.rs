//! Which nodes can take a task: Swarm's filters, in Swarm's order.
//!
//! A node counts for the first filter that refuses it, and `explain` tells the user how many nodes each
//! filter refused.

use std::collections::BTreeMap;

use skep_model::{MemoryBytes, NanoCpus, Node, Placement, Platform, PlatformSpec, PortProtocol, Task};

use crate::fleet::{NodeView, claimed_port};

/// What one group of equal tasks asks of a node.
#[derive(Debug)]
pub struct Filter<'a> {
    pub placement: &'a Placement,
    pub cpus: NanoCpus,
    pub memory: MemoryBytes,
    pub ports: Vec<(PortProtocol, u16)>,
}

/// Why a node cannot take a task; the order is that of the filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    Fits,
    NotReady,
    Resources,
    Constraints,
    Platform,
    HostPort,
    MaxReplicas,
}

impl<'a> Filter<'a> {
    pub fn new(task: &'a Task) -> Self {
        let reserved = task.spec.resources.reservations;
        Self {
            placement: &task.spec.placement,
            cpus: reserved.nano_cpus.unwrap_or_default(),
            memory: reserved.memory.unwrap_or_default(),
            ports: task.host_ports.iter().filter_map(claimed_port).collect(),
        }
    }

    pub fn check(&self, view: &NodeView) -> Verdict {
        let placement = self.placement;
        if !view.takes_tasks() {
            Verdict::NotReady
        } else if view.free_cpus < self.cpus || view.free_memory < self.memory {
            Verdict::Resources
        } else if !view.node.satisfies(&placement.constraints) {
            Verdict::Constraints
        } else if !platform_fits(view.node, &placement.platforms) {
            Verdict::Platform
        } else if self.ports.iter().any(|port| view.host_ports.contains(port)) {
            Verdict::HostPort
        } else if self.has_enough(view) {
            Verdict::MaxReplicas
        } else {
            Verdict::Fits
        }
    }

    /// Whether the node has what one more task takes; once it has not, it never has again while tasks are placed.
    pub fn has_room(&self, view: &NodeView) -> bool {
        view.free_cpus >= self.cpus
            && view.free_memory >= self.memory
            && !self.ports.iter().any(|port| view.host_ports.contains(port))
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
            Verdict::HostPort => format!("host-mode port already in use on {nodes}"),
            Verdict::MaxReplicas => format!("max replicas per node limit exceeded on {nodes}"),
        }
    }
}

pub fn platform_fits(node: &Node, wanted: &[PlatformSpec]) -> bool {
    let Some(description) = &node.description else { return wanted.is_empty() };
    wanted.is_empty() || wanted.iter().any(|spec| description.platforms.iter().any(|platform| matches(platform, spec)))
}

fn matches(platform: &Platform, spec: &PlatformSpec) -> bool {
    let equal = |have: &str, want: &str| want.is_empty() || normal(have) == normal(want);
    equal(&platform.os, &spec.os)
        && equal(&platform.architecture, &spec.architecture)
        && (spec.variant.is_empty() || platform.variant.is_empty() || platform.variant == spec.variant)
}

/// `uname`'s words and Go's are the same processor.
fn normal(architecture: &str) -> &str {
    match architecture {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "armv7l" | "armv6l" => "arm",
        other => other,
    }
}
