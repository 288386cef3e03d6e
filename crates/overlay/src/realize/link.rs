//! Links and addresses over rtnetlink (linux/rtnetlink.h): the requests that bridges and sandboxes need.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use ipnet::IpNet;

use super::family::{self, Family, octets};
use crate::netlink::{Message, NetlinkError, Socket, attributes, read_string, read_u32};

const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const GET_LINK: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const DELETE_ADDRESS: u16 = 21;
const GET_ADDRESS: u16 = 22;
const NEW_NEIGHBOUR: u16 = 28;

const REPLACE: u16 = 0x100;
const EXCLUSIVE: u16 = 0x200;
const CREATE: u16 = 0x400;

const HARDWARE_ADDRESS: u16 = 1;
const NAME: u16 = 3;
const MTU: u16 = 4;
const QUEUE_LENGTH: u16 = 13;
const INFO: u16 = 18;
const ALIAS: u16 = 20;
const GROUP: u16 = 27;
const NAMESPACE: u16 = 28;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;

const UP: u32 = 1;
/// The loopback interface's index in every network namespace.
pub const LOOPBACK: u32 = 1;

/// A network interface as the kernel lists it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub group: u32,
    pub alias: String,
    /// The driver's name for what it is; empty for those that are a device's own.
    pub kind: String,
    pub mtu: u32,
    pub is_up: bool,
}

/// Every interface of the socket's namespace, by name.
pub fn list(socket: &mut Socket) -> Result<BTreeMap<String, Link>, NetlinkError> {
    let mut links = BTreeMap::new();
    socket.dump(&Message::new(GET_LINK, 0, &header(0, 0)), |_, body| links.extend(read(body)))?;
    Ok(links)
}

/// One interface by its name.
pub fn find(socket: &mut Socket, name: &str) -> Result<Option<Link>, NetlinkError> {
    let mut link = None;
    let request = Message::new(GET_LINK, 0, &header(0, 0)).with(|list| {
        list.string(NAME, name);
    });
    match socket.get(&request, |_, body| link = read(body).map(|(_, link)| link)) {
        Err(error) if error.errno() == Some(libc::ENODEV) => Ok(None),
        asked => asked.map(|()| link),
    }
}

fn read(body: &[u8]) -> Option<(String, Link)> {
    let index = read_u32(body.get(4..)?)?;
    let is_up = read_u32(body.get(8..)?)? & UP != 0;
    let mut link = Link { index, is_up, ..Link::default() };
    let mut name = String::new();
    for (kind, value) in attributes(body.get(16..)?) {
        match kind {
            NAME => name = read_string(value),
            GROUP => link.group = read_u32(value).unwrap_or_default(),
            ALIAS => link.alias = read_string(value),
            MTU => link.mtu = read_u32(value).unwrap_or_default(),
            INFO => {
                link.kind = attributes(value)
                    .find(|(kind, _)| *kind == INFO_KIND)
                    .map_or_else(String::new, |(_, kind)| read_string(kind))
            }
            _ => {}
        }
    }
    Some((name, link))
}

/// A bridge, down.
pub fn new_bridge(name: &str, group: u32) -> Message {
    const MULTICAST_SNOOPING: u16 = 23;
    Message::new(NEW_LINK, CREATE | EXCLUSIVE, &header(0, 0)).with(|list| {
        list.string(NAME, name).u32(GROUP, group).nested(INFO, |info| {
            info.string(INFO_KIND, "bridge").nested(INFO_DATA, |data| {
                data.u8(MULTICAST_SNOOPING, 0);
            });
        });
    })
}

/// A device of the kernel's WireGuard, down.
pub fn new_wireguard(name: &str) -> Message {
    Message::new(NEW_LINK, CREATE | EXCLUSIVE, &header(0, 0)).with(|list| {
        list.string(NAME, name).nested(INFO, |info| {
            info.string(INFO_KIND, "wireguard");
        });
    })
}

/// How long a packet may be, and how many may wait.
pub fn set_sizes(index: u32, mtu: u16, queue: u32) -> Message {
    Message::new(NEW_LINK, 0, &header(index, 0)).with(|list| {
        list.u32(MTU, mtu.into()).u32(QUEUE_LENGTH, queue);
    })
}

/// A container's link: its end of the pair on the node, and the one in the container.
pub struct Pair<'a> {
    pub name: &'a str,
    pub group: u32,
    pub gateway: Ipv4Addr,
    pub peer: &'a str,
    pub address: Ipv4Addr,
    pub namespace: BorrowedFd<'a>,
}

/// Both ends down. Their hardware addresses follow from their IPv4 addresses, so each can be told of the other.
pub fn new_pair(pair: &Pair<'_>) -> Message {
    const PEER: u16 = 1;
    Message::new(NEW_LINK, CREATE | EXCLUSIVE, &header(0, 0)).with(|list| {
        list.string(NAME, pair.name).u32(GROUP, pair.group);
        list.bytes(HARDWARE_ADDRESS, &hardware_address(pair.gateway)).nested(INFO, |info| {
            info.string(INFO_KIND, "veth").nested(INFO_DATA, |data| {
                data.nested(PEER, |other| {
                    other.raw(&header(0, 0)).string(NAME, pair.peer);
                    other.bytes(HARDWARE_ADDRESS, &hardware_address(pair.address));
                    other.u32(NAMESPACE, pair.namespace.as_raw_fd() as u32);
                });
            });
        });
    })
}

/// A container's end of a local network: an interface behind one of the node's.
pub struct Station<'a> {
    pub name: &'a str,
    /// The index of the node's interface.
    pub parent: u32,
    pub address: Ipv4Addr,
    pub namespace: BorrowedFd<'a>,
}

