//! Why a store cannot be opened, written or read; openraft's errors in our words.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use openraft::errors::{ClientWriteError, Fatal, LinearizableReadError, RaftError};
use skep_model::Rejection;

use crate::raft::Types;
use crate::snapshot::SnapshotError;
use crate::wal::WalError;

/// A store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The folder cannot be made or locked.
    #[error("cannot use the folder `{path}`")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// Another process has it open.
    #[error("`{path}` is in use by another skep daemon; stop it, or give this one another --data-dir")]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// The log does not open.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// No snapshot can be read.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The snapshot was read, but not understood.
    #[error("cannot restore the cluster's state")]
    State(#[source] io::Error),
    /// A new store would replace another.
    #[error("`{path}` holds a store already")]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
    /// Raft does not start.
    #[error("cannot start Raft: {0}")]
    Raft(String),
}

/// A proposal did not go through.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ProposeError {
    /// A change was refused when its turn came; nothing of the proposal was applied.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// Another manager leads, or none; nothing was applied.
    #[error("this manager does not lead the cluster{}", .address.as_ref().map(|a| format!("; {a} does")).unwrap_or_default())]
    NotLeader {
        /// The leader's Raft id, if there is one.
        leader: Option<u64>,
        /// Where it is.
        address: Option<String>,
    },
    /// This manager stopped leading meanwhile: the changes may or may not come to be applied.
    #[error(
        "the cluster's leader changed before the change was confirmed; look whether it was made, and repeat it if not"
    )]
    Unknown,
    /// More bytes than one entry may have; split the changes.
    #[error("a proposal of {bytes} bytes; at most {limit} bytes fit in one")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The store is shut down, or its disk failed.
    #[error("this manager's store has stopped: {reason}")]
    Stopped {
        /// Why.
        reason: Arc<str>,
    },
}

/// A linearizable read did not go through.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// Another manager leads, or none.
    #[error("this manager does not lead the cluster{}", .address.as_ref().map(|a| format!("; {a} does")).unwrap_or_default())]
    NotLeader {
        /// The leader's Raft id, if there is one.
        leader: Option<u64>,
        /// Where it is.
        address: Option<String>,
    },
    /// Fewer managers than a majority answer.
    #[error("too few managers answer: {0}")]
    NoQuorum(String),
    /// The store is shut down, or its disk failed.
    #[error("this manager's store has stopped: {reason}")]
    Stopped {
        /// Why.
        reason: Arc<str>,
    },
}

/// A cluster cannot be started here.
#[derive(Debug, Clone, thiserror::Error)]
pub enum InitializeError {
    /// There is one already.
    #[error("this manager already belongs to a cluster")]
    AlreadyInitialized,
    /// The cluster of one is there, its first changes are not.
    #[error("the cluster's first state was not written")]
    Propose(#[from] ProposeError),
    /// Raft refused.
    #[error("Raft does not start a cluster here: {0}")]
    Raft(String),
}

impl From<RaftError<Types, ClientWriteError<Types>>> for ProposeError {
    fn from(error: RaftError<Types, ClientWriteError<Types>>) -> ProposeError {
        match error {
            RaftError::Fatal(fatal) => ProposeError::Stopped { reason: reason(&fatal) },
            RaftError::APIError(ClientWriteError::ForwardToLeader(to)) => {
                ProposeError::NotLeader { leader: to.leader_id, address: to.leader_node.map(|node| node.address) }
            }
            RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) => ProposeError::Unknown,
            RaftError::APIError(
                error @ (ClientWriteError::ChangeMembershipError(_) | ClientWriteError::PreconditionFailed(_)),
            ) => ProposeError::Stopped { reason: error.to_string().into() },
        }
    }
}

impl From<RaftError<Types, LinearizableReadError<Types>>> for ReadError {
    fn from(error: RaftError<Types, LinearizableReadError<Types>>) -> ReadError {
        match error {
            RaftError::Fatal(fatal) => ReadError::Stopped { reason: reason(&fatal) },
            RaftError::APIError(LinearizableReadError::ForwardToLeader(to)) => {
                ReadError::NotLeader { leader: to.leader_id, address: to.leader_node.map(|node| node.address) }
            }
            RaftError::APIError(LinearizableReadError::QuorumNotEnough(missing)) => {
                ReadError::NoQuorum(missing.to_string())
            }
        }
    }
}

/// Why Raft stopped, with the reasons behind it.
pub(crate) fn reason(fatal: &Fatal<Types>) -> Arc<str> {
    match fatal {
        Fatal::Stopped => "it was shut down".into(),
        Fatal::Panicked => "Raft's task panicked; the daemon's log says where".into(),
        Fatal::StorageError(error) => chain(error).into(),
    }
}

/// An error with everything behind it, in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        // Wrappers often repeat what they wrap.
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        source = cause.source();
    }
    text
}
