//! What the kernel does to packets: nftables tables, at the switch for what is cut and in a node for its slow link.
//!
//! ```text
//!  node ─ postrouting: slow? queue ─▶ switch ─ forward: cut? drop ─▶ node ─ prerouting: slow? queue ─▶ …
//! ```
//! A cut drops IP and leaves address resolution alone: so that one direction alone can be cut, and so that a sender meets
//! silence, as behind a router, and not "no route to host". Tables are replaced as a whole, in one transaction.

use anyhow::{Context, Result};

use super::Cut;
use super::nfnetlink::{Attributes, Message, Socket};
use crate::wiring::{UPLINK, port_name};

/// The queue, in a slow node's namespace, of what it sends and gets.
pub(super) const QUEUE: u16 = 0;

const TABLE: &str = "skep-lab";
const NFTABLES: u8 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;

/// `NFPROTO_*` of linux/netfilter.h: a table sees the packets of one.
#[derive(Debug, Clone, Copy)]
enum Family {
    Ipv4 = 2,
    Bridge = 7,
    Ipv6 = 10,
}

/// `NF_INET_*` and `NF_BR_*`, which have the same numbers.
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

/// What a rule ends with.
#[derive(Debug, Clone, Copy)]
enum Verdict {
    Drop,
    Accept,
    Queue,
}

/// `NF_*` of linux/netfilter.h.
const DROP: u32 = 0;
const ACCEPT: u32 = 1;

const ARP: [u8; 2] = [0x08, 0x06];
const IPV6: [u8; 2] = [0x86, 0xdd];
const ICMPV6: u8 = 58;
/// Neighbour solicitation and advertisement (RFC 4861): IPv6's ARP.
const NEIGHBOUR: [u8; 2] = [135, 136];

/// Beyond connection tracking, on both sides: it is not to see what is lost or late.
const FIRST: i32 = -400;
const LAST: i32 = 400;

/// A kernel's table under construction.
#[derive(Debug, Clone, Copy)]
struct Table(Family);

/// Makes the switch, whose namespace the calling thread is in, drop what is cut, and nothing else.
pub(super) fn cut(cuts: &[Cut]) -> Result<()> {
    let table = Table(Family::Bridge);
    let mut content = Vec::new();
    if !cuts.is_empty() {
        content.push(table.new_chain(Hook::Forward, 0));
        content.extend(spare_address_resolution(table));
    }
    for Cut { from, to } in cuts {
        content.push(table.new_rule(Hook::Forward, Verdict::Drop, |rule| {
            rule.meta(Meta::IifName, &link_name(&port_name(*from)));
            rule.meta(Meta::OifName, &link_name(&port_name(*to)));
        }));
    }
    replace(&[(table, content)]).context("cannot cut at the lab's switch: does the kernel have nftables for bridges?")
}

/// Makes the node, whose namespace the calling thread is in, queue what comes and goes by its link, or no more.
pub(super) fn queue(queued: bool) -> Result<()> {
    let tables = [Family::Ipv4, Family::Ipv6].map(|family| {
        let table = Table(family);
        let content = match queued {
            true => vec![
                table.new_chain(Hook::Prerouting, FIRST),
                table.new_rule(Hook::Prerouting, Verdict::Queue, |rule| rule.meta(Meta::IifName, &link_name(UPLINK))),
                table.new_chain(Hook::Postrouting, LAST),
                table.new_rule(Hook::Postrouting, Verdict::Queue, |rule| rule.meta(Meta::OifName, &link_name(UPLINK))),
            ],
            false => Vec::new(),
        };
        (table, content)
    });
    replace(&tables).context("cannot queue a node's packets: does the kernel have nftables with xt_NFQUEUE?")
}

/// One transaction. A table without content is not there afterwards.
fn replace(tables: &[(Table, Vec<Message>)]) -> Result<()> {
    let batch = |command| Message::new(0, command, 0, 0, u16::from(NFTABLES));
    let mut messages = vec![batch(BATCH_BEGIN)];
    for (table, content) in tables {
        // Made first, so that there is one to delete.
        messages.extend([table.new_table(), table.delete_table()]);
        if !content.is_empty() {
            messages.push(table.new_table());
            messages.extend_from_slice(content);
        }
    }
    messages.push(batch(BATCH_END));
    Socket::open()?.ask(&messages)
}

fn spare_address_resolution(table: Table) -> Vec<Message> {
    let accept = |add: &dyn Fn(&mut Expressions)| table.new_rule(Hook::Forward, Verdict::Accept, |rule| add(rule));
    let mut rules = vec![accept(&|rule| rule.meta(Meta::Protocol, &ARP))];
    rules.extend(NEIGHBOUR.map(|kind| {
        accept(&|rule| {
            rule.meta(Meta::Protocol, &IPV6);
            rule.network_byte(6, ICMPV6);
            rule.network_byte(40, kind);
        })
    }));
    rules
}

/// A link's name as the kernel compares it: `IFNAMSIZ` bytes.
fn link_name(name: &str) -> [u8; 16] {
    let mut padded = [0; 16];
    padded.iter_mut().zip(name.bytes()).for_each(|(to, byte)| *to = byte);
    padded
}

fn chain_name(hook: Hook) -> &'static str {
    match hook {
        Hook::Prerouting => "prerouting",
        Hook::Forward => "forward",
        Hook::Postrouting => "postrouting",
    }
}

impl Table {
    fn message(self, command: u16, flags: u16) -> Message {
        Message::new(NFTABLES, command, flags, self.0 as u8, 0).with(|list| {
            list.string(1, TABLE);
        })
    }

    fn new_table(self) -> Message {
        self.message(NEW_TABLE, CREATE)
    }

    fn delete_table(self) -> Message {
        self.message(DELETE_TABLE, 0)
    }

    fn new_chain(self, hook: Hook, priority: i32) -> Message {
        self.message(NEW_CHAIN, CREATE).with(|list| {
            list.string(3, chain_name(hook)).nested(4, |place| {
                place.u32(1, hook as u32).bytes(2, &priority.to_be_bytes());
            });
            list.u32(5, ACCEPT).string(7, "filter");
        })
    }

    fn new_rule(self, hook: Hook, verdict: Verdict, add: impl FnOnce(&mut Expressions)) -> Message {
        let mut expressions = Expressions(Attributes::default());
        add(&mut expressions);
        expressions.verdict(verdict);
        self.message(NEW_RULE, CREATE | APPEND).with(|list| {
            list.string(2, chain_name(hook)).list(4, expressions.0);
        })
    }
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
        let code = match verdict {
            Verdict::Drop => DROP,
            Verdict::Accept => ACCEPT,
            Verdict::Queue => return self.queue(),
        };
        self.push("immediate", |immediate| {
            immediate.u32(1, VERDICT_REGISTER).nested(2, |data| {
                data.nested(2, |verdict| {
                    verdict.u32(1, code);
                });
            });
        });
    }

    /// Through the target of iptables (`struct xt_NFQ_info`), which every kernel with queues has: nftables' own expression for
    /// it is left out of some.
    fn queue(&mut self) {
        self.push("target", |target| {
            target.string(1, "NFQUEUE").u32(2, 0).bytes(3, &QUEUE.to_ne_bytes());
        });
    }
}
