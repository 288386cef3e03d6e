//! The store's promises at its boundary: what was acknowledged is there, whatever happened in between.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod backup;
mod cluster;
mod crash;
mod disks;
mod linear;
mod losses;
mod managers;
mod notes;
mod store;
mod switch;
mod wal_cut;
mod wal_files;
