//! The static part of the tables `ip skep` and `ip6 skep`: their chains, rules and the shapes of their sets. Containers,
//! services and ports are data (`content`), so a change of an endpoint never changes a rule. The rules are written once,
//! for either family.
//!
//! ```text
//! prerouting  raw     spoof         a container's packet carries the container's own address, or is dropped
//! prerouting  nat     redirect      service addresses and published ports lead to a backend
//! prerouting  filter  steer         packets of published connections are marked with their way between nodes
//! output      nat     redirect_own  the same for the node's own processes, but for loopback addresses
//! output      route   steer_own     the same for the node's own packets, refusals among them
//! forward     filter  segments      TCP learns what fits between nodes
//! forward     filter  transit       networks see themselves only; published flows come in; idle services refuse
//! input       filter  inward        internal networks do not reach the node; idle published ports refuse
//! output      filter  outward       the same refusals for the node's own processes
//! postrouting nat     leave         the way out, and a container that reaches itself through its service
//! ```
//! What comes from other nodes is judged in the chains `from_tunnel` and `from_ingress` of `transit`.
//!
//! Backends are picked in chains `vip-N`, `any-N`, `addr-N`, one of each per number of slots in use (`picker`).

use std::net::Ipv6Addr;

use super::super::family::Family;
use super::expression::{
    Ct, DESTINATION_PORT, DESTINATION_SCOPE, Field, HARDWARE_SOURCE, ICMP_TYPE, Membership, Membership::*, Meta, R0,
    R1, R4, Rule, TCP_FLAGS, Verdict,
};
use crate::plan::{BACK_MARK, BACK_MASK, BRIDGE_PREFIX, INGRESS, INGRESS_PORT, LINK_PREFIX, PUBLISHED_MARK};
use crate::snapshot::{RESOLVER, RESOLVER_PORT};
use crate::tunnel;

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
const ESTABLISHED_OR_RELATED: u32 = 0b110;
const NEW: u32 = 0b1000;
const DESTINATION_WAS_REWRITTEN: u32 = 1 << 5;
const SYN: u8 = 0b10;
const SYN_AND_RESET: u8 = 0b110;
/// What the names of the two interfaces between nodes begin with, and no other interface's of ours.
const BETWEEN_NODES: &[u8] = b"sk-";

/// A chain and its place in the packet's path; no hook: only reached from others.
#[derive(Debug, Clone)]
pub struct Chain {
    pub name: String,
    pub hook: Option<Hook>,
    pub rules: Vec<Rule>,
}

#[derive(Debug, Clone, Copy)]
pub struct Hook {
    pub kind: &'static str,
    pub number: u32,
    pub priority: i32,
}

const PREROUTING: u32 = 0;
const INPUT: u32 = 1;
const FORWARD: u32 = 2;
const OUTPUT: u32 = 3;
const POSTROUTING: u32 = 4;

fn base(name: &str, kind: &'static str, number: u32, priority: i32, rules: Vec<Rule>) -> Chain {
    Chain { name: name.to_owned(), hook: Some(Hook { kind, number, priority }), rules }
}

/// The table's chains that are always there, in an order in which each is known before it is named.
pub fn chains(family: Family) -> Vec<Chain> {
    let datagram = Rule::new().reject_as_unreachable_port(family);
    let refuse = vec![Rule::new().protocol(TCP, R0).reject_with_reset(), datagram];
    vec![
        Chain { name: "refuse".to_owned(), hook: None, rules: refuse },
        Chain { name: "from_tunnel".to_owned(), hook: None, rules: from_tunnel(family) },
        Chain { name: "from_ingress".to_owned(), hook: None, rules: from_ingress() },
        Chain { name: "clamp".to_owned(), hook: None, rules: clamp() },
        base("spoof", "filter", PREROUTING, -300, spoof(family)),
        base("redirect", "nat", PREROUTING, -100, redirect(family, Rule::new)),
        base("steer", "filter", PREROUTING, -90, steer()),
        base("redirect_own", "nat", OUTPUT, -100, redirect(family, || not_to_loopback(family))),
        base("steer_own", "route", OUTPUT, -90, steer()),
        base("segments", "filter", FORWARD, -11, segments()),
        base("transit", "filter", FORWARD, -10, transit(family)),
        base("inward", "filter", INPUT, -10, inward(family)),
        base("outward", "filter", OUTPUT, -10, outward(family)),
        base("leave", "nat", POSTROUTING, 100, leave(family)),
    ]
}

