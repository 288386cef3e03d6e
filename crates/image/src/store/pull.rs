//! From a name in a registry to an image on this node.
//!
//! ```text
//! name ─ digest ─ index ─ manifest ─ configuration ─ layers ─ record
//! ```
//! Each step looks here first: with a digest whose content is here, no registry is asked.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes};
use futures::future::{FutureExt as _, try_join_all};
use tokio::sync::mpsc;

use super::layers::{Stage, blames_the_bytes};
use super::leases::{Item, Lease};
use super::local::{Description, LayerNames};
use super::records::Record;
use super::{Image, ImageStore, blocking, list};
use crate::config::ConfigFile;
use crate::digest::Digest;
use crate::error::ImageError;
use crate::image::{Progress, Resolved};
use crate::manifest::{AnyManifest, Descriptor, Manifest, ManifestError};
use crate::platform::{self, Platform};
use crate::reference::Reference;
use crate::registry::{Asker, Chunk, Credentials, RegistryError};
use crate::unpack::UnpackError;

const CONFIG_BYTES_MAX: u64 = 16 << 20;
/// Index within index within index: deeper is nonsense (image-spec allows nesting).
const NESTING_MAX: usize = 4;
/// Pieces of a blob on the way from the network to the thread that unpacks; each at most the connection's buffer.
const CHUNKS_AHEAD: usize = 8;

/// A record's time says when the image was wanted last, to about this: flash cards wear.
const RECORD_REFRESH: Duration = Duration::from_secs(3600);

type Report<'a> = &'a (dyn Fn(Progress) + Send + Sync);

impl ImageStore {
    /// Asks the registry what `reference` means now.
    pub async fn resolve(
        &self,
        reference: &Reference,
        credentials: Option<&Credentials>,
    ) -> Result<Resolved, ImageError> {
        let asker = Asker { reference, credentials };
        let lease = self.inner.leases.lease();
        let served = self.inner.registry.manifest(asker, &reference.manifest_name(), reference.digest()).await?;
        let platforms = match parse(reference, &served.bytes, &served.content_type)? {
            AnyManifest::Index(index) => index.platforms(),
            AnyManifest::Manifest(manifest) => {
                let config = self.config(asker, &manifest, &lease).await?;
                let unsaid = config.platform.architecture.is_empty();
                if unsaid { Vec::new() } else { vec![config.platform] }
            }
        };
        Ok(Resolved { digest: served.digest, platforms })
    }

    /// Brings the image for the best of `platforms` (best first, see `Platform::host`) to this node.
    ///
    /// With a digest in `reference` and its content here, no registry is asked; a tag is always looked up.
    /// Concurrent pulls of the same name, and of the same layers, join. On failure nothing partial is left.
    pub async fn pull(
        &self,
        reference: &Reference,
        credentials: Option<&Credentials>,
        platforms: &[Platform],
        progress: impl Fn(Progress) + Send + Sync,
    ) -> Result<Image, ImageError> {
        let wanted_at = Instant::now();
        let lease = Arc::new(self.inner.leases.lease());
        let asker = Asker { reference, credentials };
        let mut turn = self.inner.pulls.turn((reference.clone(), credentials.cloned())).await;
        let digest = match (reference.digest(), *turn) {
            (Some(digest), _) => digest,
            (None, Some((at, digest))) if at >= wanted_at => digest,
            (None, _) => {
                let at = Instant::now();
                let digest = self.look_up(asker, &lease).await?;
                *turn = Some((at, digest));
                digest
            }
        };
        if let Some(image) = self.find_digest(reference, digest, platforms)? {
            self.write_record(&image)?;
            return Ok(image);
        }
        let description = self.fetch_description(asker, digest, platforms, &lease).await?;
        let compressed_bytes = description.manifest.layers.iter().map(|layer| layer.size).sum();
        progress(Progress::Resolved { digest, layers: description.manifest.layers.len(), compressed_bytes });
        let names = description.layers();
        // Boxed one by one, in a loop: of a closure's future the compiler cannot see that it may move between
        // threads (rust#102211).
        let mut pulls = Vec::new();
        for (names, blob) in names.iter().zip(&description.manifest.layers) {
            pulls.push(self.layer(asker, names, blob, &lease, &progress).boxed());
        }
        let stages = try_join_all(pulls).await?;
        let image = self.assemble(description, stages, lease).await?;
        self.write_record(&image)?;
        Ok(image)
    }