/// Down, in its namespace. Stations behind one interface reach each other without the network outside, as in Docker's
/// mode `bridge`; who has an address has its hardware address too, so neighbours need not ask anew when a task moves.
pub fn new_station(station: &Station<'_>) -> Message {
    const PARENT: u16 = 5;
    const MODE: u16 = 1;
    const MODE_BRIDGE: u32 = 4;
    Message::new(NEW_LINK, CREATE | EXCLUSIVE, &header(0, 0)).with(|list| {
        list.string(NAME, station.name).u32(PARENT, station.parent);
        list.bytes(HARDWARE_ADDRESS, &hardware_address(station.address));
        list.u32(NAMESPACE, station.namespace.as_raw_fd() as u32).nested(INFO, |info| {
            info.string(INFO_KIND, "macvlan").nested(INFO_DATA, |data| {
                data.u32(MODE, MODE_BRIDGE);
            });
        });
    })
}

/// Where `address` is found on a link, by the IPv4 address of who has it, so that nobody asks by ARP (IPv6: neighbour
/// discovery) and nobody can answer falsely.
pub fn new_neighbour(index: u32, address: IpAddr, holder: Ipv4Addr) -> Message {
    const PERMANENT: u8 = 0x80;
    const DESTINATION: u16 = 1;
    const LINK_ADDRESS: u16 = 2;
    let mut header = [Family::of(address).number(), 0, 0, 0, 0, 0, 0, 0, PERMANENT, 0, 0, 0];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    if cfg!(target_endian = "big") {
        header.swap(8, 9);
    }
    Message::new(NEW_NEIGHBOUR, CREATE | REPLACE, &header).with(|list| {
        list.bytes(DESTINATION, &octets(address)).bytes(LINK_ADDRESS, &hardware_address(holder));
    })
}

/// Brings a link up, named for people by `alias`.
pub fn name_and_raise(name: &str, alias: &str) -> Message {
    Message::new(NEW_LINK, 0, &header(0, UP)).with(|list| {
        list.string(NAME, name).string(ALIAS, alias);
    })
}

pub fn up(index: u32) -> Message {
    Message::new(NEW_LINK, 0, &header(index, UP))
}

pub fn set_alias(index: u32, alias: &str) -> Message {
    Message::new(NEW_LINK, 0, &header(index, 0)).with(|list| {
        list.string(ALIAS, alias);
    })
}

pub fn delete(name: &str) -> Message {
    Message::new(DELETE_LINK, 0, &header(0, 0)).with(|list| {
        list.string(NAME, name);
    })
}

/// Deletes all links of a group.
pub fn delete_group(group: u32) -> Message {
    Message::new(DELETE_LINK, 0, &header(0, 0)).with(|list| {
        list.u32(GROUP, group);
    })
}

/// An address without a route to its range: which ranges are where is the plan's to say. Nobody is asked whether it is
/// somebody else's.
pub fn new_address(index: u32, address: IpNet) -> Message {
    const BROADCAST: u16 = 4;
    const FLAGS: u16 = 8;
    const NO_DUPLICATE_DETECTION: u32 = 0x02;
    const NO_PREFIX_ROUTE: u32 = 0x200;
    let flags = match address {
        IpNet::V4(_) => NO_PREFIX_ROUTE,
        IpNet::V6(_) => NO_PREFIX_ROUTE | NO_DUPLICATE_DETECTION,
    };
    address_message(NEW_ADDRESS, CREATE | REPLACE, index, address).with(|list| {
        if let IpNet::V4(address) = address
            && address.prefix_len() < 31
        {
            list.bytes(BROADCAST, &address.broadcast().octets());
        }
        list.u32(FLAGS, flags);
    })
}

pub fn delete_address(index: u32, address: IpNet) -> Message {
    address_message(DELETE_ADDRESS, 0, index, address)
}

fn address_message(kind: u16, flags: u16, index: u32, address: IpNet) -> Message {
    const ADDRESS: u16 = 1;
    const LOCAL: u16 = 2;
    let mut header = [Family::of(address.addr()).number(), address.prefix_len(), 0, 0, 0, 0, 0, 0];
    header[4..].copy_from_slice(&index.to_ne_bytes());
    let octets = octets(address.addr());
    Message::new(kind, flags, &header).with(|list| {
        list.bytes(LOCAL, &octets).bytes(ADDRESS, &octets);
    })
}

/// The addresses of every interface of the socket's namespace, by its index.
pub fn list_addresses(socket: &mut Socket) -> Result<BTreeMap<u32, BTreeSet<IpNet>>, NetlinkError> {
    const ADDRESS: u16 = 1;
    const LOCAL: u16 = 2;
    let mut addresses: BTreeMap<u32, BTreeSet<IpNet>> = BTreeMap::new();
    for family in Family::BOTH {
        // A kernel without IPv6 answers for all families that it has.
        let request = Message::new(GET_ADDRESS, 0, &[family.number(), 0, 0, 0, 0, 0, 0, 0]);
        socket.dump(&request, |_, body| {
            let (Some(index), Some(rest)) = (body.get(4..).and_then(read_u32), body.get(8..)) else { return };
            let value = |wanted| attributes(rest).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
            let local = value(LOCAL).or_else(|| value(ADDRESS)).and_then(family::address);
            if let Some(Ok(address)) = local.map(|address| IpNet::new(address, body[1])) {
                addresses.entry(index).or_default().insert(address);
            }
        })?;
    }
    Ok(addresses)
}

/// `struct ifinfomsg`: the flags given are set, others stay.
pub fn header(index: u32, flags: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..].copy_from_slice(&flags.to_ne_bytes());
    header
}

/// Docker's rule: locally administered, the IPv4 address as its tail. Unique wherever the address is, and the same
/// again when the address is.
fn hardware_address(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0x42, a, b, c, d]
}
