//! From a layer's compressed bytes to a folder that overlayfs can use as a lower layer.
//!
//! ```text
//! bytes ─ decompress (by magic) ─ meter (bombs, disk) ─ sha256 = diff id ─ archive (tar) ─ apply ─ [settle]
//! ```
//! One blocking thread per layer; memory is bounded by its buffers. The folder is the caller's: until `unpack`
//! has returned without an error it is garbage, and nothing outside it is touched whatever the archive says.
//! Nothing here knows registries or the store.

mod apply;
mod archive;
mod decompress;
mod error;
mod header;
mod limits;
mod remove;
mod settle;
mod tree;

use std::io::Read;
use std::path::{Path, PathBuf};

pub(crate) use self::apply::clean;
use self::apply::{Applied, Applier};
pub(crate) use self::archive::{Archive, Kind};
use self::decompress::Meter;
pub use self::error::UnpackError;
pub use self::limits::Limits;
pub(crate) use self::remove::remove_tree;
use self::tree::Tree;
use crate::digest::{Digest, HashingReader};

/// A layer whose archive was applied and verified.
pub(crate) struct Unpacked {
    tree: Tree,
    applied: Applied,
}

/// Unpacks `compressed` (of `compressed_bytes`) into the empty folder `into`, and checks its diff id.
pub(crate) fn unpack(
    compressed: impl Read + Send + 'static,
    compressed_bytes: u64,
    into: &Path,
    expected: Digest,
    limits: Limits,
) -> Result<Unpacked, UnpackError> {
    let tree = Tree::open(into)?;
    let disk = tree.open_in_root(b"").map_err(|errno| UnpackError::folder("open", errno))?;
    let plain = decompress::open(compressed)?;
    let mut archive = Archive::new(HashingReader::new(Meter::new(plain, limits, disk, compressed_bytes)));
    let mut applier = Applier::new(tree, limits);
    while let Some(entry) = archive.next()? {
        applier.apply(entry, &mut archive)?;
    }
    let actual = archive.finish()?.finish();
    if actual != expected {
        return Err(UnpackError::DiffId { expected, actual });
    }
    let (tree, applied) = applier.finish()?;
    Ok(Unpacked { tree, applied })
}

/// Decompresses `archive`, stopped before it fills the disk that `folder` is on.
pub(crate) fn metered(
    archive: Box<dyn Read + Send>,
    folder: &Path,
    limits: Limits,
) -> Result<impl Read + use<>, UnpackError> {
    let disk = Tree::open(folder)?.open_in_root(b"").map_err(|errno| UnpackError::folder("open", errno))?;
    // Its compressed size is not known, and it may hold any number of layers.
    let limits = Limits { layer_bytes_max: u64::MAX, ..limits };
    Ok(Meter::new(decompress::open(archive)?, limits, disk, u64::MAX))
}

impl Unpacked {
    /// Whether the folder is complete without knowing what is below it.
    pub(crate) fn is_independent(&self) -> bool {
        self.applied.implied.is_empty() && self.applied.links.is_empty()
    }

    pub(crate) fn entries(&self) -> u64 {
        self.applied.entries
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.applied.bytes
    }

    pub(crate) fn hides_all_below(&self) -> bool {
        self.applied.opaque_root
    }

    /// Takes from the layers below (base first) what the archive left to them.
    pub(crate) fn settle(&mut self, lowers: &[PathBuf]) -> Result<(), UnpackError> {
        settle::settle(&mut self.tree, &self.applied, lowers)
    }
}
