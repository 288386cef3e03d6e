//! The tunnel's protocol, without IO: keys, peers and their sessions; packets in, datagrams out, and back.
//!
//! boringtun speaks WireGuard with one peer; this file is what is around many of them: which peer a packet is for,
//! which a datagram is from, and whether an inner address is that peer's to send from (WireGuard's cryptokey routing,
//! by one table for all peers: a range inside another's must not be taken for both).

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use boringtun::noise::errors::WireGuardError;
use boringtun::noise::handshake::parse_handshake_anon;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Packet, Tunn, TunnResult};
use boringtun::x25519;

use super::super::random;
use super::ranges::Ranges;
use crate::tunnel::{Peer, PeerStats, PrivateKey, PublicKey, Tunnel};

/// What a datagram is longer than the packet within, in bytes: WireGuard's header and the AEAD's tag.
pub const SEAL: usize = 32;
/// Room for any message that is not a packet's.
pub const MESSAGE: usize = 148;
/// How often [`Sessions::tick`] is to be called at least.
pub const TICK: Duration = Duration::from_millis(250);

/// The first byte of a datagram that carries a packet.
const DATA: u8 = 4;
/// Handshakes a second from which on their senders must prove their address first. A cluster's nodes that start at
/// once stay below; proving costs an honest node five seconds.
const HANDSHAKES_PER_SECOND: u64 = 2000;
/// A peer that is silent for longer, though asked, may not be any more where it was heard of.
const LOST: Duration = Duration::from_secs(10);

/// See the file's header.
pub struct Sessions {
    key: PrivateKey,
    secret: x25519::StaticSecret,
    public: x25519::PublicKey,
    /// Judges handshakes before any is worth the curve's arithmetic.
    limiter: RateLimiter,
    /// For the peers, who see only what has been judged.
    unlimited: Arc<RateLimiter>,
    /// By the 24 bits that the receiver indexes of its messages begin with.
    peers: HashMap<u32, Session, BuildHasherDefault<Scatter>>,
    indexes: BTreeMap<PublicKey, u32>,
    ranges: Ranges<u32>,
}

/// A hash for indexes, which are random already and no stranger's choice: their bits need only be spread.
#[derive(Default)]
struct Scatter(u64);

