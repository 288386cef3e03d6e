//! The store: opening it, proposing, reading, watching, shutting down.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, TryLockError};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openraft::Raft;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{InitializeError as RaftInitializeError, RaftError};
use skep_model::{Change, Cluster};
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::apply_hash::{ApplyHashes, compare};
use crate::config::{StoreConfig, raft_config};
use crate::error::{InitializeError, ProposeError, StoreError};
use crate::leadership::{Leadership, Published, follow};
use crate::log_store::LogStore;
use crate::members::{HandOverError, Members};
use crate::metrics::StoreMetrics;
use crate::network::{Managers, Outside};
use crate::raft::{Member, Types};
use crate::snapshot::Snapshots;
use crate::state_machine::{Replica, SinceSnapshot, StateMachine};
use crate::wal::WalOptions;

/// A handle to the replicated cluster. Clones share it.
#[derive(Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) raft: Raft<Types, StateMachine>,
    pub(crate) raft_id: u64,
    address: String,
    pub(crate) log: LogStore,
    snapshots: Arc<Snapshots>,
    since_snapshot: Arc<SinceSnapshot>,
    cluster: watch::Receiver<Arc<Cluster>>,
    /// The last index that is in `cluster`.
    pub(crate) applied: watch::Receiver<Option<u64>>,
    pub(crate) leadership: watch::Receiver<Leadership>,
    pub(crate) members: watch::Receiver<Members>,
    pub(crate) hashes: Arc<ApplyHashes>,
    pub(crate) outside: Arc<Outside>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// A proposal that was applied.
#[derive(Debug, Clone)]
pub struct Committed {
    /// The Raft index that it was applied at: the version of what it changed.
    pub revision: u64,
    /// The state with it, and possibly with later proposals.
    pub cluster: Arc<Cluster>,
}

/// Whether a manager is the only one that votes in its cluster.
fn is_alone(raft: &Raft<Types, StateMachine>, raft_id: u64) -> bool {
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    metrics.membership_config.membership().voter_ids().eq([raft_id])
}

/// What the disk held.
struct Opened {
    log: LogStore,
    snapshots: Arc<Snapshots>,
    since_snapshot: Arc<SinceSnapshot>,
    machine: StateMachine,
    replica: Replica,
}

impl Store {
    /// Opens the store in its folder and starts Raft.
    ///
    /// A manager that is alone in its cluster leads it at once. One that belongs to no cluster waits to
    /// be initialized, or for a leader that adds it.
    pub async fn open(config: StoreConfig) -> Result<Store, StoreError> {
        let files = config.clone();
        let opened =
            spawn_blocking(move || open_files(&files)).await.map_err(|error| StoreError::Raft(error.to_string()))??;
        let Opened { log, snapshots, since_snapshot, machine, replica: Replica { cluster, applied, folded } } = opened;
        let raft_config = raft_config(&config, log.wal().metrics().last_sync)
            .validate()
            .map_err(|error| StoreError::Raft(error.to_string()))?;
        let patience = Duration::from_millis(2 * raft_config.election_timeout_max);
        let outside = Arc::new(Outside::new(config.raft_id, Arc::clone(&config.peers), patience));
        let managers = Managers(Arc::clone(&outside));
        let raft = Raft::new(config.raft_id, Arc::new(raft_config), managers, log.clone(), machine)
            .await
            .map_err(|error| StoreError::Raft(crate::error::chain(&error)))?;
        if is_alone(&raft, config.raft_id) {
            // Nobody else can be leader or vote: there is nothing to wait for.
            raft.trigger().elect(false).await.map_err(|error| StoreError::Raft(error.to_string()))?;
        }

        let (leading, leadership) = watch::channel(Leadership::Follower { leader: None });
        let (listing, members) = watch::channel(Members::default());
        let published = Published { leadership: leading, members: listing };
        let snapshotting = take_snapshots(
            raft.clone(),
            cluster.clone(),
            Arc::clone(&since_snapshot),
            Arc::clone(&snapshots),
            config.snapshot_bytes_min,
        );
        let comparing = compare(Arc::clone(&outside), folded.newest, members.clone(), leadership.clone());
        let tasks = vec![
            tokio::spawn(comparing),
            tokio::spawn(follow(raft.clone(), Arc::clone(&outside), published)),
            tokio::spawn(snapshotting),
        ];
        let inner = Inner {
            raft,
            raft_id: config.raft_id,
            address: config.address,
            log,
            snapshots,
            since_snapshot,
            cluster,
            applied,
            leadership,
            members,
            hashes: folded.hashes,
            outside,
            tasks: Mutex::new(tasks),
        };
        Ok(Store { inner: Arc::new(inner) })
    }

    /// Whether this manager belongs to a cluster: any proposal was ever logged here.
    pub fn is_initialized(&self) -> bool {
        self.inner.log.has_proposals() || self.inner.snapshots.newest().is_some()
    }

    /// Starts a cluster of one with its first state. What was interrupted can be repeated.
    pub async fn initialize(&self, changes: Vec<Change>) -> Result<Committed, InitializeError> {
        if self.is_initialized() {
            return Err(InitializeError::AlreadyInitialized);
        }
        let Inner { raft, raft_id, address, .. } = &*self.inner;
        match raft.initialize(BTreeMap::from([(*raft_id, Member { address: address.clone() })])).await {
            Ok(()) => {}
            // An earlier attempt came this far, and the changes are still missing.
            Err(RaftError::APIError(RaftInitializeError::NotAllowed(_))) => {}
            Err(error) => return Err(InitializeError::Raft(error.to_string())),
        }
        let mut leadership = self.leadership();
        // Only whether: what `wait_for` gives is a lock, and the proposal below waits.
        let decided = leadership.wait_for(|now| !matches!(now, Leadership::Follower { .. })).await.is_ok();
        if !decided {
            return Err(InitializeError::Raft("Raft stopped".to_owned()));
        }
        Ok(self.propose(changes).await?)
    }

