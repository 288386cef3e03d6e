//! What somebody on the way between nodes sees.

use std::io::Read;
use std::time::Duration;

use skep_overlay::plan::Protocol::{Tcp, Udp};
use skep_overlay::tunnel::PORT;
use socket2::{Domain, Protocol, Socket, Type};

use super::{client, host, nodes, uplink};
use crate::lab::{self, Place, ip, publish, service, twin, vip};

/// The name of a server, which it says to everybody.
const CANARY: &str = "canary-in-its-cage";

const IPV4: [u8; 2] = [8, 0];
const IPV6: [u8; 2] = [0x86, 0xdd];
const ARP: [u8; 2] = [8, 6];

/// Every frame of the calling thread's namespace from here on.
fn capture() -> Socket {
    const EVERY_PROTOCOL: u16 = 3;
    let protocol = Protocol::from(i32::from(EVERY_PROTOCOL.to_be()));
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol)).unwrap();
    socket.set_recv_buffer_size(16 << 20).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
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

/// Its hardware address.
fn hardware(interface: &str) -> [u8; 6] {
    let shown = ip(&format!("-o link show {interface}"));
    let text = shown.split("link/ether ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    let bytes: Vec<u8> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    bytes.try_into().unwrap()
}

fn holds_canary(frame: &[u8]) -> bool {
    frame.windows(CANARY.len()).any(|part| part == CANARY.as_bytes())
}

/// A datagram of the tunnel, or what neighbours on a wire ask each other.
fn is_between_nodes(frame: &[u8]) -> bool {
    let port = PORT.to_be_bytes();
    match [frame[12], frame[13]] {
        ARP => true,
        IPV4 => frame[23] == 17 && frame[34..36] == port && frame[36..38] == port,
        IPV6 => frame[20] == 58 || frame[20] == 0,
        _ => false,
    }
}

#[test]
fn what_nodes_say_to_each_other_is_read_by_nobody() {
    lab::run(|lab| {
        let ([mut one, mut two], outside) = nodes(&lab);
        let a = one.start("a", &[(1, 2)]);
        two.start("b", &[(1, 2)]).serve(80, CANARY);
        for node in [&mut one, &mut two] {
            node.wanted.services = vec![service(1, vip(1, 1), &[host(1, 2, 2)])];
            node.wanted.published = [Tcp, Udp].map(|protocol| publish(protocol, 8080, 80, &[host(1, 2, 2)])).to_vec();
            node.apply();
        }
        let wires = outside.run(|| [1, 2].map(|number| hardware(&format!("out{number}"))));
        let capture = outside.run(capture);
        for to in [host(1, 2, 2), vip(1, 1)] {
            assert!(a.ask(to, 80).unwrap().starts_with(CANARY));
            assert!(a.ask_udp(to, 80).unwrap().starts_with(CANARY));
            assert!(a.ask(twin(to), 80).unwrap().starts_with(CANARY));
        }
        assert_eq!(outside.ask(uplink(1), 8080).unwrap(), format!("{CANARY} {}", client(1)));
        assert_eq!(outside.ask_udp(uplink(1), 8080).unwrap(), format!("{CANARY} {}", client(1)));
        let frames = frames(capture);
        let on = |wire: [u8; 6]| frames.iter().filter(move |frame| frame[..6] == wire || frame[6..12] == wire);
        // The client itself reads what it asked for, on the way to the node that it spoke to: so would the capture.
        assert!(on(wires[0]).any(|frame| holds_canary(frame)));
        assert!(on(wires[1]).count() > 30, "the capture saw {} frames", on(wires[1]).count());
        for frame in on(wires[1]) {
            assert!(!holds_canary(frame), "in plain text: {frame:02x?}");
            assert!(is_between_nodes(frame), "{frame:02x?}");
        }
    });
}
