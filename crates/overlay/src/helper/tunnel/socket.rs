//! The UDP socket that nodes meet at: one for IPv4 and IPv6 where the kernel has both.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt;
use socket2::{Domain, Protocol, Type};

use crate::sys;

/// At a gigabit and with 60 ms between nodes, this is what is on its way at once.
const BUFFER_BYTES: usize = 7 << 20;
/// A full send buffer is waited for, so that a sender's haste is felt by whoever fills the tunnel; a link that stays
/// stuck must not hold up what arrives.
const FULL: Duration = Duration::from_millis(10);

/// See the file's header.
#[derive(Debug)]
pub struct Socket {
    socket: UdpSocket,
    port: u16,
    maps_v4: bool,
}

impl Socket {
    pub fn bind(port: u16) -> io::Result<Self> {
        let (socket, maps_v4) = match bind((Ipv6Addr::UNSPECIFIED, port).into()) {
            // Without IPv6 in the kernel.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)) => {
                (bind((Ipv4Addr::UNSPECIFIED, port).into())?, false)
            }
            bound => (bound?, true),
        };
        sys::udp::allow_fragments(socket.as_fd())?;
        Ok(Self { socket, port, maps_v4 })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// One datagram and its sender; none if none waits.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<(SocketAddr, usize)>> {
        match self.socket.recv_from(buffer) {
            Ok((length, from)) => Ok(Some((SocketAddr::new(from.ip().to_canonical(), from.port()), length))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends or drops, as a network does.
    pub fn send(&self, to: SocketAddr, datagram: &[u8]) {
        let to = match to.ip() {
            IpAddr::V4(address) if self.maps_v4 => (address.to_ipv6_mapped(), to.port()).into(),
            _ => to,
        };
        let mut sent = self.socket.send_to(datagram, to);
        if sent.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            let full = Timespec { tv_sec: 0, tv_nsec: FULL.subsec_nanos().into() };
            // Whether it came to be writable, the next attempt tells.
            let _ = poll(&mut [PollFd::new(&self.socket, PollFlags::OUT)], Some(&full));
            sent = self.socket.send_to(datagram, to);
        }
        if let Err(error) = sent {
            tracing::debug!(%error, peer.endpoint = %to, "a datagram could not be sent");
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // Above the system's limits where that is allowed, else up to them.
    if sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER_BYTES).is_err() {
        socket.set_recv_buffer_size(BUFFER_BYTES)?;
    }
    if sockopt::set_socket_send_buffer_size_force(&socket, BUFFER_BYTES).is_err() {
        socket.set_send_buffer_size(BUFFER_BYTES)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}
