//! Applies the entries of a layer's archive to its folder, in the form that overlayfs reads (image-spec layer.md
//! and the kernel's overlayfs documentation): whiteouts become 0:0 devices, opaque marks an xattr.
//!
//! Owner, xattrs, mode, time are set in this order: a change of owner clears the set-user-id bits and file
//! capabilities. What needs the lower layers (attributes of implied parents, links to lower files) is collected
//! for `settle`.

use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io::{Read, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Uid, XattrFlags, chmodat, chownat, fchmod, fchown, fsetxattr,
    linkat, lsetxattr, makedev, mkdirat, mknodat, openat, statat, symlinkat, utimensat,
};
use rustix::io::Errno;

use super::archive::{Archive, Entry, Kind};
use super::error::UnpackError;
use super::limits::Limits;
use super::tree::{self, Tree, Whiteouts, is_whiteout, make_opaque, remove_all, set_mtime, split};

const COPY_BUFFER: usize = 64 * 1024;
/// Deferred work is kept in memory until the archive ends; real layers have some hundred bytes of it.
const DEFERRED_BYTES_MAX: usize = 16 << 20;

/// What a layer needs from those below it, and what it turned out to be.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    /// Parents before their children.
    pub(crate) implied: Vec<Vec<u8>>,
    /// Hard links whose target this layer does not have: (entry, target).
    pub(crate) links: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) entries: u64,
    /// Bytes of file content.
    pub(crate) bytes: u64,
    /// The layer hides everything below it. overlayfs does not look at the mark on a layer's own root.
    pub(crate) opaque_root: bool,
}

pub(crate) struct Applier {
    tree: Tree,
    limits: Limits,
    buffer: Vec<u8>,
    applied: Applied,
    deferred_bytes: usize,
}

impl Applier {
    pub(crate) fn new(tree: Tree, limits: Limits) -> Applier {
        Applier { tree, limits, buffer: vec![0; COPY_BUFFER], applied: Applied::default(), deferred_bytes: 0 }
    }

    pub(crate) fn finish(mut self) -> Result<(Tree, Applied), UnpackError> {
        self.tree.leave()?;
        self.applied.implied = std::mem::take(&mut self.tree.implied).into_iter().collect();
        Ok((self.tree, self.applied))
    }

    /// Applies one entry, reading its content from `archive`.
    pub(crate) fn apply<R: Read>(&mut self, entry: Entry, archive: &mut Archive<R>) -> Result<(), UnpackError> {
        self.count(&entry)?;
        let path =
            clean(&entry.path).ok_or_else(|| UnpackError::refused(&entry.path, "its name leads out of the layer"))?;
        let (parent, name) = split(&path);
        if name.is_empty() {
            return self.root(&entry);
        }
        if let Some(hidden) = name.as_bytes().strip_prefix(b".wh.") {
            return self.whiteout(&entry, parent, OsStr::from_bytes(hidden));
        }
        match entry.kind {
            Kind::Directory => self.folder(&entry, &path, parent, name),
            Kind::File => self.file(&entry, &path, parent, name, archive),
            Kind::HardLink => self.link(&entry, &path, parent, name),
            Kind::Symlink | Kind::CharDevice | Kind::BlockDevice | Kind::Fifo => self.node(&entry, &path, parent, name),
        }
    }

    /// Counts what an entry takes, so that neither inodes nor memory can be exhausted.
    fn count(&mut self, entry: &Entry) -> Result<(), UnpackError> {
        self.applied.entries += 1;
        let made = self.applied.entries + self.tree.implied.len() as u64;
        if made > self.limits.entries_max {
            return Err(UnpackError::Limit(format!("it has more than {} entries", self.limits.entries_max)));
        }
        if self.deferred_bytes + self.tree.implied_bytes > DEFERRED_BYTES_MAX {
            return Err(UnpackError::refused(
                &entry.path,
                "too many entries before it lack their parent folders or link targets",
            ));
        }
        Ok(())
    }

    fn root(&mut self, entry: &Entry) -> Result<(), UnpackError> {
        if entry.kind != Kind::Directory {
            return Err(UnpackError::refused(
                &entry.path,
                "it would replace the layer's root by something that is no folder",
            ));
        }
        self.tree.leave()?;
        let root = self.tree.root();
        folder_attributes(root, entry)
    }

