//! The table's data as the kernel holds it: bytes of keys and values by set, and the picking chains that they need.
//!
//! Two contents can be compared, and the difference is what is sent.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};

use ipnet::Ipv4Net;

use super::expression::Verdict;
use super::picker::{Pick, Picker};
use super::ruleset::{TCP, UDP};
use crate::plan::{PortKey, Protocol, Rules};

/// The sets and maps of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Set {
    Inside,
    Sources,
    Internal,
    Containers,
    Hairpin,
    Nodes,
    Elsewhere,
    Entrances,
    Senders,
    Returning,
    IdleVips,
    IdlePorts,
    Vips,
    VipBackends,
    Ports,
    PortBackends,
}

/// A part of a key or value: the number by which `nft list` knows its type, and its length in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part(pub u32, pub u32);

const ADDRESS: Part = Part(7, 4);
const PROTOCOL: Part = Part(12, 1);
const PORT: Part = Part(13, 2);
const SLOT: Part = Part(19, 4);
const INTERFACE: Part = Part(41, 16);
const GROUP: Part = Part(35, 4);
const HARDWARE_ADDRESS: Part = Part(9, 6);
pub const MARK: Part = Part(19, 4);

/// What a map's keys lead to.
#[derive(Debug, Clone, Copy)]
pub enum Values {
    None,
    Verdict,
    Parts(&'static [Part]),
}

/// A set's shape.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub name: &'static str,
    pub key: &'static [Part],
    pub values: Values,
    pub ranges: bool,
}

impl Set {
    pub const ALL: [Self; 16] = [
        Self::Inside,
        Self::Sources,
        Self::Internal,
        Self::Containers,
        Self::Hairpin,
        Self::Nodes,
        Self::Elsewhere,
        Self::Entrances,
        Self::Senders,
        Self::Returning,
        Self::IdleVips,
        Self::IdlePorts,
        Self::Vips,
        Self::VipBackends,
        Self::Ports,
        Self::PortBackends,
    ];

    pub fn shape(self) -> Shape {
        let set = |name, key| Shape { name, key, values: Values::None, ranges: false };
        match self {
            Self::Inside => Shape { ranges: true, ..set("inside", &[GROUP, ADDRESS]) },
            Self::Sources => set("sources", &[INTERFACE, ADDRESS]),
            Self::Internal => set("internal", &[GROUP]),
            Self::Containers => Shape { ranges: true, ..set("containers", &[ADDRESS]) },
            Self::Hairpin => set("hairpin", &[ADDRESS, ADDRESS]),
            Self::Nodes => Shape { ranges: true, ..set("nodes", &[ADDRESS]) },
            Self::Elsewhere => Shape { ranges: true, ..set("elsewhere", &[ADDRESS]) },
            Self::Entrances => set("entrances", &[PROTOCOL, PORT]),
            Self::Senders => Shape { values: Values::Parts(&[MARK]), ..set("senders", &[HARDWARE_ADDRESS]) },
            Self::Returning => Shape { ranges: true, ..set("returning", &[ADDRESS, ADDRESS]) },
            Self::IdleVips => set("idle_vips", &[ADDRESS]),
            Self::IdlePorts => set("idle_ports", &[ADDRESS, PROTOCOL, PORT]),
            Self::Vips => Shape { values: Values::Verdict, ..set("vips", &[ADDRESS]) },
            Self::VipBackends => Shape { values: Values::Parts(&[ADDRESS]), ..set("vip_backends", &[ADDRESS, SLOT]) },
            Self::Ports => Shape { values: Values::Verdict, ..set("ports", &[ADDRESS, PROTOCOL, PORT]) },
            Self::PortBackends => Shape {
                values: Values::Parts(&[ADDRESS, PORT]),
                ..set("port_backends", &[ADDRESS, PROTOCOL, PORT, SLOT])
            },
        }
    }
}

/// One element, beside its key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Element {
    /// The last key of a range of concatenated keys.
    pub last: Option<Vec<u8>>,
    /// The first key after a range of plain keys.
    pub next: Option<Vec<u8>>,
    pub value: Option<Value>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Bytes(Vec<u8>),
    Verdict(Verdict),
}

/// See the file's header.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Content {
    pub pickers: BTreeSet<Picker>,
    pub elements: BTreeMap<(Set, Vec<u8>), Element>,
}

