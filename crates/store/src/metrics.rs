//! A store's figures at one moment.

use openraft::RaftMetrics;

use crate::raft::Types;
use crate::wal::WalMetrics;

/// A store's figures at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreMetrics {
    /// This manager's Raft id.
    pub raft_id: u64,
    /// The current term.
    pub term: u64,
    /// The last entry in the log.
    pub last_log_index: Option<u64>,
    /// The last entry in the state.
    pub last_applied_index: Option<u64>,
    /// The last entry in the newest snapshot.
    pub snapshot_index: Option<u64>,
    /// Bytes of the newest snapshot's file.
    pub snapshot_bytes: u64,
    /// The last entry that the log no longer has.
    pub purged_index: Option<u64>,
    /// Bytes of log that a restart would read again.
    pub log_bytes: u64,
    /// What the log has done since it was opened.
    pub wal: WalMetrics,
}

impl StoreMetrics {
    pub(crate) fn new(raft: &RaftMetrics<Types>, wal: WalMetrics, log_bytes: u64, snapshot_bytes: u64) -> StoreMetrics {
        StoreMetrics {
            raft_id: raft.id,
            term: raft.current_term,
            last_log_index: raft.last_log_index,
            last_applied_index: raft.last_applied.map(|id| id.index),
            snapshot_index: raft.snapshot.map(|id| id.index),
            snapshot_bytes,
            purged_index: raft.purged.map(|id| id.index),
            log_bytes,
            wal,
        }
    }
}
