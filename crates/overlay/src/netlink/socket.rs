//! A blocking netlink socket, bound to the network namespace in which it was opened.
//!
//! Every request is answered by the kernel inside `send`, so reads never wait for another party. Three shapes: many
//! requests each acknowledged (`each`), one atomic nftables transaction (`transaction`), and a dump.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, sockopt};

use super::attributes::{Message, attributes, read_string};
use crate::sys;

const HEADER: usize = 16;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NFTABLES: u8 = 10;
const EXPLANATION: u16 = 1;
/// `NLM_F_CAPPED` and `NLM_F_ACK_TLVS`: how an acknowledgement says what follows its error number.
const CAPPED: u16 = 0x100;
const ACK_TLVS: u16 = 0x200;
/// Acknowledgements wait in the receive buffer until they are read: few enough at a time to fit the default buffer.
const REQUESTS_AT_ONCE: usize = 64;
const RECEIVE_BYTES: usize = 64 * 1024;

/// Which part of the kernel is asked.
#[derive(Debug, Clone, Copy)]
pub enum Family {
    Route,
    Netfilter,
    Generic,
}

/// Why a request was not done.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    #[error("failed to open a netlink socket")]
    Open(#[source] io::Error),
    #[error("failed to send to the kernel over netlink")]
    Send(#[source] io::Error),
    #[error("failed to read the kernel's answer over netlink")]
    Receive(#[source] io::Error),
    /// `index` is the request's place among those sent together.
    #[error("the kernel refused request {index}{}", if explanation.is_empty() { String::new() } else { format!(": {explanation}") })]
    Refused { index: usize, explanation: String, source: io::Error },
}

impl NetlinkError {
    /// The error number of a refusal.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { source, .. } => source.raw_os_error(),
            Self::Open(_) | Self::Send(_) | Self::Receive(_) => None,
        }
    }
}