    /// The latest applied state. On a follower, and for a moment after a start, older than the
    /// cluster's.
    pub fn cluster(&self) -> Arc<Cluster> {
        Arc::clone(&self.inner.cluster.borrow())
    }

    /// The latest applied state, whenever it changes.
    pub fn watch(&self) -> watch::Receiver<Arc<Cluster>> {
        self.inner.cluster.clone()
    }

    /// Who leads, whenever it changes.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.inner.leadership.clone()
    }

    /// This manager's Raft id.
    pub fn raft_id(&self) -> u64 {
        self.inner.raft_id
    }

    /// Figures of this moment.
    pub fn metrics(&self) -> StoreMetrics {
        let Inner { raft, log, snapshots, since_snapshot, .. } = &*self.inner;
        let snapshot_bytes = snapshots.newest().as_ref().map_or(0, |newest| newest.size);
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        StoreMetrics::new(&metrics, log.wal().metrics(), since_snapshot.bytes(), snapshot_bytes)
    }

    /// Makes a snapshot now, whatever the log's size; returns when it is asked for, not when it is made.
    pub async fn snapshot(&self) -> Result<(), ProposeError> {
        let asked = self.inner.raft.trigger().snapshot().await;
        asked.map_err(|fatal| ProposeError::Stopped { reason: crate::error::reason(&fatal) })
    }

    /// Why this manager takes no part any more, if it does not.
    pub(crate) fn stop_reason(&self) -> Option<Arc<str>> {
        match &*self.inner.leadership.borrow() {
            Leadership::Stopped { reason } => Some(Arc::clone(reason)),
            Leadership::Leader { .. } | Leadership::Follower { .. } => self.inner.outside.stopped(),
        }
    }

    /// Stops Raft, writes what is left, and waits for everything. Further calls fail as stopped. A leader hands over
    /// first, if another voter answers.
    pub async fn shutdown(&self) {
        match self.hand_over(None).await {
            Ok(()) | Err(HandOverError::NotLeader | HandOverError::Nobody | HandOverError::Stopped { .. }) => {}
            Err(error @ HandOverError::NotTaken { .. }) => tracing::warn!(%error, "stopping while leading"),
        }
        if let Err(error) = self.inner.raft.shutdown().await {
            tracing::error!(%error, "Raft's task ended badly");
        }
        let tasks: Vec<_> = {
            let mut tasks = self.inner.tasks.lock().unwrap_or_else(PoisonError::into_inner);
            tasks.drain(..).collect()
        };
        for task in tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a task of the store ended badly");
            }
        }
        let log = self.inner.log.clone();
        if let Err(error) = spawn_blocking(move || log.wal().close()).await {
            tracing::error!(%error, "the Raft log closed badly");
        }
    }
}

fn open_files(config: &StoreConfig) -> Result<Opened, StoreError> {
    let lock = lock(&config.dir)?;
    let (log, found) = LogStore::open(wal_options(config, Some(Arc::new(lock))))?;
    if let Some((path, offset)) = &found.torn {
        tracing::warn!(path = %path.display(), offset, "dropped a write that was interrupted before it was confirmed");
    }
    let (snapshots, loaded) = Snapshots::open(&config.dir.join("snapshots"), &config.key, found.purged)?;
    let snapshots = Arc::new(snapshots);
    let since_snapshot = Arc::new(SinceSnapshot::new(log.wal().clone(), found.bytes));
    let (machine, replica) =
        StateMachine::new(loaded, Arc::clone(&snapshots), Arc::clone(&since_snapshot)).map_err(StoreError::State)?;
    Ok(Opened { log, snapshots, since_snapshot, machine, replica })
}

pub(crate) fn wal_options(config: &StoreConfig, lock: Option<Arc<File>>) -> WalOptions {
    WalOptions {
        dir: config.dir.join("log"),
        disk: Arc::clone(&config.disk),
        key: config.key.clone(),
        node: config.raft_id,
        segment_bytes: config.segment_bytes,
        keep_bytes: config.cache_bytes,
        lock,
    }
}

pub(crate) fn lock(dir: &Path) -> Result<File, StoreError> {
    let failed = |source| StoreError::Folder { path: dir.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
    let file = File::options().create(true).append(true).open(dir.join("lock")).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse { path: dir.to_owned() }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// Asks for a snapshot whenever enough was logged since the last one. Ends when the state machine does.
async fn take_snapshots(
    raft: Raft<Types, StateMachine>,
    mut cluster: watch::Receiver<Arc<Cluster>>,
    since_snapshot: Arc<SinceSnapshot>,
    snapshots: Arc<Snapshots>,
    bytes_min: u64,
) {
    while cluster.changed().await.is_ok() {
        let newest_size = snapshots.newest().as_ref().map_or(0, |newest| newest.size);
        if since_snapshot.is_due(bytes_min, newest_size) && raft.trigger().snapshot().await.is_err() {
            return;
        }
    }
}
