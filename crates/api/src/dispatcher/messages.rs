//! What goes over a session in either direction.

use std::net::IpAddr;
use std::time::Duration;

use skep_model::{NodeDescription, NodeId, Role, TaskId, TaskStatus, Timestamp, TunnelKey};

use super::Assignments;
use crate::doctor::{ManagerTarget, ProbePart};
use crate::streams::{ExecInput, ExecOutput, ExecSpec, LogEntry, LogOptions};
use crate::wire::{choice, message};

/// The version of this conversation, in [`Hello::protocol`].
pub const DISPATCH_PROTOCOL: u32 = 1;

#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "one hello a session, and the queues of messages are short")]
pub enum AgentMessage {
    Hello(Hello),
    /// Each is answered by a [`LeaseGrant`] where the node has tasks that live by leases.
    Heartbeat {
        /// When it was sent, in nanoseconds of the agent's own clock; managers only give it back.
        sent: u64,
    },
    Report {
        tasks: Vec<TaskReport>,
    },
    /// The daemon stops in order and comes back soon.
    Leaving,
    /// An answer to [`ManagerMessage::Log`]; `End` follows the last.
    Log {
        request: u64,
        entries: Vec<LogEntry>,
    },
    /// An answer to [`ManagerMessage::Exec`]; `End` follows the last.
    Exec {
        request: u64,
        output: ExecOutput,
    },
    /// Nothing more comes for this request, for the reason in `error` if it went wrong.
    End {
        request: u64,
        error: Option<String>,
    },
    /// The assignments up to this revision are in force on the node. Only to a manager that [settles](Welcome::settles).
    Applied {
        revision: u64,
    },
    /// A task is about to stop: [`ManagerMessage::Settled`] is wanted once no node leads anybody to it any more. Only to
    /// a manager that [settles](Welcome::settles).
    Settle {
        task: TaskId,
    },
    /// An answer to [`ManagerMessage::Probe`]; `End` follows the last.
    Probed {
        request: u64,
        part: ProbePart,
    },
    /// What the node is in the tunnel, as in the hello, when it has changed. Only to managers that say a
    /// [place's key](super::AssignedPlace::key).
    Tunnel(TunnelHello),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// [`DISPATCH_PROTOCOL`] of the agent.
    pub protocol: u32,
    pub description: NodeDescription,
    /// The address that others reach this node under; empty if it was not told, then the connection's is taken.
    pub address: String,
    /// [`Assignments::revision`] of what the agent has; 0 for nothing.
    pub revision: u64,
    /// The machine and its boot; empty if not known.
    pub instance: String,
    /// Whether it says what it has applied.
    pub acknowledges: bool,
    /// Absent from agents that know of no tunnel.
    pub tunnel: Option<TunnelHello>,
}

/// What an agent says of itself in the tunnel between nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TunnelHello {
    pub key: TunnelKey,
    /// The UDP port that it listens on.
    pub port: u16,
    /// The address that others reach it under, where it was told one; else the connection's is taken.
    pub address: Option<IpAddr>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskReport {
    pub task: TaskId,
    pub status: TaskStatus,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManagerMessage {
    Welcome(Welcome),
    Assignments(Assignments),
    Standing(Standing),
    /// Send the output of a task.
    Log {
        /// Chosen by the manager, unique in the session.
        request: u64,
        task: TaskId,
        options: LogOptions,
    },
    /// Run a process in a task's container.
    Exec {
        request: u64,
        task: TaskId,
        spec: ExecSpec,
    },
    /// Input for the process of an exec request.
    Feed {
        request: u64,
        input: ExecInput,
    },
    /// Nobody waits for the answer any more: stop sending, end the process.
    Cancel {
        request: u64,
    },
    LeaseGrant(LeaseGrant),
    Trust(TrustUpdate),
    /// The answer to [`AgentMessage::Settle`]: every node that could be asked has taken it in.
    Settled {
        task: TaskId,
    },
    /// Look at yourself and at your way to the other nodes. Only to an agent of a level that knows it.
    Probe {
        request: u64,
        managers: Vec<ManagerTarget>,
    },
}

/// The word of a manager that could confirm, after it heard a heartbeat, that it may speak for the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseGrant {
    /// [`AgentMessage::Heartbeat`]'s: the lease begins then, so that a late grant only shortens it.
    pub sent: u64,
    pub granted_for: Duration,
    /// The tasks that may run; for any other the grant says nothing.
    pub tasks: Vec<TaskId>,
}

/// The CAs have changed, or the node is to have another certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustUpdate {
    /// PEM, as [`IssuedCertificate::authorities`](crate::IssuedCertificate::authorities).
    pub authorities: String,
    /// Renew at once: the certificate's issuer or role is not the present one.
    pub renew: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// The node as the manager knows it.
    pub node: NodeId,
    pub heartbeat_period: Duration,
    /// `host:port` of every manager, for the next session.
    pub managers: Vec<String>,
    /// The manager's clock.
    pub time: Timestamp,
    /// Whether it takes [`AgentMessage::Applied`] and answers [`AgentMessage::Settle`].
    pub settles: bool,
}

/// What the cluster holds of the node itself: sent at the start, and whenever it changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The role that the node is to have.
    pub role: Role,
    /// Its Raft id while it is a manager; absent with [`Role::Manager`] means that it is about to become one, present
    /// with [`Role::Worker`] that it is about to cease to be one.
    pub raft_id: Option<u64>,
    /// `host:port` of every manager.
    pub managers: Vec<String>,
}

choice!(AgentMessage = AgentMessage in agent_message {
    Hello, Tunnel;
    Heartbeat(Heartbeat) { sent },
    Report(Report) { tasks },
    Leaving(Leaving) {},
    Log(LogChunk) { request, entries },
    Exec(ExecReply) { request, output },
    End(RequestEnd) { request, error },
    Applied(Applied) { revision },
    Settle(Settle) { task },
    Probed(ProbeReply) { request, part },
});
message!(Hello = Hello { protocol, description, address, revision, instance, acknowledges, tunnel });
message!(TunnelHello = TunnelHello { key, port, address });
message!(TaskReport = TaskReport { task, status });
choice!(ManagerMessage = ManagerMessage in manager_message {
    Welcome, Assignments, Standing, LeaseGrant, Trust;
    Log(LogCommand) { request, task, options },
    Exec(ExecCommand) { request, task, spec },
    Feed(ExecFeed) { request, input },
    Cancel(Cancel) { request },
    Settled(Settled) { task },
    Probe(ProbeCommand) { request, managers },
});
message!(LeaseGrant = LeaseGrant { sent, granted_for, tasks });
message!(Welcome = Welcome { node, heartbeat_period, managers, time, settles });
message!(Standing = Standing { role, raft_id, managers });
message!(TrustUpdate = TrustUpdate { authorities, renew });
