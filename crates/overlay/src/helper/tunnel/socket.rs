//! The UDP socket that nodes meet at: one for IPv4 and IPv6 where the kernel has both.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt;
use socket2::{Domain, Protocol, Type};

use crate::sys;
use crate::sys::udp::Received;

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
    /// The kernel cuts what is sent at once into datagrams.
    cuts: bool,
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
        if let Err(error) = sys::udp::receive_many(socket.as_fd()) {
            tracing::debug!(%error, "datagrams are received one by one");
        }
        Ok(Self { socket, port, maps_v4, cuts: cuts_rightly() })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Datagrams of one sender; none if none waits.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<Received>> {
        match sys::udp::receive(self.socket.as_fd(), buffer) {
            Ok(received) => {
                let from = SocketAddr::new(received.from.ip().to_canonical(), received.from.port());
                Ok(Some(Received { from, ..received }))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends datagrams of `size` bytes each, the last of what is left; or drops them, as a network does.
    pub fn send(&mut self, to: SocketAddr, datagrams: &[u8], size: usize) {
        let to = match to.ip() {
            IpAddr::V4(address) if self.maps_v4 => (address.to_ipv6_mapped(), to.port()).into(),
            _ => to,
        };
        if self.cuts && datagrams.len() > size {
            match self.try_send(to, datagrams, size) {
                Err(error) if matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL | libc::EMSGSIZE)) => {
                    // They go one by one: for good where the way out cannot sum what it cuts, else because one does not
                    // fit the way to this peer, and must be a fragment's.
                    self.cuts = error.raw_os_error() != Some(libc::EIO);
                }
                sent => return told(to, sent),
            }
        }
        datagrams.chunks(size).for_each(|datagram| told(to, self.try_send(to, datagram, size)));
    }

    fn try_send(&self, to: SocketAddr, datagrams: &[u8], size: usize) -> io::Result<()> {
        let send = || sys::udp::send(self.socket.as_fd(), to, datagrams, size as u16);
        match send() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let full = Timespec::try_from(FULL).expect("it is far below what a timespec holds");
                // Whether it came to be writable, the next attempt tells.
                let _ = poll(&mut [PollFd::new(&self.socket, PollFlags::OUT)], Some(&full));
                send()
            }
            sent => sent,
        }
    }
}

fn told(to: SocketAddr, sent: io::Result<()>) {
    if let Err(error) = sent {
        tracing::debug!(%error, peer.endpoint = %to, "a datagram could not be sent");
    }
}

/// Whether the kernel cuts what is handed to it at once into datagrams: from 7.0 to 7.1.4 it damages their headers
/// (fixed by Linux 7.1.5, commit 5f17ae0).
fn cuts_rightly() -> bool {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse::<u32>().ok());
    let version = [(); 3].map(|()| numbers.next().unwrap_or(0));
    !([7, 0, 0]..[7, 1, 5]).contains(&version)
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
