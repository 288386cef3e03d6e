//! Images from a tar: what `docker save`, `skopeo copy … oci-archive:` and BuildKit write.
//!
//! The order of files in such a tar is free, so it is first spread into `tmp/`, under numbers instead of its
//! names, and then read as an OCI layout (image-spec image-layout.md) or by docker's `manifest.json`.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{Read, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;

use super::layers::Stage;
use super::layout::TmpDir;
use super::leases::Item;
use super::local::Description;
use super::records::Record;
use super::{Image, ImageStore, Lease, blocking, list};
use crate::config::ConfigFile;
use crate::digest::{Digest, Hasher};
use crate::error::ImageError;
use crate::manifest::{AnyManifest, DOCKER_MANIFEST, Descriptor, Index, Manifest};
use crate::platform::{self, Platform};
use crate::reference::Reference;
use crate::unpack::{Archive, Kind, clean, metered};

const JSON_BYTES_MAX: u64 = 16 << 20;

/// An image that an archive brought.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub reference: Reference,
    pub image: Image,
}

/// The archive's files, by their names in it.
struct Spread {
    files: HashMap<Vec<u8>, SpreadFile>,
    _dir: TmpDir,
}

#[derive(Clone)]
struct SpreadFile {
    path: PathBuf,
    digest: Digest,
    bytes: u64,
}

/// One image of the archive: its names, and which of the files are its layers.
struct Candidate {
    names: Vec<Reference>,
    description: Description,
    layers: Vec<SpreadFile>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl ImageStore {
    /// Loads every named image of the archive (plain, gzip or zstd), each for the best of `platforms`.
    pub async fn load(
        &self,
        archive: impl Read + Send + 'static,
        platforms: &[Platform],
    ) -> Result<Vec<Loaded>, ImageError> {
        let lease = Arc::new(self.inner.leases.lease());
        let (store, platforms, held) = (self.clone(), platforms.to_vec(), lease.clone());
        let staged = blocking(move || {
            let spread = store.spread(archive)?;
            let candidates = candidates(&store, &spread, &platforms, &held)?;
            let stage = |candidate: Candidate| {
                let stages = store.stage(&candidate, &held)?;
                Ok((candidate, stages))
            };
            candidates.into_iter().map(stage).collect::<Result<Vec<_>, ImageError>>()
        })
        .await?;
        let mut loaded = Vec::new();
        for (candidate, stages) in staged {
            let image = self.assemble(candidate.description, stages, lease.clone()).await?;
            for reference in candidate.names {
                let record = Record::new(reference.clone(), image.digest, image.manifest, image.id);
                self.inner.layout.write_record(&record)?;
                let image = Image { reference: reference.clone(), ..image.clone() };
                loaded.push(Loaded { reference, image });
            }
        }
        Ok(loaded)
    }

    fn spread(&self, archive: impl Read + Send + 'static) -> Result<Spread, ImageError> {
        let dir = self.inner.layout.tmp_dir()?;
        let plain = metered(Box::new(archive), dir.path(), self.inner.limits)
            .map_err(|error| ImageError::ReadArchive(Box::new(error)))?;
        let mut archive = Archive::new(plain);
        let mut files = HashMap::new();
        let mut aliases = Vec::new();
        while let Some(entry) = archive.next().map_err(|error| ImageError::ReadArchive(Box::new(error)))? {
            let Some(name) = clean(&entry.path) else { continue };
            match entry.kind {
                Kind::File => {
                    let path = dir.path().join(files.len().to_string());
                    let file = copy(&mut archive, path)?;
                    files.insert(name, file);
                }
                // Older docker versions store a layer that two images share once, and link to it.
                Kind::Symlink => {
                    let parent = name.iter().rposition(|b| *b == b'/').map_or(&b""[..], |slash| &name[..slash]);
                    aliases.push((clean(&[parent, b"/", &entry.link].concat()), name));
                }
                Kind::HardLink => aliases.push((clean(&entry.link), name)),
                Kind::Directory | Kind::CharDevice | Kind::BlockDevice | Kind::Fifo => {}
            }
        }
        for (target, name) in aliases {
            if let Some(file) = target.and_then(|target| files.get(&target).cloned()) {
                files.insert(name, file);
            }
        }
        Ok(Spread { files, _dir: dir })
    }

    fn stage(&self, candidate: &Candidate, lease: &Lease) -> Result<Vec<Stage>, ImageError> {
        let image = candidate.description.reference.familiar();
        let names = candidate.description.layers();
        let stage = |(names, file): (&super::local::LayerNames, &SpreadFile)| {
            if let Some((key, meta)) = self.present(names, lease) {
                return Ok(Stage::Ready(key, meta));
            }
            let source = File::open(&file.path).map_err(ImageError::io("open", &file.path))?;
            let (unpacked, dir) = self.unpack_layer(source, file.bytes, names.diff_id, &image)?;
            self.commit(names, unpacked, dir)
        };
        names.iter().zip(&candidate.layers).map(stage).collect()
    }
}

impl Spread {
    fn file(&self, name: &str) -> Option<&SpreadFile> {
        self.files.get(&clean(name.as_bytes())?)
    }