    fn whiteout(&mut self, entry: &Entry, parent: &[u8], hidden: &OsStr) -> Result<(), UnpackError> {
        if hidden == ".wh..opq" {
            let Some(folder) = self.tree.enter(parent, Whiteouts::Refuse)? else { return Ok(()) };
            make_opaque(folder).map_err(|errno| UnpackError::step(&entry.path, "mark a folder opaque", errno))?;
            self.applied.opaque_root |= parent.is_empty();
            return Ok(());
        }
        // Marks of AUFS that mean nothing elsewhere (`.wh..wh.plnk`, `.wh..wh.aufs`).
        if hidden.as_bytes().starts_with(b".wh.") {
            return Ok(());
        }
        if matches!(hidden.as_bytes(), b"" | b"." | b"..") {
            return Err(UnpackError::refused(&entry.path, "it is a whiteout of nothing"));
        }
        let Some(folder) = self.tree.enter(parent, Whiteouts::Refuse)? else { return Ok(()) };
        let failed = |step| move |errno: Errno| UnpackError::step(&entry.path, step, errno);
        match mknodat(folder, hidden, FileType::CharacterDevice, Mode::empty(), makedev(0, 0)) {
            Ok(()) => own(folder, hidden, entry).map_err(failed("set the owner")),
            // The layer has the name itself: a folder of its own hides what is below by being opaque, anything
            // else does anyway. Whiteouts never apply to their own layer.
            Err(Errno::EXIST) => match open_folder(folder, hidden) {
                Ok(own) => make_opaque(own).map_err(failed("mark a folder opaque")),
                Err(Errno::NOTDIR | Errno::LOOP) => Ok(()),
                Err(errno) => Err(failed("open a folder")(errno)),
            },
            Err(errno) => Err(failed("make a whiteout")(errno)),
        }
    }

