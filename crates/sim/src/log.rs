//! The replicated log as its users see it: entries in one order, terms, and proposals whose fate is open.
//!
//! Raft itself is not simulated here, only what it promises and what it does not: one leader a term, one
//! order of entries, nothing of an older term after a newer one began; a proposal whose leader fell may be
//! lost or may still come. Real stores under faults are another part's matter.

use std::collections::BTreeMap;
use std::sync::Arc;

use skep_model::{Change, Cluster, Rejection};

use crate::manager::Purpose;
use crate::sabotage::Sabotage;

pub type Term = u64;

#[derive(Debug)]
pub struct Entry {
    pub index: u64,
    /// The term in which a leader took it in.
    pub term: Term,
    pub plan: Plan,
    pub changes: Arc<Vec<Change>>,
    pub result: Result<(), Rejection>,
}

/// On whose behalf something was proposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// Good for any leader: a user's request, what an agent reported, a term's first entry.
    Any,
    /// Decided by the leader of a term on the state at an index.
    Leader { term: Term, base: u64 },
}

#[derive(Debug)]
pub struct Proposal {
    pub from: usize,
    /// Which run of that manager: one that has restarted no longer waits.
    pub epoch: u64,
    pub plan: Plan,
    pub changes: Arc<Vec<Change>>,
    pub purpose: Purpose,
    /// Whose log it is in by now, and in which term.
    pub accepted: Option<(usize, Term)>,
}

#[derive(Debug)]
pub struct Log {
    pub term: Term,
    pub leader: Option<usize>,
    /// Index of the present term's first entry.
    pub barrier: u64,
    pub entries: Vec<Entry>,
    /// `states[i]` is the cluster after `i` entries.
    pub states: Vec<Arc<Cluster>>,
    pub in_flight: BTreeMap<u64, Proposal>,
    next: u64,
}

impl Log {
    pub fn new() -> Self {
        Self {
            term: 0,
            leader: None,
            barrier: 0,
            entries: Vec::new(),
            states: vec![Arc::new(Cluster::default())],
            in_flight: BTreeMap::new(),
            next: 0,
        }
    }

    pub fn committed(&self) -> u64 {
        self.entries.len() as u64
    }

    pub fn state(&self) -> &Arc<Cluster> {
        self.states.last().expect("there is a state before the first entry")
    }

    pub fn state_at(&self, index: u64) -> &Arc<Cluster> {
        &self.states[index as usize]
    }

    pub fn hold(&mut self, proposal: Proposal) -> u64 {
        self.next += 1;
        self.in_flight.insert(self.next, proposal);
        self.next
    }

    /// Commits an entry; its index.
    pub fn append(&mut self, term: Term, plan: Plan, changes: Arc<Vec<Change>>, sabotage: Option<Sabotage>) -> u64 {
        let index = self.committed() + 1;
        let (state, result) = apply(self.state(), &changes, index, sabotage);
        self.entries.push(Entry { index, term, plan, changes, result });
        self.states.push(state);
        index
    }
}

/// What a manager's state machine does with an entry: whole or not at all.
pub fn apply(
    cluster: &Arc<Cluster>,
    changes: &[Change],
    index: u64,
    sabotage: Option<Sabotage>,
) -> (Arc<Cluster>, Result<(), Rejection>) {
    let mut next = (**cluster).clone();
    for change in changes {
        let result = match sabotage {
            None => next.apply(change, index),
            Some(sabotage) => apply_sabotaged(&mut next, change, index, sabotage),
        };
        if let Err(rejection) = result {
            return (Arc::clone(cluster), Err(rejection));
        }
    }
    (Arc::new(next), Ok(()))
}

fn apply_sabotaged(cluster: &mut Cluster, change: &Change, index: u64, sabotage: Sabotage) -> Result<(), Rejection> {
    match (sabotage, change) {
        (Sabotage::ApplySkipsVersionCheck, Change::UpdateService { service, spec, at, .. }) => {
            let expected = cluster.services.get(service).map(|service| service.meta.version).unwrap_or_default();
            let change = Change::UpdateService { service: *service, expected, spec: Arc::clone(spec), at: *at };
            cluster.apply(&change, index)
        }
        (Sabotage::TaskGoesBack, Change::ReportTask { task, status, .. }) if index.is_multiple_of(3) => {
            let mut status = status.clone();
            status.state = skep_model::TaskState::Preparing;
            if let Some(task) = cluster.tasks.get_mut(task) {
                Arc::make_mut(task).status = status;
            }
            Ok(())
        }
        (Sabotage::TaskMoves, Change::ReportTask { task, node, .. }) => {
            cluster.apply(change, index)?;
            let other = cluster.nodes.keys().copied().find(|other| other != node);
            if let (Some(moved), Some(_)) = (cluster.tasks.get(task).map(|task| (**task).clone()), other) {
                cluster.apply(&Change::RemoveTask { task: *task }, index)?;
                let moved = skep_model::Task { node: other, ..moved };
                cluster.apply(&Change::CreateTask { task: Box::new(moved) }, index)?;
            }
            Ok(())
        }
        _ => cluster.apply(change, index),
    }
}