/// See the file's header.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// A socket in the calling thread's network namespace; it stays there wherever the thread goes.
    pub fn open(family: Family) -> Result<Self, NetlinkError> {
        let protocol = match family {
            Family::Route => None,
            Family::Netfilter => Some(netlink::NETFILTER),
            Family::Generic => Some(netlink::GENERIC),
        };
        let open = || -> io::Result<OwnedFd> {
            let fd = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
            sys::netlink::set_options(fd.as_fd())?;
            rustix::net::bind(&fd, &netlink::SocketAddrNetlink::new(0, 0))?;
            Ok(fd)
        };
        Ok(Self { fd: open().map_err(NetlinkError::Open)?, sequence: 0, buffer: vec![0; RECEIVE_BYTES] })
    }

    /// Sends all, and stops at nothing: one answer per message, in order.
    pub fn each(&mut self, messages: &[Message]) -> Result<Vec<Result<(), NetlinkError>>, NetlinkError> {
        let mut answers = Vec::with_capacity(messages.len());
        for chunk in messages.chunks(REQUESTS_AT_ONCE) {
            let first = self.sequence;
            let mut bytes = Vec::new();
            for message in chunk {
                self.write(&mut bytes, message, ACK);
            }
            self.send(&bytes)?;
            let base = answers.len();
            let mut left = chunk.len();
            answers.resize_with(base + chunk.len(), || Ok(()));
            while left > 0 {
                self.receive(RecvFlags::empty(), |kind, flags, sequence, payload| {
                    let place = sequence.wrapping_sub(first) as usize;
                    if kind == ERROR && place < chunk.len() {
                        left -= 1;
                        answers[base + place] = acknowledgement(base + place, flags, payload);
                    }
                })?;
            }
        }
        Ok(answers)
    }

    /// Sends all and returns the first refusal, if any; those after it were tried nevertheless.
    pub fn all(&mut self, messages: &[Message]) -> Result<(), NetlinkError> {
        self.each(messages)?.into_iter().collect()
    }

    /// One nftables transaction: all of it happens, or nothing.
    pub fn transaction(&mut self, messages: &[Message]) -> Result<(), NetlinkError> {
        let subsystem = [libc::AF_UNSPEC as u8, 0, 0, NFTABLES];
        let mut bytes = Vec::new();
        self.write(&mut bytes, &Message::new(BATCH_BEGIN, 0, &subsystem), 0);
        let first = self.sequence;
        for message in messages {
            self.write(&mut bytes, message, 0);
        }
        self.write(&mut bytes, &Message::new(BATCH_END, 0, &subsystem), 0);
        // The kernel takes a transaction as one datagram, whatever its size, if the buffer allows it.
        sockopt::set_socket_send_buffer_size_force(&self.fd, (bytes.len() * 2).max(256 * 1024))
            .map_err(|error| NetlinkError::Send(error.into()))?;
        self.send(&bytes)?;
        // Refusals are queued before `send` returns; success has no answer.
        let mut refused = None;
        while self.receive(RecvFlags::DONTWAIT, |kind, flags, sequence, payload| {
            if kind == ERROR && refused.is_none() {
                refused = acknowledgement(sequence.wrapping_sub(first) as usize, flags, payload).err();
            }
        })? {}
        refused.map_or(Ok(()), Err)
    }

    /// Asks for a list and calls `each` with the type and body of every message in it.
    pub fn dump(&mut self, request: &Message, each: impl FnMut(u16, &[u8])) -> Result<(), NetlinkError> {
        self.ask(request, DUMP, each)
    }

    /// Asks for one object; `each` is called with it.
    pub fn get(&mut self, request: &Message, each: impl FnMut(u16, &[u8])) -> Result<(), NetlinkError> {
        self.ask(request, ACK, each)
    }

    fn ask(&mut self, request: &Message, flags: u16, mut each: impl FnMut(u16, &[u8])) -> Result<(), NetlinkError> {
        let asked = self.sequence;
        let mut bytes = Vec::new();
        self.write(&mut bytes, request, flags);
        self.send(&bytes)?;
        let mut outcome = None;
        while outcome.is_none() {
            self.receive(RecvFlags::empty(), |kind, flags, sequence, payload| {
                if sequence != asked {
                    return;
                }
                match kind {
                    ERROR => outcome = Some(acknowledgement(0, flags, payload)),
                    DONE => outcome = Some(Ok(())),
                    _ => each(kind, payload),
                }
            })?;
        }
        outcome.unwrap_or(Ok(()))
    }

    fn write(&mut self, bytes: &mut Vec<u8>, message: &Message, flags: u16) {
        let body = message.body.as_bytes();
        bytes.extend_from_slice(&((HEADER + body.len()) as u32).to_ne_bytes());
        bytes.extend_from_slice(&message.kind.to_ne_bytes());
        bytes.extend_from_slice(&(message.flags | flags | REQUEST).to_ne_bytes());
        bytes.extend_from_slice(&self.sequence.to_ne_bytes());
        bytes.extend_from_slice(&0u32.to_ne_bytes());
        bytes.extend_from_slice(body);
        self.sequence = self.sequence.wrapping_add(1);
    }

    fn send(&self, bytes: &[u8]) -> Result<(), NetlinkError> {
        let kernel = netlink::SocketAddrNetlink::new(0, 0);
        let sent = rustix::net::sendto(&self.fd, bytes, SendFlags::empty(), &kernel);
        sent.map(drop).map_err(|error| NetlinkError::Send(error.into()))
    }

    /// Reads one datagram and calls `each` with (type, flags, sequence, body) of every message; false if none waits.
    fn receive(&mut self, flags: RecvFlags, mut each: impl FnMut(u16, u16, u32, &[u8])) -> Result<bool, NetlinkError> {
        let length = match rustix::net::recv(&self.fd, self.buffer.as_mut_slice(), flags) {
            Ok((_, length)) => length,
            Err(rustix::io::Errno::AGAIN) => return Ok(false),
            Err(rustix::io::Errno::INTR) => return Ok(true),
            Err(error) => return Err(NetlinkError::Receive(error.into())),
        };
        let mut rest = self.buffer.get(..length).unwrap_or(&self.buffer);
        while let Some(header) = rest.get(..HEADER) {
            let word = |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
            let half = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
            let total = word(0) as usize;
            let Some(payload) = rest.get(HEADER..total) else { break };
            each(half(4), half(6), word(8), payload);
            rest = rest.get(total.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(true)
    }
}

/// The outcome in a message of type ERROR: an error number, the refused request unless capped, then an explanation.
fn acknowledgement(index: usize, flags: u16, payload: &[u8]) -> Result<(), NetlinkError> {
    let errno = super::read_u32(payload).map_or(libc::EPROTO, |code| -(code as i32));
    if errno == 0 {
        return Ok(());
    }
    let request = super::read_u32(payload.get(4..).unwrap_or_default()).unwrap_or(0) as usize;
    let skip = 4 + if flags & CAPPED != 0 { HEADER } else { request.next_multiple_of(4) };
    let explanation = if flags & ACK_TLVS == 0 { &[] } else { payload.get(skip..).unwrap_or_default() };
    let explanation = attributes(explanation).find(|(kind, _)| *kind == EXPLANATION);
    Err(NetlinkError::Refused {
        index,
        explanation: explanation.map(|(_, text)| read_string(text)).unwrap_or_default(),
        source: io::Error::from_raw_os_error(errno),
    })
}
