//! Two nodes and the wire between them, all in memory.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

fn key(number: u8) -> PrivateKey {
    PrivateKey::from_bytes([number; 32])
}

fn place(number: u8) -> SocketAddr {
    ([192, 0, 2, number], 7377).into()
}

fn tunnel(own: u8, peers: &[(u8, &str)]) -> Tunnel {
    let peer = |(number, allowed): &(u8, &str)| {
        let allowed = allowed.split_whitespace().map(|range| range.parse().unwrap()).collect();
        (key(*number).public(), Peer { endpoint: Some(place(*number)), allowed, keepalive_s: None })
    };
    let peers = peers.iter().map(peer).collect();
    Tunnel { key: key(own), port: 7377, address: [10, 127, 0, own].into(), address_v6: None, mtu: 1420, peers }
}

fn sessions(tunnel: &Tunnel) -> Sessions {
    let mut sessions = Sessions::new(&tunnel.key);
    sessions.apply(tunnel);
    sessions
}

/// Of 10.64.0.`from` to 10.64.0.`to`, and told from others by `mark`.
fn packet(from: u8, to: u8, mark: u8) -> Vec<u8> {
    vec![0x45, 0, 0, 21, 0, 0, 0, 0, 64, 17, 0, 0, 10, 64, 0, from, 10, 64, 0, to, mark]
}

/// Nodes by number, what is on its way (from, to, bytes), and the packets that came out, by node.
#[derive(Default)]
struct Wire {
    nodes: BTreeMap<u8, Sessions>,
    flying: VecDeque<(u8, SocketAddr, Vec<u8>)>,
    out: BTreeMap<u8, Vec<Vec<u8>>>,
}

impl Wire {
    fn new(tunnels: &[Tunnel]) -> Self {
        let number = |tunnel: &Tunnel| tunnel.address.octets()[3];
        Self { nodes: tunnels.iter().map(|tunnel| (number(tunnel), sessions(tunnel))).collect(), ..Self::default() }
    }

    fn send(&mut self, from: u8, packet: &[u8]) {
        let mut buffer = [0; 2048];
        if let Sealed::Datagram(to, length) = self.nodes.get_mut(&from).unwrap().seal(packet, &mut buffer) {
            self.flying.push_back((from, to, buffer[..length].to_vec()));
        }
    }

    fn tick(&mut self) {
        for (from, node) in &mut self.nodes {
            node.tick(&mut [0; 2048], |to, message| self.flying.push_back((*from, to, message.to_vec())));
        }
    }

    /// Until nothing flies any more.
    fn settle(&mut self) {
        while let Some((from, to, datagram)) = self.flying.pop_front() {
            self.deliver(from, to, &datagram);
        }
    }

    fn deliver(&mut self, from: u8, to: SocketAddr, datagram: &[u8]) {
        let SocketAddr::V4(address) = to else { panic!("{to}") };
        let number = address.ip().octets()[3];
        let Some(node) = self.nodes.get_mut(&number) else { return };
        let mut buffer = [0; 2048];
        let (opened, index) = node.open(place(from), datagram, &mut buffer);
        match opened {
            Opened::Packet(length) => self.out.entry(number).or_default().push(buffer[..length].to_vec()),
            Opened::Reply(length) => self.flying.push_back((number, place(from), buffer[..length].to_vec())),
            Opened::Heard | Opened::Dropped => {}
        }
        while let Some((to, length)) = index.and_then(|index| node.waiting(index, &mut buffer)) {
            self.flying.push_back((number, to, buffer[..length].to_vec()));
        }
    }
}

fn pair() -> Wire {
    Wire::new(&[tunnel(1, &[(2, "10.64.0.2/32")]), tunnel(2, &[(1, "10.64.0.1/32")])])
}

#[test]
fn what_waited_for_a_session_comes_in_order() {
    let mut wire = pair();
    let packets: Vec<_> = (0..100).map(|mark| packet(1, 2, mark)).collect();
    packets.iter().for_each(|packet| wire.send(1, packet));
    wire.settle();
    assert_eq!(wire.out[&2], packets);
}

