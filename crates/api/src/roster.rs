//! Who belongs to the cluster in which role; and what managers tell each other of the agents' sessions.
//!
//! ```text
//! node     ── standing, enroll, leave ──▶ any manager
//! manager  ── claim (this agent says it is node N) ──▶ the leader
//! manager  ── presence (what it heard of its agents) ──▶ the leader
//! manager  ── settled (what of a write is in force) ──▶ every other manager
//! manager  ── ask (logs, exec) ──▶ the manager that has the agent's session
//! ```

use std::time::Duration;

use skep_model::{NodeId, Role, TaskId};

use crate::dispatcher::{AgentMessage, TaskReport};
use crate::doctor::ManagerTarget;
use crate::rpc::service;
use crate::streams::{ExecInput, ExecSpec, LogOptions};
use crate::wire::{choice, message};

/// What the cluster takes the calling node for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeStanding {
    /// The role that it is to have.
    pub role: Role,
    /// The number that Raft knows it by, while it is a manager.
    pub raft_id: Option<u64>,
    /// `host:port` of every manager.
    pub managers: Vec<String>,
}

/// A node that is to be a manager is ready to be one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnrollRequest {
    /// `host:port` that other managers reach it at; with an empty host the connection's is taken.
    pub address: String,
}

/// An agent says that it is a node, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeClaim {
    pub node: NodeId,
    /// As in its hello; empty if it did not say.
    pub instance: String,
    /// Where it is reached.
    pub address: String,
}

/// A version of the cluster that agents are to have applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SettledRequest {
    pub version: u64,
}

/// What one manager heard of the agents whose sessions it has, or had a moment ago.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresenceReport {
    /// Counts the reports of one stream.
    pub number: u64,
    pub nodes: Vec<NodePresence>,
    /// States that are not replicated, since the last report.
    pub progress: Vec<TaskReport>,
    /// Managers that spoke from elsewhere than they are listed.
    pub learnt: Vec<LearntAddress>,
}

/// Where a manager may be found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LearntAddress {
    pub raft_id: u64,
    /// `host:port`.
    pub address: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodePresence {
    pub node: NodeId,
    /// How long ago it was heard.
    pub silence: Duration,
    /// Whether its session is open.
    pub open: bool,
    /// It said that its daemon stops and comes back soon.
    pub leaving: bool,
    /// As in its hello; empty if it did not say.
    pub instance: String,
    /// Where its last session came from.
    pub address: String,
}

/// The leader took in a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PresenceNote {
    pub number: u64,
}

/// What one manager wants of an agent whose session another one has. The first message is no `Input`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    Log { node: NodeId, task: TaskId, options: LogOptions },
    Exec { node: NodeId, task: TaskId, spec: ExecSpec },
    Probe { node: NodeId, managers: Vec<ManagerTarget> },
    Input(ExecInput),
}

message!(NodeStanding = NodeStanding { role, raft_id, managers });
message!(EnrollRequest = EnrollRequest { address });
message!(NodeClaim = NodeClaim { node, instance, address });
message!(SettledRequest = SettledRequest { version });
message!(PresenceReport = PresenceReport { number, nodes, progress, learnt });
message!(LearntAddress = LearntAddress { raft_id, address });
message!(NodePresence = NodePresence { node, silence, open, leaving, instance, address });
message!(PresenceNote = PresenceNote { number });
choice!(Question = Question in question {
    Input;
    Log(AskedLog) { node, task, options },
    Exec(AskedExec) { node, task, spec },
    Probe(AskedProbe) { node, managers },
});

service! {
    /// The list of members, and what managers share of it.
    Roster in roster_server::RosterServer, roster_client::RosterClient, via RosterAdapter;
    unary {
        /// What the cluster takes the caller for.
        [Member] standing(()) -> NodeStanding;
        /// The caller, which is to be a manager, gets a fresh Raft id and is taken in.
        [Member] enroll(EnrollRequest) -> NodeStanding;
        /// The caller leaves the cluster; returns when nothing depends on it any more.
        [Member] leave(()) -> ();
        /// From each other manager to the leader, which alone hears of every session: refused with `Conflict` while
        /// another machine is that node.
        [Manager] claim(NodeClaim) -> ();
        /// Between managers: returns when every agent of the asked one has applied what it is to have as of a version of
        /// the cluster, or when the asked one has waited long enough.
        [Manager] settled(SettledRequest) -> ();
    }
    down {}
    up {}
    both {
        /// To the leader, from each other manager.
        [Manager] presence(stream PresenceReport) -> stream PresenceNote as PresenceStream;
        /// To the manager that has the session of the question's node. What comes back is numbered 0.
        [Manager] ask(stream Question) -> stream AgentMessage as AskStream;
    }
}
