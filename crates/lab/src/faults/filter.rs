//! What the switch does to frames between its ports: an nftables table of the bridge family in the outside's namespace.
//!
//! ```text
//!  from a node ─▶ prerouting: of a slow node? queue ─▶ forward: cut? drop ─▶ postrouting: to a slow node? queue ─▶ to a node
//! ```
//! A cut drops IP and leaves address resolution alone: so that one direction alone can be cut, and so that a sender meets
//! silence, as behind a router, and not "no route to host". The table is replaced as a whole, in one transaction.

use anyhow::{Context, Result};

use super::nfnetlink::{Attributes, Message, Socket};
use super::{Cut, Faults};
use crate::wiring::port_name;

/// The queue, in the outside's namespace, of packets of slow nodes. A verdict that is written into a rule can name no other:
/// the expression that could, `queue`, is left out of some kernels.
pub(super) const QUEUE: u16 = 0;

const TABLE: &str = "skep-lab";
const BRIDGE: u8 = 7;
const NFTABLES: u8 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;

/// `NF_BR_*` of linux/netfilter_bridge.h.
#[derive(Debug, Clone, Copy)]
enum Hook {
    Prerouting = 0,
    Forward = 2,
    Postrouting = 4,
}

#[derive(Debug, Clone, Copy)]
enum Meta {
    Protocol = 1,
    IifName = 6,
    OifName = 7,
}

/// `NF_*` of linux/netfilter.h.
#[derive(Debug, Clone, Copy)]
enum Verdict {
    Drop = 0,
    Accept = 1,
    Queue = 3,
}

const ARP: [u8; 2] = [0x08, 0x06];
const IPV6: [u8; 2] = [0x86, 0xdd];
const ICMPV6: u8 = 58;
/// Neighbour solicitation and advertisement (RFC 4861): IPv6's ARP.
const NEIGHBOUR: [u8; 2] = [135, 136];

/// Makes the kernel do `faults`, and nothing else, in the calling thread's network namespace.
pub(super) fn apply(faults: &Faults) -> Result<()> {
    let mut socket = Socket::open()?;
    let batch = |command| Message::new(0, command, 0, 0, u16::from(NFTABLES));
    // Made first, so that there is one to delete.
    let mut messages = vec![batch(BATCH_BEGIN), table(NEW_TABLE), table(DELETE_TABLE)];
    if !faults.is_empty() {
        messages.push(table(NEW_TABLE));
        messages.extend([Hook::Prerouting, Hook::Forward, Hook::Postrouting].map(chain));
        messages.extend(rules(faults));
    }
    messages.push(batch(BATCH_END));
    socket.ask(&messages).context("cannot filter at the lab's switch: does the kernel have nftables for bridges?")
}

fn rules(faults: &Faults) -> Vec<Message> {
    let mut rules = vec![rule(Hook::Forward, Verdict::Accept, |rule| rule.meta(Meta::Protocol, &ARP))];
    for kind in NEIGHBOUR {
        rules.push(rule(Hook::Forward, Verdict::Accept, |rule| {
            rule.meta(Meta::Protocol, &IPV6);
            rule.network_byte(6, ICMPV6);
            rule.network_byte(40, kind);
        }));
    }
    for Cut { from, to } in &faults.cuts {
        rules.push(rule(Hook::Forward, Verdict::Drop, |rule| {
            rule.meta(Meta::IifName, &port(*from));
            rule.meta(Meta::OifName, &port(*to));
        }));
    }
    for slow in &faults.slow {
        let port = port(slow.node);
        rules.push(rule(Hook::Prerouting, Verdict::Queue, |rule| rule.meta(Meta::IifName, &port)));
        rules.push(rule(Hook::Postrouting, Verdict::Queue, |rule| rule.meta(Meta::OifName, &port)));
    }
    rules
}

/// A link's name as the kernel compares it: `IFNAMSIZ` bytes.
fn port(node: u8) -> [u8; 16] {
    let mut padded = [0; 16];
    padded.iter_mut().zip(port_name(node).bytes()).for_each(|(to, byte)| *to = byte);
    padded
}

fn own(command: u16, flags: u16) -> Message {
    Message::new(NFTABLES, command, flags, BRIDGE, 0)
}

fn table(command: u16) -> Message {
    let flags = if command == NEW_TABLE { CREATE } else { 0 };
    own(command, flags).with(|list| {
        list.string(1, TABLE);
    })
}

fn chain_name(hook: Hook) -> &'static str {
    match hook {
        Hook::Prerouting => "prerouting",
        Hook::Forward => "forward",
        Hook::Postrouting => "postrouting",
    }
}

fn chain(hook: Hook) -> Message {
    own(NEW_CHAIN, CREATE).with(|list| {
        list.string(1, TABLE).string(3, chain_name(hook)).nested(4, |place| {
            place.u32(1, hook as u32).u32(2, 0);
        });
        list.u32(5, Verdict::Accept as u32).string(7, "filter");
    })
}

fn rule(hook: Hook, verdict: Verdict, add: impl FnOnce(&mut Expressions)) -> Message {
    let mut expressions = Expressions(Attributes::default());
    add(&mut expressions);
    expressions.verdict(verdict);
    own(NEW_RULE, CREATE | APPEND).with(|list| {
        list.string(1, TABLE).string(2, chain_name(hook)).list(4, expressions.0);
    })
}

/// A rule as the kernel's expressions (linux/netfilter/nf_tables.h): load into the register, stop unless equal, act.
struct Expressions(Attributes);

/// `NFT_REG_1`, of 16 bytes.
const REGISTER: u32 = 1;
const VERDICT_REGISTER: u32 = 0;
const ELEMENT: u16 = 1;

impl Expressions {
    fn push(&mut self, name: &str, add: impl FnOnce(&mut Attributes)) {
        self.0.nested(ELEMENT, |expression| {
            expression.string(1, name).nested(2, add);
        });
    }

    fn equals(&mut self, value: &[u8]) {
        self.push("cmp", |compare| {
            compare.u32(1, REGISTER).u32(2, 0).nested(3, |data| {
                data.bytes(1, value);
            });
        });
    }

    fn meta(&mut self, key: Meta, value: &[u8]) {
        self.push("meta", |meta| {
            meta.u32(1, REGISTER).u32(2, key as u32);
        });
        self.equals(value);
    }

    /// Compares a byte at `offset` from the start of the IP header.
    fn network_byte(&mut self, offset: u32, value: u8) {
        const NETWORK_HEADER: u32 = 1;
        self.push("payload", |payload| {
            payload.u32(1, REGISTER).u32(2, NETWORK_HEADER).u32(3, offset).u32(4, 1);
        });
        self.equals(&[value]);
    }

    fn verdict(&mut self, verdict: Verdict) {
        self.push("immediate", |immediate| {
            immediate.u32(1, VERDICT_REGISTER).nested(2, |data| {
                data.nested(2, |code| {
                    code.u32(1, verdict as u32);
                });
            });
        });
    }
}
