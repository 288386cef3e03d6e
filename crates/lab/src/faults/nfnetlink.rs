//! Netfilter's netlink messages as bytes, and a socket that takes them into one network namespace.
//!
//! Layout (linux/netlink.h, linux/netfilter/nfnetlink.h): `struct nlmsghdr`, `struct nfgenmsg`, attributes of u16 length,
//! u16 type and value, padded to 4 bytes. Headers are in the machine's order, netfilter's values in network order.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, sockopt};

const HEADER: usize = 16;
const NFGENMSG: usize = 4;
const ATTRIBUTE: usize = 4;
const NESTED: u16 = 1 << 15;
const ERROR: u16 = 2;
const REQUEST: u16 = 1;
const RECEIVE_BYTES: usize = 64 * 1024;
/// A burst of packets to be delayed waits here; what does not fit is lost, as on a real link.
const SOCKET_BUFFER: usize = 8 * 1024 * 1024;

/// A request: its type (subsystem and command), flags, `nfgenmsg` and attributes.
#[derive(Debug, Clone)]
pub struct Message {
    kind: u16,
    flags: u16,
    body: Attributes,
}

/// A growing list of attributes.
#[derive(Debug, Clone, Default)]
pub struct Attributes(Vec<u8>);

impl Message {
    /// `resource` is `nfgenmsg.res_id`: a queue's number, or the subsystem that a batch is for.
    pub fn new(subsystem: u8, command: u16, flags: u16, family: u8, resource: u16) -> Message {
        let [high, low] = resource.to_be_bytes();
        let body = Attributes(vec![family, 0, high, low]);
        Message { kind: u16::from(subsystem) << 8 | command, flags, body }
    }

    pub fn with(mut self, add: impl FnOnce(&mut Attributes)) -> Message {
        add(&mut self.body);
        self
    }
}

impl Attributes {
    pub fn bytes(&mut self, kind: u16, value: &[u8]) -> &mut Attributes {
        let length = u16::try_from(ATTRIBUTE + value.len()).expect("every value built here is far below 64 KiB");
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    pub fn u32(&mut self, kind: u16, value: u32) -> &mut Attributes {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub fn string(&mut self, kind: u16, value: &str) -> &mut Attributes {
        self.bytes(kind, &[value.as_bytes(), &[0]].concat())
    }

    pub fn nested(&mut self, kind: u16, add: impl FnOnce(&mut Attributes)) -> &mut Attributes {
        let mut inner = Attributes::default();
        add(&mut inner);
        self.list(kind, inner)
    }

    /// As [`Attributes::nested`], with what is built already.
    pub fn list(&mut self, kind: u16, inner: Attributes) -> &mut Attributes {
        self.bytes(kind | NESTED, &inner.0)
    }
}

/// The attributes of a received message's body as (type, value); stops at the first malformed one.
pub fn attributes(body: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = body.get(NFGENMSG..).unwrap_or_default();
    std::iter::from_fn(move || {
        let header = rest.get(..ATTRIBUTE)?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & !NESTED;
        let value = rest.get(ATTRIBUTE..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The first 4 bytes of a value, which is in network order.
pub fn read_u32(value: &[u8]) -> Option<u32> {
    value.first_chunk().copied().map(u32::from_be_bytes)
}

/// A socket of the network namespace in which it was opened, wherever its thread goes.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    buffer: Vec<u8>,
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Socket {
    pub fn open() -> Result<Socket> {
        let open = || -> io::Result<OwnedFd> {
            let family = AddressFamily::NETLINK;
            let fd = rustix::net::socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, Some(netlink::NETFILTER))?;
            sockopt::set_socket_recv_buffer_size_force(&fd, SOCKET_BUFFER)?;
            sockopt::set_socket_send_buffer_size_force(&fd, SOCKET_BUFFER)?;
            rustix::net::bind(&fd, &netlink::SocketAddrNetlink::new(0, 0))?;
            Ok(fd)
        };
        let fd = open().context("cannot open a netfilter socket")?;
        Ok(Socket { fd, buffer: vec![0; RECEIVE_BYTES] })
    }

    /// Sends all in one datagram and fails with the first refusal, if there is one. The kernel acts inside the call.
    pub fn ask(&mut self, messages: &[Message]) -> Result<()> {
        self.send(messages)?;
        let mut refusal = None;
        while self.receive(|kind, payload| {
            let code = payload.first_chunk().copied().map_or(0, i32::from_ne_bytes);
            if kind == ERROR && code != 0 {
                refusal.get_or_insert(-code);
            }
        })? {}
        refusal.map_or(Ok(()), |code| Err(io::Error::from_raw_os_error(code)).context("the kernel refused it"))
    }

    /// Sends all in one datagram, and leaves refusals among what [`Socket::receive`] reads.
    pub fn send(&self, messages: &[Message]) -> Result<()> {
        let mut bytes = Vec::new();
        for Message { kind, flags, body } in messages {
            let length = u32::try_from(HEADER + body.0.len()).context("a message is too long")?;
            bytes.extend_from_slice(&length.to_ne_bytes());
            bytes.extend_from_slice(&kind.to_ne_bytes());
            bytes.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
            // Sequence and port: nobody matches answers here.
            bytes.extend_from_slice(&[0; 8]);
            bytes.extend_from_slice(&body.0);
        }
        let kernel = netlink::SocketAddrNetlink::new(0, 0);
        rustix::net::sendto(&self.fd, &bytes, SendFlags::empty(), &kernel).context("cannot send to netfilter")?;
        Ok(())
    }

    /// Reads one datagram without waiting, and calls `each` with the type and payload of its messages; false if none is there.
    pub fn receive(&mut self, mut each: impl FnMut(u16, &[u8])) -> Result<bool> {
        let length = match rustix::net::recv(&self.fd, self.buffer.as_mut_slice(), RecvFlags::DONTWAIT) {
            Ok((_, length)) => length,
            Err(Errno::AGAIN) => return Ok(false),
            // NOBUFS tells of packets that did not fit the buffer, once; those that did are still there.
            Err(Errno::INTR | Errno::NOBUFS) => return Ok(true),
            Err(error) => return Err(error).context("cannot read from netfilter"),
        };
        let mut rest = self.buffer.get(..length).unwrap_or(&self.buffer);
        while let Some(header) = rest.get(..HEADER) {
            let total = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
            let kind = u16::from_ne_bytes([header[4], header[5]]);
            let Some(payload) = rest.get(HEADER..total) else { break };
            each(kind, payload);
            rest = rest.get(total.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(true)
    }
}
