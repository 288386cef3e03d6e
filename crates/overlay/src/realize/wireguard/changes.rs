//! What must change for the kernel's device to be what is wanted. Pure: peers that are right are not touched, so their
//! sessions and packets go on.

use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::message::{Device, KernelPeer};
use crate::tunnel::{Peer, PrivateKey, PublicKey, Tunnel};

/// A session ends after this time without another handshake; then nobody knows that the peer is where it was heard of.
const SESSION: Duration = Duration::from_secs(180);

/// A keepalive that begins is sent at once, and for that a session is asked for. A peer that is new here may have one
/// with this node from before, into which it sends in vain; so it is told of another, and the keepalive ends again.
const GREETING_S: u16 = 25;

/// See the file's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    pub private_key: Option<PrivateKey>,
    pub port: Option<u16>,
    /// Removals first, so that no range is behind two.
    pub peers: Vec<PeerChange>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerChange {
    Remove(PublicKey),
    Set {
        key: PublicKey,
        endpoint: Endpoint,
        /// 0 is none.
        keepalive_s: Option<u16>,
        /// Those to add, or all if it replaces.
        allowed: Vec<IpNet>,
        replaces: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// Where it was heard of last, if it was.
    Keep,
    Set(SocketAddr),
}

impl Changes {
    pub fn are_none(&self) -> bool {
        self.private_key.is_none() && self.port.is_none() && self.peers.is_empty()
    }
}

/// `before` is what was wanted the last time, if that is known; `now` is the wall clock, since 1970.
pub fn changes(wanted: &Tunnel, found: &Device, before: Option<&Tunnel>, now: Duration) -> Changes {
    let Tunnel { key, port, address: _, address_v6: _, mtu: _, peers } = wanted;
    let gone = found.peers.keys().filter(|key| !peers.contains_key(key)).map(|key| PeerChange::Remove(*key));
    let none = KernelPeer::default();
    let changed = peers.iter().filter_map(|(key, peer)| {
        let before = before.and_then(|before| before.peers.get(key));
        let change = change(*key, peer, found.peers.get(key)?, before, now);
        (change != unchanged(*key)).then_some(change)
    });
    let new = || peers.iter().filter(|(key, _)| !found.peers.contains_key(key));
    let made = new().map(|(key, peer)| {
        let greeted = Peer { keepalive_s: peer.keepalive_s.or(Some(GREETING_S)), ..peer.clone() };
        change(*key, &greeted, &none, None, now)
    });
    let quiet = new().filter(|(_, peer)| peer.keepalive_s.is_none()).map(|(key, _)| PeerChange::Set {
        key: *key,
        endpoint: Endpoint::Keep,
        keepalive_s: Some(0),
        allowed: Vec::new(),
        replaces: false,
    });
    Changes {
        private_key: Some(key.clone()).filter(|key| found.private_key.as_ref() != Some(key.bytes())),
        port: Some(*port).filter(|port| found.port != *port),
        peers: gone.chain(changed).chain(made).chain(quiet).collect(),
    }
}

fn unchanged(key: PublicKey) -> PeerChange {
    PeerChange::Set { key, endpoint: Endpoint::Keep, keepalive_s: None, allowed: Vec::new(), replaces: false }
}

fn change(key: PublicKey, peer: &Peer, known: &KernelPeer, before: Option<&Peer>, now: Duration) -> PeerChange {
    let keepalive_s = Some(peer.keepalive_s.unwrap_or(0)).filter(|seconds| known.keepalive_s != *seconds);
    let replaces = known.allowed.iter().any(|range| !peer.allowed.contains(range));
    let added = peer.allowed.iter().filter(|range| replaces || !known.allowed.contains(*range));
    let endpoint = endpoint(peer, known, before, now);
    PeerChange::Set { key, endpoint, keepalive_s, allowed: added.copied().collect(), replaces }
}

/// The kernel knows best where a peer is, unless something else has been told since, or it has long heard nothing.
fn endpoint(peer: &Peer, known: &KernelPeer, before: Option<&Peer>, now: Duration) -> Endpoint {
    let Some(wanted) = peer.endpoint.filter(|wanted| known.endpoint != Some(*wanted)) else { return Endpoint::Keep };
    let is_news = before.is_some_and(|before| before.endpoint != peer.endpoint);
    let is_heard = known.handshake_at.is_some_and(|at| now.saturating_sub(at) < SESSION);
    if is_news || !is_heard { Endpoint::Set(wanted) } else { Endpoint::Keep }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u8) -> PublicKey {
        PublicKey::from_bytes([number; 32])
    }

    fn address(last: u8) -> Option<SocketAddr> {
        Some(([192, 0, 2, last], 7377).into())
    }

    fn peer(endpoint: u8, allowed: &[&str]) -> Peer {
        let allowed = allowed.iter().map(|range| range.parse().unwrap()).collect();
        Peer { endpoint: address(endpoint), allowed, keepalive_s: None }
    }

    fn tunnel(peers: &[(u8, Peer)]) -> Tunnel {
        Tunnel {
            key: PrivateKey::from_bytes([9; 32]),
            port: 7377,
            address: [10, 127, 0, 1].into(),
            address_v6: None,
            mtu: 1420,
            peers: peers.iter().map(|(number, peer)| (key(*number), peer.clone())).collect(),
        }
    }

    /// The kernel after it has been told `tunnel`, each peer's last handshake being at `handshake_s`.
    fn device(tunnel: &Tunnel, handshake_s: u64) -> Device {
        let peers = tunnel.peers.iter().map(|(key, peer)| {
            let handshake_at = Some(Duration::from_secs(handshake_s));
            let Peer { endpoint, allowed, keepalive_s } = peer.clone();
            let keepalive_s = keepalive_s.unwrap_or(0);
            (*key, KernelPeer { endpoint, allowed, keepalive_s, handshake_at, rx_bytes: 1, tx_bytes: 2 })
        });
        Device { private_key: Some(*tunnel.key.bytes()), port: tunnel.port, peers: peers.collect() }
    }

    const NOW: Duration = Duration::from_secs(1000);

    #[test]
    fn what_is_right_is_not_touched() {
        let wanted = tunnel(&[(1, peer(1, &["10.64.1.0/26"])), (2, peer(2, &[]))]);
        assert!(changes(&wanted, &device(&wanted, 0), None, NOW).are_none());
        assert!(!changes(&wanted, &Device::default(), None, NOW).are_none());
    }

    #[test]
    fn only_what_differs_is_told() {
        let before = tunnel(&[
            (1, peer(1, &["10.64.1.0/26", "10.64.2.0/26"])),
            (2, peer(2, &["10.64.3.0/26"])),
            (3, peer(3, &[])),
        ]);
        let after = tunnel(&[
            (1, peer(1, &["10.64.1.0/26"])),
            (2, peer(2, &["10.64.3.0/26", "10.64.2.0/26"])),
            (4, peer(4, &[])),
        ]);
        let ranges = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpNet>>();
        let set = |number, allowed: &[&str], replaces| PeerChange::Set {
            key: key(number),
            endpoint: Endpoint::Keep,
            keepalive_s: None,
            allowed: ranges(allowed),
            replaces,
        };
        let new = |endpoint, keepalive_s| PeerChange::Set {
            key: key(4),
            endpoint,
            keepalive_s: Some(keepalive_s),
            allowed: vec![],
            replaces: false,
        };
        let expected = Changes {
            private_key: None,
            port: None,
            peers: vec![
                PeerChange::Remove(key(3)),
                set(1, &["10.64.1.0/26"], true),
                set(2, &["10.64.2.0/26"], false),
                new(Endpoint::Set(address(4).unwrap()), GREETING_S),
                new(Endpoint::Keep, 0),
            ],
        };
        assert_eq!(changes(&after, &device(&before, 990), Some(&before), NOW), expected);
    }

    #[test]
    fn a_peer_stays_where_it_was_heard_of_until_something_newer_is_told() {
        let wanted = tunnel(&[(1, peer(1, &[]))]);
        let roamed = |handshake_s| device(&tunnel(&[(1, peer(77, &[]))]), handshake_s);
        let moved = |found: &Device, before| !changes(&wanted, found, before, NOW).are_none();
        assert!(!moved(&roamed(990), Some(&wanted)));
        assert!(!moved(&roamed(990), None));
        assert!(moved(&roamed(700), Some(&wanted)), "silent for long");
        assert!(moved(&roamed(990), Some(&tunnel(&[(1, peer(5, &[]))]))), "told another place");
    }
}
