//! Reads images back from the store, without a registry: everything is found from digests.

use std::collections::HashSet;
use std::sync::Arc;

use super::layout::{LayerKey, LayerMeta, Layout};
use super::leases::{Item, Lease};
use super::{Image, ImageStore, ImageSummary};
use crate::config::ConfigFile;
use crate::digest::Digest;
use crate::error::ImageError;
use crate::manifest::{AnyManifest, Manifest};
use crate::platform::{self, Platform};
use crate::reference::Reference;

/// Everything that says what an image consists of.
pub(crate) struct Description {
    pub(crate) reference: Reference,
    pub(crate) digest: Digest,
    pub(crate) manifest_digest: Digest,
    pub(crate) manifest: Manifest,
    pub(crate) config: ConfigFile,
}

/// A layer's two names; the first is tried first.
pub(crate) struct LayerNames {
    pub(crate) diff_id: Digest,
    pub(crate) keys: [LayerKey; 2],
}

/// Names of the layers with these diff ids, base first. Chain ids: image-spec config.md.
pub(crate) fn layer_names(diff_ids: &[Digest]) -> Vec<LayerNames> {
    let mut chain: Option<Digest> = None;
    let names = diff_ids.iter().map(|diff_id| {
        let id = match chain {
            None => *diff_id,
            Some(below) => Digest::of(format!("{below} {diff_id}").as_bytes()),
        };
        chain = Some(id);
        LayerNames { diff_id: *diff_id, keys: [LayerKey::Shared(*diff_id), LayerKey::Chained(id)] }
    });
    names.collect()
}

impl Description {
    /// The layers, base first.
    pub(crate) fn layers(&self) -> Vec<LayerNames> {
        layer_names(&self.config.diff_ids)
    }

    /// The image made of these layers (base first), all of them here and held by `lease`.
    pub(crate) fn image(self, layout: &Layout, layers: &[(LayerKey, LayerMeta)], lease: Arc<Lease>) -> Image {
        let size = layers.iter().map(|(_, meta)| meta.bytes).sum();
        let start = layers.iter().rposition(|(_, meta)| meta.hides_all_below).unwrap_or(0);
        // overlayfs refuses a folder twice; the upper one decides everything that the lower one says.
        let mut seen = HashSet::new();
        let effective = layers[start..].iter().rev().filter(|(key, meta)| meta.entries > 0 && seen.insert(*key));
        let mut folders: Vec<_> = effective.map(|(key, _)| layout.layer_fs(*key)).collect();
        folders.reverse();
        Image {
            id: self.manifest.config.digest,
            digest: self.digest,
            manifest: self.manifest_digest,
            reference: self.reference,
            platform: self.config.platform,
            config: self.config.process,
            created: self.config.created,
            layers: folders,
            size,
            _lease: lease,
        }
    }
}

impl ImageStore {
    /// The image that `reference` means on this node, if it is completely here. With a digest, the reference need
    /// never have been pulled under this name. Reads a few small files.
    pub fn find(&self, reference: &Reference) -> Result<Option<Image>, ImageError> {
        match self.inner.layout.record(reference)? {
            Some(record) => self.find_described(reference, record.digest, record.manifest),
            None => match reference.digest() {
                Some(digest) => self.find_digest(reference, digest, &Platform::host()),
                None => Ok(None),
            },
        }
    }

    /// The image with this content under `reference`'s name, for the best of `platforms`, if it is here.
    pub(crate) fn find_digest(
        &self,
        reference: &Reference,
        digest: Digest,
        platforms: &[Platform],
    ) -> Result<Option<Image>, ImageError> {
        let manifest = match self.parsed_manifest(digest) {
            Some(AnyManifest::Manifest(_)) => digest,
            Some(AnyManifest::Index(index)) => match platform::select(&index, platforms) {
                Some(chosen) => chosen.digest,
                None => return Ok(None),
            },
            None => return Ok(None),
        };
        self.find_described(reference, digest, manifest)
    }

    fn find_described(
        &self,
        reference: &Reference,
        digest: Digest,
        manifest: Digest,
    ) -> Result<Option<Image>, ImageError> {
        let lease = self.inner.leases.lease();
        let Some(description) = self.describe(reference, digest, manifest, &lease) else { return Ok(None) };
        let layers = description.layers();
        let here = layers.iter().map(|names| self.present(names, &lease)).collect::<Option<Vec<_>>>();
        Ok(here.map(|here| description.image(&self.inner.layout, &here, Arc::new(lease))))
    }

    /// What is here under either of a layer's names, held from before the look.
    pub(crate) fn present(&self, names: &LayerNames, lease: &Lease) -> Option<(LayerKey, LayerMeta)> {
        names.keys.iter().find_map(|key| {
            lease.hold(Item::Layer(*key));
            self.inner.layout.meta(*key).map(|meta| (*key, meta))
        })
    }

    fn describe(
        &self,
        reference: &Reference,
        digest: Digest,
        manifest_digest: Digest,
        lease: &Lease,
    ) -> Option<Description> {
        lease.hold(Item::Blob(digest));
        lease.hold(Item::Blob(manifest_digest));
        let Some(AnyManifest::Manifest(manifest)) = self.parsed_manifest(manifest_digest) else { return None };
        lease.hold(Item::Blob(manifest.config.digest));
        let config = ConfigFile::parse(&self.inner.layout.blob(manifest.config.digest)?).ok()?;
        let reference = reference.clone();
        Some(Description { reference, digest, manifest_digest, manifest, config })
    }

    pub(crate) fn parsed_manifest(&self, digest: Digest) -> Option<AnyManifest> {
        AnyManifest::parse(&self.inner.layout.blob(digest)?, "").ok()
    }

    /// All named images that are complete. Reads a few small files per image.
    pub fn list(&self) -> Result<Vec<ImageSummary>, ImageError> {
        let mut summaries = Vec::new();
        for record in self.inner.layout.records()? {
            let Some(image) = self.find_described(&record.reference, record.digest, record.manifest)? else { continue };
            summaries.push(ImageSummary {
                repository: record.reference.familiar_name(),
                tag: record.reference.tag().map(str::to_owned),
                reference: record.reference,
                digest: image.digest,
                id: image.id,
                created: image.created,
                size: image.size,
            });
        }
        Ok(summaries)
    }
}
