//! Filling an empty volume with what the image has at its mount point: content, owners, modes, links, times, xattrs.
//! Both sides are walked by descriptors, links are never followed, so a hostile image cannot lead a copy elsewhere.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;

use super::root::Root;

/// Names of files with several links, by device and inode, relative to the volume.
type Links = HashMap<(u64, u64), String>;

/// Copies `path` of the image into `volume`, if that is an empty folder.
pub fn copy_up(root: &Root, path: &str, volume: &OwnedFd) -> Result<(), Errno> {
    let from = root.open_at(path, OFlags::RDONLY | OFlags::DIRECTORY, ResolveFlags::empty())?;
    let into = rustix::fs::openat(volume, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    if !names(&into)?.is_empty() {
        return Ok(());
    }
    let stat = rustix::fs::fstat(&from)?;
    let mut links = Links::new();
    copy_folder(from.as_fd(), into.as_fd(), into.as_fd(), "", &mut links)?;
    copy_attributes(from.as_fd(), into.as_fd(), &stat)
}

fn names(folder: &OwnedFd) -> Result<Vec<std::ffi::CString>, Errno> {
    Dir::read_from(folder)?
        .map(|entry| entry.map(|entry| entry.file_name().to_owned()))
        .filter(|name| !matches!(name, Ok(name) if name.as_bytes() == b"." || name.as_bytes() == b".."))
        .collect()
}

fn copy_folder(
    from: BorrowedFd<'_>,
    into: BorrowedFd<'_>,
    volume: BorrowedFd<'_>,
    prefix: &str,
    links: &mut Links,
) -> Result<(), Errno> {
    let listed = rustix::fs::openat(from, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    for name in names(&listed)? {
        let stat = rustix::fs::statat(from, &name, AtFlags::SYMLINK_NOFOLLOW)?;
        let relative = format!("{prefix}{}", name.to_string_lossy());
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind != FileType::Directory && stat.st_nlink > 1 {
            if let Some(first) = links.get(&(stat.st_dev, stat.st_ino)) {
                rustix::fs::linkat(volume, first.as_str(), into, &name, AtFlags::empty())?;
                continue;
            }
            links.insert((stat.st_dev, stat.st_ino), relative.clone());
        }
        match kind {
            FileType::Directory => {
                rustix::fs::mkdirat(into, &name, Mode::from_raw_mode(0o700))?;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let source = rustix::fs::openat(from, &name, flags, Mode::empty())?;
                let copy = rustix::fs::openat(into, &name, flags, Mode::empty())?;
                copy_folder(source.as_fd(), copy.as_fd(), volume, &format!("{relative}/"), links)?;
                copy_attributes(source.as_fd(), copy.as_fd(), &stat)?;
            }
            FileType::RegularFile => copy_file(from, into, &name, &stat)?,
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(from, &name, Vec::new())?;
                rustix::fs::symlinkat(target, into, &name)?;
                set_owner_and_times(into, &name, &stat)?;
            }
            _ => {
                rustix::fs::mknodat(into, &name, kind, Mode::from_raw_mode(stat.st_mode & 0o7777), stat.st_rdev)?;
                set_owner_and_times(into, &name, &stat)?;
            }
        }
    }
    Ok(())
}

fn copy_file(from: BorrowedFd<'_>, into: BorrowedFd<'_>, name: &std::ffi::CStr, stat: &Stat) -> Result<(), Errno> {
    let source = rustix::fs::openat(from, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let copy = rustix::fs::openat(into, name, flags, Mode::from_raw_mode(0o600))?;
    while rustix::fs::sendfile(&copy, &source, None, 1 << 20)? > 0 {}
    copy_attributes(source.as_fd(), copy.as_fd(), stat)
}

/// Owner before mode: changing an owner clears set-id bits. Times last: everything else changes them.
fn copy_attributes(from: BorrowedFd<'_>, into: BorrowedFd<'_>, stat: &Stat) -> Result<(), Errno> {
    use rustix::fs::{Gid, Uid};
    rustix::fs::fchown(into, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    rustix::fs::fchmod(into, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    copy_xattrs(from, into)?;
    rustix::fs::futimens(into, &times(stat))
}

/// A filesystem of the volume that knows no xattrs gets none.
fn copy_xattrs(from: BorrowedFd<'_>, into: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut list = Vec::with_capacity(4096);
    match rustix::fs::flistxattr(from, rustix::buffer::spare_capacity(&mut list)) {
        Ok(_) => {}
        Err(Errno::NOTSUP) => return Ok(()),
        Err(errno) => return Err(errno),
    }
    for name in list.split(|byte| *byte == 0).filter(|name| !name.is_empty() && !name.starts_with(b"trusted.overlay."))
    {
        let mut value = Vec::with_capacity(1 << 16);
        rustix::fs::fgetxattr(from, name, rustix::buffer::spare_capacity(&mut value))?;
        match rustix::fs::fsetxattr(into, name, &value, XattrFlags::empty()) {
            Ok(()) | Err(Errno::NOTSUP | Errno::PERM) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn set_owner_and_times(folder: BorrowedFd<'_>, name: &std::ffi::CStr, stat: &Stat) -> Result<(), Errno> {
    use rustix::fs::{Gid, Uid};
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::chownat(folder, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    rustix::fs::utimensat(folder, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)
}

fn times(stat: &Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime as _, tv_nsec: stat.st_atime_nsec as _ },
        last_modification: Timespec { tv_sec: stat.st_mtime as _, tv_nsec: stat.st_mtime_nsec as _ },
    }
}
