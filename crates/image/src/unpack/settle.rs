//! What a layer takes from the layers below it, done when those are there: attributes of folders that its archive
//! implied, and hard links to files of theirs.
//!
//! A layer that needs this is stored by its chain id (it depends on what is below), every other one by its own
//! digest. Lower layers are looked up as overlayfs would: the first layer that has the name decides, a whiteout
//! or an opaque folder ends the search.

use std::collections::HashMap;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, Stat, fstat, getxattr, linkat, listxattr, openat, readlinkat, symlinkat,
};
use rustix::io::Errno;

use super::apply::{Applied, Attributes, is_carried};
use super::error::UnpackError;
use super::tree::{OPAQUE, Tree, Whiteouts, is_whiteout, mtime, split};

const XATTR_BYTES_MAX: usize = 64 * 1024;

/// Completes the layer in `tree`; `lowers` are the folders of the layers below it, base first.
pub(crate) fn settle(tree: &mut Tree, applied: &Applied, lowers: &[PathBuf]) -> Result<(), UnpackError> {
    let lowers = Lowers::open(lowers)?;
    let mut copied: HashMap<&[u8], &[u8]> = HashMap::new();
    for (path, target) in &applied.links {
        let known = copied.get(target.as_slice()).copied().unwrap_or(target);
        if !link_within(tree, path, known)? {
            copy_from_below(tree, &lowers, path, target)?;
            copied.insert(target, path);
        }
    }
    tree.leave()?;
    // Copying may have implied folders of its own.
    let late: Vec<Vec<u8>> = std::mem::take(&mut tree.implied).into_iter().collect();
    for path in applied.implied.iter().chain(&late) {
        if let (Some(found), Ok(folder)) = (lowers.find(path)?, tree.open_in_root(path)) {
            adopt_attributes(&folder, &found, path)?;
        }
    }
    Ok(())
}

struct Lowers {
    /// Top first.
    roots: Vec<OwnedFd>,
}

/// What the topmost layer that has a name has there. Opened with O_PATH.
struct Found {
    fd: OwnedFd,
    stat: Stat,
}

impl Lowers {
    fn open(folders: &[PathBuf]) -> Result<Lowers, UnpackError> {
        let open = |folder: &PathBuf| open_path(CWD, folder.as_os_str());
        let roots = folders.iter().rev().map(open).collect::<Result<_, _>>();
        Ok(Lowers { roots: roots.map_err(|errno| UnpackError::folder("open a lower layer of", errno))? })
    }

    fn find(&self, path: &[u8]) -> Result<Option<Found>, UnpackError> {
        let failed = |errno| UnpackError::step(path, "look it up in the layers below", errno);
        for root in &self.roots {
            match find_in(root, path).map_err(failed)? {
                Lookup::Found(found) => return Ok(Some(found)),
                Lookup::Hidden => return Ok(None),
                Lookup::Absent => {}
            }
        }
        Ok(None)
    }
}

enum Lookup {
    Found(Found),
    /// Not here, and what lower layers have does not show.
    Hidden,
    Absent,
}

fn find_in(root: &OwnedFd, path: &[u8]) -> rustix::io::Result<Lookup> {
    let mut folder = open_path(root, OsStr::new("."))?;
    let mut opaque = false;
    let mut parts = path.split(|b| *b == b'/').peekable();
    while let Some(part) = parts.next() {
        let fd = match open_path(&folder, OsStr::from_bytes(part)) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(if opaque { Lookup::Hidden } else { Lookup::Absent }),
            Err(errno) => return Err(errno),
        };
        let stat = fstat(&fd)?;
        let is_folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if is_whiteout(&stat) || (parts.peek().is_some() && !is_folder) {
            return Ok(Lookup::Hidden);
        }
        if parts.peek().is_none() {
            return Ok(Lookup::Found(Found { fd, stat }));
        }
        opaque |= is_opaque(&fd);
        folder = fd;
    }
    Ok(Lookup::Absent)
}

fn is_opaque(folder: &OwnedFd) -> bool {
    let mut value = [0u8; 4];
    getxattr(magic_path(folder), OPAQUE, &mut value[..]).is_ok_and(|n| n == 1 && value[0] == b'y')
}

