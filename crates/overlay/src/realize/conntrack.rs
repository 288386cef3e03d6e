//! Forgetting connections (linux/netfilter/nfnetlink_conntrack.h). The kernel decides where a connection leads once,
//! at its first packet. When that place is gone, or was none of ours yet, the decision must be made again: a client
//! of a removed container is then refused at once and not left waiting, and a UDP sender that began before its port
//! was published reaches the container.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::family::{self, Family};
use crate::netlink::{Message, NetlinkError, Socket, attributes};
use crate::plan::{Protocol, Rules};

const SUBSYSTEM: u16 = 1 << 8;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const NESTED: u16 = 1 << 15;
const PROTOCOL: u16 = 4;
const ID: u16 = 12;
const UDP: u8 = 17;
/// TCP_CONNTRACK_SYN_SENT to TCP_CONNTRACK_CLOSE_WAIT: later ones have nothing to say any more.
const OPEN_STATES: std::ops::RangeInclusive<u8> = 1..=5;

/// What the kernel's connections were decided by, as of the last `apply`.
#[derive(Debug, Default)]
pub struct Flows {
    /// None before the first: what an earlier daemon's were decided by is not known.
    places: Option<BTreeSet<IpAddr>>,
    /// Published UDP ports that lead to containers.
    udp_ports: BTreeSet<u16>,
}

impl Flows {
    /// Forgets connections of containers, on any node, that are in `places` no longer, or in `gone`; and UDP flows to
    /// ports that lead to containers only now, unless they were led to one already.
    ///
    /// A look at all connections takes the kernel milliseconds, so there is one, and only where there is a reason.
    pub fn follow(
        &mut self,
        socket: &mut Socket,
        rules: &[&Rules],
        places: BTreeSet<IpAddr>,
        mut gone: BTreeSet<IpAddr>,
    ) -> Result<(), NetlinkError> {
        let leads = rules
            .iter()
            .flat_map(|rules| &rules.ports)
            .filter(|(key, led)| key.protocol == Protocol::Udp && !led.to.is_empty());
        let udp_ports: BTreeSet<u16> = leads.map(|(key, _)| key.port).collect();
        let fresh: BTreeSet<u16> = udp_ports.difference(&self.udp_ports).copied().collect();
        gone.extend(self.places.iter().flatten().filter(|address| !places.contains(*address)));
        let is_first = self.places.is_none();
        let containers = || rules.iter().flat_map(|rules| &rules.containers);
        let is_lost = |to: IpAddr| containers().any(|range| range.contains(&to)) && !places.contains(&to);
        if is_first || !gone.is_empty() || !fresh.is_empty() {
            // IPv4 has its rules always, IPv6 where a network has it.
            for family in Family::BOTH.into_iter().take(rules.len()) {
                forget(socket, family, |connection| {
                    connection.involves(&gone)
                        || connection.is_unled(&fresh)
                        || is_first && connection.led_to().is_some_and(is_lost)
                })?;
            }
        }
        *self = Self { places: Some(places), udp_ports };
        Ok(())
    }
}

/// How many TCP connections are led to these addresses and have not ended.
pub fn count(socket: &mut Socket, addresses: &BTreeSet<IpAddr>) -> Result<usize, NetlinkError> {
    let families: BTreeSet<Family> = addresses.iter().map(|address| Family::of(*address)).collect();
    let mut count = 0;
    for family in families {
        socket.dump(&Message::new(GET, 0, &[family.number(), 0, 0, 0]), |_, body| {
            let list = body.get(4..).unwrap_or_default();
            let reply = part(list, TUPLE_REPLY).and_then(Tuple::read);
            let led = reply.is_some_and(|reply| addresses.contains(&reply.source));
            let state = part(list, PROTOCOL).and_then(|protocol| part(protocol, 1)).and_then(|tcp| part(tcp, 1));
            if led && state.and_then(|state| state.first()).is_some_and(|state| OPEN_STATES.contains(state)) {
                count += 1;
            }
        })?;
    }
    Ok(count)
}

/// A connection, as its first packet and as answers to it look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Connection {
    original: Tuple,
    reply: Tuple,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tuple {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    destination_port: u16,
}

impl Connection {
    fn involves(&self, addresses: &BTreeSet<IpAddr>) -> bool {
        let Self { original, reply } = self;
        [original.source, original.destination, reply.source, reply.destination].iter().any(|a| addresses.contains(a))
    }

    /// The backend that a service's or port's address was rewritten to.
    fn led_to(&self) -> Option<IpAddr> {
        Some(self.reply.source).filter(|backend| *backend != self.original.destination)
    }

    fn is_unled(&self, ports: &BTreeSet<u16>) -> bool {
        let Self { original, reply } = self;
        original.protocol == UDP && ports.contains(&original.destination_port) && reply.source == original.destination
    }
}

/// Removes every connection of one family of the socket's namespace for which `chosen` says so.
fn forget(socket: &mut Socket, family: Family, chosen: impl Fn(&Connection) -> bool) -> Result<(), NetlinkError> {
    let header = [family.number(), 0, 0, 0];
    let mut removals = Vec::new();
    socket.dump(&Message::new(GET, 0, &header), |_, body| {
        let found = body.get(4..).unwrap_or_default();
        let (Some(original), Some(reply)) = (part(found, TUPLE_ORIGINAL), part(found, TUPLE_REPLY)) else { return };
        let connection = Tuple::read(original).zip(Tuple::read(reply));
        if connection.is_some_and(|(original, reply)| chosen(&Connection { original, reply })) {
            removals.push(Message::new(DELETE, 0, &header).with(|list| {
                list.bytes(TUPLE_ORIGINAL | NESTED, original);
                // Another may have begun meanwhile on the same port, as clients in a hurry do: this one alone is meant.
                if let Some(id) = part(found, ID) {
                    list.bytes(ID, id);
                }
            }));
        }
    })?;
    for answer in socket.each(&removals)? {
        match answer {
            // It ended by itself.
            Err(error) if error.errno() == Some(libc::ENOENT) => {}
            answer => answer?,
        }
    }
    Ok(())
}

fn part(list: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(list).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

impl Tuple {
    fn read(bytes: &[u8]) -> Option<Self> {
        let (ip, transport) = (part(bytes, 1)?, part(bytes, 2)?);
        // 1 and 2 are IPv4's, 3 and 4 IPv6's.
        let address = |kind| part(ip, kind).or_else(|| part(ip, kind + 2)).and_then(family::address);
        let port = part(transport, 3).and_then(|value| <[u8; 2]>::try_from(value).ok()).map(u16::from_be_bytes);
        Some(Self {
            source: address(1)?,
            destination: address(2)?,
            protocol: *part(transport, 1)?.first()?,
            destination_port: port.unwrap_or_default(),
        })
    }
}
