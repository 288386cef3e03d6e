//! How a store is opened, and the timing of Raft that follows from its disk.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use openraft::SnapshotPolicy;

use crate::DataKey;
use crate::peers::{NoPeers, PeerNetwork};
use crate::wal::{Disk, RealDisk, SEGMENT_BYTES};

/// What a store is opened with.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// The store's own folder; made if missing.
    pub dir: PathBuf,
    /// This manager's Raft id: from the cluster's counter, never used twice.
    pub raft_id: u64,
    /// Where other managers reach this one: `host:port`.
    pub address: String,
    /// What log and snapshots are encrypted with.
    pub key: DataKey,
    /// Bytes of a log segment: a multiple of 4096, at least 16 KiB.
    pub segment_bytes: u64,
    /// Bytes of log that a snapshot is worth at least; more if the last snapshot was larger.
    pub snapshot_bytes_min: u64,
    /// Entries that stay in memory behind a snapshot, for managers that lag.
    pub entries_kept: u64,
    /// Bytes of entries that stay in memory.
    pub cache_bytes: usize,
    /// The way to the other managers.
    pub peers: Arc<dyn PeerNetwork>,
    /// The log's file operations.
    pub disk: Arc<dyn Disk>,
}

impl StoreConfig {
    /// The usual settings, for a manager that reaches no others: `peers` is for the daemon to set.
    pub fn new(dir: impl Into<PathBuf>, raft_id: u64, address: impl Into<String>, key: DataKey) -> StoreConfig {
        StoreConfig {
            dir: dir.into(),
            raft_id,
            address: address.into(),
            key,
            segment_bytes: SEGMENT_BYTES,
            snapshot_bytes_min: 16 << 20,
            entries_kept: 512,
            cache_bytes: 4 << 20,
            peers: Arc::new(NoPeers),
            disk: Arc::new(RealDisk),
        }
    }
}

/// openraft's settings for a disk on which a sync takes this long.
///
/// A leader that waits for its disk must not look dead: all times grow together from 10 ms per sync on,
/// to at most ten times (a slow SD card).
/// Raft's own clock ticks about five times a heartbeat, and each tick wakes a machine that has nothing else to do: with
/// 100 ms ticks were three quarters of an idle manager's processor time. A follower misses two heartbeats before it asks
/// for votes.
pub(crate) fn raft_config(config: &StoreConfig, sync: Duration) -> openraft::Config {
    let slower = u64::try_from(sync.as_millis()).unwrap_or(u64::MAX).div_ceil(10).clamp(1, 10);
    openraft::Config {
        cluster_name: "skep".to_owned(),
        heartbeat_interval: 200 * slower,
        election_timeout_min: 450 * slower,
        election_timeout_max: 700 * slower,
        // What openraft calls installing is the whole transfer here.
        install_snapshot_timeout: 60_000,
        enable_pre_vote: Some(true),
        // Followers may have, and may have committed, entries of this term that this leader's own disk had not yet:
        // one that resumed its term after a power cut would write others at their indexes.
        enable_leader_restore: Some(false),
        backoff: "50ms 100ms 200ms ...500ms".to_owned(),
        // By bytes, not entries: the store triggers it.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: config.entries_kept,
        purge_batch_size: 64,
        ..openraft::Config::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_disks_get_patient_elections() {
        let config = StoreConfig::new("/nowhere", 1, "", DataKey::from_bytes([0; 32]));
        for (sync_ms, heartbeat) in [(0, 200), (9, 200), (10, 200), (11, 400), (40, 800), (5000, 2000)] {
            let raft = raft_config(&config, Duration::from_millis(sync_ms));
            assert_eq!(raft.heartbeat_interval, heartbeat, "{sync_ms} ms");
            raft.validate().expect("the times fit each other");
        }
    }
}