    fn json(&self, name: &str) -> Result<Vec<u8>, ImageError> {
        let file = self.file(name).ok_or_else(|| ImageError::Archive(format!("it has no `{name}`")))?;
        if file.bytes > JSON_BYTES_MAX {
            return Err(ImageError::Archive(format!("its `{name}` has {} bytes", file.bytes)));
        }
        fs::read(&file.path).map_err(ImageError::io("read", &file.path))
    }

    fn blob(&self, digest: Digest) -> Option<&SpreadFile> {
        self.file(&format!("blobs/sha256/{}", digest.hex())).filter(|file| file.digest == digest)
    }

    fn json_blob(&self, digest: Digest) -> Result<Vec<u8>, ImageError> {
        let name = format!("blobs/sha256/{}", digest.hex());
        self.blob(digest).ok_or_else(|| ImageError::Archive(format!("its `{name}` is missing or damaged")))?;
        self.json(&name)
    }
}

fn candidates(
    store: &ImageStore,
    spread: &Spread,
    platforms: &[Platform],
    lease: &Lease,
) -> Result<Vec<Candidate>, ImageError> {
    let has = |name: &str| spread.file(name).is_some();
    let mut found = Vec::new();
    if has("oci-layout") && has("index.json") {
        let index = Index::parse(&spread.json("index.json")?).map_err(|error| ImageError::Archive(chain(&error)))?;
        for entry in index.images() {
            let names = annotated_names(entry);
            if let [first, ..] = &names[..] {
                let first = first.clone();
                found.push(oci_candidate(store, spread, entry, names, first, platforms, lease)?);
            }
        }
    }
    if found.is_empty() && has("manifest.json") {
        let entries: Vec<DockerEntry> = serde_json::from_slice(&spread.json("manifest.json")?)
            .map_err(|error| ImageError::Archive(format!("its manifest.json is malformed: {error}")))?;
        for entry in entries {
            let tags = entry.repo_tags.iter().flatten().map(|tag| tag.parse());
            let names: Vec<Reference> = tags.collect::<Result<_, _>>().map_err(ImageError::ArchiveName)?;
            if let [first, ..] = &names[..] {
                let first = first.clone();
                found.push(docker_candidate(store, spread, &entry, names, first, platforms, lease)?);
            }
        }
    }
    if found.is_empty() {
        return Err(ImageError::Archive(
            "it names no image: write it with a name, as in `docker save NAME:TAG` or `oci-archive:FILE:NAME:TAG`"
                .into(),
        ));
    }
    Ok(found)
}

/// containerd's annotation has the full name; OCI's own may have a full name or only a tag.
fn annotated_names(entry: &Descriptor) -> Vec<Reference> {
    let full = entry.annotations.get("io.containerd.image.name");
    let own = entry.annotations.get("org.opencontainers.image.ref.name").filter(|name| name.contains([':', '/']));
    full.or(own).and_then(|name| name.parse().ok()).into_iter().collect()
}

fn oci_candidate(
    store: &ImageStore,
    spread: &Spread,
    entry: &Descriptor,
    names: Vec<Reference>,
    reference: Reference,
    platforms: &[Platform],
    lease: &Lease,
) -> Result<Candidate, ImageError> {
    let image = || reference.familiar();
    let parse =
        |bytes: &[u8]| AnyManifest::parse(bytes, "").map_err(|source| ImageError::Manifest { image: image(), source });
    let top = spread.json_blob(entry.digest)?;
    store.keep(entry.digest, &top, lease)?;
    let (manifest_digest, manifest) = match parse(&top)? {
        AnyManifest::Manifest(manifest) => (entry.digest, manifest),
        AnyManifest::Index(mut index) => {
            // A partial save has the whole index but not everything that it lists.
            index.retain(|image| spread.blob(image.digest).is_some());
            let chosen = platform::select(&index, platforms).ok_or_else(|| ImageError::NoPlatform {
                image: image(),
                wanted: platforms.first().map(Platform::to_string).unwrap_or_default(),
                offered: list(&index.platforms()),
            })?;
            let bytes = spread.json_blob(chosen.digest)?;
            store.keep(chosen.digest, &bytes, lease)?;
            match parse(&bytes)? {
                AnyManifest::Manifest(manifest) => (chosen.digest, manifest),
                AnyManifest::Index(_) => return Err(ImageError::Archive("its index leads to another index".into())),
            }
        }
    };
    let config_bytes = spread.json_blob(manifest.config.digest)?;
    store.keep(manifest.config.digest, &config_bytes, lease)?;
    let config = parse_config(&config_bytes, &image())?;
    let layer = |blob: &Descriptor| {
        let missing = || ImageError::Archive(format!("its layer {} is missing or damaged", blob.digest));
        spread.blob(blob.digest).cloned().ok_or_else(missing)
    };
    let layers = manifest.layers.iter().map(layer).collect::<Result<Vec<_>, _>>()?;
    let description = Description { reference, digest: entry.digest, manifest_digest, manifest, config };
    complete(Candidate { names, description, layers }, platforms)
}

/// docker's own form has no manifest: one is made from the files, so that the image has a digest like any other.
fn docker_candidate(
    store: &ImageStore,
    spread: &Spread,
    entry: &DockerEntry,
    names: Vec<Reference>,
    reference: Reference,
    platforms: &[Platform],
    lease: &Lease,
) -> Result<Candidate, ImageError> {
    let config_bytes = spread.json(&entry.config)?;
    let config = parse_config(&config_bytes, &reference.familiar())?;
    let missing = |name: &String| ImageError::Archive(format!("it has no `{name}`"));
    let layers: Vec<SpreadFile> = entry
        .layers
        .iter()
        .map(|name| spread.file(name).cloned().ok_or_else(|| missing(name)))
        .collect::<Result<_, _>>()?;
    let config_digest = Digest::of(&config_bytes);
    let descriptor = |kind: &str, digest: Digest, bytes: u64| serde_json::json!({ "mediaType": kind, "digest": digest, "size": bytes });
    let layer_kind = "application/vnd.docker.image.rootfs.diff.tar";
    let manifest_bytes = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": descriptor("application/vnd.docker.container.image.v1+json", config_digest, config_bytes.len() as u64),
        "layers": layers.iter().map(|file| descriptor(layer_kind, file.digest, file.bytes)).collect::<Vec<_>>(),
    })
    .to_string()
    .into_bytes();
    let digest = Digest::of(&manifest_bytes);
    store.keep(config_digest, &config_bytes, lease)?;
    store.keep(digest, &manifest_bytes, lease)?;
    let parsed = AnyManifest::parse(&manifest_bytes, "");
    let Ok(AnyManifest::Manifest(manifest)) = parsed else {
        return Err(ImageError::Archive("its manifest.json describes no image".into()));
    };
    let description = Description { reference, digest, manifest_digest: digest, manifest, config };
    complete(Candidate { names, description, layers }, platforms)
}

