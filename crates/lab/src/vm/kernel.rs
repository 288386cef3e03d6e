//! The guest's kernel: Debian's own, unpacked and not installed, and the modules that the guest needs of it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::tools;

/// What a guest needs that Debian's cloud kernel has as modules. One that a kernel has built in has no file and is left out.
const MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_blk",
    "overlay",
    "bridge",
    "veth",
    "dummy",
    "tun",
    "wireguard",
    "vxlan",
    "nf_conntrack_netlink",
    "nf_tables",
    "nft_chain_nat",
    "nft_ct",
    "nft_fib_inet",
    "nft_fib_ipv4",
    "nft_fib_ipv6",
    "nft_hash",
    "nft_masq",
    "nft_nat",
    "nft_numgen",
    "nft_redir",
    "nft_reject_inet",
    "nft_reject_ipv4",
    "nft_reject_ipv6",
];

/// An unpacked kernel package.
#[derive(Clone, Debug)]
pub struct Kernel {
    image: PathBuf,
    modules: PathBuf,
}

impl Kernel {
    /// The one that `cargo xtask test` unpacks under the target folder.
    pub fn find() -> Result<Kernel> {
        match tools::in_target("vm/kernel") {
            Some(folder) => Kernel::in_folder(&folder),
            None => bail!("there is no kernel for virtual machines: run `cargo xtask test`, which unpacks Debian's"),
        }
    }

    /// The kernel in `folder`, where a package `linux-image-…` was unpacked.
    pub fn in_folder(folder: &Path) -> Result<Kernel> {
        let image = first_entry(&folder.join("boot"), "vmlinuz-")?;
        let modules = match first_entry(&folder.join("lib/modules"), "") {
            Ok(modules) => modules,
            Err(_) => first_entry(&folder.join("usr/lib/modules"), "")?,
        };
        Ok(Kernel { image, modules })
    }

    pub(super) fn image(&self) -> &Path {
        &self.image
    }

    /// Name and bytes of the modules, each behind those that it needs.
    pub(super) fn modules(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let mut files = Vec::new();
        collect(&self.modules, &mut files)?;
        let mut load = Load { files, done: BTreeSet::new(), ordered: Vec::new() };
        for name in MODULES {
            load.add(name)?;
        }
        Ok(load.ordered)
    }
}

struct Load {
    files: Vec<PathBuf>,
    done: BTreeSet<String>,
    ordered: Vec<(String, Vec<u8>)>,
}

impl Load {
    fn add(&mut self, name: &str) -> Result<()> {
        if !self.done.insert(name.to_owned()) {
            return Ok(());
        }
        let Some(file) = self.files.iter().find(|file| module_name(file).as_deref() == Some(name)) else {
            return Ok(());
        };
        let bytes = read_module(file)?;
        for dependency in depends(&bytes) {
            self.add(&dependency)?;
        }
        self.ordered.push((format!("{name}.ko"), bytes));
        Ok(())
    }
}

/// Files are named with dashes or underscores, modules with underscores.
fn module_name(file: &Path) -> Option<String> {
    let name = file.file_name()?.to_str()?;
    Some(name.split_once(".ko")?.0.replace('-', "_"))
}

/// Debian 12 ships them as they are, later ones compressed.
fn read_module(file: &Path) -> Result<Vec<u8>> {
    let unpacker = match file.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => return fs::read(file).with_context(|| format!("cannot read {}", file.display())),
    };
    let mut command = Command::new(unpacker);
    command.args(["--decompress", "--stdout"]).arg(file).stdin(Stdio::null());
    let output = command.output().with_context(|| format!("cannot run {unpacker}"))?;
    if !output.status.success() {
        bail!("cannot unpack {}: {}", file.display(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(output.stdout)
}

/// The `depends=` string of a module's `.modinfo` section; `depmod` reads the same.
fn depends(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(start) = module.windows(KEY.len()).position(|window| window == KEY) else { return Vec::new() };
    let value = module[start + KEY.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(value).into_owned();
    names.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry.with_context(|| format!("cannot read {}", folder.display()))?.path();
        // `build` and `source` are links out of the package.
        if path.is_dir() && !path.is_symlink() {
            collect(&path, files)?;
        } else if path.to_str().is_some_and(|path| path.contains(".ko")) {
            files.push(path);
        }
    }
    Ok(())
}

fn first_entry(folder: &Path, start: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(start))
        .map(|entry| entry.path())
        .collect();
    paths.sort();
    paths.pop().with_context(|| format!("there is no {start}* in {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read_from_the_module() {
        assert_eq!(depends(b"x\0depends=nf-tables,nf_nat\0more"), ["nf_tables", "nf_nat"]);
        assert_eq!(depends(b"x\0depends=\0more"), [""; 0]);
    }
}
