//! Cluster replicated by Raft: log, snapshots, transactions, watch, encryption at rest.
//!
//! ```text
//!                 other managers
//!                     │     ▲
//!                  service  │ network, peers
//!                     ▼     │
//!  propose(changes) ─▶ openraft ─▶ log_store ─▶ wal (one writer thread, one fdatasync per round)
//!   (at a follower:       │
//!    to the leader)       │
//!                         └─ committed ─▶ state_machine: Cluster::apply ─▶ watch ─▶ everybody else
//!                                              └─▶ snapshot files
//! ```
//! The one writer of the cluster's state is the state machine; readers get `Arc<Cluster>` and never wait
//! for a write. openraft is known only here. What a change means is `model`'s matter, who proposes what
//! is `manager`'s.
//!
//! Invariant: a proposal that was answered is on the disks of a quorum of managers.
//! Invariant: a store where nothing happens writes nothing.
//! Invariant: what was surely not proposed may be sent again; what may have been is told as unknown.

mod apply_hash;
mod backup;
mod config;
mod contacts;
mod error;
mod key;
mod leadership;
mod log_cache;
mod log_store;
mod members;
mod metrics;
mod network;
mod peers;
mod presence;
mod propose;
mod quorum;
mod raft;
mod rebirth;
mod service;
mod snapshot;
mod state_machine;
mod store;
pub mod wal;
mod wire;

pub use backup::{BackupError, BackupHeader, read_backup, write_backup};
pub use config::StoreConfig;
pub use error::{InitializeError, ProposeError, ReadError, StoreError};
pub use key::{DataKey, NoRandomness};
pub use leadership::Leadership;
pub use members::{ChangeMembersError, HandOverError, Members};
pub use metrics::StoreMetrics;
pub use peers::{Answer, GrpcPeers, NoPeers, PeerAddress, PeerNetwork};
pub use quorum::{MissingManager, QuorumLost};
pub use rebirth::{LocalState, Place, create_from, read_local};
pub use service::PeerService;
pub use snapshot::SnapshotError;
pub use store::{Committed, Store};
