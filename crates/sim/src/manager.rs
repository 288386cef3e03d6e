//! A simulated manager: its replica of the log, what it believes, and the sessions that end at it.
//!
//! The manager's loops are those of the real one (leader loop, liveness, reports, dispatcher), turned
//! inside out so that each step is an event; what they decide is decided by the real functions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use skep_manager::AssignmentSet;
use skep_model::{Cluster, IdSource, NodeId, TaskId, TaskStatus};
use skep_orchestrator::Fence;

use crate::clock::{Nanos, WallClock};
use crate::log::Term;
use crate::session::SessionId;

#[derive(Debug)]
pub struct Manager {
    pub raft_id: u64,
    pub up: bool,
    /// Counts its runs.
    pub epoch: u64,
    pub wall: WallClock,
    pub ids: IdSource,
    pub applied: u64,
    pub cluster: Arc<Cluster>,
    /// The term that it believes to lead, and since when.
    pub leads: Option<(Term, Nanos)>,
    /// The term of its last decision.
    pub decided_in: Option<Term>,
    pub leader_loop: Loop,
    pub liveness_waits: bool,
    pub fence: Fence,
    pub fence_waits: bool,
    /// When this run began: its monotonic clock's zero.
    pub began: Nanos,
    pub sessions: BTreeMap<NodeId, Served>,
    pub heard: BTreeMap<NodeId, Heard>,
    pub dispatch_due: bool,
    pub reports: Reports,
}

/// What a manager's own run holds back until something is answered or falls due.
#[derive(Debug, Default)]
pub struct Loop {
    /// A proposal is not answered yet, or its failure is rested from.
    pub waits: bool,
    pub poked: bool,
    pub timer: Option<Nanos>,
}

#[derive(Debug, Default)]
pub struct Reports {
    pub queue: Vec<(NodeId, TaskId, TaskStatus)>,
    pub pending: BTreeMap<TaskId, (NodeId, TaskStatus)>,
    pub busy: bool,
}

/// One session as the manager sees it.
#[derive(Debug)]
pub struct Served {
    pub session: SessionId,
    pub sent: AssignmentSet,
    pub revision: u64,
}

/// When a node was last heard by any manager, on this manager's own clock.
#[derive(Debug, Clone, Copy)]
pub struct Heard {
    pub at: Nanos,
    /// It said that its daemon stops and comes back soon.
    pub leaving: bool,
}

/// What a proposal was for: who is to go on when it is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    Decision,
    Liveness,
    Fence,
    Reports,
    /// A session may open once the node is known to be ready.
    Ready(SessionId),
    /// What a node said of itself in the tunnel; nothing waits for it.
    Tunnel,
    User(&'static str),
}

impl Manager {
    pub fn new(raft_id: u64, ids: IdSource) -> Self {
        Self {
            raft_id,
            up: true,
            epoch: 0,
            wall: WallClock::default(),
            ids,
            applied: 0,
            cluster: Arc::default(),
            leads: None,
            decided_in: None,
            leader_loop: Loop::default(),
            liveness_waits: false,
            fence: Fence::default(),
            fence_waits: false,
            began: 0,
            sessions: BTreeMap::new(),
            heard: BTreeMap::new(),
            dispatch_due: false,
            reports: Reports::default(),
        }
    }

    /// The process ends; its memory is gone.
    pub fn crash(&mut self) -> BTreeSet<SessionId> {
        self.up = false;
        self.epoch += 1;
        self.leads = None;
        self.decided_in = None;
        self.leader_loop = Loop::default();
        self.liveness_waits = false;
        self.fence = Fence::default();
        self.fence_waits = false;
        self.heard.clear();
        self.dispatch_due = false;
        self.reports = Reports::default();
        std::mem::take(&mut self.sessions).into_values().map(|served| served.session).collect()
    }

    /// What is heard later counts; a good-bye holds until the node's next session.
    pub fn note_heard(&mut self, node: NodeId, at: Nanos, leaving: bool) {
        let known = self.heard.entry(node).or_insert(Heard { at, leaving });
        if at >= known.at {
            *known = Heard { at, leaving };
        }
    }
}