/// The chains of a sandbox's own table: Docker's resolver address, port 53, leads to the helper's port.
pub fn sandbox_chains() -> Vec<Chain> {
    let to_helper = |protocol| {
        Rule::new()
            .field(Family::V4.destination(), R0)
            .equals(R0, &RESOLVER.octets())
            .protocol(protocol, R0)
            .field(DESTINATION_PORT, R0)
            .equals(R0, &53u16.to_be_bytes())
            .address(RESOLVER.into(), R0)
            .value(&RESOLVER_PORT.to_be_bytes(), R1)
            .redirect(Family::V4, R0, Some(R1))
    };
    vec![base("resolver", "nat", OUTPUT, -100, vec![to_helper(UDP), to_helper(TCP)])]
}

/// Links to containers are told from the node's own by name, and from each other by group.
fn from_container() -> Rule {
    Rule::new().meta(Meta::IifName, R0).equals(R0, LINK_PREFIX.as_bytes())
}

/// A register's bytes that equal no longer name.
fn exactly(interface: &str) -> Vec<u8> {
    [interface.as_bytes(), &[0]].concat()
}

fn from(interface: &str) -> Rule {
    Rule::new().meta(Meta::IifName, R0).equals(R0, &exactly(interface))
}

fn refuse() -> Verdict {
    Verdict::Goto("refuse".to_owned())
}

fn to_container() -> Rule {
    Rule::new().meta(Meta::OifName, R0).equals(R0, LINK_PREFIX.as_bytes())
}

/// Whether this link's network has this address, as the key of `inside` in R0 and R1.
fn inside(rule: Rule, group: Meta, address: Field, membership: Membership) -> Rule {
    rule.meta(group, R0).field(address, R1).member("inside", R0, membership)
}

/// What is routed to a network's bridge is for an address that no container here has. Refused at once, a client
/// need not wait for a container that is gone.
fn to_nobody(rule: Rule) -> Rule {
    rule.meta(Meta::OifName, R0).equals(R0, BRIDGE_PREFIX.as_bytes())
}

/// What is behind the tunnel, but behind no node: a service that is gone, a container that never was.
fn to_no_node(family: Family, rule: Rule) -> Rule {
    let through = rule.meta(Meta::OifName, R0).equals(R0, &exactly(tunnel::INTERFACE));
    through.field(family.destination(), R0).member("elsewhere", R0, NotIn)
}

fn only_established(rule: Rule) -> Rule {
    rule.ct(Ct::State, R0).bits(R0, &ESTABLISHED_OR_RELATED.to_ne_bytes(), &[0; 4]).differs(R0, &[0; 4])
}

fn established() -> Rule {
    only_established(Rule::new()).verdict(Verdict::Accept)
}

fn spoof(family: Family) -> Vec<Rule> {
    let foreign = from_container().meta(Meta::IifName, R0).field(family.source(), R4).member("sources", R0, NotIn);
    let elsewhere = [LINK_PREFIX.as_bytes(), BETWEEN_NODES, b"lo\0"];
    let elsewhere =
        elsewhere.into_iter().fold(Rule::new().meta(Meta::IifName, R0), |rule, ours| rule.differs(R0, ours));
    let pretender = elsewhere.field(family.source(), R0).member("given", R0, In);
    [foreign, pretender].map(|rule| rule.counter().verdict(Verdict::Drop)).into()
}

fn marked(rule: Rule, bits: u32) -> Rule {
    rule.ct(Ct::Mark, R0).bits(R0, &bits.to_ne_bytes(), &[0; 4]).differs(R0, &[0; 4])
}

/// All that is between an ordinary packet and its route are the first two rules.
fn steer() -> Vec<Rule> {
    let unmarked =
        |rule: Rule, bits: u32| rule.ct(Ct::Mark, R0).bits(R0, &bits.to_ne_bytes(), &[0; 4]).equals(R0, &[0; 4]);
    let of_side = |side: u8| Rule::new().ct(Ct::Direction, R0).equals(R0, &[side]);
    let is_new = from(INGRESS).ct(Ct::State, R0).bits(R0, &NEW.to_ne_bytes(), &[0; 4]).differs(R0, &[0; 4]);
    vec![
        // The sender is kept for as long as the connection, whoever would send for it later.
        is_new.field(HARDWARE_SOURCE, R0).map("senders", R0, R4).set_ct(Ct::Mark, R4),
        unmarked(Rule::new(), PUBLISHED_MARK).verdict(Verdict::Accept),
        unmarked(of_side(0), BACK_MARK)
            .meta(Meta::Mark, R0)
            .bits(R0, &(!PUBLISHED_MARK).to_ne_bytes(), &PUBLISHED_MARK.to_ne_bytes())
            .set_meta(Meta::Mark, R0)
            .verdict(Verdict::Accept),
        marked(of_side(1), BACK_MARK)
            .ct(Ct::Mark, R0)
            .bits(R0, &BACK_MASK.to_ne_bytes(), &[0; 4])
            .set_meta(Meta::Mark, R0),
    ]
}