fn complete(candidate: Candidate, platforms: &[Platform]) -> Result<Candidate, ImageError> {
    let Description { reference, config, manifest: Manifest { layers, .. }, .. } = &candidate.description;
    if layers.len() != config.diff_ids.len() {
        let (layers, ids) = (layers.len(), config.diff_ids.len());
        return Err(ImageError::Archive(format!(
            "`{}` has {layers} layers but its configuration names {ids}",
            reference.familiar()
        )));
    }
    if !platform::accepts(platforms, &config.platform) {
        return Err(ImageError::NoPlatform {
            image: reference.familiar(),
            wanted: platforms.first().map(Platform::to_string).unwrap_or_default(),
            offered: config.platform.to_string(),
        });
    }
    Ok(candidate)
}

impl ImageStore {
    fn keep(&self, digest: Digest, bytes: &[u8], lease: &Lease) -> Result<(), ImageError> {
        lease.hold(Item::Blob(digest));
        self.inner.layout.write_blob(digest, bytes)
    }
}

fn parse_config(bytes: &[u8], image: &str) -> Result<ConfigFile, ImageError> {
    ConfigFile::parse(bytes).map_err(|source| ImageError::Config { image: image.to_owned(), source })
}

fn copy(from: &mut impl Read, path: PathBuf) -> Result<SpreadFile, ImageError> {
    let mut to = File::create_new(&path).map_err(ImageError::io("create", &path))?;
    let mut hasher = Hasher::default();
    let mut buffer = vec![0u8; 128 * 1024];
    loop {
        let n = from.read(&mut buffer).map_err(|error| ImageError::ReadArchive(Box::new(error.into())))?;
        if n == 0 {
            break;
        }
        hasher.update(&buffer[..n]);
        to.write_all(&buffer[..n]).map_err(ImageError::io("write", &path))?;
    }
    let bytes = hasher.bytes();
    Ok(SpreadFile { path, digest: hasher.finish(), bytes })
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    text
}
