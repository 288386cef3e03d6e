//! The cluster's state in memory: applies committed entries in order and publishes the result.
//!
//! One batch of entries, one new value for readers; proposers are answered after it is published, so
//! that they find their own write. A proposal is applied whole or not at all, and a refusal is an
//! answer, not an error. Nothing is written to disk here but snapshots.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use openraft::EntryPayload;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine, Snapshot};
use skep_api::{DecodeError, decode_changes, decode_cluster, encode_cluster};
use skep_model::{Cluster, Rejection};
use tokio::sync::watch;

use crate::apply_hash::{Folded, Folding};
use crate::error::chain;
use crate::raft::{LogId, Outcome, Proposal, SnapshotMeta, StoredMembership, Types};
use crate::snapshot::{Loaded, Snapshots};
use crate::wal::Wal;

pub(crate) type StateSnapshot = openraft::type_config::alias::SnapshotOf<Types, Bytes>;

/// The one writer of the state.
pub(crate) struct StateMachine {
    cluster: Cluster,
    applied: Option<LogId>,
    membership: StoredMembership,
    published: watch::Sender<Arc<Cluster>>,
    published_index: watch::Sender<Option<u64>>,
    folding: Folding,
    snapshots: Arc<Snapshots>,
    since_snapshot: Arc<SinceSnapshot>,
}

/// What the state machine publishes.
pub(crate) struct Replica {
    pub(crate) cluster: watch::Receiver<Arc<Cluster>>,
    /// The last index that is in `cluster`; known after it.
    pub(crate) applied: watch::Receiver<Option<u64>>,
    pub(crate) folded: Folded,
}

/// How much log there is since the last snapshot.
pub(crate) struct SinceSnapshot {
    wal: Wal,
    /// Bytes in the log when it was opened.
    at_open: u64,
    /// The count of bytes at the last snapshot.
    at_snapshot: AtomicU64,
    requested: AtomicBool,
}

/// Holds the state of one moment while it is written.
pub(crate) struct Builder {
    cluster: Cluster,
    meta: SnapshotMeta,
    snapshots: Arc<Snapshots>,
    since_snapshot: Arc<SinceSnapshot>,
    log_bytes: u64,
}

/// State that this build cannot read. To skip it would make this manager's state differ from the
/// others', so it halts.
#[derive(Debug, thiserror::Error)]
enum Unreadable {
    #[error("entry {index} of the Raft log was written by a newer skep, or is damaged; upgrade this manager")]
    Proposal { index: u64, source: DecodeError },
    #[error("the snapshot was written by a newer skep, or is damaged; upgrade this manager")]
    Snapshot(#[source] DecodeError),
}

impl From<Unreadable> for io::Error {
    fn from(error: Unreadable) -> io::Error {
        io::Error::other(chain(&error))
    }
}

impl SinceSnapshot {
    pub(crate) fn new(wal: Wal, at_open: u64) -> SinceSnapshot {
        SinceSnapshot { wal, at_open, at_snapshot: AtomicU64::new(0), requested: AtomicBool::new(false) }
    }

    /// Whether it is time: the log since the last snapshot has become as large as that snapshot, so
    /// that snapshots at most double what is written. True once until a snapshot is made.
    pub(crate) fn is_due(&self, bytes_min: u64, snapshot_size: u64) -> bool {
        self.bytes() >= bytes_min.max(snapshot_size) && !self.requested.swap(true, Ordering::Relaxed)
    }

    fn made(&self, at: u64) {
        self.at_snapshot.store(at, Ordering::Relaxed);
        self.requested.store(false, Ordering::Relaxed);
    }

    /// Bytes of log that a restart would read again.
    pub(crate) fn bytes(&self) -> u64 {
        self.total().saturating_sub(self.at_snapshot.load(Ordering::Relaxed))
    }

    fn total(&self) -> u64 {
        self.at_open + self.wal.metrics().bytes_written
    }
}

impl StateMachine {
    pub(crate) fn new(
        loaded: Option<Loaded>,
        snapshots: Arc<Snapshots>,
        since_snapshot: Arc<SinceSnapshot>,
    ) -> io::Result<(StateMachine, Replica)> {
        let (cluster, meta) = match loaded {
            Some(Loaded { meta, data }) => (decode_cluster(&data).map_err(Unreadable::Snapshot)?, meta),
            None => (Cluster::default(), SnapshotMeta::default()),
        };
        let SnapshotMeta { last_log_id: applied, last_membership: membership } = meta;
        let (published, cluster_watch) = watch::channel(Arc::new(cluster.clone()));
        let (published_index, applied_watch) = watch::channel(applied.map(|id| id.index));
        let (folding, folded) = Folding::new();
        let replica = Replica { cluster: cluster_watch, applied: applied_watch, folded };
        let machine = StateMachine {
            cluster,
            applied,
            membership,
            published,
            published_index,
            folding,
            snapshots,
            since_snapshot,
        };
        Ok((machine, replica))
    }

    fn publish(&self) -> Arc<Cluster> {
        let mut cluster = Arc::clone(&self.published.borrow());
        if cluster.version != self.cluster.version {
            cluster = Arc::new(self.cluster.clone());
            self.published.send_replace(Arc::clone(&cluster));
        }
        self.published_index.send_replace(self.applied.map(|id| id.index));
        cluster
    }

