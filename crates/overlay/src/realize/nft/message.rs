//! Requests to nftables (`NFT_MSG_*`, linux/netfilter/nf_tables.h), for our own table and for looking at others'.

use std::collections::BTreeMap;

use super::super::family::Family;
use super::TABLE;
use super::content::{Content, Element, MARK, Set, Shape, Value, Values};
use super::expression::{DATA_VALUE, ELEMENT, Rule};
use super::ruleset::Chain;
use crate::netlink::{Attributes, Message, NetlinkError, Socket, attributes, read_string};

const NEW_TABLE: u8 = 0;
const GET_TABLE: u8 = 1;
const DELETE_TABLE: u8 = 2;
const NEW_CHAIN: u8 = 3;
const GET_CHAIN: u8 = 4;
const NEW_RULE: u8 = 6;
const GET_RULE: u8 = 7;
const DELETE_RULE: u8 = 8;
const NEW_SET: u8 = 9;
const NEW_ELEMENT: u8 = 12;
const DELETE_ELEMENT: u8 = 14;

const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;

/// An attribute holds less than 64 KiB; the longest element takes about 100 bytes.
const ELEMENTS_PER_MESSAGE: usize = 400;

/// A request about tables that see packets of one family.
fn own(family: Family, kind: u8, flags: u16) -> Message {
    Message::new(u16::from(kind) | 10 << 8, flags, &[family.number(), 0, 0, 0])
}

pub fn new_table(family: Family) -> Message {
    own(family, NEW_TABLE, CREATE).with(|table| {
        table.string(1, TABLE).u32_be(2, 0);
    })
}

pub fn delete_table(family: Family) -> Message {
    own(family, DELETE_TABLE, 0).with(|table| {
        table.string(1, TABLE);
    })
}

/// The handle of our table, by which it is told from one that was made since; none: there is no table.
pub fn table_handle(family: Family, socket: &mut Socket) -> Result<Option<u64>, NetlinkError> {
    let request = own(family, GET_TABLE, 0).with(|table| {
        table.string(1, TABLE);
    });
    let mut handle = None;
    let asked = socket.get(&request, |_, body| {
        let found = attributes(body.get(4..).unwrap_or_default()).find(|(kind, _)| *kind == 4);
        handle = found.and_then(|(_, value)| value.try_into().ok()).map(u64::from_be_bytes);
    });
    match asked {
        Err(error) if error.errno() == Some(libc::ENOENT) => Ok(None),
        asked => asked.map(|()| handle),
    }
}

pub fn new_chain(family: Family, chain: &Chain) -> Message {
    own(family, NEW_CHAIN, CREATE).with(|list| {
        list.string(1, TABLE).string(3, &chain.name);
        if let Some(hook) = chain.hook {
            list.nested(4, |place| {
                place.u32_be(1, hook.number).u32_be(2, hook.priority as u32);
            });
            list.u32_be(5, 1).string(7, hook.kind);
        }
    })
}

pub fn new_rules(family: Family, chain: &Chain) -> Vec<Message> {
    let rule = |rule: &Rule| {
        own(family, NEW_RULE, CREATE | APPEND).with(|list| {
            list.string(1, TABLE).string(2, &chain.name).nested(4, |expressions| {
                expressions.raw(rule.as_bytes());
            });
        })
    };
    chain.rules.iter().map(rule).collect()
}

/// `id` must differ among the sets of one transaction.
pub fn new_set(family: Family, set: Set, id: u32) -> Message {
    const RANGES: u32 = 0x4;
    const MAP: u32 = 0x8;
    const CONCATENATED: u32 = 0x80;
    const VERDICT: u32 = 0xffff_ff00;
    // For `nft list`: the values (1), a length, and the machine's order (1) in it.
    let host_order = [&[1, 4][..], &1u32.to_ne_bytes()].concat();
    let Shape { name, key, values, ranges } = set.shape(family);
    let kind = |parts: &[super::content::Part]| parts.iter().fold(0, |kind, part| kind << 6 | part.0);
    let length = |parts: &[super::content::Part]| match parts {
        [one] => one.1,
        parts => parts.iter().map(|part| part.1.next_multiple_of(4)).sum(),
    };
    let mut flags = if ranges { RANGES } else { 0 };
    flags |= if key.len() > 1 { CONCATENATED } else { 0 };
    flags |= if matches!(values, Values::None) { 0 } else { MAP };
    own(family, NEW_SET, CREATE).with(|list| {
        list.string(1, TABLE).string(2, name).u32_be(3, flags);
        list.u32_be(4, kind(&key)).u32_be(5, length(&key));
        match &values {
            Values::None => {}
            Values::Verdict => {
                list.u32_be(6, VERDICT).u32_be(7, 0);
            }
            Values::Parts(parts) => {
                list.u32_be(6, kind(parts)).u32_be(7, length(parts));
            }
        }
        if key.len() > 1 {
            list.nested(9, |description| {
                description.nested(2, |fields| {
                    for part in &key {
                        fields.nested(ELEMENT, |field| {
                            field.u32_be(1, part.1);
                        });
                    }
                });
            });
        }
        list.u32_be(10, id);
        if values == Values::Parts(vec![MARK]) {
            list.bytes(13, &host_order);
        }
    })
}

