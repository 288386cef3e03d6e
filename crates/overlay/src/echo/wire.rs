//! ICMP echoes as bytes (RFC 792).

use std::net::Ipv4Addr;

const REQUEST: u8 = 8;
const REPLY: u8 = 0;
const IP_HEADER: u16 = 20;
const HEADER: usize = 8;

/// An echo that makes a packet of `length` bytes, its IP header included.
pub fn request(id: u16, number: u16, length: u16) -> Vec<u8> {
    let mut packet = vec![0; usize::from(length.saturating_sub(IP_HEADER)).max(HEADER)];
    packet[0] = REQUEST;
    packet[4..6].copy_from_slice(&id.to_be_bytes());
    packet[6..8].copy_from_slice(&number.to_be_bytes());
    let sum = checksum(&packet);
    packet[2..4].copy_from_slice(&sum.to_be_bytes());
    packet
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply {
    pub from: Ipv4Addr,
    pub id: u16,
    pub number: u16,
}

/// What a raw socket read, if that is the answer to an echo; the kernel has looked at its checksum.
pub fn reply(packet: &[u8]) -> Option<Reply> {
    let length = usize::from(packet.first()? & 0xf) * 4;
    let from: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
    let icmp = packet.get(length..length + HEADER)?;
    let word = |at: usize| u16::from_be_bytes([icmp[at], icmp[at + 1]]);
    (icmp[0] == REPLY).then(|| Reply { from: from.into(), id: word(4), number: word(6) })
}

/// The Internet's (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_told_from_other_packets() {
        let mut packet = vec![0x45; 1];
        packet.resize(20, 0);
        packet[12..16].copy_from_slice(&[10, 127, 240, 2]);
        packet.extend(request(7, 9, 84));
        assert_eq!(packet.len(), 84);
        assert_eq!(reply(&packet), None, "a question is no answer");
        packet[20] = REPLY;
        assert_eq!(reply(&packet), Some(Reply { from: [10, 127, 240, 2].into(), id: 7, number: 9 }));
        assert_eq!(reply(&packet[..27]), None);
        assert_eq!(reply(&[]), None);
    }

    #[test]
    fn a_packet_with_its_checksum_sums_up_to_nothing() {
        for length in [28, 29, 84, 1420] {
            assert_eq!(checksum(&request(0x1234, 0xffff, length)), 0, "{length}");
        }
    }
}
