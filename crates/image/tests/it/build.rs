//! Writes OCI image layouts for tests, without any of the crate's own code.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tar::{EntryType, Header};

use crate::programs::Scratch;

/// One tar archive in the making.
pub struct Layer {
    tar: Vec<u8>,
}

/// Header fields that tests vary.
#[derive(Clone)]
pub struct Meta {
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    pub mtime: u64,
}

pub const META: Meta = Meta { mode: 0o644, uid: 0, gid: 0, mtime: 1_600_000_000 };
pub const DIR: Meta = Meta { mode: 0o755, ..META };

impl Layer {
    pub fn new() -> Layer {
        Layer { tar: Vec::new() }
    }

    /// An entry exactly as given: names are not checked.
    pub fn raw(mut self, kind: EntryType, name: &str, link: &str, meta: &Meta, content: &[u8]) -> Layer {
        let mut header = Header::new_ustar();
        let old = header.as_old_mut();
        assert!(name.len() < 100 && link.len() < 100, "use pax for long names");
        old.name[..name.len()].copy_from_slice(name.as_bytes());
        old.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(meta.mode);
        header.set_uid(meta.uid);
        header.set_gid(meta.gid);
        header.set_mtime(meta.mtime);
        header.set_size(content.len() as u64);
        header.set_device_major(0).unwrap();
        header.set_device_minor(0).unwrap();
        header.set_cksum();
        self.push(&header, content);
        self
    }

    pub fn device(mut self, kind: EntryType, name: &str, major: u32, minor: u32, meta: &Meta) -> Layer {
        let mut header = Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(meta.mode);
        header.set_uid(meta.uid);
        header.set_gid(meta.gid);
        header.set_mtime(meta.mtime);
        header.set_size(0);
        header.set_device_major(major).unwrap();
        header.set_device_minor(minor).unwrap();
        header.set_cksum();
        self.push(&header, b"");
        self
    }

    fn push(&mut self, header: &Header, content: &[u8]) {
        self.tar.extend_from_slice(header.as_bytes());
        self.tar.extend_from_slice(content);
        self.tar.resize(self.tar.len().next_multiple_of(512), 0);
    }

    pub fn file(self, name: &str, content: &[u8]) -> Layer {
        self.raw(EntryType::Regular, name, "", &META, content)
    }

    pub fn dir(self, name: &str) -> Layer {
        self.raw(EntryType::Directory, name, "", &DIR, b"")
    }

    pub fn symlink(self, name: &str, target: &str) -> Layer {
        self.raw(EntryType::Symlink, name, target, &META, b"")
    }

    pub fn link(self, name: &str, target: &str) -> Layer {
        self.raw(EntryType::Link, name, target, &META, b"")
    }

    /// PAX records for the next entry.
    pub fn pax(self, records: &[(&str, &[u8])]) -> Layer {
        let mut body = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let length = (1..7).map(|digits| rest + digits).find(|n| n.to_string().len() + rest == *n).unwrap();
            body.extend_from_slice(format!("{length} {key}=").as_bytes());
            body.extend_from_slice(value);
            body.push(b'\n');
        }
        self.raw(EntryType::XHeader, "pax", "", &META, &body)
    }

    /// GNU's long name for the next entry.
    pub fn long_name(self, name: &str) -> Layer {
        self.raw(EntryType::GNULongName, "././@LongLink", "", &META, format!("{name}\0").as_bytes())
    }

    pub fn tar(&self) -> Vec<u8> {
        [self.tar.as_slice(), &[0; 1024]].concat()
    }
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn digest(bytes: &[u8]) -> String {
    skep_image::Digest::of(bytes).to_string()
}

/// A folder in OCI image layout.
pub struct Layout {
    dir: Scratch,
    manifests: Vec<Value>,
}

/// A blob of a layer and the digest of its tar.
pub struct Blob {
    pub bytes: Vec<u8>,
    pub kind: &'static str,
    pub diff_id: String,
}

pub fn gzipped(layer: &Layer) -> Blob {
    let tar = layer.tar();
    Blob { bytes: gzip(&tar), kind: "application/vnd.oci.image.layer.v1.tar+gzip", diff_id: digest(&tar) }
}

pub fn zstd(layer: &Layer) -> Blob {
    let tar = layer.tar();
    let bytes = ::zstd::encode_all(tar.as_slice(), 3).unwrap();
    Blob { bytes, kind: "application/vnd.oci.image.layer.v1.tar+zstd", diff_id: digest(&tar) }
}

pub fn plain(layer: &Layer) -> Blob {
    let tar = layer.tar();
    Blob { diff_id: digest(&tar), bytes: tar, kind: "application/vnd.oci.image.layer.v1.tar" }
}

impl Layout {
    pub fn new() -> Layout {
        let dir = crate::programs::scratch();
        std::fs::create_dir_all(dir.path().join("blobs/sha256")).unwrap();
        std::fs::write(dir.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        Layout { dir, manifests: Vec::new() }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn blob(&self, bytes: &[u8]) -> (String, usize) {
        let digest = digest(bytes);
        let path: PathBuf = self.dir.path().join("blobs/sha256").join(&digest[7..]);
        std::fs::write(path, bytes).unwrap();
        (digest, bytes.len())
    }

    /// Adds an image under `tag`; returns its manifest's descriptor.
    pub fn image(&mut self, tag: &str, architecture: &str, process: Value, layers: &[Blob]) -> Value {
        let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
        let config = json!({
            "os": "linux", "architecture": architecture, "created": "2026-01-02T03:04:05Z",
            "config": process, "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let (config, config_size) = self.blob(config.to_string().as_bytes());
        let layers: Vec<Value> = layers
            .iter()
            .map(|layer| {
                let (digest, size) = self.blob(&layer.bytes);
                json!({ "mediaType": layer.kind, "digest": digest, "size": size })
            })
            .collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": config_size },
            "layers": layers,
        });
        let (digest, size) = self.blob(manifest.to_string().as_bytes());
        let descriptor = json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": size,
            "platform": { "os": "linux", "architecture": architecture },
        });
        self.add(tag, descriptor.clone());
        descriptor
    }

    /// Adds an index of `images` under `tag`.
    pub fn index(&mut self, tag: &str, images: &[Value]) -> String {
        let index = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": images,
        });
        let (digest, size) = self.blob(index.to_string().as_bytes());
        let descriptor =
            json!({ "mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest, "size": size });
        self.add(tag, descriptor);
        digest
    }

    fn add(&mut self, tag: &str, mut descriptor: Value) {
        descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
        self.manifests.push(descriptor);
        let index = json!({ "schemaVersion": 2, "manifests": self.manifests });
        std::fs::write(self.dir.path().join("index.json"), index.to_string()).unwrap();
    }

    /// Pushes the image under `tag` to `name` (`host:port/name:tag`) with skopeo.
    pub fn push(&self, tag: &str, name: &str) {
        let from = format!("oci:{}:{tag}", self.path().display());
        crate::programs::skopeo_copy(&["--all", "--preserve-digests", &from, &format!("docker://{name}")]);
    }
}

/// An OCI archive (the layout as a tar) of one image `demo.test/app:v1` with these layers.
pub fn archive_of(layers: &[Blob]) -> Vec<u8> {
    let mut layout = Layout::new();
    layout.image("demo.test/app:v1", "amd64", json!({}), layers);
    layout.archive()
}

impl Layout {
    pub fn archive(&self) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        builder.append_dir_all(".", self.path()).unwrap();
        builder.into_inner().unwrap()
    }
}
