//! Debian's packages as raw material: what a machine needs for the lab, and archives to build images and anchors from.
//!
//! Nothing that has a service is installed, for installing starts it: such packages are downloaded and unpacked under the
//! target folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell;

/// One package as apt would install it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    pub name: String,
    pub version: String,
}

/// Installs the programs that the lab and the images are made with, where they are missing.
pub fn install_tools() -> Result<()> {
    install(&[("skopeo", "skopeo"), ("ip", "iproute2"), ("nsenter", "util-linux"), ("gzip", "gzip"), ("tar", "tar")])
}

/// Installs the packages of those `(program, package)` whose program is missing.
pub fn install(wanted: &[(&str, &str)]) -> Result<()> {
    need_root()?;
    let missing: Vec<&str> =
        wanted.iter().filter(|(program, _)| !shell::exists(program)).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    refresh_lists()?;
    let mut command = apt();
    command.args(["install", "-y", "-q", "--no-install-recommends"]).args(missing);
    shell::run(command.env("DEBIAN_FRONTEND", "noninteractive"))
}

/// Unpacks `packages` with nothing else into `folder`, unless that was done before.
pub fn unpack_once(packages: &[&str], cache: &Path, folder: &Path) -> Result<()> {
    let done = folder.join(format!(".{}", packages.join("-")));
    if done.exists() {
        return Ok(());
    }
    refresh_lists()?;
    let named = packages.iter().map(|name| Ok(Package { name: (*name).to_owned(), version: candidate(name)? }));
    for archive in download(&named.collect::<Result<Vec<_>>>()?, cache)? {
        unpack(&archive, folder)?;
    }
    fs::write(&done, "").with_context(|| format!("cannot write {}", done.display()))
}

/// All that `wanted` depends on, itself included, as apt resolves it for an empty machine.
pub fn resolve(wanted: &[&str], cache: &Path) -> Result<Vec<Package>> {
    fs::create_dir_all(cache).with_context(|| format!("cannot create {}", cache.display()))?;
    let status = cache.join("empty-status");
    fs::write(&status, "").with_context(|| format!("cannot write {}", status.display()))?;
    let mut command = apt();
    command.arg("-o").arg(format!("Dir::State::status={}", status.display()));
    command.args(["-o", "APT::Install-Recommends=0", "--simulate", "install"]).args(wanted);
    let plan = shell::read(&mut command)?;
    Ok(plan.lines().filter_map(parse_planned).collect())
}

/// Downloads the archives that are not in `cache` yet; answers all of them, in the order asked for.
pub fn download(packages: &[Package], cache: &Path) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(cache).with_context(|| format!("cannot create {}", cache.display()))?;
    let missing: Vec<String> = packages
        .iter()
        .filter(|package| archive_of(package, cache).is_err())
        .map(|package| format!("{}={}", package.name, package.version))
        .collect();
    if !missing.is_empty() {
        shell::read(apt().current_dir(cache).arg("download").args(&missing))?;
    }
    packages.iter().map(|package| archive_of(package, cache)).collect()
}

/// Unpacks an archive's files, with their owners and modes, running none of its scripts.
pub fn unpack(archive: &Path, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    shell::run(Command::new("dpkg-deb").arg("--extract").arg(archive).arg(folder))
}

/// Fetches the package lists when there are none, as on a fresh machine.
pub fn refresh_lists() -> Result<()> {
    let known = fs::read_dir("/var/lib/apt/lists").map(|entries| entries.flatten().count()).unwrap_or(0);
    // `lock`, `partial` and `auxfiles` are always there.
    if known > 3 { Ok(()) } else { shell::run(apt().args(["update", "-q"])) }
}

pub fn need_root() -> Result<()> {
    let id = shell::read(Command::new("id").arg("-u"))?;
    if id.trim() == "0" {
        Ok(())
    } else {
        bail!("this makes namespaces and unpacks packages and needs root: run it with sudo")
    }
}

fn candidate(name: &str) -> Result<String> {
    let policy = shell::read(Command::new("apt-cache").args(["policy", name]))?;
    let version = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "));
    match version.filter(|version| *version != "(none)") {
        Some(version) => Ok(version.to_owned()),
        None => bail!("apt knows no package `{name}`: is this Debian 12 or newer, with its main archive?"),
    }
}

/// `Inst libc6 (2.36-9+deb12u14 Debian:12.15/oldstable [amd64]) []`
fn parse_planned(line: &str) -> Option<Package> {
    let (name, rest) = line.strip_prefix("Inst ")?.split_once(' ')?;
    let version = rest.trim_start().strip_prefix('(')?.split(' ').next()?;
    Some(Package { name: name.to_owned(), version: version.to_owned() })
}

/// apt writes the colon of a version's epoch as `%3a`.
fn archive_of(package: &Package, cache: &Path) -> Result<PathBuf> {
    let start = format!("{}_{}_", package.name, package.version.replace(':', "%3a"));
    let entries = fs::read_dir(cache).with_context(|| format!("cannot read {}", cache.display()))?;
    let mut found = entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(&start));
    Ok(found.next().with_context(|| format!("{start}*.deb is not in {}", cache.display()))?.path())
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    // The folders are ours, where apt's own user may not write.
    command.args(["-o", "APT::Sandbox::User=root", "-q"]);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_planned_package_has_its_name_and_version() {
        let line = "Inst zlib1g (1:1.2.13.dfsg-1 Debian:12.15/oldstable [amd64]) []";
        let expected = Package { name: "zlib1g".into(), version: "1:1.2.13.dfsg-1".into() };
        assert_eq!(parse_planned(line), Some(expected));
        assert_eq!(parse_planned("Conf zlib1g (1:1.2.13.dfsg-1 Debian [amd64])"), None);
    }
}
