//! Locked managers, backups, and clusters that begin again.

use bytes::Bytes;
use skep_model::{ClusterId, NodeId};

use crate::wire::{choice, message};

#[derive(Clone, PartialEq, Eq)]
pub struct UnlockRequest {
    pub key: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BackupRequest {}

/// A part of the cluster as the log and snapshots hold it, secrets and the CA's key included.
#[derive(Clone, PartialEq, Eq)]
pub enum BackupPart {
    /// Comes first, if at all: this may not be the newest state, and why.
    Stale(String),
    Data(Bytes),
}

/// `Start` first, then the cluster of a backup in parts.
#[derive(Clone, PartialEq, Eq)]
pub enum RestorePart {
    Start(RestoreOptions),
    Data(Bytes),
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RestoreOptions {
    /// The address that other nodes reach this one under; the one of the default route when absent.
    pub advertise_address: Option<String>,
}

#[derive(Clone, PartialEq, Eq)]
pub struct Restored {
    pub node: NodeId,
    pub cluster: ClusterId,
    /// `host:port` of the new manager.
    pub advertise_address: String,
    pub worker_token: String,
    pub manager_token: String,
    /// Names of the nodes that the cluster had, and that count as down until they come back.
    pub lost_nodes: Vec<String>,
    pub services: u64,
    /// Whether this manager will ask for the cluster's unlock key when it starts.
    pub autolock: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RecoverRequest {
    /// Only say whether it could be done, and what would be lost.
    pub check: bool,
    /// Also while a majority of the managers answers.
    pub force: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// The folder with Raft's files as they were; where they are, of a check.
    pub kept_in: String,
    /// Names of the managers that are no managers any more.
    pub lost_managers: Vec<String>,
    /// Entries of the log that were not known to be confirmed, and count as such now.
    pub unconfirmed: u64,
}

message!(UnlockRequest = UnlockRequest { key });
message!(BackupRequest = BackupRequest {});
choice!(BackupPart = BackupPart in backup_part { Stale, Data });
choice!(RestorePart = RestorePart in restore_part { Start, Data });
message!(RestoreOptions = RestoreOptions { advertise_address });
message!(
    Restored =
        Restored { node, cluster, advertise_address, worker_token, manager_token, lost_nodes, services, autolock }
);
message!(RecoverRequest = RecoverRequest { check, force });
message!(Recovered = Recovered { kept_in, lost_managers, unconfirmed });
