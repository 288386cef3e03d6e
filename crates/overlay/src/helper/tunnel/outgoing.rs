//! Datagrams on their way out, as many of one size to one peer as are ready, so that the kernel takes them at once.

use std::net::SocketAddr;

use super::sessions::{MESSAGE, SEAL};
use super::socket::Socket;

/// What the kernel takes at once: datagrams (`UDP_MAX_SEGMENTS`), and bytes, with headers below 64 KiB.
const COUNT_MAX: usize = 64;
const BYTES_MAX: usize = 65_400;
/// Room for the next, of any length.
const ROOM: usize = 64 * 1024 + SEAL + MESSAGE;

/// See the file's header.
pub struct Outgoing {
    bytes: Box<[u8]>,
    used: usize,
    count: usize,
    /// Of each but the last.
    size: usize,
    to: Option<SocketAddr>,
}

impl Outgoing {
    pub fn new() -> Self {
        let bytes = vec![0; BYTES_MAX + ROOM].into_boxed_slice();
        Self { bytes, used: 0, count: 0, size: 0, to: None }
    }

    /// Where the next datagram is to be written.
    pub fn room(&mut self) -> &mut [u8] {
        &mut self.bytes[self.used..]
    }

    /// Takes the datagram of `length` that was written there. Those that cannot go with it are sent before it.
    pub fn push(&mut self, to: SocketAddr, length: usize, socket: &mut Socket) {
        let goes_along = self.to == Some(to)
            && length <= self.size
            // The one before was shorter: it is the last.
            && self.used == self.size * self.count
            && self.count < COUNT_MAX
            && self.used + length <= BYTES_MAX;
        if !goes_along {
            let begin = self.used;
            self.flush(socket);
            self.bytes.copy_within(begin..begin + length, 0);
            (self.to, self.size) = (Some(to), length);
        }
        self.used += length;
        self.count += 1;
    }

    pub fn flush(&mut self, socket: &mut Socket) {
        if let Some(to) = self.to.take() {
            socket.send(to, &self.bytes[..self.used], self.size);
        }
        (self.used, self.count, self.size) = (0, 0, 0);
    }
}
