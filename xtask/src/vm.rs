//! What the tests with virtual machines need: qemu, and Debian's kernel, unpacked and not installed.

use std::path::Path;

use anyhow::{Context, Result};

use crate::packages::{self, Package};

/// Installs qemu and unpacks the kernel to `vm/kernel` below `target`, once. Those tests exist for x86-64 only.
pub fn prepare(target: &Path) -> Result<()> {
    if std::env::consts::ARCH != "x86_64" {
        return Ok(());
    }
    packages::install(&[
        ("qemu-system-x86_64", "qemu-system-x86"),
        ("mkfs.ext4", "e2fsprogs"),
        ("busybox", "busybox-static"),
        ("strip", "binutils"),
    ])?;
    unpack_kernel(&target.join("vm/packages"), &target.join("vm/kernel"))
}

fn unpack_kernel(cache: &Path, folder: &Path) -> Result<()> {
    if folder.join("boot").exists() {
        return Ok(());
    }
    packages::refresh_lists()?;
    let resolved = packages::resolve(&["linux-image-cloud-amd64"], cache)?;
    // The package that is asked for is empty and depends on the newest one with a kernel in it.
    let is_kernel =
        |package: &Package| package.name.starts_with("linux-image-") && package.name != "linux-image-cloud-amd64";
    let kernel = resolved.into_iter().find(is_kernel).context("apt resolves linux-image-cloud-amd64 to no kernel")?;
    let part = folder.with_extension("part");
    if part.exists() {
        std::fs::remove_dir_all(&part).with_context(|| format!("cannot remove {}", part.display()))?;
    }
    for archive in packages::download(&[kernel], cache)? {
        packages::unpack(&archive, &part)?;
    }
    std::fs::rename(&part, folder).with_context(|| format!("cannot put {} in place", folder.display()))
}