    fn folder(&mut self, entry: &Entry, path: &[u8], parent: &[u8], name: &OsStr) -> Result<(), UnpackError> {
        // The entry may describe the very folder that is open: its time is not to be put back.
        self.tree.leave()?;
        let failed = |step| move |errno: Errno| UnpackError::step(&entry.path, step, errno);
        let dir = self.parent(entry, parent)?;
        let made = mkdirat(dir, name, Mode::from_raw_mode(0o700));
        let mut opaque = false;
        let mut replaced = false;
        match made {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed("look at an earlier entry"))?;
                if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                    opaque = is_whiteout(&stat);
                    replaced = true;
                    remove_all(dir, name, &entry.path)?;
                    mkdirat(dir, name, Mode::from_raw_mode(0o700)).map_err(failed("make a folder"))?;
                }
            }
            Err(errno) => return Err(failed("make a folder")(errno)),
        }
        let folder = open_folder(dir, name).map_err(failed("open a folder"))?;
        if opaque {
            make_opaque(&folder).map_err(failed("mark a folder opaque"))?;
        }
        folder_attributes(folder.as_fd(), entry)?;
        // Described after all: nothing to take from the lower layers.
        self.tree.implied.remove(path);
        if replaced { self.tree.leave() } else { Ok(()) }
    }

    fn file<R: Read>(
        &mut self,
        entry: &Entry,
        path: &[u8],
        parent: &[u8],
        name: &OsStr,
        archive: &mut Archive<R>,
    ) -> Result<(), UnpackError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let create = |dir: BorrowedFd<'_>| openat(dir, name, flags, Mode::from_raw_mode(0o600));
        let fd = self.create(entry, path, parent, name, "make a file", create)?;
        let mut file = File::from(fd);
        loop {
            let n = archive.read(&mut self.buffer)?;
            if n == 0 {
                break;
            }
            file.write_all(&self.buffer[..n]).map_err(|error| UnpackError::step(&entry.path, "write a file", error))?;
            self.applied.bytes += n as u64;
        }
        file_attributes(&file, entry)
    }

    fn node(&mut self, entry: &Entry, path: &[u8], parent: &[u8], name: &OsStr) -> Result<(), UnpackError> {
        let nul = || UnpackError::refused(&entry.path, "its link has a NUL in it");
        let target = CString::new(entry.link.clone()).map_err(|_| nul())?;
        let (major, minor) = entry.device;
        let mode = Mode::from_raw_mode(0o600);
        let make = |dir: BorrowedFd<'_>| match entry.kind {
            Kind::Symlink => symlinkat(&target, dir, name),
            Kind::CharDevice => mknodat(dir, name, FileType::CharacterDevice, mode, makedev(major, minor)),
            Kind::BlockDevice => mknodat(dir, name, FileType::BlockDevice, mode, makedev(major, minor)),
            Kind::Fifo => mknodat(dir, name, FileType::Fifo, mode, 0),
            Kind::File | Kind::HardLink | Kind::Directory => Err(Errno::INVAL),
        };
        self.create(entry, path, parent, name, "make a link or device", make)?;
        let dir = self.parent(entry, parent)?;
        let failed = |step| move |errno: Errno| UnpackError::step(&entry.path, step, errno);
        own(dir, name, entry).map_err(failed("set the owner"))?;
        set_xattrs_at(dir, name, entry)?;
        if entry.kind != Kind::Symlink {
            // Follows links in general, but this name was made a device or fifo just now, and nobody else
            // works in this folder.
            chmodat(dir, name, Mode::from_raw_mode(entry.mode), AtFlags::empty()).map_err(failed("set the mode"))?;
        }
        utimensat(dir, name, &tree::times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW).map_err(failed("set the time"))
    }

    fn link(&mut self, entry: &Entry, path: &[u8], parent: &[u8], name: &OsStr) -> Result<(), UnpackError> {
        let target = clean(&entry.link).filter(|target| !target.is_empty());
        let target = target.ok_or_else(|| UnpackError::refused(&entry.path, "its hard link leads out of the layer"))?;
        if target == path {
            return Err(UnpackError::refused(&entry.path, "it is a hard link to itself"));
        }
        let (target_parent, target_name) = split(&target);
        let from = match self.tree.open_in_root(target_parent) {
            Ok(folder) if statat(&folder, target_name, AtFlags::SYMLINK_NOFOLLOW).is_ok() => folder,
            Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) => return self.defer(entry, path, parent, name, target),
            Err(errno) => return Err(UnpackError::step(&entry.path, "open its target's folder", errno)),
        };
        let make = |dir: BorrowedFd<'_>| linkat(&from, target_name, dir, name, AtFlags::empty());
        self.create(entry, path, parent, name, "make a hard link", make)
    }

    /// The target is in a lower layer: looked up when those are there. The name is free until then.
    fn defer(
        &mut self,
        entry: &Entry,
        path: &[u8],
        parent: &[u8],
        name: &OsStr,
        target: Vec<u8>,
    ) -> Result<(), UnpackError> {
        self.create(entry, path, parent, name, "make room for a hard link", |dir| {
            match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(_) => Err(Errno::EXIST),
                Err(Errno::NOENT) => Ok(()),
                Err(errno) => Err(errno),
            }
        })?;
        self.deferred_bytes += path.len() + target.len() + 2 * size_of::<Vec<u8>>();
        self.applied.links.push((path.to_owned(), target));
        Ok(())
    }

    /// Makes `name` with `make`; what an earlier entry put there goes first.
    fn create<T>(
        &mut self,
        entry: &Entry,
        path: &[u8],
        parent: &[u8],
        name: &OsStr,
        step: &'static str,
        make: impl Fn(BorrowedFd<'_>) -> rustix::io::Result<T>,
    ) -> Result<T, UnpackError> {
        let dir = self.parent(entry, parent)?;
        match make(dir) {
            Err(Errno::EXIST) => {
                remove_all(dir, name, &entry.path)?;
                let made = make(dir).map_err(|errno| UnpackError::step(&entry.path, step, errno));
                // Paths through what was here now lead elsewhere.
                self.tree.leave()?;
                self.tree.forget_implied(path);
                made
            }
            made => made.map_err(|errno| UnpackError::step(&entry.path, step, errno)),
        }
    }

    fn parent(&mut self, entry: &Entry, parent: &[u8]) -> Result<BorrowedFd<'_>, UnpackError> {
        let folder = self.tree.enter(parent, Whiteouts::Replace)?;
        folder.ok_or_else(|| UnpackError::refused(&entry.path, "its parent folder was deleted"))
    }
}

