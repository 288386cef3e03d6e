//! Writing an OCI image layout (image-spec 1.1, image-layout.md): the same folders give the same bytes.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::shell;

/// Files of our own get this time; files of packages keep theirs.
const NEWEST: &str = "2025-01-01T00:00:00Z";

struct Blob {
    digest: String,
    size: u64,
}

/// Writes the image at `folder` with the name `image`: a layer for each of `roots`, lowest first.
pub fn write(folder: &Path, roots: &[&Path], config: &Value) -> Result<()> {
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).with_context(|| format!("cannot create {}", blobs.display()))?;
    let (mut layers, mut diff_ids) = (Vec::new(), Vec::new());
    for root in roots {
        let (blob, diff_id) = write_layer(root, &blobs)?;
        layers.push(descriptor("application/vnd.oci.image.layer.v1.tar+gzip", &blob));
        diff_ids.push(diff_id);
    }
    let image = json!({
        "architecture": architecture()?,
        "os": "linux",
        "created": NEWEST,
        "config": config,
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let image = write_json(&image, &blobs)?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &image),
        "layers": layers,
    });
    let mut manifest = descriptor("application/vnd.oci.image.manifest.v1+json", &write_json(&manifest, &blobs)?);
    manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": "image" });
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    fs::write(folder.join("index.json"), index.to_string()).context("cannot write index.json")?;
    fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).context("cannot write oci-layout")
}

/// Answers the compressed layer and the digest of what is in it.
fn write_layer(root: &Path, blobs: &Path) -> Result<(Blob, String)> {
    let (plain, packed) = (blobs.join("layer.tar"), blobs.join("layer.tar.gz"));
    let mut names: Vec<_> = fs::read_dir(root)
        .with_context(|| format!("cannot read {}", root.display()))?
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<Result<_, _>>()
        .with_context(|| format!("cannot read {}", root.display()))?;
    names.sort();
    let mut tar = Command::new("tar");
    tar.arg("--create").arg("--file").arg(&plain).arg("--directory").arg(root);
    tar.args(["--sort=name", "--numeric-owner", "--format=gnu", "--clamp-mtime", &format!("--mtime={NEWEST}"), "--"]);
    shell::run(tar.args(names))?;
    let diff_id = sha256(&plain)?;
    let output = File::create(&packed).with_context(|| format!("cannot create {}", packed.display()))?;
    let input = File::open(&plain).with_context(|| format!("cannot open {}", plain.display()))?;
    // Without a name and a time in its header, the same tar gives the same bytes.
    shell::run(Command::new("gzip").args(["--no-name", "-6", "--stdout"]).stdin(input).stdout(output))?;
    fs::remove_file(&plain).context("cannot remove the plain layer")?;
    Ok((adopt(&packed, blobs)?, diff_id))
}

fn write_json(value: &Value, blobs: &Path) -> Result<Blob> {
    let file = blobs.join("part.json");
    fs::write(&file, value.to_string()).with_context(|| format!("cannot write {}", file.display()))?;
    adopt(&file, blobs)
}

/// Renames `file` to its digest.
fn adopt(file: &Path, blobs: &Path) -> Result<Blob> {
    let digest = sha256(file)?;
    let size = fs::metadata(file).context("cannot measure a blob")?.len();
    let hex = digest.strip_prefix("sha256:").context("a digest starts with its algorithm")?;
    fs::rename(file, blobs.join(hex)).context("cannot name a blob")?;
    Ok(Blob { digest, size })
}

fn descriptor(media_type: &str, blob: &Blob) -> Value {
    json!({ "mediaType": media_type, "digest": blob.digest, "size": blob.size })
}

fn sha256(file: &Path) -> Result<String> {
    let line = shell::read(Command::new("sha256sum").arg(file).stdin(Stdio::null()))?;
    let hex = line.split(' ').next().context("sha256sum answers a digest")?;
    Ok(format!("sha256:{hex}"))
}

/// Go's names, which images use.
fn architecture() -> Result<&'static str> {
    Ok(match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "arm" => "arm",
        other => bail!("there are no images for the architecture {other}"),
    })
}
