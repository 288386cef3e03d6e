//! The wire: generated protobuf (private), one conversion table per object, and what the store writes to disk.

mod disk;
#[allow(clippy::all)]
mod pb {
    include!("generated/skep.v1.rs");
}
mod wire;

pub use disk::{CHANGES_FORMAT, CLUSTER_FORMAT, decode_changes, decode_cluster, encode_changes, encode_cluster};
pub use wire::{DecodeError, Object};