/// Normalises a name as archives write it: no leading `/` or `./`, no `.`, `..` resolved within the name.
/// `None` if it leads out of the root or has a NUL.
pub(crate) fn clean(name: &[u8]) -> Option<Vec<u8>> {
    if name.contains(&0) {
        return None;
    }
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in name.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join(&b'/'))
}

fn open_folder(dir: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(dir, name, flags, Mode::empty())
}

fn own(dir: BorrowedFd<'_>, name: &OsStr, entry: &Entry) -> rustix::io::Result<()> {
    let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
}

fn folder_attributes(folder: BorrowedFd<'_>, entry: &Entry) -> Result<(), UnpackError> {
    fd_attributes(folder, entry)
}

fn file_attributes(file: &File, entry: &Entry) -> Result<(), UnpackError> {
    fd_attributes(file.as_fd(), entry)
}

fn fd_attributes(fd: BorrowedFd<'_>, entry: &Entry) -> Result<(), UnpackError> {
    let xattrs = entry.xattrs.iter().map(|(name, value)| (name.as_c_str(), value.as_slice()));
    let attributes = Attributes { uid: entry.uid, gid: entry.gid, mode: entry.mode, mtime: entry.mtime };
    attributes.set(fd, xattrs).map_err(|(step, errno)| UnpackError::step(&entry.path, step, errno))
}

/// Owner, mode and time of a file or folder.
pub(crate) struct Attributes {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mode: u32,
    pub(crate) mtime: Timespec,
}

impl Attributes {
    pub(crate) fn set<'x>(
        &self,
        fd: BorrowedFd<'_>,
        xattrs: impl Iterator<Item = (&'x CStr, &'x [u8])>,
    ) -> Result<(), (&'static str, Errno)> {
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        fchown(fd, Some(uid), Some(gid)).map_err(|errno| ("set the owner", errno))?;
        for (name, value) in xattrs.filter(|(name, _)| is_carried(name)) {
            let outcome = fsetxattr(fd, name, value, XattrFlags::empty());
            tolerate(name, outcome).map_err(|errno| ("set an extended attribute", errno))?;
        }
        fchmod(fd, Mode::from_raw_mode(self.mode)).map_err(|errno| ("set the mode", errno))?;
        set_mtime(fd, self.mtime).map_err(|errno| ("set the time", errno))
    }
}

/// Extended attributes of what cannot be opened without side effects: links, devices, fifos.
fn set_xattrs_at(dir: BorrowedFd<'_>, name: &OsStr, entry: &Entry) -> Result<(), UnpackError> {
    for (xattr, value) in entry.xattrs.iter().filter(|(xattr, _)| is_carried(xattr)) {
        // The kernel has no setxattrat before 6.13: the folder is named by its descriptor, and the last
        // component is not followed.
        let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
        path.extend_from_slice(name.as_bytes());
        let outcome = lsetxattr(path, xattr.as_c_str(), value, XattrFlags::empty());
        tolerate(xattr, outcome).map_err(|errno| UnpackError::step(&entry.path, "set an extended attribute", errno))?;
    }
    Ok(())
}

/// Not carried over: overlayfs's own marks, with which an archive could redirect the overlay, and labels, which
/// belong to the host's policy.
pub(crate) fn is_carried(name: &CStr) -> bool {
    let name = name.to_bytes();
    let overlay = name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.");
    !overlay && name != b"security.selinux" && name != b"security.ima" && name != b"security.evm"
}

/// Some attributes cannot be on some files or file systems; images are run without them everywhere.
fn tolerate(name: &CStr, outcome: rustix::io::Result<()>) -> rustix::io::Result<()> {
    let user = name.to_bytes().starts_with(b"user.");
    match outcome {
        Err(Errno::OPNOTSUPP) => Ok(()),
        Err(Errno::PERM) if user => Ok(()),
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cleaned_and_never_lead_out() {
        let cleaned = |name: &str| clean(name.as_bytes()).map(|path| String::from_utf8(path).unwrap());
        for (name, path) in [("./a/b", "a/b"), ("/a//b/", "a/b"), ("a/./b/../c", "a/c"), (".", ""), ("a/..", "")] {
            assert_eq!(cleaned(name).as_deref(), Some(path), "{name}");
        }
        for name in ["..", "../a", "/../a", "a/../../b", "a\0b"] {
            assert_eq!(cleaned(name), None, "{name}");
        }
    }
}
