//! Cluster replicated by Raft: log, snapshots, transactions, watch, encryption at rest.
//!
//! ```text
//!  propose(changes) ─▶ openraft ─▶ log_store ─▶ wal (one writer thread, one fdatasync per round)
//!                         │
//!                         └─ committed ─▶ state_machine: Cluster::apply ─▶ watch ─▶ everybody else
//!                                              └─▶ snapshot files
//! ```
//! The one writer of the cluster's state is the state machine; readers get `Arc<Cluster>` and never wait
//! for a write. openraft is known only here. What a change means is `model`'s matter, who proposes what
//! is `manager`'s.
//!
//! Invariant: a proposal that was answered is on the disks of a quorum of managers.
//! Invariant: a store where nothing happens writes nothing.

mod backup;
mod config;
mod error;
mod key;
mod leadership;
mod log_cache;
mod log_store;
mod metrics;
mod network;
mod raft;
mod rebirth;
mod snapshot;
mod state_machine;
mod store;
pub mod wal;

pub use backup::{BackupError, BackupHeader, read_backup, write_backup};
pub use config::StoreConfig;
pub use error::{InitializeError, ProposeError, ReadError, StoreError};
pub use key::{DataKey, NoRandomness};
pub use leadership::Leadership;
pub use metrics::StoreMetrics;
pub use rebirth::{LocalState, Place, create_from, read_local};
pub use snapshot::SnapshotError;
pub use store::{Committed, Store};
