//! Paths inside a container's root, as descriptors.
//! A path from a plan or an image is resolved by openat2 with the container's root as `/`, so that no symbolic link
//! leads out; whatever is mounted or created then goes through the descriptor, so that nobody can swap it in between.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// The root folder of a container.
#[derive(Debug)]
pub struct Root(OwnedFd);

impl Root {
    pub fn open(path: &Path) -> Result<Root, Errno> {
        rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map(Root)
    }

    pub fn fd(&self) -> &OwnedFd {
        &self.0
    }

    /// What is at `path`, links followed inside the root, as an `O_PATH` descriptor.
    pub fn resolve(&self, path: &str) -> Result<OwnedFd, Errno> {
        self.open_at(path, OFlags::PATH, ResolveFlags::empty())
    }

    /// Like `resolve`, but no part of `path` may be a symbolic link.
    pub fn resolve_plain(&self, path: &str) -> Result<OwnedFd, Errno> {
        self.open_at(path, OFlags::PATH, ResolveFlags::NO_SYMLINKS)
    }

    /// Opens `path` inside the root with `flags`. Never blocks on a fifo that is opened for reading.
    pub fn open_at(&self, path: &str, flags: OFlags, resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
        let relative = path.trim_start_matches('/');
        let relative = if relative.is_empty() { "." } else { relative };
        let resolve = resolve | ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        loop {
            // EAGAIN: something was renamed meanwhile and the kernel could not be sure; it asks for another try.
            match rustix::fs::openat2(&self.0, relative, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other,
            }
        }
    }

    /// The folder `path`, made with its parents (root, 0755) where missing.
    pub fn ensure_dir(&self, path: &str) -> Result<OwnedFd, Errno> {
        match self.open_at(path, OFlags::PATH | OFlags::DIRECTORY, ResolveFlags::empty()) {
            Err(Errno::NOENT) => {}
            other => return other,
        }
        let (parent, name) = self.ensure_parent(path)?;
        match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&parent, name, flags, Mode::empty())
    }

    /// Something at `path` that a file can be mounted on: what is there, or a new empty file.
    pub fn ensure_file(&self, path: &str) -> Result<OwnedFd, Errno> {
        match self.resolve(path) {
            Err(Errno::NOENT) => {}
            other => return other,
        }
        let (parent, name) = self.ensure_parent(path)?;
        match rustix::fs::mknodat(&parent, name, FileType::RegularFile, Mode::from_raw_mode(0o755), 0) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        rustix::fs::openat(&parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
    }

    /// The folder that holds `path`, made where missing, and the last name.
    pub fn ensure_parent<'p>(&self, path: &'p str) -> Result<(OwnedFd, &'p str), Errno> {
        let path = path.trim_end_matches('/');
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        if matches!(name, "" | "." | "..") {
            return Err(Errno::INVAL);
        }
        Ok((self.ensure_dir(parent)?, name))
    }
}

pub fn is_dir(fd: impl AsFd) -> Result<bool, Errno> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode) == FileType::Directory)
}
