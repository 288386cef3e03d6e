//! Removes a tree of any depth, without recursion and with a fixed number of descriptors: a hostile archive may
//! nest folders deeper than the descriptor limit or the stack allow.

use std::ffi::{CString, OsStr};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, openat, unlinkat};
use rustix::io::Errno;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Removes `path` and everything below it; a path that does not exist is no error.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    remove_at(CWD, path.as_os_str())
}

/// Removes `name` in `parent`. Nobody else may change the tree meanwhile: the way up is `..`.
pub(crate) fn remove_at(parent: impl AsFd, name: &OsStr) -> io::Result<()> {
    match unlinkat(&parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(Errno::NOENT) | Ok(()) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    }
    let mut folder = openat(&parent, name, DIRECTORY, Mode::empty())?;
    // Names from `name` down to `folder`, so that each can be removed from its parent on the way up.
    let mut descended: Vec<CString> = Vec::new();
    loop {
        match empty_files(&folder)? {
            Some(child) => {
                folder = openat(&folder, &child, DIRECTORY, Mode::empty())?;
                descended.push(child);
            }
            None => {
                let Some(child) = descended.pop() else { break };
                folder = openat(&folder, c"..", DIRECTORY, Mode::empty())?;
                unlinkat(&folder, &child, AtFlags::REMOVEDIR)?;
            }
        }
    }
    Ok(unlinkat(&parent, name, AtFlags::REMOVEDIR)?)
}

/// Unlinks what `folder` has, up to the first folder that is not empty: that one is returned.
fn empty_files(folder: &OwnedFd) -> io::Result<Option<CString>> {
    // A fresh descriptor starts reading at the first entry.
    let listing = openat(folder, c".", DIRECTORY, Mode::empty())?;
    let mut buffer = [MaybeUninit::<u8>::uninit(); 8192];
    let mut entries = RawDir::new(&listing, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let is_folder = entry.file_type() == FileType::Directory;
        let flags = if is_folder { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        match unlinkat(folder, name, flags) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::ISDIR) => return Ok(Some(name.to_owned())),
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_deeper_than_the_longest_path_are_removed() {
        let base = tempfile::tempdir().unwrap();
        let top = base.path().join("top");
        std::fs::create_dir(&top).unwrap();
        let mut folder = openat(CWD, &top, DIRECTORY, Mode::empty()).unwrap();
        for depth in 0..3000 {
            rustix::fs::mkdirat(&folder, c"abc", Mode::from_raw_mode(0o700)).unwrap();
            if depth % 100 == 0 {
                rustix::fs::symlinkat(c"/etc", &folder, c"link").unwrap();
            }
            folder = openat(&folder, c"abc", DIRECTORY, Mode::empty()).unwrap();
        }
        remove_tree(&top).unwrap();
        assert!(!top.exists());
        remove_tree(&top).unwrap();
    }
}
