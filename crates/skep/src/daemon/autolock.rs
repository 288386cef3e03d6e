//! A node's keys, in the clear or locked, and the watch that locks them as the cluster wants.
//!
//! ```text
//!  start ─▶ locked file? ──no──▶ keys in their files
//!                 └─yes─▶ only the socket ─▶ `skep unlock` ─▶ keys in memory ─▶ manager
//!  cluster's settings change ─▶ watch ─▶ lock with the new key, or put the keys back in the clear
//! ```
//! Each manager minds its own files. One that was down while the key changed still has the old file.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::{Context, Result};
use skep_identity::{Credentials, IdentityDir, ManagerKeys, NodeKey, UnlockKey};
use skep_manager::wall_clock;
use skep_model::{Cluster, ClusterConfig};
use skep_store::DataKey;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// After the keys' files could not be written.
const RETRY: Duration = Duration::from_secs(10);

/// What every command but `unlock`, `info` and `leave --force` is told.
pub const LOCKED: &str = "this manager is locked: its keys wait for the cluster's unlock key, and its containers run on; run \
                          `skep unlock` (on a manager that is not locked, `skep swarm unlock-key` shows the key)";

/// The keys of this node.
pub struct Vault {
    files: IdentityDir,
    /// Keys that are in the clear only here.
    opened: Mutex<Option<ManagerKeys>>,
}

impl Vault {
    pub fn new(data_dir: &Path) -> Self {
        Self { files: IdentityDir::new(data_dir), opened: Mutex::new(None) }
    }

    /// Whether the keys wait for an unlock key.
    pub fn is_locked(&self) -> Result<bool> {
        Ok(self.opened().is_none() && self.files.locked()?.is_some())
    }

    /// Opens the locked file; the keys stay in this process's memory.
    pub fn unlock(&self, key: &UnlockKey) -> Result<()> {
        let Some(locked) = self.files.locked()? else { return Ok(()) };
        let keys = locked.unlock(key)?;
        *self.opened() = Some(keys);
        Ok(())
    }

    /// The node's credentials, or none while it is no member.
    pub fn credentials(&self) -> Result<Option<Credentials>> {
        let credentials = match &*self.opened() {
            Some(keys) => self.files.load_with(copy(&keys.node_key)?),
            None => self.files.load(),
        };
        credentials.context("failed to read the node's certificate")
    }

    /// The key that log and snapshots are encrypted with; made with the first store.
    pub fn data_key(&self) -> Result<DataKey> {
        if let Some(keys) = &*self.opened() {
            return Ok(DataKey::from_bytes(keys.data_key));
        }
        if let Some(key) = self.files.data_key()? {
            return Ok(DataKey::from_bytes(key));
        }
        let key = DataKey::generate()?;
        self.files.store_data_key(key.as_bytes()).context("failed to write the store's key")?;
        Ok(key)
    }

    /// Makes the files what the cluster's settings say. Blocking.
    pub fn apply(&self, config: &ClusterConfig) -> Result<()> {
        let wanted = config.unlock_key.as_ref().filter(|_| config.spec.autolock);
        let wanted = wanted.map(|key| key.parse::<UnlockKey>()).transpose().context("the cluster's unlock key")?;
        let present = self.files.locked()?;
        match (wanted, present) {
            (None, None) => Ok(()),
            (Some(key), Some(present)) if present.is_locked_with(&key) => Ok(()),
            (Some(key), _) => {
                let keys = self.keys()?;
                self.files.lock(&keys.lock(&key, wall_clock())?)?;
                *self.opened() = Some(keys);
                tracing::info!("this manager's keys are locked; a restart waits for the unlock key");
                Ok(())
            }
            (None, Some(_)) => self.release(),
        }
    }

    /// Puts the keys back in the clear: autolock is off, or this node is no manager any more. Blocking.
    pub fn release(&self) -> Result<()> {
        if self.files.locked()?.is_none() {
            return Ok(());
        }
        self.files.release(&self.keys()?)?;
        *self.opened() = None;
        tracing::info!("this manager's keys are no longer locked");
        Ok(())
    }

    /// Forgets the keys of a membership that has ended.
    pub fn forget(&self) {
        *self.opened() = None;
    }

    /// The node's key, in the clear or unlocked.
    pub fn node_key(&self) -> Result<NodeKey> {
        match &*self.opened() {
            Some(keys) => copy(&keys.node_key),
            None => Ok(self.files.key()?),
        }
    }

    fn keys(&self) -> Result<ManagerKeys> {
        Ok(ManagerKeys { data_key: *self.data_key()?.as_bytes(), node_key: self.node_key()? })
    }

    fn opened(&self) -> MutexGuard<'_, Option<ManagerKeys>> {
        self.opened.lock().expect("no holder of this lock panics")
    }
}

fn copy(key: &NodeKey) -> Result<NodeKey> {
    Ok(NodeKey::from_pem(&key.to_pem())?)
}

/// Follows the cluster's settings until `stop`.
pub async fn watch(vault: Arc<Vault>, mut cluster: watch::Receiver<Arc<Cluster>>, stop: CancellationToken) {
    let mut known = None;
    loop {
        let config = cluster.borrow_and_update().config.clone();
        let wanted = config.as_ref().map(|config| (config.spec.autolock, config.unlock_key.clone()));
        let mut retry = false;
        if let Some(config) = config
            && known != wanted
        {
            let vault = Arc::clone(&vault);
            let applied = tokio::task::spawn_blocking(move || vault.apply(&config)).await;
            match applied.unwrap_or_else(|panic| Err(panic.into())) {
                Ok(()) => known = wanted,
                Err(error) => {
                    tracing::error!(
                        "this manager's keys could not be locked or unlocked as the cluster wants: {error:#}"
                    );
                    retry = true;
                }
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = cluster.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(RETRY), if retry => {}
        }
    }
}