/// `false` if `target` is not in this layer either.
fn link_within(tree: &mut Tree, path: &[u8], target: &[u8]) -> Result<bool, UnpackError> {
    let (target_parent, target_name) = split(target);
    let Ok(from) = tree.open_in_root(target_parent) else { return Ok(false) };
    let (parent, name) = split(path);
    let folder = enter(tree, parent, path)?;
    match linkat(&from, target_name, folder, name, AtFlags::empty()) {
        // A later entry of the archive took the name.
        Ok(()) | Err(Errno::EXIST) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(UnpackError::step(path, "make a hard link", errno)),
    }
}

/// As overlayfs does when a lower file is changed: a copy with the same attributes.
fn copy_from_below(tree: &mut Tree, lowers: &Lowers, path: &[u8], target: &[u8]) -> Result<(), UnpackError> {
    let missing = || {
        let target = super::error::printable(target);
        UnpackError::refused(
            path,
            format!("it is a hard link to `{target}`, which neither its layer nor those below have"),
        )
    };
    let found = lowers.find(target)?.ok_or_else(missing)?;
    let (parent, name) = split(path);
    let folder = enter(tree, parent, path)?;
    let failed = |step| move |errno: Errno| UnpackError::step(path, step, errno);
    match FileType::from_raw_mode(found.stat.st_mode) {
        FileType::RegularFile => {
            let mut from =
                File::open(magic_path(&found.fd)).map_err(|e| UnpackError::step(path, "open its target", e))?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let to =
                openat(folder, name, flags, Mode::from_raw_mode(0o600)).map_err(failed("make a copy of its target"))?;
            let mut to = File::from(to);
            io::copy(&mut from, &mut to).map_err(|e| UnpackError::step(path, "copy its target", e))?;
            adopt_attributes(to.as_fd(), &found, path)
        }
        FileType::Symlink => {
            let link = readlinkat(&found.fd, c"", Vec::new()).map_err(failed("read its target"))?;
            symlinkat(&link, folder, name).map_err(failed("make a copy of its target"))?;
            let (uid, gid) = (
                Some(rustix::fs::Uid::from_raw(found.stat.st_uid)),
                Some(rustix::fs::Gid::from_raw(found.stat.st_gid)),
            );
            rustix::fs::chownat(folder, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW).map_err(failed("set the owner"))?;
            let times = super::tree::times(mtime(&found.stat));
            rustix::fs::utimensat(folder, name, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(failed("set the time"))
        }
        _ => Err(UnpackError::refused(path, "it is a hard link to a device or folder of a lower layer")),
    }
}

fn enter<'t>(tree: &'t mut Tree, parent: &[u8], path: &[u8]) -> Result<BorrowedFd<'t>, UnpackError> {
    let folder = tree.enter(parent, Whiteouts::Replace)?;
    folder.ok_or_else(|| UnpackError::refused(path, "its parent folder was deleted"))
}

/// Gives `to` the owner, mode, time and extended attributes of what was found below.
fn adopt_attributes(to: impl AsFd, found: &Found, path: &[u8]) -> Result<(), UnpackError> {
    let kinds = |stat: &Stat| FileType::from_raw_mode(stat.st_mode);
    let own = fstat(&to).map_err(|errno| UnpackError::step(path, "look at it", errno))?;
    if kinds(&own) != kinds(&found.stat) {
        return Ok(());
    }
    let from = magic_path(&found.fd);
    let xattrs = xattrs(&from).map_err(|errno| UnpackError::step(path, "read extended attributes below", errno))?;
    let attributes = Attributes {
        uid: found.stat.st_uid,
        gid: found.stat.st_gid,
        mode: found.stat.st_mode & 0o7777,
        mtime: mtime(&found.stat),
    };
    let pairs = xattrs.iter().map(|(name, value)| (name.as_c_str(), value.as_slice()));
    attributes.set(to.as_fd(), pairs).map_err(|(step, errno)| UnpackError::step(path, step, errno))
}

fn xattrs(path: &Path) -> rustix::io::Result<Vec<(CString, Vec<u8>)>> {
    let mut names = vec![0u8; XATTR_BYTES_MAX];
    let length = match listxattr(path, &mut names[..]) {
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        length => length?,
    };
    let names = names[..length].split(|b| *b == 0).filter(|name| !name.is_empty());
    let names = names.filter_map(|name| CString::new(name).ok()).filter(|name| is_carried(name));
    let mut value = vec![0u8; XATTR_BYTES_MAX];
    names
        .map(|name| {
            let length = getxattr(path, name.as_c_str(), &mut value[..])?;
            Ok((name, value[..length].to_vec()))
        })
        .collect()
}

fn open_path(at: impl AsFd, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    openat(at, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// The way to use what O_PATH opened with calls that want a path.
fn magic_path(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}
