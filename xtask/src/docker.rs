//! Debian's Docker for benchmarks and tests: downloaded and unpacked, never installed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context, Result};
use skep_lab::Docker;

use crate::packages::{self, Package};

/// Of what docker.io depends on, these are the programs; libraries come along.
const PROGRAMS: &[&str] = &["docker.io", "docker-cli", "containerd", "runc", "iptables", "tini"];
/// The machine's own C library and what its base system has run these as well.
const OF_THE_MACHINE: &[&str] = &["libc6", "libgcc", "libpam", "libperl", "libdb5", "libgdbm", "libaudit", "libsem"];

/// Downloads and unpacks docker.io with its runtime to `anchors/docker` below `target`, once.
pub fn unpack(target: &Path) -> Result<Docker> {
    let root = target.join("anchors/docker");
    let done = root.join(".done");
    if !done.exists() {
        packages::refresh_lists()?;
        let cache = target.join("anchors/packages");
        let wants = |package: &Package| {
            let library =
                package.name.starts_with("lib") && !OF_THE_MACHINE.iter().any(|name| package.name.starts_with(name));
            PROGRAMS.contains(&package.name.as_str()) || library
        };
        let resolved = packages::resolve(&["docker.io", "iptables", "tini"], &cache)?;
        let chosen: Vec<Package> = resolved.into_iter().filter(wants).collect();
        for archive in packages::download(&chosen, &cache)? {
            packages::unpack(&archive, &root)?;
        }
        // Debian's alternatives would make these links.
        for (link, target) in [("iptables", "iptables-nft"), ("ip6tables", "ip6tables-nft")] {
            let link = root.join("usr/sbin").join(link);
            if !link.is_symlink() {
                symlink(target, &link).with_context(|| format!("cannot link {}", link.display()))?;
            }
        }
        fs::write(&done, "").with_context(|| format!("cannot write {}", done.display()))?;
    }
    Ok(Docker::in_folder(&root))
}
