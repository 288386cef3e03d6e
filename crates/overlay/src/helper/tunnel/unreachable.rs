//! The answer to a packet that nobody is there for (RFC 792, RFC 1122 section 3.2.2, RFC 4443), as the kernel's WireGuard gives it: a
//! connection into nowhere fails at once, rather than after minutes of silence.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::checksum::Sum;

const ICMP: u8 = 1;
const IP: usize = 20;
const ICMP_V6: u8 = 58;
const IP_V6: usize = 40;
const FRAGMENT: u8 = 44;
/// The answer's header, and what it shows of the packet: its own header with all options, and 8 bytes.
const LENGTH_MAX: usize = IP + 8 + 60 + 8;
/// What passes everywhere.
const LENGTH_MAX_V6: usize = 1280;

/// Writes the answer, and says how long it is. None: this packet is never answered.
///
/// It comes from the very address that was meant: the kernel takes nothing from outside that says to be from itself.
pub fn answer(packet: &[u8], into: &mut [u8]) -> Option<usize> {
    match packet.first()? >> 4 {
        4 => answer_v4(packet, into),
        6 => answer_v6(packet, into),
        _ => None,
    }
}

fn answer_v4(packet: &[u8], into: &mut [u8]) -> Option<usize> {
    let header = usize::from(packet.first()? & 15) * 4;
    let is_later_fragment = packet.get(6..8)? != [0, 0] && u16::from_be_bytes([packet[6], packet[7]]) & 0x1fff != 0;
    let is_answer = *packet.get(9)? == ICMP && matches!(packet.get(header)?, 3..=5 | 11 | 12);
    let is_for_many = Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(16..20)?).ok()?).is_multicast();
    if is_later_fragment || is_answer || is_for_many {
        return None;
    }
    let shown = packet.get(..packet.len().min(header + 8))?;
    let length = IP + 8 + shown.len();
    let answer = into.get_mut(..length).filter(|_| length <= LENGTH_MAX)?;
    answer[..IP + 8].fill(0);
    // IPv4 without options, internetwork control, 64 hops.
    (answer[0], answer[1], answer[8], answer[9]) = (0x45, 0xc0, 64, ICMP);
    answer[2..4].copy_from_slice(&(length as u16).to_be_bytes());
    answer[12..16].copy_from_slice(packet.get(16..20)?);
    answer[16..20].copy_from_slice(packet.get(12..16)?);
    // Destination unreachable: the host.
    (answer[IP], answer[IP + 1]) = (3, 1);
    answer[IP + 8..].copy_from_slice(shown);
    let checksum = Sum::default().add(&answer[..IP]).checksum();
    answer[10..12].copy_from_slice(&checksum);
    let checksum = Sum::default().add(&answer[IP..]).checksum();
    answer[IP + 2..IP + 4].copy_from_slice(&checksum);
    Some(length)
}

fn answer_v6(packet: &[u8], into: &mut [u8]) -> Option<usize> {
    let header = packet.get(..IP_V6)?;
    let is_error = header[6] == ICMP_V6 && *packet.get(IP_V6)? < 128;
    let to = Ipv6Addr::from(<[u8; 16]>::try_from(&header[24..40]).ok()?);
    if is_error || header[6] == FRAGMENT || to.is_multicast() {
        return None;
    }
    let shown = packet.get(..packet.len().min(LENGTH_MAX_V6 - IP_V6 - 8))?;
    let length = IP_V6 + 8 + shown.len();
    let answer = into.get_mut(..length)?;
    answer[..IP_V6 + 8].fill(0);
    (answer[0], answer[6], answer[7]) = (0x60, ICMP_V6, 64);
    answer[4..6].copy_from_slice(&((length - IP_V6) as u16).to_be_bytes());
    answer[8..24].copy_from_slice(&header[24..40]);
    answer[24..40].copy_from_slice(&header[8..24]);
    // Destination unreachable: the address.
    (answer[IP_V6], answer[IP_V6 + 1]) = (1, 3);
    answer[IP_V6 + 8..].copy_from_slice(shown);
    let checksum = Sum::pseudo_header(answer, ICMP_V6, length - IP_V6).add(&answer[IP_V6..]).checksum();
    answer[IP_V6 + 2..IP_V6 + 4].copy_from_slice(&checksum);
    Some(length)
}
