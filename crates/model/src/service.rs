//! A service: what the user asked for, its earlier forms, and where it answers.

use std::net::Ipv4Addr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{JobStatus, Meta, NetworkId, PortSpec, ServiceId, ServiceSpec, Timestamp, Version};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    pub id: ServiceId,
    pub meta: Meta,
    pub spec: Arc<ServiceSpec>,
    /// The version at which `spec` last changed; tasks carry the one that they were made from.
    pub spec_version: Version,
    /// Earlier specs, oldest first; at most [`Service::REVISIONS_KEPT`]. The last is Swarm's `PreviousSpec`.
    pub revisions: Vec<ServiceRevision>,
    pub endpoint: Endpoint,
    pub update_status: Option<UpdateStatus>,
    /// Of a job only.
    pub job: Option<JobStatus>,
    /// Since when its tasks are being spread anew, because somebody asked for it.
    pub rebalancing_since: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRevision {
    pub spec_version: Version,
    pub spec: Arc<ServiceSpec>,
    /// When it was replaced.
    pub replaced_at: Timestamp,
    /// Whether it was replaced before all of the service's tasks ran it: its update was overtaken, or had failed.
    pub unfinished: bool,
}

/// Where a service answers: what the allocator gave it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Endpoint {
    /// The spec's ports with every published port filled in.
    pub ports: Vec<PortSpec>,
    pub virtual_ips: Vec<VirtualIp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtualIp {
    pub network: NetworkId,
    pub address: Ipv4Addr,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateStatus {
    pub state: UpdateState,
    pub started_at: Timestamp,
    pub completed_at: Option<Timestamp>,
    pub message: String,
    /// How far it is; absent where a manager wrote it that did not count.
    pub progress: Option<UpdateProgress>,
}

/// How far an update is: what outlives the leader that counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateProgress {
    /// Slots that the update touches.
    pub slots: u64,
    /// The most of them that were done at one time.
    pub done: u64,
    /// When `done` last rose; the update's begin before that.
    pub at: Timestamp,
}

/// Swarm's update states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpdateState {
    Updating,
    Paused,
    Completed,
    RollbackStarted,
    RollbackPaused,
    RollbackCompleted,
}

impl UpdateState {
    /// Whether all of the service's tasks were what it asks for when this was written.
    pub fn is_completed(self) -> bool {
        matches!(self, UpdateState::Completed | UpdateState::RollbackCompleted)
    }
}

impl UpdateStatus {
    /// What the message of a rollback that somebody asked for begins with, in Swarm's words; one that a failure began
    /// says which task failed.
    pub const ASKED_FOR: &'static str = "manually requested rollback";

    /// Whether somebody asked for the rollback that this tells of.
    pub fn asked_for(&self) -> bool {
        self.message.starts_with(Self::ASKED_FOR)
    }
}

impl Service {
    pub const REVISIONS_KEPT: usize = 10;

    /// One that has just been asked for: nothing is allocated, and nothing runs.
    pub fn new(id: ServiceId, spec: impl Into<Arc<ServiceSpec>>, at: Timestamp) -> Self {
        Self {
            id,
            meta: Meta::new(at),
            spec: spec.into(),
            spec_version: Version(0),
            revisions: Vec::new(),
            endpoint: Endpoint::default(),
            update_status: None,
            job: None,
            rebalancing_since: None,
        }
    }

    pub fn name(&self) -> &str {
        &self.spec.name
    }

    pub fn previous_spec(&self) -> Option<&ServiceSpec> {
        self.revisions.last().map(|revision| &*revision.spec)
    }

    /// What an update that failed goes back to: the last spec that all tasks ran, or the one before where none is known.
    pub fn last_good(&self) -> Option<&ServiceRevision> {
        let good = |revision: &&ServiceRevision| !revision.unfinished && revision.spec != self.spec;
        self.revisions.iter().rfind(good).or(self.revisions.last())
    }
}