/// The requests that turn a table holding `from` into one holding `to`. Picking chains are never removed: an unused
/// one costs nothing, and the next whole replacement drops it.
pub fn difference(family: Family, from: &Content, to: &Content) -> Vec<Message> {
    let mut messages = Vec::new();
    for picker in to.pickers.difference(&from.pickers) {
        let chain = picker.chain(family);
        messages.push(new_chain(family, &chain));
        messages.extend(new_rules(family, &chain));
    }
    let differs = |other: &Content, key: &(Set, Vec<u8>), element: &Element| other.elements.get(key) != Some(element);
    let gone = from.elements.iter().filter(|(key, element)| differs(to, key, element));
    let come = to.elements.iter().filter(|(key, element)| differs(from, key, element));
    messages.extend(elements(family, DELETE_ELEMENT, 0, gone));
    messages.extend(elements(family, NEW_ELEMENT, CREATE, come));
    messages
}

fn elements<'a>(
    family: Family,
    kind: u8,
    flags: u16,
    changed: impl Iterator<Item = (&'a (Set, Vec<u8>), &'a Element)>,
) -> Vec<Message> {
    let mut by_set: BTreeMap<Set, Vec<(&[u8], &Element)>> = BTreeMap::new();
    for ((set, key), element) in changed {
        by_set.entry(*set).or_default().push((key, element));
    }
    let mut messages = Vec::new();
    for (set, members) in by_set {
        for chunk in members.chunks(ELEMENTS_PER_MESSAGE) {
            messages.push(own(family, kind, flags).with(|list| {
                list.string(1, TABLE).string(2, set.name()).nested(3, |members| {
                    for (key, element) in chunk {
                        members.nested(ELEMENT, |member| write_element(member, key, element));
                        if let Some(next) = &element.next {
                            members.nested(ELEMENT, |member| write_range_end(member, next));
                        }
                    }
                });
            }));
        }
    }
    messages
}

fn bytes(list: &mut Attributes, kind: u16, bytes: &[u8]) {
    list.nested(kind, |data| {
        data.bytes(DATA_VALUE, bytes);
    });
}

fn write_range_end(member: &mut Attributes, next: &[u8]) {
    const ENDS_RANGE: u32 = 1;
    bytes(member, 1, next);
    member.u32_be(3, ENDS_RANGE);
}

fn write_element(member: &mut Attributes, key: &[u8], element: &Element) {
    let Element { last, next: _, value } = element;
    bytes(member, 1, key);
    match value {
        None => {}
        Some(Value::Bytes(value)) => bytes(member, 2, value),
        Some(Value::Verdict(verdict)) => {
            member.nested(2, |data| verdict.write(data));
        }
    }
    if let Some(last) = last {
        bytes(member, 10, last);
    }
}

/// A chain of any table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    pub family: Family,
    pub table: String,
    pub chain: String,
    /// The base chain's policy is to drop.
    pub drops: bool,
}

/// All chains of all tables that see packets of one family only, others' included.
pub fn list_chains(family: Family, socket: &mut Socket) -> Result<Vec<Location>, NetlinkError> {
    let mut chains = Vec::new();
    socket.dump(&own(family, GET_CHAIN, 0), |_, body| {
        let mut chain = Location { family, table: String::new(), chain: String::new(), drops: false };
        for (kind, value) in attributes(body.get(4..).unwrap_or_default()) {
            match kind {
                1 => chain.table = read_string(value),
                3 => chain.chain = read_string(value),
                5 => chain.drops = value == 0u32.to_be_bytes(),
                _ => {}
            }
        }
        chains.push(chain);
    })?;
    Ok(chains)
}

/// The rules of a chain: their handles and our mark on them, if they have one.
pub fn list_rules(socket: &mut Socket, at: &Location) -> Result<Vec<(u64, Vec<u8>)>, NetlinkError> {
    let request = in_chain(GET_RULE, 0, at);
    let mut rules = Vec::new();
    socket.dump(&request, |_, body| {
        let (mut handle, mut mark) = (0, Vec::new());
        for (kind, value) in attributes(body.get(4..).unwrap_or_default()) {
            match kind {
                3 => handle = value.try_into().map(u64::from_be_bytes).unwrap_or_default(),
                7 => mark = value.to_vec(),
                _ => {}
            }
        }
        rules.push((handle, mark));
    })?;
    Ok(rules)
}

fn in_chain(kind: u8, flags: u16, at: &Location) -> Message {
    own(at.family, kind, flags).with(|list| {
        list.string(1, &at.table).string(2, &at.chain);
    })
}

/// A rule before all others of a chain, carrying `mark`.
pub fn new_rule_first(at: &Location, rule: &Rule, mark: &[u8]) -> Message {
    in_chain(NEW_RULE, CREATE, at).with(|list| {
        list.nested(4, |expressions| {
            expressions.raw(rule.as_bytes());
        });
        list.bytes(7, mark);
    })
}

pub fn remove_rule(at: &Location, handle: u64) -> Message {
    in_chain(DELETE_RULE, 0, at).with(|list| {
        list.u64_be(3, handle);
    })
}