    fn meta(&self) -> SnapshotMeta {
        SnapshotMeta { last_log_id: self.applied, last_membership: self.membership.clone() }
    }
}

/// Applies all changes of a proposal, or none if one of them is refused.
pub(crate) fn apply_proposal(
    cluster: &mut Cluster,
    proposal: &Proposal,
    index: u64,
) -> io::Result<Result<(), Rejection>> {
    let changes = decode_changes(&proposal.0).map_err(|source| Unreadable::Proposal { index, source })?;
    let mut next = cluster.clone();
    for change in &changes {
        if let Err(rejection) = next.apply(change, index) {
            return Ok(Err(rejection));
        }
    }
    *cluster = next;
    Ok(Ok(()))
}

impl RaftStateMachine<Types> for StateMachine {
    type SnapshotData = Bytes;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + Send,
    {
        let mut answers = Vec::new();
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            let (result, bytes) = match &entry.payload {
                EntryPayload::Blank => (Ok(()), &[] as &[u8]),
                EntryPayload::Membership(members) => {
                    self.membership = StoredMembership::new(Some(entry.log_id), members.clone());
                    (Ok(()), &[] as &[u8])
                }
                EntryPayload::Normal(proposal) => {
                    let result = apply_proposal(&mut self.cluster, proposal, entry.log_id.index)?;
                    (result, proposal.0.as_ref())
                }
            };
            self.folding.fold(entry.log_id.index, bytes, &result, &self.cluster);
            self.applied = Some(entry.log_id);
            answers.extend(responder.map(|responder| (responder, result)));
        }
        let cluster = self.publish();
        for (responder, result) in answers {
            responder.send(Outcome { result, cluster: Arc::clone(&cluster) });
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            cluster: self.cluster.clone(),
            meta: self.meta(),
            snapshots: Arc::clone(&self.snapshots),
            since_snapshot: Arc::clone(&self.since_snapshot),
            log_bytes: self.since_snapshot.total(),
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, data: Bytes) -> Result<(), io::Error> {
        let cluster = decode_cluster(&data).map_err(Unreadable::Snapshot)?;
        write(&self.snapshots, meta, &data).await?;
        self.since_snapshot.made(self.since_snapshot.total());
        self.folding.interrupt();
        self.cluster = cluster;
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.publish();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<StateSnapshot>, io::Error> {
        let snapshots = Arc::clone(&self.snapshots);
        let loaded = tokio::task::spawn_blocking(move || snapshots.load_newest())
            .await
            .map_err(io::Error::other)?
            .map_err(io::Error::other)?;
        Ok(loaded.map(|Loaded { meta, data }| Snapshot { meta, snapshot: data }))
    }
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> Result<StateSnapshot, io::Error> {
        let cluster = self.cluster.clone();
        let data = tokio::task::spawn_blocking(move || encode_cluster(&cluster)).await;
        let data = Bytes::from(data.map_err(io::Error::other)?);
        write(&self.snapshots, &self.meta, &data).await?;
        self.since_snapshot.made(self.log_bytes);
        Ok(Snapshot { meta: self.meta.clone(), snapshot: data })
    }
}

async fn write(snapshots: &Arc<Snapshots>, meta: &SnapshotMeta, data: &Bytes) -> io::Result<()> {
    let (snapshots, meta, data) = (Arc::clone(snapshots), meta.clone(), data.clone());
    tokio::task::spawn_blocking(move || snapshots.write(&meta, &data))
        .await
        .map_err(io::Error::other)?
        .map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use openraft::testing::log::{StoreBuilder, Suite};
    use tempfile::TempDir;

    use super::*;
    use crate::DataKey;
    use crate::log_store::LogStore;
    use crate::wal::{RealDisk, WalOptions};

    struct Fresh {
        keep_bytes: usize,
    }

    impl StoreBuilder<Types, LogStore, StateMachine, TempDir> for Fresh {
        async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), openraft::StorageError<Types>> {
            let dir = TempDir::new().expect("a temporary folder can be made");
            let key = DataKey::from_bytes([7; 32]);
            let options = WalOptions {
                dir: dir.path().join("log"),
                disk: Arc::new(RealDisk),
                key: key.clone(),
                node: 1,
                segment_bytes: 64 * 1024,
                keep_bytes: self.keep_bytes,
                lock: None,
            };
            let (log, found) = LogStore::open(options).expect("a fresh folder opens");
            let (snapshots, loaded) =
                Snapshots::open(&dir.path().join("snapshots"), &key, None).expect("a fresh folder opens");
            let since = Arc::new(SinceSnapshot::new(log.wal().clone(), found.bytes));
            let (machine, _) = StateMachine::new(loaded, Arc::new(snapshots), since).expect("nothing to decode");
            Ok((dir, log, machine))
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn openraft_log_store_suite_passes() {
        Suite::test_all(Fresh { keep_bytes: 1 << 20 }).await.expect("the suite passes");
    }

    /// Every entry is read back from disk, since none stays in memory once it is durable.
    #[tokio::test(flavor = "multi_thread")]
    async fn openraft_log_store_suite_passes_without_memory() {
        Suite::test_all(Fresh { keep_bytes: 0 }).await.expect("the suite passes");
    }
}