fn segments() -> Vec<Rule> {
    let handshake = Rule::new().protocol(TCP, R0).field(TCP_FLAGS, R0).bits(R0, &[SYN_AND_RESET], &[0]);
    vec![handshake.equals(R0, &[SYN]).verdict(Verdict::Goto("clamp".to_owned()))]
}

fn clamp() -> Vec<Rule> {
    let between = |meta| Rule::new().meta(meta, R0).equals(R0, BETWEEN_NODES);
    [Meta::OifName, Meta::IifName].map(|meta| between(meta).clamp_segments(R0)).into()
}

fn redirect(family: Family, start: impl Fn() -> Rule) -> Vec<Rule> {
    let local = || not_to_link(family, start()).destination_is_local(R0);
    vec![
        Rule::new().field(family.destination(), R0).verdict_map("vips", R0),
        port(family, local().field(family.destination(), R0)).verdict_map("ports", R0),
        any_address(family, local()).verdict_map("ports", R0),
    ]
}

/// The key of a port published on every address: the unspecified one stands for all.
fn any_address(family: Family, rule: Rule) -> Rule {
    port(family, rule.address(family.unspecified(), R0))
}

/// The key of a published port whose address is in R0.
fn port(family: Family, address: Rule) -> Rule {
    let next = family.after(R0);
    address.meta(Meta::L4Proto, next).field(DESTINATION_PORT, next + 1)
}

/// Connections to loopback addresses are the net helper's: the kernel would not route a rewritten one off `lo`.
fn not_to_loopback(family: Family) -> Rule {
    let to = Rule::new().field(family.destination(), R0);
    match family {
        Family::V4 => to.bits(R0, &[255, 0, 0, 0], &[0; 4]).differs(R0, &[127, 0, 0, 0]),
        Family::V6 => to.differs(R0, &Ipv6Addr::LOCALHOST.octets()),
    }
}

/// Connections to a link's own addresses are the net helper's too: they come from such, which no router passes on.
fn not_to_link(family: Family, rule: Rule) -> Rule {
    match family {
        Family::V4 => rule,
        Family::V6 => {
            let scope = rule.field(DESTINATION_SCOPE, R0).bits(R0, &[0xff, 0xc0, 0, 0], &[0; 4]);
            scope.differs(R0, &[0xfe, 0x80, 0, 0])
        }
    }
}

fn transit(family: Family) -> Vec<Rule> {
    let internal = |group| Rule::new().meta(group, R0).member("internal", R0, In);
    let idle = from_container().field(family.destination(), R0).member("idle_vips", R0, In);
    let abroad = from_container().field(family.destination(), R0).member("containers", R0, In);
    let established_to_nobody = only_established(to_nobody(Rule::new()));
    let to_nodes = Rule::new().meta(Meta::OifName, R0).equals(R0, BETWEEN_NODES);
    vec![
        established_to_nobody.verdict(refuse()),
        established(),
        inside(internal(Meta::IifGroup), Meta::IifGroup, family.destination(), NotIn).verdict(Verdict::Drop),
        inside(internal(Meta::OifGroup), Meta::OifGroup, family.source(), NotIn).verdict(Verdict::Drop),
        inside(idle, Meta::IifGroup, family.destination(), In).verdict(refuse()),
        from(tunnel::INTERFACE).verdict(Verdict::Goto("from_tunnel".to_owned())),
        from(INGRESS).verdict(Verdict::Goto("from_ingress".to_owned())),
        marked(Rule::new(), PUBLISHED_MARK).verdict(Verdict::Accept),
        inside(abroad, Meta::IifGroup, family.destination(), NotIn).counter().verdict(Verdict::Drop),
        inside(to_container(), Meta::OifGroup, family.source(), NotIn).counter().verdict(Verdict::Drop),
        // Nor is this node anybody else's way to other nodes.
        inside(to_nodes, Meta::IifGroup, family.destination(), NotIn).counter().verdict(Verdict::Drop),
        to_nobody(from_container()).verdict(refuse()),
        to_nobody(Rule::new()).verdict(Verdict::Drop),
        // Of its own network, for all else was dropped.
        to_no_node(family, Rule::new()).verdict(refuse()),
    ]
}

