//! What goes over a session in either direction.

use std::time::Duration;

use skep_model::{NodeDescription, NodeId, Role, TaskId, TaskStatus};

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
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// The node as the manager knows it.
    pub node: NodeId,
    pub heartbeat_period: Duration,
    /// `host:port` of every manager, for the next session.
    pub managers: Vec<String>,
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
    Hello;
    Heartbeat(Heartbeat) {},
    Report(Report) { tasks },
    Leaving(Leaving) {},
    Log(LogChunk) { request, entries },
    Exec(ExecReply) { request, output },
    End(RequestEnd) { request, error },
});
message!(Hello = Hello { protocol, description, address, revision });
message!(TaskReport = TaskReport { task, status });
choice!(ManagerMessage = ManagerMessage in manager_message {
    Welcome, Assignments, Standing;
    Log(LogCommand) { request, task, options },
    Exec(ExecCommand) { request, task, spec },
    Feed(ExecFeed) { request, input },
    Cancel(Cancel) { request },
});
message!(Welcome = Welcome { node, heartbeat_period, managers });
message!(Standing = Standing { role, raft_id, managers });
