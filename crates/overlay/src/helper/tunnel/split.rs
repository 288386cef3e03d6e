//! What the kernel leaves to a network card, done here: checksums, and cutting what is many packets in one.
//!
//! A TUN device hands out packets behind a `struct virtio_net_hdr` (linux/virtio_net.h), which says what is missing. TCP
//! fills a packet of up to 64 KiB, so that the way through the kernel is gone once and not 45 times.

use super::checksum::Sum;

/// Of what is read from and written to the device before each packet, in bytes.
pub const HEADER: usize = 10;

const NEEDS_CHECKSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCP4: u8 = 1;
const GSO_TCP6: u8 = 4;
const GSO_UDP: u8 = 5;
/// Beside the kind: congestion was met.
const GSO_ECN: u8 = 0x80;

/// IPv4's and TCP's headers with all their options; IPv6's without extensions.
const HEADERS_MAX: usize = 120;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// The parts of a `struct virtio_net_hdr`, in the machine's byte order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Offload {
    flags: u8,
    kind: u8,
    /// The payload of each packet.
    size: u16,
    /// From where on the sum is taken, and where it goes, from there.
    sum_start: u16,
    sum_offset: u16,
}

impl Offload {
    /// For a packet of many, whose TCP header begins at `tcp`.
    pub fn many_tcp4(size: u16, tcp: u16) -> Self {
        Self { flags: NEEDS_CHECKSUM, kind: GSO_TCP4, size, sum_start: tcp, sum_offset: 16 }
    }

    pub fn read(bytes: &[u8; HEADER]) -> Self {
        let half = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        // The length of the headers (at 2) is only a hint.
        Self { flags: bytes[0], kind: bytes[1], size: half(4), sum_start: half(6), sum_offset: half(8) }
    }

    /// `headers` is how long the packet's headers are; of no matter for one that is whole.
    pub fn write(&self, headers: u16) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[0] = self.flags;
        bytes[1] = self.kind;
        bytes[2..4].copy_from_slice(&headers.to_ne_bytes());
        bytes[4..6].copy_from_slice(&self.size.to_ne_bytes());
        bytes[6..8].copy_from_slice(&self.sum_start.to_ne_bytes());
        bytes[8..10].copy_from_slice(&self.sum_offset.to_ne_bytes());
        bytes
    }
}

/// Calls `each` with every packet that `packet` is. None: it is malformed, or of a kind that was not asked for.
pub fn split(offload: Offload, packet: &mut [u8], each: impl FnMut(&[u8])) -> Option<()> {
    match offload.kind & !GSO_ECN {
        GSO_NONE => whole(offload, packet, each),
        GSO_TCP4 => Cut::tcp(offload, packet)?.of(4)?.all(packet, each),
        GSO_TCP6 => Cut::tcp(offload, packet)?.of(6)?.all(packet, each),
        GSO_UDP => Cut::udp(offload, packet)?.all(packet, each),
        _ => None,
    }
}

fn whole(offload: Offload, packet: &mut [u8], mut each: impl FnMut(&[u8])) -> Option<()> {
    if offload.flags & NEEDS_CHECKSUM != 0 {
        let start = usize::from(offload.sum_start);
        let at = start + usize::from(offload.sum_offset);
        // What is there is the pseudo header's sum.
        let checksum = nonzero(Sum::default().add(packet.get(start..)?).checksum());
        packet.get_mut(at..at + 2)?.copy_from_slice(&checksum);
    }
    each(packet);
    Some(())
}

/// UDP's checksum of 0 means that there is none, and the other zero is as good; TCP does not mind.
fn nonzero(checksum: [u8; 2]) -> [u8; 2] {
    if checksum == [0, 0] { [0xff, 0xff] } else { checksum }
}

/// How one packet is made many.
struct Cut {
    headers: [u8; HEADERS_MAX],
    /// Where the transport's header begins, and where the payload does.
    transport: usize,
    payload: usize,
    size: usize,
    protocol: u8,
    is_v6: bool,
}

impl Cut {
    fn tcp(offload: Offload, packet: &[u8]) -> Option<Self> {
        let transport = ip_header(packet, TCP)?;
        let length = usize::from(*packet.get(transport + 12)? >> 4) * 4;
        Self::new(offload, packet, TCP, transport, transport + length).filter(|_| length >= 20)
    }