#[test]
fn both_may_begin_at_once() {
    let mut wire = pair();
    wire.tick();
    wire.send(1, &packet(1, 2, 1));
    wire.send(2, &packet(2, 1, 2));
    wire.settle();
    assert_eq!((&wire.out[&2][0], &wire.out[&1][0]), (&packet(1, 2, 1), &packet(2, 1, 2)));
}

#[test]
fn a_range_inside_anothers_is_its_owners_alone() {
    let mut wire = Wire::new(&[
        tunnel(1, &[(2, "10.64.0.0/24"), (3, "10.64.0.128/25")]),
        tunnel(2, &[(1, "10.64.0.1/32")]),
        tunnel(3, &[(1, "10.64.0.1/32")]),
    ]);
    // Each says that it is the other.
    for (from, source) in [(2, 200), (2, 2), (3, 2), (3, 200)] {
        wire.send(from, &packet(source, 1, from));
        wire.settle();
    }
    assert_eq!(wire.out[&1], [packet(2, 1, 2), packet(200, 1, 3)]);
    wire.send(1, &packet(1, 200, 0));
    wire.settle();
    assert_eq!(wire.out.keys().collect::<Vec<_>>(), [&1, &3]);
}

#[test]
fn nothing_is_heard_twice() {
    let mut wire = pair();
    wire.send(1, &packet(1, 2, 1));
    wire.settle();
    wire.send(1, &packet(1, 2, 2));
    let (from, to, datagram) = wire.flying[0].clone();
    wire.settle();
    wire.deliver(from, to, &datagram);
    // Not from elsewhere either: an attacker that has copied a datagram does not become the peer's place.
    let (opened, _) = wire.nodes.get_mut(&2).unwrap().open(place(66), &datagram, &mut [0; 2048]);
    assert_eq!(opened, Opened::Dropped);
    assert_eq!(wire.out[&2].len(), 2);
    assert_eq!(wire.nodes[&2].stats()[&key(1).public()].endpoint, Some(place(1)));
}

#[test]
fn strangers_are_not_answered() {
    let mut wire = Wire::new(&[tunnel(1, &[(2, "10.64.0.2/32")]), tunnel(2, &[])]);
    wire.send(1, &packet(1, 2, 1));
    let (from, to, datagram) = wire.flying.pop_front().unwrap();
    wire.deliver(from, to, &datagram);
    assert!(wire.flying.is_empty());
}

#[test]
fn more_handshakes_than_a_node_bears_must_prove_their_place() {
    let mut wire = pair();
    wire.send(1, &packet(1, 2, 1));
    let (_, _, datagram) = wire.flying.pop_front().unwrap();
    let node = wire.nodes.get_mut(&2).unwrap();
    let mut open = || node.open(place(1), &datagram, &mut [0; 2048]).0;
    assert_eq!(open(), Opened::Reply(92), "a handshake's response");
    // A cookie is shorter than what it answers, so nobody is flooded by it.
    let answers: Vec<_> = (0..HANDSHAKES_PER_SECOND + 10).map(|_| open()).collect();
    assert_eq!(answers.last(), Some(&Opened::Reply(64)));
}

proptest! {
    /// Whatever is changed in a datagram, and wherever it is torn, nobody takes it for a packet, nor falls.
    #[test]
    fn damaged_datagrams_are_dropped(at in 0usize..60, bit in 0u8..8, length in 0usize..60, noise in any::<[u8; 60]>()) {
        let mut wire = pair();
        wire.send(1, &packet(1, 2, 1));
        wire.settle();
        wire.send(1, &packet(1, 2, 2));
        let (_, _, datagram) = wire.flying.pop_front().unwrap();
        let mut damaged = datagram.clone();
        let at = at % damaged.len();
        damaged[at] ^= 1 << bit;
        let node = wire.nodes.get_mut(&2).unwrap();
        for bad in [&damaged, &datagram[..length.min(datagram.len() - 1)], &noise[..length], &[&datagram[..4], &noise].concat()] {
            prop_assert_eq!(node.open(place(1), bad, &mut [0; 2048]).0, Opened::Dropped);
        }
        prop_assert_eq!(node.open(place(1), &datagram, &mut [0; 2048]).0, Opened::Packet(21));
    }
}
