//! Packets of one TCP stream that arrive one after the other, made one again for the way through the kernel.
//!
//! Merged are only those that the kernel would cut apart to the same again: of one stream, in order, with equal headers but
//! for what counts up, each with a right checksum, and each full but the last. What cannot be merged passes at once;
//! of one stream nothing overtakes anything.

use super::checksum::Sum;
use super::split::{HEADER, Offload};

/// Of any IPv4 packet.
const LENGTH_MAX: usize = 65_535;
/// Streams that are merged at one time.
const STREAMS: usize = 8;
const TCP: u8 = 6;
const IP: usize = 20;
const ACK: u8 = 0x10;
const PUSH: u8 = 8;

/// See the file's header. It holds packets until it is flushed.
#[derive(Debug, Default)]
pub struct Merger {
    /// Those that hold something come first.
    streams: Vec<Stream>,
    used: usize,
}

/// The packets of one stream so far, as one.
#[derive(Debug, Default)]
struct Stream {
    /// Behind room for what the device wants first.
    bytes: Vec<u8>,
    /// The payload of each but the last.
    size: usize,
    count: usize,
    next: u32,
    is_closed: bool,
}

/// What is looked at of a TCP packet.
struct Segment<'a> {
    packet: &'a [u8],
    payload: usize,
}

impl Merger {
    /// Takes a packet, which is behind [`HEADER`] zeros, and delivers what can wait no longer.
    pub fn push(&mut self, framed: &[u8], mut deliver: impl FnMut(&[u8])) {
        let Some(segment) = Segment::of(&framed[HEADER..]) else {
            return deliver(framed);
        };
        let found = self.streams[..self.used].iter().position(|stream| stream.is_of(&segment));
        if let Some(place) = found {
            if self.streams[place].append(&segment) {
                return;
            }
            self.release(place, &mut deliver);
        }
        if !segment.can_begin() {
            return deliver(framed);
        }
        if self.used == STREAMS {
            self.release(0, &mut deliver);
        }
        if self.used == self.streams.len() {
            self.streams.push(Stream::default());
        }
        self.streams[self.used].begin(framed, &segment);
        self.used += 1;
    }

    /// Delivers all that is held.
    pub fn flush(&mut self, mut deliver: impl FnMut(&[u8])) {
        for stream in &mut self.streams[..self.used] {
            deliver(stream.finish());
        }
        self.used = 0;
    }

    fn release(&mut self, place: usize, deliver: &mut impl FnMut(&[u8])) {
        deliver(self.streams[place].finish());
        self.used -= 1;
        // Streams know no order among each other; the buffer is kept for the next.
        self.streams.swap(place, self.used);
    }
}

impl Stream {
    fn begin(&mut self, framed: &[u8], segment: &Segment<'_>) {
        self.bytes.clear();
        self.bytes.extend_from_slice(framed);
        self.size = segment.length();
        self.count = 1;
        self.next = segment.sequence().wrapping_add(self.size as u32);
        self.is_closed = segment.pushes();
    }

    /// Whether they are of one stream, by addresses and ports.
    fn is_of(&self, segment: &Segment<'_>) -> bool {
        let own = &self.bytes[HEADER..];
        own[12..IP + 4] == segment.packet[12..IP + 4]
    }

    /// Whether `segment` follows, and was taken.
    fn append(&mut self, segment: &Segment<'_>) -> bool {
        let own = &self.bytes[HEADER..];
        let follows = !self.is_closed
            && segment.sequence() == self.next
            && segment.length() <= self.size
            && own.len() + segment.length() <= LENGTH_MAX
            && segment.has_headers_like(own)
            && segment.can_begin();
        if follows {
            self.bytes.extend_from_slice(&segment.packet[segment.payload..]);
            self.count += 1;
            self.next = self.next.wrapping_add(segment.length() as u32);
            self.is_closed = segment.pushes() || segment.length() < self.size;
            if segment.pushes() {
                self.bytes[HEADER + IP + 13] |= PUSH;
            }
        }
        follows
    }

    /// What the device is given.
    fn finish(&mut self) -> &[u8] {
        if self.count > 1 {
            let (header, packet) = self.bytes.split_at_mut(HEADER);
            let length = packet.len();
            let tcp = length - IP;
            packet[2..4].copy_from_slice(&(length as u16).to_be_bytes());
            packet[10..12].fill(0);
            let checksum = Sum::default().add(&packet[..IP]).checksum();
            packet[10..12].copy_from_slice(&checksum);
            let pseudo = Sum::pseudo_header(packet, TCP, tcp).folded();
            packet[IP + 16..IP + 18].copy_from_slice(&pseudo);
            let headers = IP + usize::from(packet[IP + 12] >> 4) * 4;
            header.copy_from_slice(&Offload::many_tcp4(self.size as u16, IP as u16).write(headers as u16));
        }
        &self.bytes
    }
}

impl<'a> Segment<'a> {
    /// None: it is none, or one with IPv4 options, or a fragment.
    fn of(packet: &'a [u8]) -> Option<Self> {
        let is_tcp = packet.len() >= IP + 20 && packet[0] == 0x45 && packet[9] == TCP;
        let is_fragment = is_tcp && (packet[6] & 0x3f != 0 || packet[7] != 0);
        let payload = IP + usize::from(*packet.get(IP + 12)? >> 4) * 4;
        let is_whole = is_tcp && usize::from(u16::from_be_bytes([packet[2], packet[3]])) == packet.len();
        (is_whole && !is_fragment && payload >= IP + 20 && payload <= packet.len()).then_some(Self { packet, payload })
    }

    fn length(&self) -> usize {
        self.packet.len() - self.payload
    }

    fn sequence(&self) -> u32 {
        let at = IP + 4;
        u32::from_be_bytes([self.packet[at], self.packet[at + 1], self.packet[at + 2], self.packet[at + 3]])
    }

    fn pushes(&self) -> bool {
        self.packet[IP + 13] & PUSH != 0
    }

    /// Data and nothing else, and undamaged: what is wrong must reach the kernel as it is.
    fn can_begin(&self) -> bool {
        let tcp = &self.packet[IP..];
        self.length() > 0
            && tcp[13] & !PUSH == ACK
            && Sum::default().add(&self.packet[..IP]).folded() == [0xff, 0xff]
            && Sum::pseudo_header(self.packet, TCP, tcp.len()).add(tcp).folded() == [0xff, 0xff]
    }

    /// But for lengths, sums, the packet's number, sequence and the push.
    fn has_headers_like(&self, own: &[u8]) -> bool {
        let packet = self.packet;
        own[1] == packet[1]
            && own[6..9] == packet[6..9]
            && own[IP + 8..IP + 13] == packet[IP + 8..IP + 13]
            && own[IP + 14..IP + 16] == packet[IP + 14..IP + 16]
            && own[IP + 18..self.payload] == packet[IP + 18..self.payload]
    }
}

#[cfg(test)]
mod tests;
