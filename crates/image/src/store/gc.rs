//! Garbage collection: mark what names, roots and leases need, sweep the rest.
//!
//! Runs beside pulls. Safe because content is held by a lease before anybody looks whether it is here, and because
//! what is let go during a collection survives it (see leases).

use std::collections::{BTreeSet, HashSet};

use super::leases::{Collection, Item};
use super::local::layer_names;
use super::records::Record;
use super::{Collected, ImageStore, Roots, blocking};
use crate::config::ConfigFile;
use crate::digest::Digest;
use crate::error::ImageError;
use crate::image::Names;
use crate::manifest::AnyManifest;

impl ImageStore {
    /// Removes names as `roots` says, and all content that neither a name, a root, a running pull nor a living
    /// `Image` needs. A collection that runs already makes this one do nothing.
    pub async fn gc(&self, roots: &Roots) -> Result<Collected, ImageError> {
        let (store, roots) = (self.clone(), roots.clone());
        blocking(move || {
            let inner = store.inner.clone();
            match inner.leases.collect() {
                Some(collection) => store.collect(&roots, &collection),
                None => Ok(Collected::default()),
            }
        })
        .await
    }

    fn collect(&self, roots: &Roots, collection: &Collection<'_>) -> Result<Collected, ImageError> {
        let layout = &self.inner.layout;
        let mut collected = Collected::default();
        let mut needed = roots.in_use.clone();
        for record in layout.records()? {
            if is_kept(&record, roots, collection) {
                needed.extend([record.digest, record.manifest]);
            } else {
                layout.remove_record(&record)?;
                collected.names.push(record.reference);
            }
        }
        let marked = self.mark(needed)?;
        for blob in layout.blobs()?.into_iter().filter(|blob| !marked.contains(&Item::Blob(*blob))) {
            if let Some(freed) = collection.discard(Item::Blob(blob), || layout.discard_blob(blob)) {
                collected.freed_bytes += freed?;
            }
        }
        for key in layout.layers()?.into_iter().filter(|key| !marked.contains(&Item::Layer(*key))) {
            let bytes = layout.meta(key).map_or(0, |meta| meta.bytes);
            // Renamed under the lock, removed after it.
            if let Some(discarded) = collection.discard(Item::Layer(key), || layout.discard_layer(key)) {
                drop(discarded?);
                collected.layers += 1;
                collected.freed_bytes += bytes;
            }
        }
        Ok(collected)
    }

    /// Everything that the images named by `needed` consist of.
    fn mark(&self, mut needed: BTreeSet<Digest>) -> Result<HashSet<Item>, ImageError> {
        let blobs = self.inner.layout.blobs()?;
        let manifests: Vec<(Digest, AnyManifest)> =
            blobs.into_iter().filter_map(|digest| Some((digest, self.parsed_manifest(digest)?))).collect();
        // An image may be named by its id: its manifest, known only from the other side, is needed too.
        for (digest, manifest) in &manifests {
            if let AnyManifest::Manifest(manifest) = manifest
                && needed.contains(&manifest.config.digest)
            {
                needed.insert(*digest);
            }
        }
        let mut marked = HashSet::new();
        let mut queue: Vec<Digest> = needed.into_iter().collect();
        while let Some(digest) = queue.pop() {
            if !marked.insert(Item::Blob(digest)) {
                continue;
            }
            match manifests.iter().find(|(known, _)| *known == digest) {
                Some((_, AnyManifest::Index(index))) => queue.extend(index.images().map(|image| image.digest)),
                Some((_, AnyManifest::Manifest(manifest))) => {
                    marked.insert(Item::Blob(manifest.config.digest));
                    let config = self.inner.layout.blob(manifest.config.digest);
                    let config = config.and_then(|bytes| ConfigFile::parse(&bytes).ok());
                    let diff_ids = config.map(|config| config.diff_ids).unwrap_or_default();
                    marked.extend(layer_names(&diff_ids).into_iter().flat_map(|names| names.keys).map(Item::Layer));
                }
                None => {}
            }
        }
        Ok(marked)
    }
}

fn is_kept(record: &Record, roots: &Roots, collection: &Collection<'_>) -> bool {
    let used = roots.in_use.iter().any(|digest| record.is(*digest)) || collection.is_held(Item::Blob(record.image));
    match roots.names {
        Names::Keep => true,
        Names::DropUnusedBefore(time) => used || record.written_at() >= time,
    }
}