/// From another node's containers to those of the same network here, and from the node itself; no further.
fn from_tunnel(family: Family) -> Vec<Rule> {
    let from_node = || Rule::new().field(family.source(), R0).member("nodes", R0, In);
    let neighbour = |rule| inside(rule, Meta::OifGroup, family.source(), In);
    vec![
        neighbour(to_container()).verdict(Verdict::Accept),
        neighbour(to_nobody(Rule::new())).verdict(refuse()),
        from_node().meta(Meta::OifName, R0).equals(R0, LINK_PREFIX.as_bytes()).verdict(Verdict::Accept),
        to_nobody(from_node()).verdict(refuse()),
        Rule::new().counter().verdict(Verdict::Drop),
    ]
}

/// From clients of another node's published ports, to containers' ports that are published.
fn from_ingress() -> Vec<Rule> {
    let published = || marked(Rule::new(), PUBLISHED_MARK);
    let entrance = published().meta(Meta::OifName, R0).equals(R0, LINK_PREFIX.as_bytes());
    vec![
        to_nobody(published()).verdict(refuse()),
        entrance
            .meta(Meta::L4Proto, R0)
            .field(DESTINATION_PORT, R1)
            .member("entrances", R0, In)
            .verdict(Verdict::Accept),
        Rule::new().counter().verdict(Verdict::Drop),
    ]
}

fn inward(family: Family) -> Vec<Rule> {
    let frame = Rule::new().protocol(UDP, R0).field(DESTINATION_PORT, R0).equals(R0, &INGRESS_PORT.to_be_bytes());
    let port = port(family, Rule::new().field(family.destination(), R0));
    vec![
        // Even of an established flow: what is in such a packet counts as another node's.
        frame.meta(Meta::IifName, R0).differs(R0, &exactly(tunnel::INTERFACE)).counter().verdict(Verdict::Drop),
        established(),
        Rule::new().meta(Meta::IifGroup, R0).member("internal", R0, In).verdict(Verdict::Drop),
        // Other nodes' own processes may ask this node's, their containers may not.
        from(tunnel::INTERFACE).field(family.source(), R0).member("nodes", R0, NotIn).counter().verdict(Verdict::Drop),
        from(INGRESS).counter().verdict(Verdict::Drop),
        port.member("idle_ports", R0, In).verdict(refuse()),
        any_address(family, Rule::new()).member("idle_ports", R0, In).verdict(refuse()),
    ]
}

fn outward(family: Family) -> Vec<Rule> {
    let rewritten = DESTINATION_WAS_REWRITTEN.to_ne_bytes();
    // Here a packet still has the interface that it had before it was rewritten.
    let as_it_was = || Rule::new().ct(Ct::Status, R0).bits(R0, &rewritten, &[0; 4]).equals(R0, &[0; 4]);
    let (control, redirection) = family.redirection();
    vec![
        // Containers reach their neighbours through the node on purpose; the kernel might advise them not to.
        to_container().protocol(control, R0).field(ICMP_TYPE, R0).equals(R0, &[redirection]).verdict(Verdict::Drop),
        Rule::new().field(family.destination(), R0).member("idle_vips", R0, In).verdict(refuse()),
        to_nobody(as_it_was()).verdict(refuse()),
        to_no_node(family, as_it_was()).field(family.destination(), R0).member("nodes", R0, NotIn).verdict(refuse()),
    ]
}

fn leave(family: Family) -> Vec<Rule> {
    let rewritten = DESTINATION_WAS_REWRITTEN.to_ne_bytes();
    let by = |interface| Rule::new().meta(Meta::OifName, R0).equals(R0, &exactly(interface));
    vec![
        Rule::new()
            .ct(Ct::Status, R0)
            .bits(R0, &rewritten, &[0; 4])
            .differs(R0, &[0; 4])
            .field(family.source(), R0)
            .field(family.destination(), family.after(R0))
            .member("hairpin", R0, In)
            .masquerade(),
        // A client there would take the container's answer for its own node's and not send it back here.
        by(INGRESS)
            .field(family.source(), R0)
            .field(family.destination(), family.after(R0))
            .member("returning", R0, In)
            .masquerade(),
        // The tunnel takes no other source; without `sk-ingress` a published port is better served so than not.
        by(tunnel::INTERFACE).field(family.source(), R0).member("containers", R0, NotIn).masquerade(),
        // A container on internal networks has no way to the node's address but its gateway's.
        Rule::new()
            .meta(Meta::OifGroup, R0)
            .member("internal", R0, In)
            .field(family.source(), R0)
            .member("nodes", R0, In)
            .masquerade(),
        Rule::new()
            .meta(Meta::OifName, R0)
            .differs(R0, LINK_PREFIX.as_bytes())
            .differs(R0, BETWEEN_NODES)
            .field(family.source(), R0)
            .member("containers", R0, In)
            .field(family.destination(), R0)
            .member("containers", R0, NotIn)
            .masquerade(),
    ]
}
