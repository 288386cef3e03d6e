//! The store's folder. The file system is the truth: no index has to agree with it.
//!
//! ```text
//! format                    the number of this layout
//! lock                      held by the process that uses the store
//! blobs/sha256/<digest>     manifests, indexes and configurations, as served
//! layers/<diff id>/         fs/ (a lower folder of overlayfs), meta.json, durable
//! layers/chain-<chain id>/  the same, of a layer that took something from those below it
//! refs/<digest of name>     what a name meant when it was pulled last
//! tmp/                      unfinished and discarded things; emptied at every start
//! ```
//! Invariant: what has its final name is complete. Layers get it by rename, without waiting for the disk; a layer
//! that the disk may not have (no `durable`, and the machine was restarted since) is dropped at the next start.
//! Blobs and references need no such mark: they are verified or parsed whenever they are read.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::ImageError;
use crate::unpack::remove_tree;

const FORMAT: u32 = 1;

pub(crate) struct Layout {
    root: PathBuf,
    boot: String,
    next_tmp: AtomicU64,
    /// Closing it releases the store.
    _lock: File,
}

/// Where a layer is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum LayerKey {
    /// By diff id: the same under every image that has it.
    Shared(Digest),
    /// By chain id: it took something from the layers below.
    Chained(Digest),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LayerMeta {
    pub(crate) bytes: u64,
    pub(crate) entries: u64,
    #[serde(default)]
    pub(crate) hides_all_below: bool,
    /// The boot that wrote it (/proc/sys/kernel/random/boot_id).
    pub(crate) boot: String,
}

/// A folder below `tmp/`, removed with everything in it unless it was renamed away.
pub(crate) struct TmpDir {
    path: PathBuf,
}

impl LayerKey {
    fn name(self) -> String {
        match self {
            LayerKey::Shared(digest) => digest.hex(),
            LayerKey::Chained(digest) => format!("chain-{}", digest.hex()),
        }
    }

    fn from_name(name: &str) -> Option<LayerKey> {
        match name.strip_prefix("chain-") {
            Some(hex) => Digest::from_hex(hex).ok().map(LayerKey::Chained),
            None => Digest::from_hex(name).ok().map(LayerKey::Shared),
        }
    }
}

