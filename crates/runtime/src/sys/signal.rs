//! Signals: a descriptor for SIGCHLD in keeper and wardens, and clean defaults for what they exec.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

use super::process::check;

fn set_of(signals: &[i32]) -> libc::sigset_t {
    // SAFETY: sigset_t is plain integers; sigemptyset gives it its value.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is a live local.
    unsafe { libc::sigemptyset(&mut set) };
    for signal in signals {
        // SAFETY: `set` is initialised; a bad number only returns an error.
        unsafe { libc::sigaddset(&mut set, *signal) };
    }
    set
}

/// Blocks `signals` and delivers them to a non-blocking descriptor instead.
pub fn descriptor(signals: &[i32]) -> Result<OwnedFd, Errno> {
    let set = set_of(signals);
    // SAFETY: `set` is initialised; the old mask is not asked for.
    let result = unsafe { libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) };
    check(result.into())?;
    // SAFETY: `set` is initialised and outlives the call.
    let fd = unsafe { libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    check(fd.into())?;
    // SAFETY: signalfd returned a fresh descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Takes what the descriptor holds; signals coalesce, so the caller looks at all children.
pub fn drain(fd: BorrowedFd<'_>) {
    let mut buffer = [0u8; size_of::<libc::signalfd_siginfo>() * 4];
    while matches!(rustix::io::read(fd, &mut buffer), Ok(n) if n == buffer.len()) {}
}

/// Waits for one of `signals`, which must be blocked, and returns it.
pub fn wait_for(signals: &[i32]) -> i32 {
    let set = set_of(signals);
    let mut signal = 0;
    loop {
        // SAFETY: `set` is initialised and `signal` is a live local.
        if unsafe { libc::sigwait(&set, &mut signal) } == 0 {
            return signal;
        }
    }
}

/// Blocks every signal of `signals` in this process.
pub fn block(signals: &[i32]) {
    let set = set_of(signals);
    // SAFETY: `set` is initialised; blocking cannot fail with a valid `how`.
    unsafe { libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) };
}

/// Ignores a signal; an ignored signal stays so across exec, hence `reset_all` before one.
pub fn ignore(signal: i32) {
    // SAFETY: SIG_IGN installs no handler code.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// Every disposition to its default and nothing blocked: what a container's process must start with.
/// By the bare system call, for glibc lets nobody change the two signals that it keeps for itself, and a process that a
/// threaded one starts by posix_spawn has those ignored.
pub fn reset_all() {
    // The kernel's `struct sigaction` is at most this large on every architecture; all zeroes are SIG_DFL, no flags, no mask.
    let default = [0u64; 8];
    let mask_bytes = size_of::<u64>();
    for signal in 1..=64 {
        // SAFETY: `default` outlives the call and holds what the kernel reads; SIG_DFL installs no handler code; numbers that
        // cannot be changed only return an error.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, &default, std::ptr::null::<u64>(), mask_bytes) };
    }
    let none = set_of(&[]);
    // SAFETY: `none` is initialised.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut()) };
}

/// Signals the process behind a pidfd; also real-time signals, which rustix's type leaves out.
pub fn send(pidfd: BorrowedFd<'_>, signal: i32) -> Result<(), Errno> {
    // SAFETY: the descriptor is borrowed for the call; a null siginfo means as if by kill(2).
    let result = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, std::ptr::null::<libc::siginfo_t>(), 0)
    };
    check(result).map(|_| ())
}

/// Signals by number a process that the caller is the parent of, so that the number cannot be reused.
pub fn send_to_child(pid: i32, signal: i32) -> Result<(), Errno> {
    // SAFETY: always sound; the caller vouches for the target.
    check(unsafe { libc::kill(pid, signal) }.into()).map(|_| ())
}