impl Content {
    pub fn new(rules: &Rules) -> Self {
        let mut content = Self::default();
        for (group, range) in &rules.inside {
            let key = |address: Ipv4Addr| [group.to_ne_bytes(), address.octets()].concat();
            let element = Element { last: Some(key(range.broadcast())), ..Element::default() };
            content.elements.insert((Set::Inside, key(range.network())), element);
        }
        for (link, address) in &rules.sources {
            content.add(Set::Sources, [interface_key(link), address.octets().to_vec()].concat(), None);
        }
        for group in &rules.internal {
            content.add(Set::Internal, group.to_ne_bytes().to_vec(), None);
        }
        content.add_ranges(Set::Containers, &rules.containers);
        for address in &rules.hairpin {
            content.add(Set::Hairpin, [address.octets(), address.octets()].concat(), None);
        }
        content.add_ranges(Set::Nodes, &rules.nodes);
        content.add_ranges(Set::Elsewhere, &rules.elsewhere);
        for (protocol, port) in &rules.entrances {
            content.add(Set::Entrances, [&[number(*protocol), 0, 0, 0], &padded(*port)[..]].concat(), None);
        }
        for (sender, mark) in &rules.senders {
            let mark = Value::Bytes(mark.to_ne_bytes().to_vec());
            content.add(Set::Senders, sender.to_vec(), Some(mark));
        }
        for (node, block) in &rules.returning {
            let key = |address: Ipv4Addr| [node.octets(), address.octets()].concat();
            let element = Element { last: Some(key(block.broadcast())), ..Element::default() };
            content.elements.insert((Set::Returning, key(block.network())), element);
        }
        for (vip, backends) in &rules.vips {
            content.add_vip(*vip, backends);
        }
        for (port, backends) in &rules.ports {
            content.add_port(*port, backends);
        }
        content
    }

    fn add(&mut self, set: Set, key: Vec<u8>, value: Option<Value>) {
        self.elements.insert((set, key), Element { value, ..Element::default() });
    }

    /// Neighbouring ranges become one: the kernel keeps a plain range as its first address and the first after it,
    /// and one address cannot both end a range and begin another.
    fn add_ranges(&mut self, set: Set, ranges: &BTreeSet<Ipv4Net>) {
        let mut merged: Vec<(u64, u64)> = Vec::new();
        for range in ranges {
            let (first, next) = (u64::from(u32::from(range.network())), u64::from(u32::from(range.broadcast())) + 1);
            match merged.last_mut() {
                Some((_, end)) if *end >= first => *end = next.max(*end),
                _ => merged.push((first, next)),
            }
        }
        let key = |address: u64| u32::try_from(address).ok().map(|address| address.to_be_bytes().to_vec());
        for (first, next) in merged {
            // The end of the address space has no next.
            let element = Element { next: key(next), ..Element::default() };
            self.elements.extend(key(first).map(|key| ((set, key), element)));
        }
    }

    fn add_vip(&mut self, vip: Ipv4Addr, backends: &[Ipv4Addr]) {
        let key = vip.octets().to_vec();
        if backends.is_empty() {
            return self.add(Set::IdleVips, key, None);
        }
        let picker = self.picker(Pick::Vip, backends.len());
        self.add(Set::Vips, key.clone(), Some(picker));
        for (slot, backend) in (0u32..).zip(backends) {
            let key = [&key[..], &slot.to_ne_bytes()].concat();
            self.add(Set::VipBackends, key, Some(Value::Bytes(backend.octets().to_vec())));
        }
    }

    fn add_port(&mut self, port: PortKey, backends: &[SocketAddrV4]) {
        let key = [&port.address.octets()[..], &[number(port.protocol), 0, 0, 0], &padded(port.port)].concat();
        if backends.is_empty() {
            return self.add(Set::IdlePorts, key, None);
        }
        let pick = if port.address.is_unspecified() { Pick::AnyAddress } else { Pick::OneAddress };
        let picker = self.picker(pick, backends.len());
        self.add(Set::Ports, key.clone(), Some(picker));
        for (slot, backend) in (0u32..).zip(backends) {
            let key = [&key[..], &slot.to_ne_bytes()].concat();
            let value = [&backend.ip().octets()[..], &padded(backend.port())].concat();
            self.add(Set::PortBackends, key, Some(Value::Bytes(value)));
        }
    }

    fn picker(&mut self, pick: Pick, backends: usize) -> Value {
        let picker = Picker { pick, backends: u32::try_from(backends).unwrap_or(u32::MAX) };
        self.pickers.insert(picker);
        Value::Verdict(Verdict::Goto(picker.name()))
    }
}

fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => TCP,
        Protocol::Udp => UDP,
    }
}

/// A port as a register holds it: network order, filled up to 4 bytes.
fn padded(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

/// An interface name as a register holds it: filled up to 16 bytes.
fn interface_key(name: &str) -> Vec<u8> {
    let mut key = name.as_bytes().to_vec();
    key.resize(16, 0);
    key
}
