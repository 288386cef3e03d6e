//! What goes over a session in either direction.

use std::time::Duration;

use skep_model::{NodeDescription, NodeId, TaskId, TaskStatus, Timestamp};

use super::Assignments;
use crate::streams::{ExecInput, ExecOutput, ExecSpec, LogEntry, LogOptions};
use crate::wire::{choice, message};

/// The version of this conversation, in [`Hello::protocol`].
pub const DISPATCH_PROTOCOL: u32 = 1;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentMessage {
    Hello(Hello),
    Heartbeat,
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
    Trust(TrustUpdate),
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
}

choice!(AgentMessage = AgentMessage in agent_message {
    Hello;
    Heartbeat(Heartbeat) {},
    Report(Report) { tasks },
    Leaving(Leaving) {},
    Log(LogChunk) { request, entries },
    Exec(ExecReply) { request, output },
    End(RequestEnd) { request, error },
});
message!(Hello = Hello { protocol, description, address, revision, instance });
message!(TaskReport = TaskReport { task, status });
choice!(ManagerMessage = ManagerMessage in manager_message {
    Welcome, Assignments, Trust;
    Log(LogCommand) { request, task, options },
    Exec(ExecCommand) { request, task, spec },
    Feed(ExecFeed) { request, input },
    Cancel(Cancel) { request },
});
message!(Welcome = Welcome { node, heartbeat_period, managers, time });
message!(TrustUpdate = TrustUpdate { authorities, renew });
