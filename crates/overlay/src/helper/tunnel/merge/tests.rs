//! What was cut is merged, and what the kernel would cut of that is the same again.

use super::super::split::{split, tests::packet};
use super::*;

/// The packets of a stream of `payload` bytes, cut at 1000.
fn stream(payload: usize, flags: u8) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    let whole = &mut packet(TCP, payload, flags);
    split(Offload::many_tcp4(1000, 20), whole, |packet| packets.push(packet.to_vec())).unwrap();
    packets
}

/// All that is delivered, in order: each either one packet, or the many that it would be cut into.
fn merged(packets: &[Vec<u8>]) -> Vec<Vec<Vec<u8>>> {
    let mut merger = Merger::default();
    let mut delivered = Vec::new();
    let mut deliver = |framed: &[u8]| {
        let (header, packet) = framed.split_first_chunk::<HEADER>().unwrap();
        let mut parts = Vec::new();
        split(Offload::read(header), &mut packet.to_vec(), |packet| parts.push(packet.to_vec())).unwrap();
        delivered.push(parts);
    };
    for packet in packets {
        merger.push(&[vec![0; HEADER], packet.clone()].concat(), &mut deliver);
    }
    merger.flush(&mut deliver);
    delivered
}

fn counts(delivered: &[Vec<Vec<u8>>]) -> Vec<usize> {
    delivered.iter().map(Vec::len).collect()
}

/// Another stream than the rest's.
fn from_port(mut packets: Vec<Vec<u8>>, port: u8) -> Vec<Vec<u8>> {
    for packet in &mut packets {
        // The checksum follows: the port's low byte was 232.
        let sum = u16::from_be_bytes([packet[36], packet[37]]);
        packet[21] = port;
        let sum =
            Sum::default().add(&(!sum).to_be_bytes()).add(&(!232u16).to_be_bytes()).add(&u16::from(port).to_be_bytes());
        packet[36..38].copy_from_slice(&sum.checksum());
    }
    packets
}

#[test]
fn a_stream_is_merged_and_cut_to_the_same_again() {
    let packets = stream(10_500, ACK | PUSH);
    let delivered = merged(&packets);
    assert_eq!(counts(&delivered), [11]);
    assert_eq!(delivered.concat(), packets);
    // No packet is longer than IPv4's can be.
    let packets = [stream(60_000, ACK), stream(60_000, ACK)].concat();
    assert_eq!(counts(&merged(&packets)), [60, 60]);
}

#[test]
fn streams_are_told_apart() {
    let (one, other) = (stream(3000, ACK), from_port(stream(3000, ACK), 9));
    let mixed: Vec<_> = one.iter().zip(&other).flat_map(|(one, other)| [one.clone(), other.clone()]).collect();
    let delivered = merged(&mixed);
    assert_eq!(counts(&delivered), [3, 3]);
    assert_eq!(delivered.concat(), [one, other].concat());
    // More than are held at one time: none is lost.
    let many: Vec<_> = (0..20).flat_map(|port| from_port(stream(2000, ACK), port)).collect();
    let mut delivered = merged(&many).concat();
    delivered.sort();
    let mut sorted = many.clone();
    sorted.sort();
    assert_eq!(delivered, sorted);
}

#[test]
fn what_does_not_follow_is_not_merged_and_nothing_overtakes() {
    let packets = stream(4000, ACK);
    let swapped = [0, 2, 1, 3].map(|at: usize| packets[at].clone());
    let delivered = merged(&swapped);
    assert_eq!(counts(&delivered), [1, 1, 1, 1]);
    assert_eq!(delivered.concat(), swapped);
    let mut damaged = packets.clone();
    damaged[1][100] ^= 1;
    let delivered = merged(&damaged);
    assert_eq!(counts(&delivered), [1, 1, 2]);
    assert_eq!(delivered.concat(), damaged);
    // A short one is the last, whatever follows.
    let short = [stream(1500, ACK), stream(1000, ACK)].concat();
    assert_eq!(counts(&merged(&short)), [2, 1]);
    // An acknowledgement alone, a finish, a datagram, a fragment: as they are, after what was before them.
    let mut fragment = packets[1].clone();
    fragment[6] |= 0x20;
    for single in [packet(TCP, 0, ACK), stream(10, ACK | 1).remove(0), packet(17, 10, 0), fragment] {
        let delivered = merged(&[packets[0].clone(), single.clone(), packets[1].clone()]).concat();
        let place = |wanted: &Vec<u8>| delivered.iter().position(|packet| packet == wanted).unwrap();
        assert!(delivered.len() == 3 && place(&packets[0]) < place(&packets[1]));
        assert!(single[9] != TCP || single[6] & 0x20 != 0 || place(&packets[0]) < place(&single));
    }
}
