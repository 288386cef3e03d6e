//! A task: one run of a service's container on one node, from its creation to its end.
//!
//! ```text
//! manager:  New → Pending → Assigned ─┐
//! agent:    Accepted → Preparing → Ready → Starting → Running ─┬→ Complete
//!                                                              ├→ Failed
//!           (fatal before Starting) → Rejected                 └→ Shutdown
//! ```
//! States only move forward. A task is never restarted: its slot gets a new one.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    GenericResource, Labels, Meta, NetworkId, NodeId, PortSpec, ServiceId, TaskId, TaskSpec, Timestamp, Version,
};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    pub id: TaskId,
    pub meta: Meta,
    pub service: ServiceId,
    /// The service's name when the task was made; a task outlives its service for a while.
    pub service_name: String,
    pub slot: Slot,
    pub spec: Arc<TaskSpec>,
    /// [`crate::Service::spec_version`] that it was made from.
    pub spec_version: Version,
    /// Networks of `spec.networks`, resolved, in the same order.
    pub networks: Vec<NetworkId>,
    /// The service's ports in host mode when the task was made: they belong to the task, not to the mesh.
    pub host_ports: Vec<PortSpec>,
    pub node: Option<NodeId>,
    pub desired: DesiredState,
    pub status: TaskStatus,
    /// A delayed restart: desired becomes `Running` no earlier than this.
    pub not_before: Option<Timestamp>,
    /// How many tasks of this slot and spec failed in a row before this one: the exponent of the back-off.
    pub failures_before: u32,
    /// The run of the job that it belongs to.
    pub iteration: Option<u64>,
    /// When it was first observed running; absent where a manager wrote it that did not note this.
    pub running_since: Option<Timestamp>,
    /// It was only ever to be ready, and then to stop: no node was told to start it.
    pub withdrawn: bool,
    /// What it was given of its node's generic resources, with its node.
    pub generic: Vec<GenericResource>,
    /// Why it is to stop, where its service's spec does not tell.
    pub stop_reason: Option<String>,
    /// Where the data of its slot's named volumes is.
    pub home: Option<NodeId>,
    /// Its service's labels when it was made, where its spec has templates, which may ask for them.
    pub service_labels: Labels,
}

/// Which of a service's places a task fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Slot {
    /// 1 and up, of a replicated service.
    Replica(u64),
    /// Of a global service.
    Node(NodeId),
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Slot::Replica(number) => write!(f, "{number}"),
            Slot::Node(node) => write!(f, "{node}"),
        }
    }
}

/// SwarmKit's observed states, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TaskState {
    New,
    Pending,
    Assigned,
    Accepted,
    Preparing,
    Ready,
    Starting,
    Running,
    Complete,
    Shutdown,
    Failed,
    Rejected,
    Remove,
    Orphaned,
}

impl TaskState {
    pub fn is_terminal(self) -> bool {
        self > TaskState::Running
    }

    /// The word that listings show, lower case.
    pub fn word(self) -> &'static str {
        match self {
            TaskState::New => "new",
            TaskState::Pending => "pending",
            TaskState::Assigned => "assigned",
            TaskState::Accepted => "accepted",
            TaskState::Preparing => "preparing",
            TaskState::Ready => "ready",
            TaskState::Starting => "starting",
            TaskState::Running => "running",
            TaskState::Complete => "complete",
            TaskState::Shutdown => "shutdown",
            TaskState::Failed => "failed",
            TaskState::Rejected => "rejected",
            TaskState::Remove => "remove",
            TaskState::Orphaned => "orphaned",
        }
    }
}

/// What managers want of a task; it only moves forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum DesiredState {
    /// Prepare, and wait.
    Ready,
    Running,
    Shutdown,
    /// Stop, then forget: its slot or service is gone.
    Remove,
}

impl DesiredState {
    pub fn word(self) -> &'static str {
        match self {
            DesiredState::Ready => "ready",
            DesiredState::Running => "running",
            DesiredState::Shutdown => "shutdown",
            DesiredState::Remove => "remove",
        }
    }
}

/// What was last observed of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskStatus {
    pub state: TaskState,
    /// When the state was reached, by the clock of the node that observed it.
    pub at: Timestamp,
    /// Progress in words: "preparing", "started".
    pub message: String,
    /// What went wrong, in words; for a pending task why no node fits.
    pub error: Option<String>,
    pub container: Option<ContainerStatus>,
    /// One for each network; known from `Preparing` on.
    pub addresses: Vec<NetworkAddress>,
    /// Host-mode ports as the node published them, every port filled in.
    pub ports: Vec<PortSpec>,
}

impl TaskStatus {
    pub fn new(state: TaskState, at: Timestamp, message: &str) -> Self {
        Self {
            state,
            at,
            message: message.to_owned(),
            error: None,
            container: None,
            addresses: Vec::new(),
            ports: Vec::new(),
        }
    }
}

impl TaskStatus {
    /// Of a new task that waits for another service.
    pub fn waiting(reason: String, at: Timestamp) -> Self {
        Self { error: Some(reason), ..Self::new(TaskState::New, at, "waiting for another service") }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ContainerStatus {
    pub container_id: String,
    /// Process id of the container's first process on its node; 0 when it does not run.
    pub pid: u32,
    /// When the container started to run.
    pub started_at: Option<Timestamp>,
    /// Present once it has ended.
    pub exit_code: Option<i32>,
    pub oom_killed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkAddress {
    pub network: NetworkId,
    pub address: Ipv4Addr,
    /// Its twin; absent where the network or the node has no IPv6.
    pub address_v6: Option<Ipv6Addr>,
}

impl NetworkAddress {
    pub fn both(&self) -> impl Iterator<Item = IpAddr> + use<> {
        [Some(self.address.into()), self.address_v6.map(IpAddr::V6)].into_iter().flatten()
    }
}

impl Task {
    /// `service.slot`, as listings show it.
    pub fn name(&self) -> String {
        format!("{}.{}", self.service_name, self.slot)
    }

    /// Since when it ran, or had when it ended.
    ///
    /// Of one that ran before managers noted it, when its container started.
    pub fn ran_since(&self) -> Option<Timestamp> {
        let started = || self.status.container.as_ref().and_then(|container| container.started_at);
        let unhealthy_until_now = self.spec.container.health_check.is_some();
        self.running_since.or_else(|| started().filter(|_| !unhealthy_until_now))
    }

    /// `service.slot.task`, the name of its container.
    pub fn container_name(&self) -> String {
        format!("{}.{}.{}", self.service_name, self.slot, self.id)
    }

    /// Runs, or is on its way to it.
    pub fn is_live(&self) -> bool {
        self.desired <= DesiredState::Running && !self.status.state.is_terminal()
    }

    /// Still holds its node's resources: assigned and not ended.
    pub fn occupies_node(&self) -> bool {
        self.node.is_some() && !self.status.state.is_terminal()
    }
}
