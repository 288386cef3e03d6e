//! One layer's folder, reached only through its own descriptor: no path handed in here can lead outside.
//!
//! Parents are opened with openat2 and RESOLVE_IN_ROOT (symbolic links are followed as if the folder were `/`),
//! and the last component is never followed. The most recently used parent stays open, because archives list
//! folders in order; when it is left, its mtime is put back to what it was before its children were made, so no
//! list of folders has to be kept to the end.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, UTIME_OMIT, XattrFlags, fsetxattr,
    fstat, futimens, mkdirat, openat, openat2, statat, unlinkat,
};
use rustix::io::Errno;

use super::error::UnpackError;
use super::remove::remove_at;

pub(crate) const OPAQUE: &str = "trusted.overlay.opaque";

pub(crate) struct Tree {
    root: OwnedFd,
    current: Option<Current>,
    /// Folders that the archive implied and has not described so far.
    pub(crate) implied: BTreeSet<Vec<u8>>,
    /// Memory that `implied` has taken, at most.
    pub(crate) implied_bytes: usize,
}

struct Current {
    path: Vec<u8>,
    fd: OwnedFd,
    mtime: Timespec,
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const IN_ROOT: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS).union(ResolveFlags::NO_XDEV);

impl Tree {
    pub(crate) fn open(folder: &Path) -> Result<Tree, UnpackError> {
        let root = openat(rustix::fs::CWD, folder, DIRECTORY, Mode::empty());
        let root = root.map_err(|errno| UnpackError::folder("open", errno))?;
        Ok(Tree { root, current: None, implied: BTreeSet::new(), implied_bytes: 0 })
    }

    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Opens the folder `parent` (clean, relative; empty for the root), making it if nothing is there.
    /// `None` if a whiteout of this layer stands in the way and `whiteouts` is `Refuse`.
    pub(crate) fn enter(&mut self, parent: &[u8], whiteouts: Whiteouts) -> Result<Option<BorrowedFd<'_>>, UnpackError> {
        if self.current.as_ref().is_none_or(|current| current.path != parent) {
            self.leave()?;
            let fd = match self.open_in_root(parent) {
                Ok(fd) => fd,
                Err(Errno::NOENT | Errno::NOTDIR) => match self.make(parent, whiteouts)? {
                    Some(fd) => fd,
                    None => return Ok(None),
                },
                Err(errno) => return Err(UnpackError::step(parent, "open a folder within the layer", errno)),
            };
            let mtime = mtime(&fstat(&fd).map_err(|errno| UnpackError::step(parent, "look at a folder", errno))?);
            self.current = Some(Current { path: parent.to_owned(), fd, mtime });
        }
        Ok(self.current.as_ref().map(|current| current.fd.as_fd()))
    }

    /// Puts back the open folder's mtime and closes it. Needed after changes that may have replaced it.
    pub(crate) fn leave(&mut self) -> Result<(), UnpackError> {
        let Some(current) = self.current.take() else { return Ok(()) };
        set_mtime(&current.fd, current.mtime).map_err(|errno| UnpackError::step(&current.path, "set the time", errno))
    }

    /// `path` was replaced: what was implied there is gone.
    pub(crate) fn forget_implied(&mut self, path: &[u8]) {
        self.implied.remove(path);
        let first_below = [path, b"/"].concat();
        let gone = self.implied.range(first_below.clone()..).take_while(|implied| implied.starts_with(&first_below));
        for path in gone.cloned().collect::<Vec<_>>() {
            self.implied.remove(&path);
        }
    }

    /// Opens an existing folder without making anything.
    pub(crate) fn open_in_root(&self, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        let path = if path.is_empty() { b"." } else { path };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        retry_again(|| openat2(&self.root, OsStr::from_bytes(path), flags, Mode::empty(), IN_ROOT))
    }

    /// Makes what is missing of `path`, from the longest part of it that exists.
    fn make(&mut self, path: &[u8], whiteouts: Whiteouts) -> Result<Option<OwnedFd>, UnpackError> {
        let slashes = path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at);
        let ends: Vec<usize> = slashes.chain([path.len()]).collect();
        // A part exists only if every shorter one does: the search may jump.
        let existing = ends.partition_point(|end| self.open_in_root(&path[..*end]).is_ok());
        let mut start = existing.checked_sub(1).map_or(0, |last| ends[last] + 1);
        let known = self.open_in_root(&path[..start.saturating_sub(1)]);
        let mut parent = known.map_err(|errno| UnpackError::step(path, "open a folder within the layer", errno))?;
        for end in ends.into_iter().skip(existing) {
            let (name, below) = (OsStr::from_bytes(&path[start..end]), &path[..end]);
            start = end + 1;
            let before = self.current_mtime(&parent, below)?;
            let Made::Folder(fd) = implied_folder(&parent, name, below, whiteouts)? else { return Ok(None) };
            set_mtime(&parent, before).map_err(|errno| UnpackError::step(below, "set the time", errno))?;
            self.implied_bytes += below.len() + 2 * size_of::<Vec<u8>>();
            self.implied.insert(below.to_owned());
            parent = fd;
        }
        Ok(Some(parent))
    }

    fn current_mtime(&self, folder: &OwnedFd, path: &[u8]) -> Result<Timespec, UnpackError> {
        fstat(folder).map(|stat| mtime(&stat)).map_err(|errno| UnpackError::step(path, "look at a folder", errno))
    }
}

