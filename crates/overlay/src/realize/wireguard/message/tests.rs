//! What is written is held against bytes put down by hand from linux/wireguard.h and linux/netlink.h.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::*;
use crate::tunnel::PrivateKey;

/// Bytes from text: hexadecimal, `KEY` for 32 bytes of 01, with notes after `#`.
fn bytes(text: &str) -> Vec<u8> {
    let words = text.lines().flat_map(|line| line.split('#').next().unwrap_or_default().split_whitespace());
    let byte = |word: &str| match word {
        "KEY" => vec![1; 32],
        word => vec![u8::from_str_radix(word, 16).unwrap()],
    };
    words.flat_map(byte).collect()
}

#[test]
fn a_device_and_its_peers_are_written_as_the_kernel_reads_them() {
    let key = PublicKey::from_bytes([1; 32]);
    let changes = Changes {
        private_key: Some(PrivateKey::from_bytes([1; 32])),
        port: Some(7377),
        peers: vec![
            PeerChange::Remove(key),
            PeerChange::Set {
                key,
                endpoint: Endpoint::Set("192.0.2.7:7377".parse().unwrap()),
                keepalive_s: Some(25),
                allowed: vec!["10.64.1.0/26".parse().unwrap()],
                replaces: true,
            },
        ],
    };
    let messages = set_device(29, &changes);
    assert_eq!(messages.iter().map(|message| message.kind).collect::<Vec<_>>(), [29, 29]);
    let device = "
        01 01 00 00                                           # SET_DEVICE, version 1
        0e 00 02 00 73 6b 2d 74 75 6e 6e 65 6c 00 00 00       # name: sk-tunnel, padded
        24 00 03 00 KEY                                       # private key
        06 00 06 00 d1 1c 00 00                               # port 7377
    ";
    assert_eq!(messages[0].body.as_bytes(), bytes(device));
    let peers = "
        01 01 00 00
        0e 00 02 00 73 6b 2d 74 75 6e 6e 65 6c 00 00 00
        a0 00 08 80                                           # peers, nested: 160 bytes
        30 00 00 80                                           # the first: 48 bytes
            24 00 01 00 KEY
            08 00 03 00 01 00 00 00                           # REMOVE_ME
        6c 00 00 80                                           # the second: 108 bytes
            24 00 01 00 KEY
            08 00 03 00 02 00 00 00                           # REPLACE_ALLOWEDIPS
            14 00 04 00 02 00 1c d1 c0 00 02 07 00 00 00 00 00 00 00 00
            06 00 05 00 19 00 00 00                           # every 25 s
            20 00 09 80                                       # ranges
                1c 00 00 80
                    06 00 01 00 02 00 00 00                   # IPv4
                    08 00 02 00 0a 40 01 00
                    05 00 03 00 1a 00 00 00                   # /26
    ";
    assert_eq!(messages[1].body.as_bytes(), bytes(peers));
}

#[test]
fn many_peers_and_ranges_are_told_in_several_messages() {
    let range = |number: u32| IpNet::from(Ipv4Net::new(Ipv4Addr::from(0x0a40_0000 + number * 64), 26).unwrap());
    let set = |number: u8, ranges: u32| PeerChange::Set {
        key: PublicKey::from_bytes([number; 32]),
        endpoint: Endpoint::Set("[2001:db8::1]:7377".parse().unwrap()),
        keepalive_s: Some(0),
        allowed: (0..ranges).map(range).collect(),
        replaces: true,
    };
    let peers = vec![set(1, 1000), set(2, 0)];
    let changes =
        Changes { private_key: None, port: None, peers: peers.into_iter().chain((3..60).map(|n| set(n, 1))).collect() };
    let messages = set_device(29, &changes);
    assert_eq!(messages.len(), 4);
    // The kernel's answer has the same shape, so what was written can be read.
    let mut device = Device::default();
    messages.iter().for_each(|message| device.read(message.body.as_bytes()));
    assert_eq!(device.peers.len(), 59);
    assert_eq!(device.peers[&PublicKey::from_bytes([1; 32])].allowed.len(), 1000);
    assert_eq!(device.peers[&PublicKey::from_bytes([2; 32])].endpoint, Some("[2001:db8::1]:7377".parse().unwrap()));
    let flags = messages.iter().map(|message| {
        let list = attributes(&message.body.as_bytes()[4..]).find(|(kind, _)| *kind == DEVICE_PEERS).unwrap().1;
        attributes(list).filter(|(_, peer)| attributes(peer).any(|(kind, _)| kind == PEER_FLAGS)).count()
    });
    assert_eq!(flags.sum::<usize>(), 59, "each peer's ranges are replaced once, and then added to");
}

#[test]
fn what_the_kernel_says_is_read() {
    let answer = bytes(
        "
        00 01 00 00
        06 00 06 00 d1 1c 00 00
        24 00 03 00 KEY
        94 00 08 80
        90 00 00 80
            24 00 01 00 KEY
            14 00 06 00 40 00 00 00 00 00 00 00 07 00 00 00 00 00 00 00
            14 00 04 00 02 00 1c d1 c0 00 02 07 00 00 00 00 00 00 00 00
            06 00 05 00 19 00 00 00
            0c 00 07 00 05 00 00 00 00 00 00 00
            0c 00 08 00 06 00 00 00 00 00 00 00
            20 00 09 80
                1c 00 00 80
                    06 00 01 00 02 00 00 00
                    08 00 02 00 0a 40 01 00
                    05 00 03 00 1a 00 00 00
    ",
    );
    let mut device = Device::default();
    device.read(&answer);
    let peer = KernelPeer {
        endpoint: Some("192.0.2.7:7377".parse().unwrap()),
        allowed: ["10.64.1.0/26".parse().unwrap()].into(),
        keepalive_s: 25,
        handshake_at: Some(Duration::new(64, 7)),
        rx_bytes: 5,
        tx_bytes: 6,
    };
    let peers = [(PublicKey::from_bytes([1; 32]), peer)].into();
    assert_eq!(device, Device { private_key: Some([1; 32]), port: 7377, peers });
    // Torn anywhere, it is read up to there.
    (0..answer.len()).for_each(|length| Device::default().read(&answer[..length]));
}
