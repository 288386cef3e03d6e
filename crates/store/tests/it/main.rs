//! The store's promises at its boundary: what was acknowledged is there, whatever happened in between.

mod crash;
mod disks;
mod notes;
mod store;
mod wal_cut;
mod wal_files;
