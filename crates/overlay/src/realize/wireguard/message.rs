//! The kernel's WireGuard over generic netlink, as bytes (linux/wireguard.h): what a device is told, and what it says.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::super::family::{self, Family, octets};
use super::changes::{Changes, Endpoint, PeerChange};
use crate::netlink::{Attributes, Message, attributes, read_u16, read_u64};
use crate::tunnel::{INTERFACE, PublicKey};

const GET_DEVICE: u8 = 0;
const SET_DEVICE: u8 = 1;
const VERSION: u8 = 1;

const DEVICE_NAME: u16 = 2;
const DEVICE_PRIVATE_KEY: u16 = 3;
const DEVICE_PORT: u16 = 6;
const DEVICE_PEERS: u16 = 8;
const PEER_PUBLIC_KEY: u16 = 1;
const PEER_FLAGS: u16 = 3;
const PEER_ENDPOINT: u16 = 4;
const PEER_KEEPALIVE: u16 = 5;
const PEER_HANDSHAKE: u16 = 6;
const PEER_RX_BYTES: u16 = 7;
const PEER_TX_BYTES: u16 = 8;
const PEER_ALLOWED: u16 = 9;
const ALLOWED_FAMILY: u16 = 1;
const ALLOWED_ADDRESS: u16 = 2;
const ALLOWED_LENGTH: u16 = 3;

const REMOVE: u32 = 1;
const REPLACE_ALLOWED: u32 = 2;

/// An attribute, so a message's peers too, is shorter than 64 KiB; this is far below, whatever a peer has.
const RANGES_AT_ONCE: usize = 256;
const PEERS_AT_ONCE: usize = 20;

/// A device as the kernel has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Device {
    pub private_key: Option<[u8; 32]>,
    pub port: u16,
    pub peers: BTreeMap<PublicKey, KernelPeer>,
}

/// A peer as the kernel has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KernelPeer {
    pub endpoint: Option<SocketAddr>,
    pub allowed: BTreeSet<IpNet>,
    pub keepalive_s: u16,
    /// Since 1970; none if there was none.
    pub handshake_at: Option<Duration>,
    pub rx_bytes: u64,
    pub tx_bytes: u64,
}

/// The request for all that is known of the device; `family` is the kernel's number for WireGuard.
pub fn get_device(family: u16) -> Message {
    Message::new(family, 0, &[GET_DEVICE, VERSION, 0, 0]).with(|list| {
        list.string(DEVICE_NAME, INTERFACE);
    })
}

/// The requests that make `changes`, in order.
pub fn set_device(family: u16, changes: &Changes) -> Vec<Message> {
    let Changes { private_key, port, peers } = changes;
    let mut messages = Vec::new();
    let request = || {
        Message::new(family, 0, &[SET_DEVICE, VERSION, 0, 0]).with(|list| {
            list.string(DEVICE_NAME, INTERFACE);
        })
    };
    if private_key.is_some() || port.is_some() {
        messages.push(request().with(|list| {
            if let Some(key) = private_key {
                list.bytes(DEVICE_PRIVATE_KEY, key.bytes());
            }
            if let Some(port) = port {
                list.u16(DEVICE_PORT, *port);
            }
        }));
    }
    let parts: Vec<(&PeerChange, Part<'_>)> = peers.iter().flat_map(parts).collect();
    for some in parts.chunks(PEERS_AT_ONCE) {
        messages.push(request().with(|list| {
            list.nested(DEVICE_PEERS, |list| {
                for (change, part) in some {
                    // The list's elements have no numbers.
                    list.nested(0, |list| write_peer(list, change, part));
                }
            });
        }));
    }
    messages
}

/// As much of a peer's ranges as one attribute is given.
struct Part<'a> {
    ranges: &'a [IpNet],
    is_first: bool,
}

fn parts(change: &PeerChange) -> Vec<(&PeerChange, Part<'_>)> {
    let ranges: &[IpNet] = match change {
        PeerChange::Remove(_) => &[],
        PeerChange::Set { allowed, .. } => allowed,
    };
    if ranges.is_empty() {
        return vec![(change, Part { ranges, is_first: true })];
    }
    let numbered = ranges.chunks(RANGES_AT_ONCE).enumerate();
    numbered.map(|(number, ranges)| (change, Part { ranges, is_first: number == 0 })).collect()
}

