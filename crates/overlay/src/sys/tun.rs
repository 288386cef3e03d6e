use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

const DEVICE: &str = "/dev/net/tun";

/// A queue of the TUN device `name` of the calling thread's network namespace, non-blocking; the device is made unless
/// it is there. It carries IP packets without any header before them. A device that is made here ends with the
/// queue unless [`keep`] is called.
pub fn open(name: &str) -> io::Result<OwnedFd> {
    let file = File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(DEVICE)?;
    // SAFETY: `ifreq` is plain data, for which zeroes are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.is_empty() || name.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the descriptor is open, and TUNSETIFF reads and writes one `ifreq`, to which the pointer is.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(file.into())
}

/// Lets the device live without anybody who has it open.
pub fn keep(queue: BorrowedFd<'_>) -> io::Result<()> {
    const YES: libc::c_ulong = 1;
    // SAFETY: the descriptor is open for the borrow's life, and TUNSETPERSIST takes a number, not a pointer.
    let result = unsafe { libc::ioctl(queue.as_raw_fd(), libc::TUNSETPERSIST as _, YES) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
