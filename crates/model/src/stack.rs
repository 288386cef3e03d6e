//! A stack: the name that a compose file was deployed under, and what each deploy of it asked for.

use serde::{Deserialize, Serialize};

use crate::{Meta, ServiceSpec, StackId, Timestamp};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stack {
    pub id: StackId,
    pub meta: Meta,
    pub name: String,
    /// Oldest first; at most [`Stack::REVISIONS_KEPT`].
    pub revisions: Vec<StackRevision>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackRevision {
    /// 1 for the first deploy, and so on.
    pub number: u64,
    pub created_at: Timestamp,
    /// Who deployed, as the daemon knows them (`root`, a user name, a node).
    pub author: String,
    /// The services as asked for, in the order of their names.
    pub services: Vec<ServiceSpec>,
}

impl Stack {
    pub const REVISIONS_KEPT: usize = 10;
    /// The label that ties services, networks, secrets and configs to their stack, as Docker writes it.
    pub const LABEL: &'static str = "com.docker.stack.namespace";

    pub fn next_revision(&self) -> u64 {
        self.revisions.last().map_or(1, |last| last.number + 1)
    }

    /// Adds a revision and drops the oldest ones above the limit.
    pub fn push(&mut self, revision: StackRevision) {
        self.revisions.push(revision);
        let excess = self.revisions.len().saturating_sub(Self::REVISIONS_KEPT);
        self.revisions.drain(..excess);
    }
}