    /// Notes what the name means. Sixty replicas that start together write it once.
    fn write_record(&self, image: &Image) -> Result<(), ImageError> {
        let record = Record::new(image.reference.clone(), image.digest, image.manifest, image.id);
        let known = self.inner.layout.record(&image.reference)?;
        let recent = |known: &Record| known.says_the_same(&record) && !known.is_older_than(RECORD_REFRESH);
        if known.is_some_and(|known| recent(&known)) { Ok(()) } else { self.inner.layout.write_record(&record) }
    }

    async fn look_up(&self, asker: Asker<'_>, lease: &Lease) -> Result<Digest, ImageError> {
        let name = asker.reference.manifest_name();
        let served = self.inner.registry.manifest(asker, &name, None).await?;
        parse(asker.reference, &served.bytes, &served.content_type)?;
        lease.hold(Item::Blob(served.digest));
        self.inner.layout.write_blob(served.digest, &served.bytes)?;
        Ok(served.digest)
    }

    async fn fetch_description(
        &self,
        asker: Asker<'_>,
        digest: Digest,
        platforms: &[Platform],
        lease: &Lease,
    ) -> Result<Description, ImageError> {
        let reference = asker.reference;
        let no_platform = |offered: &[Platform]| ImageError::NoPlatform {
            image: reference.familiar(),
            wanted: platforms.first().map(Platform::to_string).unwrap_or_default(),
            offered: list(offered),
        };
        let mut manifest_digest = digest;
        let mut nesting = 0;
        let manifest = loop {
            match self.manifest(asker, manifest_digest, lease).await? {
                AnyManifest::Manifest(manifest) => break manifest,
                AnyManifest::Index(index) => {
                    let chosen = platform::select(&index, platforms).filter(|_| nesting < NESTING_MAX);
                    manifest_digest = chosen.ok_or_else(|| no_platform(&index.platforms()))?.digest;
                    nesting += 1;
                }
            }
        };
        let config = self.config(asker, &manifest, lease).await?;
        if !platform::accepts(platforms, &config.platform) {
            return Err(no_platform(std::slice::from_ref(&config.platform)));
        }
        let (layers, diff_ids) = (manifest.layers.len(), config.diff_ids.len());
        if layers != diff_ids {
            let source = ManifestError::LayerCount { layers, diff_ids };
            return Err(ImageError::Manifest { image: reference.familiar(), source });
        }
        Ok(Description { reference: reference.clone(), digest, manifest_digest, manifest, config })
    }

    async fn manifest(&self, asker: Asker<'_>, digest: Digest, lease: &Lease) -> Result<AnyManifest, ImageError> {
        lease.hold(Item::Blob(digest));
        if let Some(bytes) = self.inner.layout.blob(digest) {
            return parse(asker.reference, &bytes, "");
        }
        let served = self.inner.registry.manifest(asker, &digest.to_string(), Some(digest)).await?;
        let manifest = parse(asker.reference, &served.bytes, &served.content_type)?;
        self.inner.layout.write_blob(digest, &served.bytes)?;
        Ok(manifest)
    }

    async fn config(&self, asker: Asker<'_>, manifest: &Manifest, lease: &Lease) -> Result<ConfigFile, ImageError> {
        let digest = manifest.config.digest;
        lease.hold(Item::Blob(digest));
        let parse = |bytes: &[u8]| {
            let image = asker.reference.familiar();
            ConfigFile::parse(bytes).map_err(|source| ImageError::Config { image, source })
        };
        if let Some(bytes) = self.inner.layout.blob(digest) {
            return parse(&bytes);
        }
        let bytes = self.inner.registry.small_blob(asker, &manifest.config, CONFIG_BYTES_MAX).await?;
        let config = parse(&bytes)?;
        self.inner.layout.write_blob(digest, &bytes)?;
        Ok(config)
    }

