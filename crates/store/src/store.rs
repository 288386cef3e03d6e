//! The store: opening it, proposing, reading, watching, shutting down.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, TryLockError};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{InitializeError as RaftInitializeError, RaftError};
use openraft::{Raft, ReadPolicy};
use skep_model::{Change, Cluster};
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::config::{StoreConfig, raft_config};
use crate::error::{InitializeError, ProposeError, ReadError, StoreError};
use crate::leadership::{Leadership, follow};
use crate::log_store::LogStore;
use crate::metrics::StoreMetrics;
use crate::network::Managers;
use crate::raft::{Member, Proposal, Types};
use crate::snapshot::Snapshots;
use crate::state_machine::{SinceSnapshot, StateMachine};
use crate::wal::WalOptions;

/// The most bytes that one proposal may have, encoded.
const PROPOSAL_BYTES_MAX: usize = 4 << 20;

/// A handle to the replicated cluster. Clones share it.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    raft: Raft<Types, StateMachine>,
    raft_id: u64,
    address: String,
    log: LogStore,
    snapshots: Arc<Snapshots>,
    since_snapshot: Arc<SinceSnapshot>,
    cluster: watch::Receiver<Arc<Cluster>>,
    leadership: watch::Receiver<Leadership>,
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

/// What the disk held.
struct Opened {
    log: LogStore,
    snapshots: Arc<Snapshots>,
    since_snapshot: Arc<SinceSnapshot>,
    machine: StateMachine,
    cluster: watch::Receiver<Arc<Cluster>>,
}

impl Store {
    /// Opens the store in its folder and starts Raft.
    ///
    /// A manager that is alone in its cluster leads it at once. One that belongs to no cluster waits to
    /// be initialized.
    pub async fn open(config: StoreConfig) -> Result<Store, StoreError> {
        let files = config.clone();
        let opened =
            spawn_blocking(move || open_files(&files)).await.map_err(|error| StoreError::Raft(error.to_string()))??;
        let Opened { log, snapshots, since_snapshot, machine, cluster } = opened;
        let raft_config = raft_config(&config, log.wal().metrics().last_sync)
            .validate()
            .map_err(|error| StoreError::Raft(error.to_string()))?;
        let raft = Raft::new(config.raft_id, Arc::new(raft_config), Managers, log.clone(), machine)
            .await
            .map_err(|error| StoreError::Raft(crate::error::chain(&error)))?;

        let (leading, leadership) = watch::channel(Leadership::Follower { leader: None });
        let snapshotting = take_snapshots(
            raft.clone(),
            cluster.clone(),
            Arc::clone(&since_snapshot),
            Arc::clone(&snapshots),
            config.snapshot_bytes_min,
        );
        let tasks = vec![tokio::spawn(follow(raft.clone(), leading)), tokio::spawn(snapshotting)];
        let inner = Inner {
            raft,
            raft_id: config.raft_id,
            address: config.address,
            log,
            snapshots,
            since_snapshot,
            cluster,
            leadership,
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

    /// A state with everything that was confirmed to anybody before this call.
    pub async fn linearizable(&self) -> Result<Arc<Cluster>, ReadError> {
        self.inner.raft.ensure_linearizable(ReadPolicy::ReadIndex).await?;
        Ok(self.cluster())
    }

    /// Proposes changes, to be applied together or not at all; returns when they are.
    ///
    /// Any number of proposals may be under way; Raft writes what is waiting in one go.
    pub async fn propose(&self, changes: Vec<Change>) -> Result<Committed, ProposeError> {
        let bytes = skep_api::encode_changes(&changes);
        drop(changes);
        if bytes.len() > PROPOSAL_BYTES_MAX {
            return Err(ProposeError::TooLarge { bytes: bytes.len(), limit: PROPOSAL_BYTES_MAX });
        }
        let written = self.inner.raft.client_write(Proposal(bytes.into())).await?;
        written.data.result?;
        Ok(Committed { revision: written.log_id.index, cluster: written.data.cluster })
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

    /// Stops Raft, writes what is left, and waits for everything. Further calls fail as stopped.
    pub async fn shutdown(&self) {
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
    let (machine, cluster) =
        StateMachine::new(loaded, Arc::clone(&snapshots), Arc::clone(&since_snapshot)).map_err(StoreError::State)?;
    Ok(Opened { log, snapshots, since_snapshot, machine, cluster })
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
