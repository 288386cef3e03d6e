//! Cluster replicated by Raft: log, snapshots, transactions, watch, encryption at rest.
