//! What passes, whole and unseen, and what must not.

use std::io::{Read, Write};
use std::net::UdpSocket;
use std::thread;
use std::time::Duration;

use super::*;

#[test]
fn packets_of_every_size_pass_both_ways() {
    lab::run(|lab| {
        let nodes = nodes(&lab, 2);
        // The last is longer than the tunnel's packets: the kernel cuts it before it comes to us.
        for bytes in [28, 29, 116, 1280, 1419, 1420, 1500] {
            assert!(nodes[0].pings(2, bytes), "{bytes} bytes from 1 to 2");
            assert!(nodes[1].pings(1, bytes), "{bytes} bytes from 2 to 1");
        }
    });
}

#[test]
fn a_hundred_megabytes_arrive_as_they_were_sent() {
    const CHUNK: usize = 1 << 20;
    lab::run(|lab| {
        let nodes = nodes(&lab, 2);
        let listener = nodes[1].listen(80);
        let receiver = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let (mut sum, mut total, mut buffer) = (0, 0, vec![0; CHUNK]);
            loop {
                match stream.read(&mut buffer).unwrap() {
                    0 => return (sum, total),
                    length => {
                        sum = crc32c::crc32c_append(sum, &buffer[..length]);
                        total += length;
                    }
                }
            }
        });
        let mut stream = nodes[0].connect(2, 80).unwrap();
        let (mut sum, mut chunk) = (0, vec![0u8; CHUNK]);
        for number in 0..100u32 {
            chunk.iter_mut().zip(0u32..).for_each(|(byte, at)| *byte = (at * 7 + number * 13 + (at >> 9)) as u8);
            sum = crc32c::crc32c_append(sum, &chunk);
            stream.write_all(&chunk).unwrap();
        }
        drop(stream);
        assert_eq!(receiver.join().unwrap(), (sum, 100 * CHUNK));
        let stats = nodes[0].stats()[&key(2).public()].clone();
        assert!(stats.tx_bytes > 100 * CHUNK as u64, "{stats:?}");
        assert!(stats.rx_bytes > 0 && stats.rx_bytes < stats.tx_bytes, "{stats:?}");
        assert_eq!(stats.endpoint, Some((wire_address(2), PORT).into()));
        assert!(stats.handshake_age.is_some());
    });
}

/// Every frame on the wire, on every port of it.
fn capture() -> Socket {
    const EVERY_PROTOCOL: u16 = 3;
    let socket =
        Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(i32::from(EVERY_PROTOCOL.to_be())))).unwrap();
    socket.set_recv_buffer_size(16 << 20).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    socket
}

fn frames(mut capture: Socket) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    while let Ok(length) = capture.read(&mut buffer) {
        frames.push(buffer[..length].to_vec());
    }
    frames
}

#[test]
fn the_wire_sees_nothing_but_the_tunnels_datagrams() {
    lab::run(|lab| {
        let nodes = nodes(&lab, 2);
        let capture = capture();
        let server = echo(nodes[1].listen(80));
        let mut stream = nodes[0].connect(2, 80).unwrap();
        for _ in 0..100 {
            converse(&mut stream, CANARY);
        }
        drop(stream);
        server.join().unwrap();
        let frames = frames(capture);
        assert!(frames.len() > 400, "the capture saw {} frames", frames.len());
        for frame in frames {
            assert!(!frame.windows(CANARY.len()).any(|part| part == CANARY), "in plain text: {frame:02x?}");
            // IPv4 over Ethernet: UDP between the tunnel's ports, beside the bridge's own IGMP.
            let (is_ipv4, protocol, port) = (frame[12..14] == [8, 0], frame[23], PORT.to_be_bytes());
            let is_tunnel = protocol == 17 && frame[34..36] == port && frame[36..38] == port;
            assert!(!is_ipv4 || protocol == 2 || is_tunnel, "{frame:02x?}");
        }
    });
}

#[test]
fn a_peer_sends_only_from_addresses_that_are_behind_it() {
    lab::run(|lab| {
        let mut nodes = nodes(&lab, 3);
        let server = nodes[0].within(|| UdpSocket::bind((tunnel_address(1), 99)).unwrap());
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        let say = |node: &Node, from, words: &[u8]| {
            node.within(|| {
                let socket = UdpSocket::bind((from, 0)).unwrap();
                socket.send_to(words, (tunnel_address(1), 99)).unwrap();
            });
        };
        // Node 2 takes an address that is node 3's.
        let forged = tunnel_address(3);
        nodes[1].mesh().peers.retain(|peer| peer.node != "node3");
        nodes[1].apply();
        nodes[1].within(|| ip(&format!("addr add {forged}/32 dev lo")));
        say(&nodes[1], forged, b"forged");
        say(&nodes[1], tunnel_address(2), b"true");
        let mut heard = [0; 16];
        let (length, from) = server.recv_from(&mut heard).unwrap();
        assert_eq!((&heard[..length], from.ip()), (&b"true"[..], tunnel_address(2).into()));
        say(&nodes[2], forged, b"own");
        let (length, from) = server.recv_from(&mut heard).unwrap();
        assert_eq!((&heard[..length], from.ip()), (&b"own"[..], forged.into()));
    });
}

#[test]
fn a_connection_into_nowhere_fails_at_once() {
    lab::run(|lab| {
        let mut nodes = nodes(&lab, 2);
        let error = nodes[0].connect(9, 80).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::HostUnreachable);
        // It is somebody's, who is nobody knows where.
        nodes[0].mesh().peers.push(MeshPeer { endpoint: None, ..peer(9) });
        nodes[0].apply();
        let error = nodes[0].connect(9, 80).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::HostUnreachable);
        assert!(nodes[0].pings(2, 100));
    });
}

#[test]
fn nodes_meet_by_ipv6_as_well() {
    lab::run(|lab| {
        let mut nodes = nodes(&lab, 2);
        let address = |number: u8| -> std::net::Ipv6Addr { format!("2001:db8::{number}").parse().unwrap() };
        for node in &mut nodes {
            let (number, other) = (node.number, 3 - node.number);
            node.within(|| ip(&format!("addr add {}/64 dev eth0 nodad", address(number))));
            node.mesh().peers[0].endpoint = Some((address(other), PORT).into());
        }
        nodes.iter().for_each(Node::apply);
        assert!(nodes[0].pings(2, 1420) && nodes[1].pings(1, 1420));
        assert_eq!(nodes[0].stats()[&key(2).public()].endpoint, Some((address(2), PORT).into()));
        let server = echo(nodes[1].listen(80));
        let mut stream = nodes[0].connect(2, 80).unwrap();
        (0..20).for_each(|round| converse(&mut stream, &vec![round; 100_000]));
        drop(stream);
        server.join().unwrap();
    });
}
