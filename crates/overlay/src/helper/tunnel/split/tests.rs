//! What is cut is put together again, and its sums are checked another way.

use super::*;

/// A packet of `protocol` from port 1000 to port 2000, its payload counting up.
pub fn packet(protocol: u8, payload: usize, flags: u8) -> Vec<u8> {
    let transport = if protocol == TCP { 32 } else { 8 };
    let mut packet = vec![0x45, 0, 0, 0, 0xff, 0xff, 0x40, 0, 64, protocol, 0, 0, 10, 64, 0, 1, 10, 64, 1, 1];
    packet[2..4].copy_from_slice(&((20 + transport + payload) as u16).to_be_bytes());
    packet.extend([3, 232, 7, 208]);
    if protocol == TCP {
        packet.extend([0xff, 0xff, 0xff, 0, 0, 0, 0, 7, 0x80, flags, 1, 0, 0, 0, 0, 0]);
        packet.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
    } else {
        packet.extend(((8 + payload) as u16).to_be_bytes());
        packet.extend([0, 0]);
    }
    packet.extend((0..payload).map(|at| (at / 3) as u8));
    packet
}

/// The same packet of IPv6, between twins of its addresses.
fn packet_v6(protocol: u8, payload: usize, flags: u8) -> Vec<u8> {
    let packet = packet(protocol, payload, flags);
    let mut v6 = vec![0x60, 0, 0, 0, 0, 0, protocol, 64];
    v6[4..6].copy_from_slice(&((packet.len() - 20) as u16).to_be_bytes());
    for address in [&packet[12..16], &packet[16..20]] {
        v6.extend([0xfd, 0x64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        v6.extend(address);
    }
    v6.extend(&packet[20..]);
    v6
}

/// Word by word, as RFC 1071 has it.
fn plain_sum(parts: &[&[u8]]) -> u16 {
    let bytes: Vec<u8> = parts.concat();
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Lengths and sums of a packet that stands for itself.
fn is_right(packet: &[u8]) -> bool {
    if packet[0] >> 4 == 6 {
        let length = [packet[4], packet[5]];
        return usize::from(u16::from_be_bytes(length)) == packet.len() - 40
            && plain_sum(&[&packet[8..40], &[0, packet[6]], &length, &packet[40..]]) == 0xffff;
    }
    let length = ((packet.len() - 20) as u16).to_be_bytes();
    usize::from(u16::from_be_bytes([packet[2], packet[3]])) == packet.len()
        && plain_sum(&[&packet[..20]]) == 0xffff
        && plain_sum(&[&packet[12..20], &[0, packet[9]], &length, &packet[20..]]) == 0xffff
}

fn cut(kind: u8, size: u16, packet: &[u8]) -> Vec<Vec<u8>> {
    let offload = Offload { flags: NEEDS_CHECKSUM, kind, size, sum_start: 20, sum_offset: 16 };
    let mut packet = packet.to_vec();
    let mut packets = Vec::new();
    split(offload, &mut packet, |packet| packets.push(packet.to_vec())).unwrap();
    assert!(packets.iter().all(|packet| is_right(packet)));
    packets
}

#[test]
fn a_stream_is_cut_into_packets_that_stand_for_themselves() {
    // Finished and pushed, with congestion met before.
    let packets = cut(GSO_TCP4 | GSO_ECN, 1000, &packet(TCP, 2500, 0x80 | 0x10 | 8 | 1));
    assert_eq!(packets.iter().map(Vec::len).collect::<Vec<_>>(), [1052, 1052, 552]);
    let sequences = packets.iter().map(|packet| u32::from_be_bytes(packet[24..28].try_into().unwrap()));
    assert_eq!(sequences.collect::<Vec<_>>(), [0xffff_ff00, 744, 1744]);
    assert_eq!(packets.iter().map(|packet| packet[33]).collect::<Vec<_>>(), [0x90, 0x10, 0x19]);
    assert_eq!(packets.iter().map(|packet| [packet[4], packet[5]]).collect::<Vec<_>>(), [[255, 255], [0, 0], [0, 1]]);
    let payload: Vec<u8> = packets.iter().flat_map(|packet| packet[52..].to_vec()).collect();
    assert_eq!(payload, packet(TCP, 2500, 0)[52..]);
}

#[test]
fn datagrams_are_cut_at_their_size() {
    let packets = cut(GSO_UDP, 1200, &packet(UDP, 2401, 0));
    assert_eq!(
        packets.iter().map(|packet| u16::from_be_bytes([packet[24], packet[25]])).collect::<Vec<_>>(),
        [1208, 1208, 9]
    );
    let payload: Vec<u8> = packets.iter().flat_map(|packet| packet[28..].to_vec()).collect();
    assert_eq!(payload, packet(UDP, 2401, 0)[28..]);
}

#[test]
fn packets_of_ipv6_are_cut_likewise() {
    let whole = packet_v6(TCP, 2500, 0x10 | 8 | 1);
    let packets = cut(GSO_TCP6, 1000, &whole);
    assert_eq!(packets.iter().map(Vec::len).collect::<Vec<_>>(), [1072, 1072, 572]);
    assert_eq!(packets.iter().map(|packet| packet[53]).collect::<Vec<_>>(), [0x10, 0x10, 0x19]);
    assert_eq!(packets.iter().flat_map(|packet| packet[72..].to_vec()).collect::<Vec<_>>(), whole[72..]);
    let packets = cut(GSO_UDP, 1200, &packet_v6(UDP, 2401, 0));
    assert_eq!(packets.iter().map(Vec::len).collect::<Vec<_>>(), [1248, 1248, 49]);
    let refused = |kind| {
        let offload = Offload { flags: NEEDS_CHECKSUM, kind, size: 100, sum_start: 40, sum_offset: 16 };
        split(offload, &mut whole.clone(), |_| ()).is_none()
    };
    assert!(refused(GSO_TCP4) && refused(GSO_UDP) && !refused(GSO_TCP6));
}

#[test]
fn a_missing_checksum_is_filled_in() {
    let mut packet = packet(TCP, 99, 0x10);
    let checksum = Sum::default().add(&packet[..20]).checksum();
    packet[10..12].copy_from_slice(&checksum);
    let pseudo = Sum::pseudo_header(&packet, TCP, packet.len() - 20).folded();
    packet[36..38].copy_from_slice(&pseudo);
    assert_eq!(cut(GSO_NONE, 0, &packet).len(), 1);
}

#[test]
fn nonsense_is_refused() {
    let refused = |offload: Offload, packet: &[u8]| split(offload, &mut packet.to_vec(), |_| ()).is_none();
    let tcp = Offload { flags: NEEDS_CHECKSUM, kind: GSO_TCP4, size: 100, sum_start: 20, sum_offset: 16 };
    let packet = packet(TCP, 300, 0);
    assert!(!refused(tcp, &packet));
    assert!(refused(Offload { size: 0, ..tcp }, &packet));
    assert!(refused(Offload { kind: GSO_TCP6, ..tcp }, &packet));
    assert!(refused(Offload { kind: GSO_UDP, ..tcp }, &packet));
    assert!(refused(Offload { kind: GSO_NONE, sum_start: 60000, ..tcp }, &packet));
    assert!((0..52).all(|length| refused(tcp, &packet[..length])));
}
