//! `mount_setattr(2)`: attributes and propagation of a mount that is named by descriptor.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

/// What to change; `set` and `clear` are `MOUNT_ATTR_*` bits, `propagation` is one `MS_*` kind or 0 to leave it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Attributes {
    pub set: u64,
    pub clear: u64,
    pub propagation: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    This,
    Tree,
}

/// Changes the mount at `mount` itself, or its whole tree (Linux 5.12).
pub fn set_attributes(mount: BorrowedFd<'_>, attributes: Attributes, depth: Depth) -> Result<(), Errno> {
    // SAFETY: mount_attr is plain integers, for which all zeroes is a valid value.
    let mut raw: libc::mount_attr = unsafe { std::mem::zeroed() };
    raw.attr_set = attributes.set;
    raw.attr_clr = attributes.clear;
    raw.propagation = attributes.propagation;
    let mut flags = libc::AT_EMPTY_PATH;
    if depth == Depth::Tree {
        flags |= libc::AT_RECURSIVE;
    }
    // SAFETY: the descriptor is borrowed for the call, the path is an empty C string,
    // and `raw` outlives the call with its own size passed beside it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw as *const libc::mount_attr,
            size_of::<libc::mount_attr>(),
        )
    };
    super::process::check(result).map(|_| ())
}
