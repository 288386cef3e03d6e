//! The helper's end of the TUN device `sk-tunnel`: IP packets of this node's, in and out.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::netdevice::name_to_index;

use super::split::{HEADER, Offload};
use crate::sys;
use crate::sys::tun::Left;
use crate::tunnel::INTERFACE;

/// See the file's header.
#[derive(Debug)]
pub struct Device(OwnedFd);

impl Device {
    /// Makes it, as the daemon would, if it is not there: the daemon tells the helper first and the kernel then, and
    /// until somebody has attached, the kernel drops what is sent.
    pub fn attach_or_make() -> io::Result<Self> {
        let device = Self::open()?;
        sys::tun::keep(device.as_fd())?;
        Ok(device)
    }

    /// None if it is not there: somebody removed it, and the daemon, if it lives, makes it again.
    pub fn attach() -> io::Result<Option<Self>> {
        let any = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?;
        match name_to_index(&any, INTERFACE) {
            Err(rustix::io::Errno::NODEV) => Ok(None),
            Err(error) => Err(error.into()),
            Ok(_) => Self::open().map(Some),
        }
    }

    fn open() -> io::Result<Self> {
        let device = Self(sys::tun::open(INTERFACE)?);
        // As much as this kernel knows.
        sys::tun::offload(device.as_fd(), Left::TcpAndUdp)
            .or_else(|_| sys::tun::offload(device.as_fd(), Left::Tcp))
            .or_else(|_| sys::tun::offload(device.as_fd(), Left::Nothing))?;
        Ok(device)
    }

    /// One packet, which may be many in one; none if none waits.
    pub fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<(Offload, &'a mut [u8])>> {
        let length = match rustix::io::read(&self.0, &mut *buffer) {
            Ok(length) => length,
            Err(rustix::io::Errno::AGAIN) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        match buffer[..length].split_first_chunk_mut::<HEADER>() {
            Some((header, packet)) => Ok(Some((Offload::read(header), packet))),
            None => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Delivers a packet, which is behind [`HEADER`] bytes, or drops it: the interface may be down.
    pub fn send(&self, framed: &[u8]) {
        if let Err(error) = rustix::io::write(&self.0, framed) {
            tracing::debug!(%error, "a packet could not be delivered");
        }
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
