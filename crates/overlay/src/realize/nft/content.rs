//! The table's data as the kernel holds it: bytes of keys and values by set, and the picking chains that they need.
//!
//! Two contents can be compared, and the difference is what is sent.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::super::family::{Family, octets};
use super::expression::Verdict;
use super::picker::{Pick, Picker};
use super::ruleset::{TCP, UDP};
use crate::plan::balance::{Drawn, SLOTS};
use crate::plan::{Choice, Led, PortKey, Protocol, Rules};

/// The sets and maps of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Set {
    Inside,
    Sources,
    Internal,
    Containers,
    Given,
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

const ADDRESS_V4: Part = Part(7, 4);
const ADDRESS_V6: Part = Part(8, 16);
const PROTOCOL: Part = Part(12, 1);
const PORT: Part = Part(13, 2);
const SLOT: Part = Part(19, 4);
const INTERFACE: Part = Part(41, 16);
const GROUP: Part = Part(35, 4);
const HARDWARE_ADDRESS: Part = Part(9, 6);
pub const MARK: Part = Part(19, 4);

/// What a map's keys lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Values {
    None,
    Verdict,
    Parts(Vec<Part>),
}

/// A set's shape.
#[derive(Debug, Clone)]
pub struct Shape {
    pub name: &'static str,
    pub key: Vec<Part>,
    pub values: Values,
    pub ranges: bool,
}

