//! Network namespaces, each pinned by a bind mount under the run folder, so that it outlives every process and the
//! next daemon finds it.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::mount::UnmountFlags;
use rustix::thread::LinkNameSpaceType;

use crate::sys;

/// `NSFS_MAGIC` of linux/magic.h.
const NAMESPACE_FILES: u64 = 0x6e73_6673;
const OWN: &str = "/proc/thread-self/ns/net";

/// Whether a namespace was there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    New,
    Old,
}

/// Moves the calling thread into the namespace pinned at `path`, making it first unless it is there.
pub fn enter_or_create(path: &Path) -> io::Result<(OwnedFd, Age)> {
    if is_pinned(path) {
        let namespace = open(path)?;
        rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        return Ok((namespace, Age::Old));
    }
    fs::OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    sys::namespace::unshare_network()?;
    rustix::mount::mount_bind(OWN, path)?;
    Ok((open(path)?, Age::New))
}

/// The namespace's descriptor, to be joined with setns(2).
pub fn open(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Whether a namespace is pinned at `path`; a crash may leave a plain file.
pub fn is_pinned(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|file_system| file_system.f_type as u64 == NAMESPACE_FILES)
}

/// Lets the namespace at `path` go; it ends with the last process in it. Nothing happens if there is none.
pub fn release(path: &Path) -> io::Result<()> {
    while is_pinned(path) {
        rustix::mount::unmount(path, UnmountFlags::DETACH)?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// What lies in the folder of pinned namespaces: the names, and whether a namespace is pinned there.
pub fn list(folder: &Path) -> io::Result<Vec<(String, PathBuf, bool)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if let Some(name) = path.file_name().and_then(|name| name.to_str()) {
            found.push((name.to_owned(), path.clone(), is_pinned(&path)));
        }
    }
    found.sort();
    Ok(found)
}