    fn udp(offload: Offload, packet: &[u8]) -> Option<Self> {
        let transport = ip_header(packet, UDP)?;
        Self::new(offload, packet, UDP, transport, transport + 8)
    }

    fn new(offload: Offload, packet: &[u8], protocol: u8, transport: usize, payload: usize) -> Option<Self> {
        let mut headers = [0; HEADERS_MAX];
        headers.get_mut(..payload)?.copy_from_slice(packet.get(..payload)?);
        let size = usize::from(offload.size);
        let is_v6 = headers[0] >> 4 == 6;
        (size > 0).then_some(Self { headers, transport, payload, size, protocol, is_v6 })
    }

    /// Itself, if it is of that version of IP.
    fn of(self, version: u8) -> Option<Self> {
        (self.headers[0] >> 4 == version).then_some(self)
    }

    /// Each packet is put together in place: its headers go where the payload of the one before was, which is gone.
    fn all(mut self, packet: &mut [u8], mut each: impl FnMut(&[u8])) -> Option<()> {
        let first = self.headers;
        let mut start = self.payload;
        let mut number = 0u16;
        loop {
            let end = (start + self.size).min(packet.len());
            let is_last = end == packet.len();
            self.headers = first;
            self.number(number, is_last);
            let begin = start - self.payload;
            let one = packet.get_mut(begin..end)?;
            self.sum(one)?;
            each(one);
            if is_last {
                return Some(());
            }
            (start, number) = (end, number.wrapping_add(1));
        }
    }

    /// What tells one packet from the others.
    fn number(&mut self, number: u16, is_last: bool) {
        const FIN: u8 = 1;
        const PUSH: u8 = 8;
        const CONGESTION_REDUCED: u8 = 0x80;
        let Self { headers, transport, size, protocol, is_v6, .. } = self;
        if !*is_v6 {
            let id = u16::from_be_bytes([headers[4], headers[5]]).wrapping_add(number);
            headers[4..6].copy_from_slice(&id.to_be_bytes());
        }
        if *protocol == TCP {
            let at = *transport + 4;
            let sequence = u32::from_be_bytes([headers[at], headers[at + 1], headers[at + 2], headers[at + 3]]);
            let sequence = sequence.wrapping_add(u32::from(number).wrapping_mul(*size as u32));
            headers[at..at + 4].copy_from_slice(&sequence.to_be_bytes());
            let flags = &mut headers[*transport + 13];
            if !is_last {
                *flags &= !(FIN | PUSH);
            }
            if number > 0 {
                *flags &= !CONGESTION_REDUCED;
            }
        }
    }

    /// Writes the headers with their lengths and sums.
    fn sum(&mut self, one: &mut [u8]) -> Option<()> {
        let Self { headers, transport, payload, protocol, is_v6, .. } = self;
        let length = one.len() - *transport;
        if *is_v6 {
            headers[4..6].copy_from_slice(&u16::try_from(length).ok()?.to_be_bytes());
        } else {
            headers[2..4].copy_from_slice(&u16::try_from(one.len()).ok()?.to_be_bytes());
            headers[10..12].fill(0);
            let checksum = Sum::default().add(&headers[..*transport]).checksum();
            headers[10..12].copy_from_slice(&checksum);
        }
        let at = *transport + if *protocol == TCP { 16 } else { 6 };
        headers[at..at + 2].fill(0);
        if *protocol == UDP {
            headers[*transport + 4..*transport + 6].copy_from_slice(&(length as u16).to_be_bytes());
        }
        let pseudo = Sum::pseudo_header(headers.as_slice(), *protocol, length);
        let sum = pseudo.add(&headers[*transport..*payload]).add(one.get(*payload..)?);
        headers[at..at + 2].copy_from_slice(&nonzero(sum.checksum()));
        one.get_mut(..*payload)?.copy_from_slice(&headers[..*payload]);
        Some(())
    }
}

/// Where the IP header ends, if the transport is the one that is said. IPv6's extensions are none of ours: what carries
/// them is not left to a card.
fn ip_header(packet: &[u8], protocol: u8) -> Option<usize> {
    let first = *packet.first()?;
    if first >> 4 == 6 {
        return (*packet.get(6)? == protocol && packet.len() >= 40).then_some(40);
    }
    let length = usize::from(first & 15) * 4;
    (first >> 4 == 4 && *packet.get(9)? == protocol && length >= 20).then_some(length)
}

#[cfg(test)]
pub mod tests;
