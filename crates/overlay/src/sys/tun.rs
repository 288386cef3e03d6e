//! TUN devices by their ioctls (linux/if_tun.h): made, attached to, kept, and told what the kernel may leave to us. What goes
//! through them is not this file's business.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

const DEVICE: &str = "/dev/net/tun";

/// A queue of the TUN device `name` of the calling thread's network namespace, non-blocking; the device is made unless
/// it is there. It carries IP packets, each behind a `struct virtio_net_hdr` of 10 bytes. A device that is made here ends
/// with the queue unless [`keep`] is called.
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
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
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

/// What may be left to whoever reads the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    Nothing,
    /// Checksums, and the cutting of TCP.
    Tcp,
    /// And the cutting of UDP: Linux 6.2.
    TcpAndUdp,
}

/// Says what the kernel may leave to the reader.
pub fn offload(queue: BorrowedFd<'_>, left: Left) -> io::Result<()> {
    let header: libc::c_int = 10;
    const TSO: libc::c_uint = libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
    const USO: libc::c_uint = 0x20 | 0x40;
    let flags = match left {
        Left::Nothing => 0,
        Left::Tcp => libc::TUN_F_CSUM | TSO,
        Left::TcpAndUdp => libc::TUN_F_CSUM | TSO | USO,
    };
    // SAFETY: the descriptor is open for the borrow's life; TUNSETVNETHDRSZ reads one c_int, to which the pointer is.
    let sized = unsafe { libc::ioctl(queue.as_raw_fd(), libc::TUNSETVNETHDRSZ as _, &raw const header) };
    if sized != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as above, and TUNSETOFFLOAD takes a number, not a pointer.
    let result = unsafe { libc::ioctl(queue.as_raw_fd(), libc::TUNSETOFFLOAD as _, libc::c_ulong::from(flags)) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
