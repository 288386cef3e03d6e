//! What the container may not see or change of this kernel: masked and read-only paths, and the sysctls it starts with.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags, major, minor};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::filesystem::{attach, clone_tree, create, make_read_only};
use super::root::{Root, is_dir};
use crate::defaults;
use crate::failure::{Failure, Step};
use crate::plan::Network;
use crate::sys::mount::Depth;

/// Covers each existing path: folders by one shared, empty, read-only filesystem; files by /dev/null.
pub fn mask(root: &Root, paths: &[String]) -> Result<(), Failure> {
    let null = open_null(root)?;
    let mut empty: Option<String> = None;
    for path in paths {
        let what = || format!("failed to mask `{path}`");
        let target = match root.resolve_plain(path) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => continue,
            other => other.step("mask", what)?,
        };
        let cover = if !is_dir(&target).step("mask", what)? {
            clone_tree(&null, Depth::This).step("mask", what)?
        } else if let Some(first) = &empty {
            // Only an attached mount can be copied before Linux 6.15, hence from where it is mounted.
            let first = root.resolve_plain(first).step("mask", what)?;
            clone_tree(&first, Depth::This).step("mask", what)?
        } else {
            empty = Some(path.clone());
            create("tmpfs", &[("source", Some("tmpfs")), ("ro", None)], MountAttrFlags::MOUNT_ATTR_RDONLY)?
        };
        attach(&cover, &target).step("mask", what)?;
    }
    Ok(())
}

/// The container's /dev/null, proven to be the null device: an image could have put a link there (CVE-2025-31133).
fn open_null(root: &Root) -> Result<OwnedFd, Failure> {
    let what = || "failed to open /dev/null".to_owned();
    let null = root.resolve_plain("/dev/null").step("mask", what)?;
    let stat = rustix::fs::fstat(&null).step("mask", what)?;
    if (major(stat.st_rdev), minor(stat.st_rdev)) != (1, 3) {
        return Err(Failure::new("mask", "/dev/null is not the null device".to_owned()));
    }
    Ok(null)
}

/// Makes each existing path read-only, with all below it.
pub fn make_paths_read_only(root: &Root, paths: &[String]) -> Result<(), Failure> {
    for path in paths {
        let what = || format!("failed to make `{path}` read-only");
        let target = match root.resolve_plain(path) {
            Err(Errno::NOENT | Errno::NOTDIR) => continue,
            other => other.step("mask", what)?,
        };
        let tree = clone_tree(&target, Depth::Tree).step("mask", what)?;
        make_read_only(&tree, Depth::Tree).step("mask", what)?;
        attach(&tree, &target).step("mask", what)?;
    }
    Ok(())
}

/// Docker's for a network namespace of one's own, then the plan's.
/// Written through a private procfs that nothing else can be mounted over (CVE-2025-52881).
pub fn write_sysctls(network: &Network, sysctls: &[(String, String)]) -> Result<(), Failure> {
    let defaults: &[(&str, &str)] = if *network == Network::Host { &[] } else { &defaults::NET_SYSCTLS };
    let given = sysctls.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let mut all = defaults.iter().copied().chain(given).peekable();
    if all.peek().is_none() {
        return Ok(());
    }
    let proc = create("proc", &[], MountAttrFlags::empty())?;
    for (name, value) in all {
        let what = || format!("failed to set the sysctl `{name}` to `{value}`");
        let path = format!("sys/{}", if name.contains('/') { name.to_owned() } else { name.replace('.', "/") });
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat2(&proc, path, flags, Mode::empty(), resolve).step("sysctl", what)?;
        rustix::io::write(file.as_fd(), value.as_bytes()).step("sysctl", what)?;
    }
    Ok(())
}