/// What to do where this layer deletes a folder of a lower layer and then has something below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whiteouts {
    /// The folder comes back, empty: opaque.
    Replace,
    /// Nothing: for whiteouts below a deleted folder.
    Refuse,
}

enum Made {
    Folder(OwnedFd),
    Nothing,
}

fn implied_folder(parent: &OwnedFd, name: &OsStr, path: &[u8], whiteouts: Whiteouts) -> Result<Made, UnpackError> {
    let failed = |step| move |errno| UnpackError::step(path, step, errno);
    let mut opaque = false;
    match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => {}
        Err(errno) => return Err(failed("look at a parent folder")(errno)),
        Ok(stat) if is_whiteout(&stat) => {
            if whiteouts == Whiteouts::Refuse {
                return Ok(Made::Nothing);
            }
            unlinkat(parent, name, AtFlags::empty()).map_err(failed("replace a whiteout"))?;
            opaque = true;
        }
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink => {
            return Err(UnpackError::refused(
                path,
                "a symbolic link that leads nowhere within the layer is used as a folder",
            ));
        }
        Ok(_) => return Err(UnpackError::refused(path, "it is used as a folder but is none")),
    }
    mkdirat(parent, name, Mode::from_raw_mode(0o755)).map_err(failed("make a parent folder"))?;
    let fd = openat(parent, name, DIRECTORY, Mode::empty()).map_err(failed("open a parent folder"))?;
    // The process's umask does not count; the time is fixed so that equal archives give equal trees.
    rustix::fs::fchmod(&fd, Mode::from_raw_mode(0o755)).map_err(failed("set the mode of a parent folder"))?;
    if opaque {
        make_opaque(&fd).map_err(failed("mark a folder opaque"))?;
    }
    set_mtime(&fd, Timespec { tv_sec: 0, tv_nsec: 0 }).map_err(failed("set the time of a parent folder"))?;
    Ok(Made::Folder(fd))
}

pub(crate) fn make_opaque(folder: impl AsFd) -> rustix::io::Result<()> {
    fsetxattr(folder, OPAQUE, b"y", XattrFlags::empty())
}

/// overlayfs's mark for a deleted name: a character device 0:0.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

pub(crate) fn mtime(stat: &Stat) -> Timespec {
    Timespec { tv_sec: stat.st_mtime as _, tv_nsec: stat.st_mtime_nsec as _ }
}

pub(crate) fn times(mtime: Timespec) -> Timestamps {
    Timestamps { last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT as _ }, last_modification: mtime }
}

pub(crate) fn set_mtime(fd: impl AsFd, mtime: Timespec) -> rustix::io::Result<()> {
    futimens(fd, &times(mtime))
}

/// Removes whatever `name` is, with everything below it, without following links.
pub(crate) fn remove_all(parent: BorrowedFd<'_>, name: &OsStr, path: &[u8]) -> Result<(), UnpackError> {
    remove_at(parent, name).map_err(|error: io::Error| UnpackError::step(path, "replace an earlier entry", error))
}

/// The part of a clean path before its last component, and that component.
pub(crate) fn split(path: &[u8]) -> (&[u8], &OsStr) {
    match path.iter().rposition(|b| *b == b'/') {
        None => (b"", OsStr::from_bytes(path)),
        Some(slash) => (&path[..slash], OsStr::from_bytes(&path[slash + 1..])),
    }
}

/// openat2 answers EAGAIN when a rename elsewhere on the system made it unsure about `..` (openat2(2)).
fn retry_again<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    const ATTEMPTS: usize = 64;
    for _ in 1..ATTEMPTS {
        match call() {
            Err(Errno::AGAIN | Errno::INTR) => {}
            outcome => return outcome,
        }
    }
    call()
}