    /// Has one layer unpacked, by this pull or by another that is at it.
    async fn layer(
        &self,
        asker: Asker<'_>,
        names: &LayerNames,
        blob: &Descriptor,
        lease: &Lease,
        report: Report<'_>,
    ) -> Result<Stage, ImageError> {
        let layer = names.diff_id;
        let _turn = self.inner.layers.turn(layer).await;
        if let Some((key, meta)) = self.present(names, lease) {
            report(Progress::Present { layer });
            return Ok(Stage::Ready(key, meta));
        }
        let _permit = self.inner.downloads.acquire().await.map_err(|_| ImageError::Interrupted)?;
        let (sink, source) = mpsc::channel(CHUNKS_AHEAD);
        let unpacking = {
            let (store, image, bytes) = (self.clone(), asker.reference.familiar(), blob.size);
            let names = LayerNames { diff_id: layer, keys: names.keys };
            blocking(move || store.receive(source, bytes, &names, &image))
        };
        let of_bytes = blob.size;
        let received = |bytes| report(Progress::Downloading { layer, bytes, of_bytes });
        let downloading = async {
            let outcome = self.inner.registry.blob(asker, blob, &sink, &received).await;
            drop(sink);
            outcome
        };
        let stage = match tokio::join!(downloading, unpacking) {
            (Ok(()), unpacked) => unpacked?,
            // Unpacking stopped the download, and knows why.
            (Err(RegistryError::Stopped), Err(error)) => return Err(error),
            (Err(error), _) => return Err(error.into()),
        };
        report(Progress::Unpacked { layer });
        Ok(stage)
    }

    /// The thread at the other end of a download.
    fn receive(
        &self,
        source: mpsc::Receiver<Chunk>,
        compressed_bytes: u64,
        names: &LayerNames,
        image: &str,
    ) -> Result<Stage, ImageError> {
        let source = Arc::new(std::sync::Mutex::new(Received { source, current: Bytes::new(), ended: false }));
        let reader = SharedReader(source.clone());
        let unpacked = self.unpack_layer(reader, compressed_bytes, names.diff_id, image);
        if unpacked.as_ref().is_err_and(blames_the_bytes) {
            // Damaged bytes rarely decompress: the digest, known at the end, tells damage from a bad image.
            let drained = io::copy(&mut SharedReader(source), &mut io::sink());
            tracing::debug!(complete = drained.is_ok(), "rest of a layer read only for its digest");
        }
        let (unpacked, dir) = unpacked?;
        self.commit(names, unpacked, dir)
    }
}

fn parse(reference: &Reference, bytes: &[u8], content_type: &str) -> Result<AnyManifest, ImageError> {
    AnyManifest::parse(bytes, content_type)
        .map_err(|source| ImageError::Manifest { image: reference.familiar(), source })
}

/// The receiving end of a download as a reader: ends only after the blob was verified.
struct Received {
    source: mpsc::Receiver<Chunk>,
    current: Bytes,
    ended: bool,
}

/// Lets the rest be read after the decompressor that had the reader is gone.
struct SharedReader(Arc<std::sync::Mutex<Received>>);

impl Read for SharedReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).read(buf)
    }
}

impl Read for Received {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            if self.ended {
                return Ok(0);
            }
            match self.source.blocking_recv() {
                Some(Chunk::Data(data)) => self.current = data,
                Some(Chunk::End) => self.ended = true,
                None => return Err(io::Error::other(UnpackError::Aborted)),
            }
        }
        let n = buf.len().min(self.current.len());
        self.current.copy_to_slice(&mut buf[..n]);
        Ok(n)
    }
}
