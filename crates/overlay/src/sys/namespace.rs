use std::io;

use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Moves the calling thread, and only it, into a new network namespace.
pub fn unshare_network() -> io::Result<()> {
    // SAFETY: unshare is unsafe only for CLONE_FILES, which could take file descriptors from under other threads'
    // owners; CLONE_NEWNET touches none.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
    Ok(())
}
