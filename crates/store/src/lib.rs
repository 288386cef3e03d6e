//! Cluster replicated by Raft: log, snapshots, transactions, watch, encryption at rest.

mod codec;
mod key;
mod log_cache;
mod log_store;
mod raft;
mod snapshot;
mod state_machine;
pub mod wal;

pub use key::{DataKey, NoRandomness};
