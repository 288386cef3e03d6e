//! `cargo codegen`: writes `crates/api/src/generated/` from `proto/`, without a protoc binary.
//!
//! The result is checked in, so that a build needs neither this nor the crates behind it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

const PROTO: &str = "proto";
const GENERATED: &str = "crates/api/src/generated";

pub fn run() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the workspace")?;
    generate(&root.join(PROTO), &root.join(GENERATED))
}

fn generate(proto: &Path, out: &Path) -> Result<()> {
    let sources = sources(proto)?;
    let descriptors = protox::compile(&sources, [proto]).context("failed to compile the .proto files")?;
    std::fs::create_dir_all(out).with_context(|| format!("failed to create {}", out.display()))?;
    tonic_prost_build::configure()
        // Ordered maps: the same value is always the same bytes.
        .btree_map(".")
        .bytes(".")
        .build_transport(false)
        .out_dir(out)
        .compile_fds(descriptors)
        .context("failed to write the generated code")
}

/// Every .proto file below `folder`, in the order of their names.
fn sources(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).with_context(|| format!("failed to read {}", folder.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "proto") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}
