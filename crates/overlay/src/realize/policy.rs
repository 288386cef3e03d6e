//! Routing rules over rtnetlink (linux/fib_rules.h): which packets look into other tables than the main one.
//!
//! ```text
//! 1737  neither mark                       -> skip to 1741      so ordinary packets meet one comparison
//! 1738  to nodes' own addresses            -> skip to 1741      the VXLAN's own packets carry their content's mark
//! 1739  mark 0x100                         -> table ONWARD      published traffic to other nodes' blocks
//! 1740  mark of a node, one rule for each  -> table BACK + n    answers to the node that the client spoke to
//! 1741  nothing                                                 where the skips end
//! ```

use ipnet::IpNet;
use std::collections::BTreeSet;

use super::RealizeError;
use super::family::{self, Family, octets};
use super::route::PROTOCOL;
use crate::netlink::{Message, NetlinkError, Socket, attributes, read_u32};
use crate::plan::{BACK_MARK, BACK_MASK, Ingress, Number, PUBLISHED_MARK};

const NEW_RULE: u16 = 32;
const DELETE_RULE: u16 = 33;
const GET_RULE: u16 = 34;
const EXCLUSIVE: u16 = 0x200;
const CREATE: u16 = 0x400;

const DESTINATION: u16 = 1;
const GOTO: u16 = 4;
const PRIORITY: u16 = 6;
const MARK: u16 = 10;
const TABLE: u16 = 15;
const MASK: u16 = 16;
const PROTOCOL_OF_RULE: u16 = 21;

/// The first of our rules' priorities: before those of VPNs, after the kernel's own table of local addresses.
const FIRST: u32 = 1737;
const LAST: u32 = FIRST + 4;
/// The table of other nodes' blocks, by way of `sk-ingress`.
pub const ONWARD: u32 = 737_600_000;
/// The first of the tables that lead back; a node's number is added.
const BACK: u32 = 737_700_000;

/// The table of the way back by a node.
pub fn back(number: Number) -> u32 {
    BACK + u32::from(number.0)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rule {
    family: Family,
    priority: u32,
    mark: u32,
    mask: u32,
    to: Option<IpNet>,
    action: Action,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Action {
    Table(u32),
    SkipTo(u32),
    Nothing,
}

fn rules(ingress: &Ingress) -> BTreeSet<Rule> {
    let v6 = ingress.has_v6.then(|| rules_of(Family::V6, ingress));
    rules_of(Family::V4, ingress).into_iter().chain(v6.into_iter().flatten()).collect()
}

fn rules_of(family: Family, ingress: &Ingress) -> BTreeSet<Rule> {
    let rule = |place, action| Rule { family, priority: FIRST + place, mark: 0, mask: 0, to: None, action };
    let skip = |place| rule(place, Action::SkipTo(LAST));
    let mut rules = BTreeSet::from([
        Rule { mask: PUBLISHED_MARK | BACK_MARK, ..skip(0) },
        Rule { mark: PUBLISHED_MARK, mask: PUBLISHED_MARK, ..rule(2, Action::Table(ONWARD)) },
        rule(4, Action::Nothing),
    ]);
    // A frame's own packet is IPv4's, whatever is in it.
    rules.extend((family == Family::V4).then(|| Rule { to: Some(ingress.nodes.into()), ..skip(1) }));
    let peers = ingress.peers.keys();
    rules.extend(peers.map(|peer| Rule { mark: peer.mark(), mask: BACK_MASK, ..rule(3, Action::Table(back(*peer))) }));
    rules
}

/// Makes our rules be those that `ingress` needs, if there is one.
pub fn realize(socket: &mut Socket, wanted: Option<&Ingress>) -> Result<(), RealizeError> {
    let wanted = wanted.map(rules).unwrap_or_default();
    let there = list(socket).map_err(RealizeError::Policy)?;
    let come = wanted.difference(&there).map(|rule| message(NEW_RULE, CREATE | EXCLUSIVE, rule));
    let gone = there.difference(&wanted).map(|rule| message(DELETE_RULE, 0, rule));
    let requests: Vec<_> = come.chain(gone).collect();
    for answer in socket.each(&requests).map_err(RealizeError::Policy)? {
        answer.map_err(RealizeError::Policy)?;
    }
    Ok(())
}

fn message(kind: u16, flags: u16, rule: &Rule) -> Message {
    let Rule { family, priority, mark, mask, to, action } = *rule;
    let code = match action {
        Action::Table(_) => 1,
        Action::SkipTo(_) => 2,
        Action::Nothing => 3,
    };
    let length = to.map_or(0, |to| to.prefix_len());
    Message::new(kind, flags, &[family.number(), length, 0, 0, 0, 0, 0, code, 0, 0, 0, 0]).with(|list| {
        list.u32(PRIORITY, priority).u8(PROTOCOL_OF_RULE, PROTOCOL);
        if let Some(to) = to {
            list.bytes(DESTINATION, &octets(to.network()));
        }
        if mask != 0 {
            list.u32(MARK, mark).u32(MASK, mask);
        }
        match action {
            Action::Table(table) => {
                list.u32(TABLE, table);
            }
            Action::SkipTo(priority) => {
                list.u32(GOTO, priority);
            }
            Action::Nothing => {}
        }
    })
}

/// Every rule of ours.
fn list(socket: &mut Socket) -> Result<BTreeSet<Rule>, NetlinkError> {
    let mut rules = BTreeSet::new();
    for family in Family::BOTH {
        let request = Message::new(GET_RULE, 0, &[family.number(), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        match socket.dump(&request, |_, body| rules.extend(read(body))) {
            // Where IPv6 has no rules there are none.
            Err(error) if family == Family::V6 && error.errno() == Some(libc::EAFNOSUPPORT) => {}
            listed => listed?,
        }
    }
    Ok(rules)
}

/// None: it is not ours.
fn read(body: &[u8]) -> Option<Rule> {
    let (header, list) = (body.get(..12)?, body.get(12..)?);
    let value = |wanted| attributes(list).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let number = |wanted| value(wanted).and_then(read_u32);
    if value(PROTOCOL_OF_RULE) != Some(&[PROTOCOL]) {
        return None;
    }
    let to = value(DESTINATION).and_then(family::address);
    Some(Rule {
        family: Family::BOTH.into_iter().find(|family| family.number() == header[0])?,
        priority: number(PRIORITY).unwrap_or_default(),
        mark: number(MARK).unwrap_or_default(),
        mask: number(MASK).unwrap_or_default(),
        to: to.and_then(|to| IpNet::new(to, header[1]).ok()),
        action: match header[7] {
            1 => Action::Table(number(TABLE).unwrap_or_default()),
            2 => Action::SkipTo(number(GOTO).unwrap_or_default()),
            _ => Action::Nothing,
        },
    })
}
