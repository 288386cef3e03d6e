//! The helper's end of the TUN device `sk-tunnel`: IP packets of this node's, in and out.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::netdevice::name_to_index;

use crate::sys;
use crate::tunnel::INTERFACE;

/// See the file's header.
#[derive(Debug)]
pub struct Device(OwnedFd);

impl Device {
    /// Makes it, as the daemon would, if it is not there: the daemon tells the helper first and the kernel then, and
    /// until somebody has attached, the kernel drops what is sent.
    pub fn attach_or_make() -> io::Result<Self> {
        let queue = sys::tun::open(INTERFACE)?;
        sys::tun::keep(queue.as_fd())?;
        Ok(Self(queue))
    }

    /// None if it is not there: somebody removed it, and the daemon, if it lives, makes it again.
    pub fn attach() -> io::Result<Option<Self>> {
        let any = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?;
        match name_to_index(&any, INTERFACE) {
            Err(rustix::io::Errno::NODEV) => Ok(None),
            Err(error) => Err(error.into()),
            Ok(_) => Ok(Some(Self(sys::tun::open(INTERFACE)?))),
        }
    }

    /// One packet; none if none waits.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match rustix::io::read(&self.0, buffer) {
            Ok(length) => Ok(Some(length)),
            Err(rustix::io::Errno::AGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Delivers a packet, or drops it: the interface may be down.
    pub fn send(&self, packet: &[u8]) {
        if let Err(error) = rustix::io::write(&self.0, packet) {
            tracing::debug!(%error, "a packet could not be delivered");
        }
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