impl Set {
    pub const ALL: [Self; 17] = [
        Self::Inside,
        Self::Sources,
        Self::Internal,
        Self::Containers,
        Self::Given,
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

    pub fn shape(self, family: Family) -> Shape {
        let address = match family {
            Family::V4 => ADDRESS_V4,
            Family::V6 => ADDRESS_V6,
        };
        let set = |key: &[Part]| Shape { name: self.name(), key: key.to_vec(), values: Values::None, ranges: false };
        let ranges = |key| Shape { ranges: true, ..set(key) };
        let map = |key, values: &[Part]| Shape { values: Values::Parts(values.to_vec()), ..set(key) };
        match self {
            Self::Inside => ranges(&[GROUP, address]),
            Self::Sources => set(&[INTERFACE, address]),
            Self::Internal => set(&[GROUP]),
            Self::Containers | Self::Given | Self::Nodes | Self::Elsewhere => ranges(&[address]),
            Self::Hairpin => set(&[address, address]),
            Self::Entrances => set(&[PROTOCOL, PORT]),
            Self::Senders => map(&[HARDWARE_ADDRESS], &[MARK]),
            Self::Returning => ranges(&[address, address]),
            Self::IdleVips => set(&[address]),
            Self::IdlePorts => set(&[address, PROTOCOL, PORT]),
            Self::Vips => Shape { values: Values::Verdict, ..set(&[address]) },
            Self::VipBackends => map(&[address, SLOT], &[address]),
            Self::Ports => Shape { values: Values::Verdict, ..set(&[address, PROTOCOL, PORT]) },
            Self::PortBackends => map(&[address, PROTOCOL, PORT, SLOT], &[address, PORT]),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Inside => "inside",
            Self::Sources => "sources",
            Self::Internal => "internal",
            Self::Containers => "containers",
            Self::Given => "given",
            Self::Hairpin => "hairpin",
            Self::Nodes => "nodes",
            Self::Elsewhere => "elsewhere",
            Self::Entrances => "entrances",
            Self::Senders => "senders",
            Self::Returning => "returning",
            Self::IdleVips => "idle_vips",
            Self::IdlePorts => "idle_ports",
            Self::Vips => "vips",
            Self::VipBackends => "vip_backends",
            Self::Ports => "ports",
            Self::PortBackends => "port_backends",
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
            let key = |address| [group.to_ne_bytes().to_vec(), octets(address)].concat();
            let element = Element { last: Some(key(range.broadcast())), ..Element::default() };
            content.elements.insert((Set::Inside, key(range.network())), element);
        }
        for (link, address) in &rules.sources {
            content.add(Set::Sources, [interface_key(link), octets(*address)].concat(), None);
        }
        for group in &rules.internal {
            content.add(Set::Internal, group.to_ne_bytes().to_vec(), None);
        }
        content.add_ranges(Set::Containers, &rules.containers);
        content.add_ranges(Set::Given, &rules.given);
        for address in &rules.hairpin {
            content.add(Set::Hairpin, [octets(*address), octets(*address)].concat(), None);
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
            let key = |address| [octets(*node), octets(address)].concat();
            let element = Element { last: Some(key(block.broadcast())), ..Element::default() };
            content.elements.insert((Set::Returning, key(block.network())), element);
        }
        for (vip, led) in &rules.vips {
            content.add_vip(*vip, led);
        }
        for (port, led) in &rules.ports {
            content.add_port(*port, led);
        }
        content
    }

    fn add(&mut self, set: Set, key: Vec<u8>, value: Option<Value>) {
        self.elements.insert((set, key), Element { value, ..Element::default() });
    }

    /// Neighbouring ranges become one: the kernel keeps a plain range as its first address and the first after it,
    /// and one address cannot both end a range and begin another.
    fn add_ranges(&mut self, set: Set, ranges: &BTreeSet<IpNet>) {
        let mut merged: Vec<(IpAddr, IpAddr)> = Vec::new();
        for range in ranges {
            match merged.last_mut() {
                // The end of the address space has no next, and nothing begins behind it.
                Some((_, last)) if next(*last).is_none_or(|next| next >= range.network()) => {
                    *last = range.broadcast().max(*last);
                }
                _ => merged.push((range.network(), range.broadcast())),
            }
        }
        for (first, last) in merged {
            let element = Element { next: next(last).map(octets), ..Element::default() };
            self.elements.insert((set, octets(first)), element);
        }
    }

    fn add_vip(&mut self, vip: IpAddr, led: &Led<IpAddr>) {
        let key = octets(vip);
        if led.to.is_empty() {
            return self.add(Set::IdleVips, key, None);
        }
        let picker = self.picker(Pick::Vip, led);
        self.add(Set::Vips, key.clone(), Some(picker));
        for (slot, backend) in (0u32..).zip(led.slots()) {
            let key = [&key[..], &slot.to_ne_bytes()].concat();
            self.add(Set::VipBackends, key, Some(Value::Bytes(octets(*backend))));
        }
    }

    fn add_port(&mut self, port: PortKey, led: &Led<SocketAddr>) {
        let key = [&octets(port.address)[..], &[number(port.protocol), 0, 0, 0], &padded(port.port)].concat();
        if led.to.is_empty() {
            return self.add(Set::IdlePorts, key, None);
        }
        let pick = if port.address.is_unspecified() { Pick::AnyAddress } else { Pick::OneAddress };
        let picker = self.picker(pick, led);
        self.add(Set::Ports, key.clone(), Some(picker));
        for (slot, backend) in (0u32..).zip(led.slots()) {
            let key = [&key[..], &slot.to_ne_bytes()].concat();
            let value = [&octets(backend.ip())[..], &padded(backend.port())].concat();
            self.add(Set::PortBackends, key, Some(Value::Bytes(value)));
        }
    }

    fn picker<T: Drawn>(&mut self, pick: Pick, led: &Led<T>) -> Value {
        let slots = match led.choice {
            Choice::Random => u32::try_from(led.to.len()).unwrap_or(u32::MAX),
            Choice::ByClient => SLOTS,
        };
        let picker = Picker { pick, choice: led.choice, slots };
        self.pickers.insert(picker);
        Value::Verdict(Verdict::Goto(picker.name()))
    }
}

/// The address after; none: it is the last.
fn next(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => u32::from(address).checked_add(1).map(|next| IpAddr::V4(next.into())),
        IpAddr::V6(address) => u128::from(address).checked_add(1).map(|next| IpAddr::V6(next.into())),
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