impl Layout {
    /// Opens or makes the store in `root`, for this process only, and clears what a crash left.
    pub(crate) fn open(root: &Path) -> Result<Layout, ImageError> {
        make_dirs(root, &["blobs/sha256", "layers", "refs", "tmp"])?;
        let lock_path = root.join("lock");
        let lock = File::create(&lock_path).map_err(ImageError::io("create", &lock_path))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|_| ImageError::Locked { path: root.into() })?;
        check_format(root)?;
        let boot_path = Path::new("/proc/sys/kernel/random/boot_id");
        let boot = fs::read_to_string(boot_path).map_err(ImageError::io("read", boot_path))?;
        let layout =
            Layout { root: root.into(), boot: boot.trim().to_owned(), next_tmp: AtomicU64::new(0), _lock: lock };
        layout.clear()?;
        Ok(layout)
    }

    fn clear(&self) -> Result<(), ImageError> {
        for key in self.layers()? {
            let survived = self.is_durable(key) || self.meta(key).is_some_and(|meta| meta.boot == self.boot);
            if !survived {
                tracing::info!(layer = key.name(), "layer dropped: the disk may not have all of it");
                self.discard_layer(key)?;
            }
        }
        let tmp = self.root.join("tmp");
        for entry in read_dir(&tmp)? {
            remove_tree(&entry).map_err(ImageError::io("remove", &entry))?;
        }
        Ok(())
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn tmp_dir(&self) -> Result<TmpDir, ImageError> {
        let path = self.tmp_path();
        fs::create_dir(&path).map_err(ImageError::io("create", &path))?;
        Ok(TmpDir { path })
    }

    fn tmp_path(&self) -> PathBuf {
        let number = self.next_tmp.fetch_add(1, Ordering::Relaxed);
        self.root.join("tmp").join(format!("tmp-{number}"))
    }

    fn blob_path(&self, digest: Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    /// A blob whose bytes have its digest; a damaged one counts as absent.
    pub(crate) fn blob(&self, digest: Digest) -> Option<Vec<u8>> {
        let bytes = fs::read(self.blob_path(digest)).ok()?;
        (Digest::of(&bytes) == digest).then_some(bytes)
    }

    /// `bytes` must have the digest.
    pub(crate) fn write_blob(&self, digest: Digest, bytes: &[u8]) -> Result<(), ImageError> {
        self.write(&self.blob_path(digest), bytes)
    }

    pub(crate) fn blobs(&self) -> Result<Vec<Digest>, ImageError> {
        Ok(names(&self.root.join("blobs/sha256"))?.iter().filter_map(|name| Digest::from_hex(name).ok()).collect())
    }

    /// Returns the bytes freed.
    pub(crate) fn discard_blob(&self, digest: Digest) -> Result<u64, ImageError> {
        let path = self.blob_path(digest);
        let bytes = fs::metadata(&path).map_or(0, |meta| meta.len());
        fs::remove_file(&path).or_else(absent_is_fine).map_err(ImageError::io("remove", &path))?;
        Ok(bytes)
    }

    fn layer_path(&self, key: LayerKey) -> PathBuf {
        self.root.join("layers").join(key.name())
    }

    /// The folder to give to overlayfs.
    pub(crate) fn layer_fs(&self, key: LayerKey) -> PathBuf {
        self.layer_path(key).join("fs")
    }

    pub(crate) fn layers(&self) -> Result<Vec<LayerKey>, ImageError> {
        Ok(names(&self.root.join("layers"))?.iter().filter_map(|name| LayerKey::from_name(name)).collect())
    }

    /// `None` if the layer is not here.
    pub(crate) fn meta(&self, key: LayerKey) -> Option<LayerMeta> {
        serde_json::from_slice(&fs::read(self.layer_path(key).join("meta.json")).ok()?).ok()
    }

    pub(crate) fn is_durable(&self, key: LayerKey) -> bool {
        self.layer_path(key).join("durable").exists()
    }

    /// Gives an unpacked layer (`dir/fs`) its final name. Another that came first stays.
    pub(crate) fn commit_layer(
        &self,
        key: LayerKey,
        dir: TmpDir,
        bytes: u64,
        entries: u64,
        hides_all_below: bool,
    ) -> Result<(), ImageError> {
        let meta = LayerMeta { bytes, entries, hides_all_below, boot: self.boot.clone() };
        let meta_path = dir.path.join("meta.json");
        let text = serde_json::to_vec(&meta).expect("numbers and strings are valid JSON");
        fs::write(&meta_path, text).map_err(ImageError::io("write", &meta_path))?;
        let path = self.layer_path(key);
        match fs::rename(&dir.path, &path) {
            Err(error) if self.meta(key).is_none() => Err(ImageError::io("move a layer to", &path)(error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// After the file system was synced.
    pub(crate) fn mark_durable(&self, key: LayerKey) -> Result<(), ImageError> {
        let path = self.layer_path(key).join("durable");
        // The layer may have been collected meanwhile.
        File::create(&path).map(drop).or_else(absent_is_fine).map_err(ImageError::io("create", &path))
    }

    /// Takes the layer away at once; the files go when the result is dropped.
    pub(crate) fn discard_layer(&self, key: LayerKey) -> Result<TmpDir, ImageError> {
        let (path, tmp) = (self.layer_path(key), self.tmp_path());
        fs::rename(&path, &tmp).map_err(ImageError::io("discard", &path))?;
        Ok(TmpDir { path: tmp })
    }

    pub(crate) fn ref_path(&self, name: &str) -> PathBuf {
        self.root.join("refs").join(Digest::of(name.as_bytes()).hex())
    }

    pub(crate) fn refs(&self) -> Result<Vec<PathBuf>, ImageError> {
        read_dir(&self.root.join("refs"))
    }

    /// Replaces a small file: readers see the old bytes or the new.
    pub(crate) fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), ImageError> {
        let tmp = self.tmp_path();
        fs::write(&tmp, bytes).map_err(ImageError::io("write", &tmp))?;
        fs::rename(&tmp, path).map_err(ImageError::io("write", path))
    }
}

impl TmpDir {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TmpDir {
    fn drop(&mut self) {
        if let Err(error) = remove_tree(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "temporary folder left behind until the next start");
        }
    }
}

fn make_dirs(root: &Path, below: &[&str]) -> Result<(), ImageError> {
    use std::os::unix::fs::DirBuilderExt as _;
    // Layers hold set-user-id programs of other systems: nobody but root may reach them.
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    let paths = std::iter::once(root.to_owned()).chain(below.iter().map(|name| root.join(name)));
    for path in paths {
        builder.create(&path).map_err(ImageError::io("create", &path))?;
    }
    Ok(())
}

fn check_format(root: &Path) -> Result<(), ImageError> {
    let path = root.join("format");
    match fs::read_to_string(&path) {
        Ok(text) if text.trim() == FORMAT.to_string() => Ok(()),
        Ok(text) => Err(ImageError::Format { path: root.into(), found: text.trim().to_owned(), known: FORMAT }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::write(&path, format!("{FORMAT}\n")).map_err(ImageError::io("write", &path))
        }
        Err(error) => Err(ImageError::io("read", &path)(error)),
    }
}

fn read_dir(path: &Path) -> Result<Vec<PathBuf>, ImageError> {
    let entries = fs::read_dir(path).map_err(ImageError::io("list", path))?;
    entries.map(|entry| entry.map(|e| e.path())).collect::<io::Result<_>>().map_err(ImageError::io("list", path))
}

fn names(path: &Path) -> Result<Vec<String>, ImageError> {
    let text = |path: PathBuf| path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    Ok(read_dir(path)?.into_iter().filter_map(text).collect())
}

fn absent_is_fine(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}