impl Hasher for Scatter {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u32(u32::from(*byte)));
    }

    fn write_u32(&mut self, number: u32) {
        self.0 = (self.0 ^ u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

struct Session {
    tunn: Tunn,
    /// As the last change said.
    wanted: Peer,
    /// Where its last authentic message came from, or where it should be.
    endpoint: Option<SocketAddr>,
    /// It is to be asked for a session now.
    greet: bool,
    /// The protocol keeps packets until there is a session.
    waiting: bool,
    /// Looking at the clock for each packet would cost more than finding its peer, so it is done once a tick.
    sent: Instant,
    sent_since: bool,
    heard: Option<Instant>,
    heard_since: bool,
    rx_bytes: u64,
    tx_bytes: u64,
}

/// What became of a packet.
#[derive(Debug, PartialEq, Eq)]
pub enum Sealed {
    /// Of this length; it may ask for a session, and the packet waits for that.
    Datagram(SocketAddr, usize),
    /// For a session that was asked for already.
    Waits,
    /// The address is behind no peer, or behind one that is nobody knows where.
    Nobody,
}

/// What became of a datagram; lengths are of what was written.
#[derive(Debug, PartialEq, Eq)]
pub enum Opened {
    Packet(usize),
    /// To be sent back where it came from, and then more by [`Sessions::waiting`].
    Reply(usize),
    /// A message without a packet, authentic.
    Heard,
    Dropped,
}

impl Sessions {
    pub fn new(key: &PrivateKey) -> Self {
        let (secret, public, limiter, unlimited) = keys(key);
        let (peers, indexes, ranges) = Default::default();
        Self { key: key.clone(), secret, public, limiter, unlimited, peers, indexes, ranges }
    }

    /// Makes the peers be those of `tunnel`. Those that stay keep their sessions, also where they were heard of last;
    /// with another key of ours they need new sessions, which they are asked for at the next tick, and meanwhile
    /// packets for them wait.
    pub fn apply(&mut self, tunnel: &Tunnel) {
        if tunnel.key != self.key {
            self.change_key(&tunnel.key);
        }
        let Self { peers, indexes, .. } = self;
        indexes.retain(|key, index| {
            let stays = tunnel.peers.contains_key(key);
            if !stays {
                peers.remove(index);
            }
            stays
        });
        for (key, peer) in &tunnel.peers {
            match self.indexes.get(key).and_then(|index| self.peers.get_mut(index)) {
                Some(session) => session.change(peer),
                None => self.add(*key, peer),
            }
        }
        let ranges =
            self.peers.iter().flat_map(|(index, session)| session.wanted.allowed.iter().map(|range| (*range, *index)));
        self.ranges = Ranges::new(ranges);
    }

    fn change_key(&mut self, key: &PrivateKey) {
        self.key = key.clone();
        (self.secret, self.public, self.limiter, self.unlimited) = keys(key);
        for session in self.peers.values_mut() {
            session.tunn.set_static_private(self.secret.clone(), self.public, Some(Arc::clone(&self.unlimited)));
            session.greet = true;
        }
    }

    fn add(&mut self, key: PublicKey, peer: &Peer) {
        let index = loop {
            // Not counted up: that would tell strangers how many there are.
            let index = random::number() as u32 & 0x00ff_ffff;
            if !self.peers.contains_key(&index) {
                break index;
            }
        };
        let public = x25519::PublicKey::from(*key.bytes());
        let limiter = Some(Arc::clone(&self.unlimited));
        let session = Session {
            // It knows no keepalive: it could not be told of another one later.
            tunn: Tunn::new(self.secret.clone(), public, None, None, index, limiter),
            wanted: peer.clone(),
            endpoint: peer.endpoint,
            greet: true,
            waiting: false,
            sent: Instant::now(),
            sent_since: false,
            heard: None,
            heard_since: false,
            rx_bytes: 0,
            tx_bytes: 0,
        };
        self.peers.insert(index, session);
        self.indexes.insert(key, index);
    }

    /// Writes the datagram that carries `packet`, and says where it goes. `into` has [`SEAL`] bytes more than the packet,
    /// and at least [`MESSAGE`].
    pub fn seal(&mut self, packet: &[u8], into: &mut [u8]) -> Sealed {
        let owner = destination(packet).and_then(|address| self.ranges.owner(address));
        // Without a place to send to, nothing waits either.
        let session = owner.and_then(|index| self.peers.get_mut(&index)).filter(|session| session.endpoint.is_some());
        let Some(session) = session else { return Sealed::Nobody };
        let sent = match session.tunn.encapsulate(packet, into) {
            TunnResult::WriteToNetwork(datagram) => {
                session.waiting |= datagram[0] != DATA;
                let length = datagram.len();
                session.send(length)
            }
            _ => {
                session.waiting = true;
                None
            }
        };
        sent.map_or(Sealed::Waits, |(to, length)| Sealed::Datagram(to, length))
    }

    /// Writes the packet that a datagram carries, or the answer to it. `into` is at least as long as the datagram, and
    /// at least [`MESSAGE`].
    pub fn open(&mut self, from: SocketAddr, datagram: &[u8], into: &mut [u8]) -> (Opened, Option<u32>) {
        match self.try_open(from, datagram, into) {
            Ok((index, opened)) => (opened, Some(index)),
            Err(opened) => (opened, None),
        }
    }

    fn try_open(&mut self, from: SocketAddr, datagram: &[u8], into: &mut [u8]) -> Result<(u32, Opened), Opened> {
        let index = match Tunn::parse_incoming_packet(datagram).map_err(|_| Opened::Dropped)? {
            Packet::HandshakeInit(_) => {
                let Packet::HandshakeInit(init) = self.judge(from, datagram, into)? else {
                    return Err(Opened::Dropped);
                };
                let claimed = parse_handshake_anon(&self.secret, &self.public, &init).map_err(|_| Opened::Dropped)?;
                let key = PublicKey::from_bytes(claimed.peer_static_public);
                *self.indexes.get(&key).ok_or(Opened::Dropped)?
            }
            Packet::HandshakeResponse(response) => {
                let index = response.receiver_idx >> 8;
                self.judge(from, datagram, into)?;
                index
            }
            Packet::PacketCookieReply(reply) => {
                let session = self.peers.get_mut(&(reply.receiver_idx >> 8)).ok_or(Opened::Dropped)?;
                // Who sees a handshake on its way can make one: it says nothing of where the peer is.
                session.tunn.decapsulate(None, datagram, into);
                return Err(Opened::Dropped);
            }
            Packet::PacketData(data) => data.receiver_idx >> 8,
        };
        let session = self.peers.get_mut(&index).ok_or(Opened::Dropped)?;
        let opened = match session.tunn.decapsulate(None, datagram, into) {
            TunnResult::Done => Opened::Heard,
            TunnResult::WriteToNetwork(reply) => Opened::Reply(reply.len()),
            TunnResult::WriteToTunnelV4(packet, source) if self.ranges.owner(source.into()) == Some(index) => {
                Opened::Packet(packet.len())
            }
            TunnResult::WriteToTunnelV6(packet, source) if self.ranges.owner(source.into()) == Some(index) => {
                Opened::Packet(packet.len())
            }
            // Authentic, but not its own to send from.
            TunnResult::WriteToTunnelV4(..) | TunnResult::WriteToTunnelV6(..) => Opened::Heard,
            TunnResult::Err(_) => return Err(Opened::Dropped),
        };
        session.endpoint = Some(from);
        session.heard_since = true;
        session.rx_bytes += datagram.len() as u64;
        if let Opened::Reply(length) = opened {
            session.send(length);
        }
        Ok((index, opened))
    }

    /// Lets a handshake pass, or tells its sender to prove its address.
    fn judge<'a>(&self, from: SocketAddr, datagram: &'a [u8], into: &mut [u8]) -> Result<Packet<'a>, Opened> {
        let judged = self.limiter.verify_packet(Some(from.ip()), datagram, into);
        judged.map_err(|refusal| match refusal {
            TunnResult::WriteToNetwork(cookie) => Opened::Reply(cookie.len()),
            _ => Opened::Dropped,
        })
    }

    /// The next packet that has waited for a session with a peer, once there is one.
    pub fn waiting(&mut self, index: u32, into: &mut [u8]) -> Option<(SocketAddr, usize)> {
        let session = self.peers.get_mut(&index).filter(|session| session.waiting)?;
        // Asked without a session, the protocol would only put the packet back.
        session.tunn.time_since_last_handshake()?;
        match session.tunn.decapsulate(None, &[], into) {
            TunnResult::WriteToNetwork(datagram) => {
                let length = datagram.len();
                session.send(length)
            }
            _ => {
                session.waiting = false;
                None
            }
        }
    }

    /// What time asks for: handshakes, keepalives, the end of sessions. `buffer` is at least [`MESSAGE`] long.
    pub fn tick(&mut self, buffer: &mut [u8], mut send: impl FnMut(SocketAddr, &[u8])) {
        self.limiter.reset_count();
        for session in self.peers.values_mut() {
            session.tick(buffer, &mut send);
        }
    }

    pub fn stats(&self) -> BTreeMap<PublicKey, PeerStats> {
        let known = self.indexes.iter().filter_map(|(key, index)| Some((*key, self.peers.get(index)?)));
        let stats = |session: &Session| PeerStats {
            endpoint: session.endpoint,
            handshake_age: session.tunn.time_since_last_handshake(),
            rx_bytes: session.rx_bytes,
            tx_bytes: session.tx_bytes,
        };
        known.map(|(key, session)| (key, stats(session))).collect()
    }
}

