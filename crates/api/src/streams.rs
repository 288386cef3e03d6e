//! Log entries and exec sessions, as they go from an agent through a manager to a command line.

use bytes::Bytes;
use skep_model::{NodeId, TaskId, Timestamp};

use crate::wire::{choice, enumeration, message};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogOptions {
    /// Only the last so many entries of each task.
    pub tail: Option<u64>,
    /// Only entries at or after this time.
    pub since: Option<Timestamp>,
    /// Go on with what is written from now on.
    pub follow: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputStream {
    Stdout,
    Stderr,
}

/// One line of a container's output (or a part of one, if it was very long), with its line feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    pub task: TaskId,
    pub node: NodeId,
    pub stream: OutputStream,
    pub at: Timestamp,
    pub data: Bytes,
}

/// A process to run inside a running container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExecSpec {
    pub argv: Vec<String>,
    /// `NAME=value`, added to the container's.
    pub env: Vec<String>,
    pub user: Option<String>,
    pub working_dir: Option<String>,
    pub tty: bool,
    /// Whether the process gets an input at all.
    pub stdin: bool,
    pub privileged: bool,
    /// The terminal's first size.
    pub size: Option<TerminalSize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    pub rows: u16,
    pub columns: u16,
}

/// What the user's side sends to a running exec session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecInput {
    Stdin(Bytes),
    /// The input ended; output may still come.
    End,
    Resize(TerminalSize),
}

/// What comes back: `Started` once, output, and `Exit` as the last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecOutput {
    Started,
    Stdout(Bytes),
    Stderr(Bytes),
    Exit(i32),
}

message!(LogOptions = LogOptions { tail, since, follow });
enumeration!(OutputStream = OutputStream { Stdout, Stderr });
message!(LogEntry = LogEntry { task, node, stream, at, data });
message!(ExecSpec = ExecSpec { argv, env, user, working_dir, tty, stdin, privileged, size });
message!(TerminalSize = TerminalSize { rows, columns });
choice!(ExecInput = ExecInput in exec_input { Stdin, Resize; End(EndOfInput) {} });
choice!(ExecOutput = ExecOutput in exec_output { Stdout, Stderr, Exit; Started(Started) {} });
