//! Entering namespaces of another process.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

use super::process::check;

/// Moves this process into the namespaces `kinds` (`CLONE_NEW*` bits) behind a pidfd or a namespace file.
/// CLONE_NEWPID takes effect for children made from now on.
pub fn enter(fd: BorrowedFd<'_>, kinds: libc::c_int) -> Result<(), Errno> {
    // SAFETY: the descriptor is borrowed for the call; no memory is passed.
    check(unsafe { libc::setns(fd.as_raw_fd(), kinds) }.into()).map(|_| ())
}

/// Leaves the namespaces `kinds` (`CLONE_NEW*` bits) for fresh ones.
pub fn unshare(kinds: libc::c_int) -> Result<(), Errno> {
    // SAFETY: only CLONE_NEW* bits are passed here, which affect this single-threaded process alone.
    check(unsafe { libc::unshare(kinds) }.into()).map(|_| ())
}

/// Gives this process a session keyring of its own, so that it cannot read its starter's keys.
pub fn new_session_keyring() -> Result<(), Errno> {
    // SAFETY: a null name asks for an anonymous keyring; no memory is passed.
    let result =
        unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>()) };
    check(result).map(|_| ())
}