impl Session {
    /// It stays where it was heard of, unless something else is known now.
    fn change(&mut self, peer: &Peer) {
        if self.wanted.endpoint != peer.endpoint && peer.endpoint.is_some() {
            self.endpoint = peer.endpoint;
            self.greet |= self.tunn.time_since_last_handshake().is_none();
        }
        self.wanted = peer.clone();
    }

    fn send(&mut self, length: usize) -> Option<(SocketAddr, usize)> {
        let endpoint = self.endpoint?;
        self.sent_since = true;
        self.tx_bytes += length as u64;
        Some((endpoint, length))
    }

    fn tick(&mut self, buffer: &mut [u8], send: &mut impl FnMut(SocketAddr, &[u8])) {
        if std::mem::take(&mut self.sent_since) {
            self.sent = Instant::now();
        }
        if std::mem::take(&mut self.heard_since) {
            self.heard = Some(Instant::now());
        }
        let due = match self.tunn.update_timers(buffer) {
            TunnResult::WriteToNetwork(message) => Some(message.len()),
            // Also one who has been given up can be asked again.
            TunnResult::Err(WireGuardError::ConnectionExpired) | TunnResult::Done => None,
            _ => None,
        };
        let due = due.or_else(|| self.greeting(buffer)).or_else(|| self.keepalive(buffer));
        let Some(message) = due.and_then(|length| buffer.get(..length)) else { return };
        if let Some((endpoint, _)) = self.send(message.len()) {
            send(endpoint, message);
            // One that does not answer where it was is looked for where it should be.
            let lost = self.heard.is_none_or(|heard| heard.elapsed() > LOST);
            if let Some(wanted) = self.wanted.endpoint.filter(|wanted| lost && *wanted != endpoint) {
                send(wanted, message);
            }
        }
    }

    fn greeting(&mut self, buffer: &mut [u8]) -> Option<usize> {
        self.endpoint.filter(|_| std::mem::take(&mut self.greet))?;
        match self.tunn.format_handshake_initiation(buffer, true) {
            TunnResult::WriteToNetwork(message) => Some(message.len()),
            _ => None,
        }
    }

    fn keepalive(&mut self, buffer: &mut [u8]) -> Option<usize> {
        let every = Duration::from_secs(self.wanted.keepalive_s.filter(|seconds| *seconds > 0)?.into());
        if self.endpoint.is_none() || self.sent.elapsed() < every {
            return None;
        }
        match self.tunn.encapsulate(&[], buffer) {
            TunnResult::WriteToNetwork(message) => Some(message.len()),
            _ => None,
        }
    }
}

/// The key in the protocol's types, and what judges messages to it.
fn keys(key: &PrivateKey) -> (x25519::StaticSecret, x25519::PublicKey, RateLimiter, Arc<RateLimiter>) {
    let secret = x25519::StaticSecret::from(*key.bytes());
    let public = x25519::PublicKey::from(&secret);
    let limiter = RateLimiter::new(&public, HANDSHAKES_PER_SECOND);
    let unlimited = Arc::new(RateLimiter::new(&public, u64::MAX));
    (secret, public, limiter, unlimited)
}

fn destination(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => <[u8; 4]>::try_from(packet.get(16..20)?).ok().map(|octets| Ipv4Addr::from(octets).into()),
        6 => <[u8; 16]>::try_from(packet.get(24..40)?).ok().map(|octets| Ipv6Addr::from(octets).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