fn write_peer(list: &mut Attributes, change: &PeerChange, part: &Part<'_>) {
    match change {
        PeerChange::Remove(key) => {
            list.bytes(PEER_PUBLIC_KEY, key.bytes()).u32(PEER_FLAGS, REMOVE);
        }
        PeerChange::Set { key, endpoint, keepalive_s, allowed: _, replaces } => {
            list.bytes(PEER_PUBLIC_KEY, key.bytes());
            if part.is_first {
                if *replaces {
                    list.u32(PEER_FLAGS, REPLACE_ALLOWED);
                }
                if let Endpoint::Set(endpoint) = endpoint {
                    list.bytes(PEER_ENDPOINT, &socket_address(*endpoint));
                }
                if let Some(seconds) = keepalive_s {
                    list.u16(PEER_KEEPALIVE, *seconds);
                }
            }
            if !part.ranges.is_empty() {
                list.nested(PEER_ALLOWED, |list| {
                    for range in part.ranges {
                        list.nested(0, |list| write_range(list, *range));
                    }
                });
            }
        }
    }
}

fn write_range(list: &mut Attributes, range: IpNet) {
    list.u16(ALLOWED_FAMILY, Family::of(range.addr()).number().into());
    list.bytes(ALLOWED_ADDRESS, &octets(range.network())).u8(ALLOWED_LENGTH, range.prefix_len());
}

/// `struct sockaddr_in` or `sockaddr_in6`.
fn socket_address(address: SocketAddr) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(28);
    match address {
        SocketAddr::V4(address) => {
            bytes.extend((libc::AF_INET as u16).to_ne_bytes());
            bytes.extend(address.port().to_be_bytes());
            bytes.extend(address.ip().octets());
            bytes.extend([0; 8]);
        }
        SocketAddr::V6(address) => {
            bytes.extend((libc::AF_INET6 as u16).to_ne_bytes());
            bytes.extend(address.port().to_be_bytes());
            bytes.extend(address.flowinfo().to_be_bytes());
            bytes.extend(address.ip().octets());
            bytes.extend(address.scope_id().to_ne_bytes());
        }
    }
    bytes
}

fn read_socket_address(bytes: &[u8]) -> Option<SocketAddr> {
    let port = u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?);
    match i32::from(read_u16(bytes)?) {
        libc::AF_INET => Some((<[u8; 4]>::try_from(bytes.get(4..8)?).ok()?, port).into()),
        libc::AF_INET6 => Some((<[u8; 16]>::try_from(bytes.get(8..24)?).ok()?, port).into()),
        _ => None,
    }
}

impl Device {
    /// Takes in one message of the kernel's answer; a device with many peers, and a peer with many ranges, come in
    /// several.
    pub fn read(&mut self, body: &[u8]) {
        for (kind, value) in attributes(body.get(4..).unwrap_or_default()) {
            match kind {
                DEVICE_PRIVATE_KEY => self.private_key = value.try_into().ok(),
                DEVICE_PORT => self.port = read_u16(value).unwrap_or_default(),
                DEVICE_PEERS => attributes(value).for_each(|(_, peer)| self.read_peer(peer)),
                _ => {}
            }
        }
    }

    fn read_peer(&mut self, peer: &[u8]) {
        let key = attributes(peer).find(|(kind, _)| *kind == PEER_PUBLIC_KEY);
        let Some(key) = key.and_then(|(_, key)| <[u8; 32]>::try_from(key).ok()) else { return };
        let known = self.peers.entry(PublicKey::from_bytes(key)).or_default();
        for (kind, value) in attributes(peer) {
            match kind {
                PEER_ENDPOINT => known.endpoint = read_socket_address(value),
                PEER_KEEPALIVE => known.keepalive_s = read_u16(value).unwrap_or_default(),
                PEER_HANDSHAKE => known.handshake_at = read_time(value).filter(|time| !time.is_zero()),
                PEER_RX_BYTES => known.rx_bytes = read_u64(value).unwrap_or_default(),
                PEER_TX_BYTES => known.tx_bytes = read_u64(value).unwrap_or_default(),
                PEER_ALLOWED => known.allowed.extend(attributes(value).filter_map(|(_, range)| read_range(range))),
                _ => {}
            }
        }
    }
}

/// `struct __kernel_timespec`.
fn read_time(bytes: &[u8]) -> Option<Duration> {
    let nanoseconds = u32::try_from(read_u64(bytes.get(8..)?)?).ok()?;
    Some(Duration::new(read_u64(bytes)?, nanoseconds))
}

fn read_range(range: &[u8]) -> Option<IpNet> {
    let value = |wanted| attributes(range).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    IpNet::new(family::address(value(ALLOWED_ADDRESS)?)?, *value(ALLOWED_LENGTH)?.first()?).ok()
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests;
