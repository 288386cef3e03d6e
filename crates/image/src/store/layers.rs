//! Brings one image's layers into the store: what is missing is unpacked into `tmp/`, verified, and renamed.
//!
//! Layers are unpacked side by side, in any order. One that turns out to need those below it (see unpack::settle)
//! waits for them and is stored by its chain id. Two pulls never unpack the same layer at once.

use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;

use super::layout::{LayerKey, LayerMeta, TmpDir};
use super::leases::Lease;
use super::local::{Description, LayerNames};
use super::{Image, ImageStore, blocking};
use crate::digest::Digest;
use crate::error::ImageError;
use crate::unpack::{UnpackError, Unpacked, unpack};

/// A layer after its archive was read.
pub(crate) enum Stage {
    Ready(LayerKey, LayerMeta),
    /// Needs the layers below it.
    Unsettled(Box<Unpacked>, TmpDir),
}

impl ImageStore {
    /// Unpacks one archive into `tmp/`. Blocking.
    pub(crate) fn unpack_layer(
        &self,
        compressed: impl Read + Send + 'static,
        compressed_bytes: u64,
        diff_id: Digest,
        image: &str,
    ) -> Result<(Unpacked, TmpDir), ImageError> {
        let failed = |source| ImageError::Unpack { image: image.to_owned(), layer: diff_id, source: Box::new(source) };
        let dir = self.inner.layout.tmp_dir()?;
        let fs = dir.path().join("fs");
        make_root(&fs).map_err(ImageError::io("create", &fs))?;
        let unpacked = unpack(compressed, compressed_bytes, &fs, diff_id, self.inner.limits).map_err(failed)?;
        Ok((unpacked, dir))
    }

    /// Commits the layer if it can stand alone. Blocking.
    pub(crate) fn commit(&self, names: &LayerNames, unpacked: Unpacked, dir: TmpDir) -> Result<Stage, ImageError> {
        if !unpacked.is_independent() {
            return Ok(Stage::Unsettled(Box::new(unpacked), dir));
        }
        let [shared, _] = names.keys;
        self.commit_as(shared, &unpacked, dir)
    }

    fn commit_as(&self, key: LayerKey, unpacked: &Unpacked, dir: TmpDir) -> Result<Stage, ImageError> {
        let layout = &self.inner.layout;
        layout.commit_layer(key, dir, unpacked.bytes(), unpacked.entries(), unpacked.hides_all_below())?;
        let meta = layout
            .meta(key)
            .ok_or_else(|| ImageError::io("read", &layout.layer_fs(key))(io::Error::from(io::ErrorKind::NotFound)))?;
        Ok(Stage::Ready(key, meta))
    }

    /// Settles what is not ready, base first, and makes the image.
    pub(crate) async fn assemble(
        &self,
        description: Description,
        stages: Vec<Stage>,
        lease: Arc<Lease>,
    ) -> Result<Image, ImageError> {
        let store = self.clone();
        blocking(move || {
            let names = description.layers();
            let mut ready: Vec<(LayerKey, LayerMeta)> = Vec::new();
            for (stage, names) in stages.into_iter().zip(&names) {
                let stage = match stage {
                    Stage::Ready(..) => stage,
                    Stage::Unsettled(unpacked, dir) => store.settle(names, *unpacked, dir, &ready, &description)?,
                };
                if let Stage::Ready(key, meta) = stage {
                    ready.push((key, meta));
                }
            }
            let unsynced = ready.iter().map(|(key, _)| *key).filter(|key| !store.inner.layout.is_durable(*key));
            let unsynced: Vec<LayerKey> = unsynced.collect();
            let image = description.image(&store.inner.layout, &ready, lease);
            Ok((image, unsynced))
        })
        .await
        .map(|(image, unsynced)| {
            if !unsynced.is_empty() {
                self.sync_later(unsynced);
            }
            image
        })
    }

    fn settle(
        &self,
        names: &LayerNames,
        mut unpacked: Unpacked,
        dir: TmpDir,
        below: &[(LayerKey, LayerMeta)],
        description: &Description,
    ) -> Result<Stage, ImageError> {
        let failed = |source| ImageError::Unpack {
            image: description.reference.familiar(),
            layer: names.diff_id,
            source: Box::new(source),
        };
        let start = below.iter().rposition(|(_, meta)| meta.hides_all_below).unwrap_or(0);
        let folders: Vec<PathBuf> = below[start..].iter().map(|(key, _)| self.inner.layout.layer_fs(*key)).collect();
        let folders = if unpacked.hides_all_below() { Vec::new() } else { folders };
        unpacked.settle(&folders).map_err(failed)?;
        let [_, chained] = names.keys;
        self.commit_as(chained, &unpacked, dir)
    }
}

/// A layer's root until the archive describes it: 0755, root's, whatever the umask.
fn make_root(path: &std::path::Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::create_dir(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
}

/// Whether a failure to unpack is worth reading the rest of the bytes for, to learn if they were damaged.
pub(crate) fn blames_the_bytes(error: &ImageError) -> bool {
    matches!(error, ImageError::Unpack { source, .. } if source.is_about_the_bytes() && !matches!(**source, UnpackError::Limit(_)))
}
