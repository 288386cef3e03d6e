//! Making processes and replacing them: fork, clone3, execve, and closing what must not leak across.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::process::Pid;

/// linux/sched.h; libc's own constant is too narrow.
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// Which of the two copies is running now.
#[derive(Debug)]
pub enum Fork<P> {
    Child,
    Parent(P),
}

/// A new child and the descriptor that names it without a race against the reuse of its number.
#[derive(Debug)]
pub struct Spawned {
    pub pid: Pid,
    pub pidfd: OwnedFd,
}

/// Turns a raw result into the errno it left.
pub(super) fn check(result: libc::c_long) -> Result<libc::c_long, Errno> {
    if result == -1 { Err(last_errno()) } else { Ok(result) }
}

fn last_errno() -> Errno {
    std::io::Error::last_os_error().raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error)
}

/// Forks this process. Ordinary Rust stays legal in the child because there is only one thread:
/// no lock can be held by somebody who does not exist any more.
pub fn fork() -> Result<Fork<Pid>, Errno> {
    // SAFETY: keeper and wardens are single-threaded (asserted when the keeper starts).
    let pid = unsafe { libc::fork() };
    match pid {
        0 => Ok(Fork::Child),
        -1 => Err(last_errno()),
        pid => Ok(Fork::Parent(Pid::from_raw(pid).expect("fork returned a positive pid"))),
    }
}

/// Like `fork`, into new namespaces (`CLONE_NEW*` bits) and, on cgroup v2, straight into a cgroup.
pub fn clone_into(namespaces: libc::c_int, cgroup: Option<BorrowedFd<'_>>) -> Result<Fork<Spawned>, Errno> {
    let mut pidfd: libc::c_int = -1;
    // SAFETY: clone_args is plain integers, for which all zeroes is a valid value.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = namespaces as u32 as u64 | libc::CLONE_PIDFD as u64;
    args.pidfd = &raw mut pidfd as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: `args` and `pidfd` outlive the call. Without CLONE_VM the child works on a copy of this
    // single-threaded process, so nothing is shared. glibc's cached thread id is stale in the child;
    // nothing here uses it (std's locks keep their own).
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) };
    match check(pid)? {
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(Spawned {
            pid: Pid::from_raw(pid as i32).expect("clone3 returned a positive pid"),
            // SAFETY: CLONE_PIDFD stored a fresh descriptor that nobody else owns.
            pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
        })),
    }
}

/// Replaces this process; returns only on failure.
pub fn execve(path: &CStr, argv: &[CString], env: &[CString]) -> Errno {
    let argv = pointers(argv);
    let env = pointers(env);
    // SAFETY: both arrays end with a null pointer and their strings outlive the call.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    last_errno()
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    let mut pointers: Vec<_> = strings.iter().map(|s| s.as_ptr()).collect();
    pointers.push(std::ptr::null());
    pointers
}

/// Ends this process at once, without exit handlers: a forked copy must not run its parent's.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: always sound.
    unsafe { libc::_exit(code) }
}

/// Marks every descriptor from 3 up to be closed by the next exec.
pub fn close_on_exec_from_3() -> Result<(), Errno> {
    // SAFETY: only sets a flag on descriptors.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    check(result).map(|_| ())
}

/// Closes every descriptor from 3 up. The caller must not use any descriptor that it still holds.
pub fn close_all_from_3() -> Result<(), Errno> {
    // SAFETY: called by processes that own no descriptor yet (the keeper's first step) or never return to code that
    // owns one (the reaper of a container).
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, 0) };
    check(result).map(|_| ())
}
