//! The static part of the table `ip skep`: its chains, rules and the shapes of its sets. Containers, services and
//! ports are data (`content`), so a change of an endpoint never changes a rule.
//!
//! ```text
//! prerouting  raw     spoof         a container's packet carries the container's own address, or is dropped
//! prerouting  nat     redirect      service addresses and published ports lead to a backend
//! output      nat     redirect_own  the same for the node's own processes, but for loopback addresses
//! forward     filter  transit       networks see themselves only; published flows come in; idle services refuse
//! input       filter  inward        internal networks do not reach the node; idle published ports refuse
//! output      filter  outward       the same refusals for the node's own processes
//! postrouting nat     leave         the way out, and a container that reaches itself through its service
//! ```
//! Backends are picked in chains `vip-N`, `any-N`, `addr-N`, one of each per number of backends in use: a random slot
//! below N is part of the key into the map of backends.

use std::net::Ipv4Addr;

use super::expression::{
    Ct, DESTINATION, DESTINATION_PORT, Field, ICMP_TYPE, Membership, Membership::*, Meta, R0, R1, R2, R3, R4, R5, Rule,
    SOURCE, Verdict,
};
use crate::plan::{BRIDGE_PREFIX, LINK_PREFIX};
use crate::snapshot::{RESOLVER, RESOLVER_PORT};

/// The bit of a connection's mark that says that it came for a published port.
pub const PUBLISHED_MARK: u32 = 0x100;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMP_REDIRECT: u8 = 5;
const ESTABLISHED_OR_RELATED: u32 = 0b110;
const DESTINATION_WAS_REWRITTEN: u32 = 1 << 5;

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
pub fn chains() -> Vec<Chain> {
    let refuse = vec![Rule::new().protocol(TCP, R0).reject_with_reset(), Rule::new().reject_as_unreachable_port()];
    vec![
        Chain { name: "refuse".to_owned(), hook: None, rules: refuse },
        base("spoof", "filter", PREROUTING, -300, spoof()),
        base("redirect", "nat", PREROUTING, -100, redirect(Rule::new)),
        base("redirect_own", "nat", OUTPUT, -100, redirect(not_to_loopback)),
        base("transit", "filter", FORWARD, -10, transit()),
        base("inward", "filter", INPUT, -10, inward()),
        base("outward", "filter", OUTPUT, -10, outward()),
        base("leave", "nat", POSTROUTING, 100, leave()),
    ]
}

/// The chains of a sandbox's own table: Docker's resolver address, port 53, leads to the helper's port.
pub fn sandbox_chains() -> Vec<Chain> {
    let to_helper = |protocol| {
        Rule::new()
            .field(DESTINATION, R0)
            .equals(R0, &RESOLVER.octets())
            .protocol(protocol, R0)
            .field(DESTINATION_PORT, R0)
            .equals(R0, &53u16.to_be_bytes())
            .address(RESOLVER, R0)
            .value(&RESOLVER_PORT.to_be_bytes(), R1)
            .redirect(R0, Some(R1))
    };
    vec![base("resolver", "nat", OUTPUT, -100, vec![to_helper(UDP), to_helper(TCP)])]
}

/// Links to containers are told from the node's own by name, and from each other by group.
fn from_container() -> Rule {
    Rule::new().meta(Meta::IifName, R0).equals(R0, LINK_PREFIX.as_bytes())
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

fn only_established(rule: Rule) -> Rule {
    rule.ct(Ct::State, R0).bits(R0, &ESTABLISHED_OR_RELATED.to_ne_bytes(), &[0; 4]).differs(R0, &[0; 4])
}

fn established() -> Rule {
    only_established(Rule::new()).verdict(Verdict::Accept)
}

fn spoof() -> Vec<Rule> {
    let foreign = from_container().meta(Meta::IifName, R0).field(SOURCE, R4).member("sources", R0, NotIn);
    vec![foreign.counter().verdict(Verdict::Drop)]
}

fn redirect(start: impl Fn() -> Rule) -> Vec<Rule> {
    let local = || start().destination_is_local(R0);
    vec![
        Rule::new().field(DESTINATION, R0).verdict_map("vips", R0),
        local().field(DESTINATION, R0).meta(Meta::L4Proto, R1).field(DESTINATION_PORT, R2).verdict_map("ports", R0),
        any_address(local()).verdict_map("ports", R0),
    ]
}

/// The key of a port published on every address: the unspecified one stands for all.
fn any_address(rule: Rule) -> Rule {
    rule.address(Ipv4Addr::UNSPECIFIED, R0).meta(Meta::L4Proto, R1).field(DESTINATION_PORT, R2)
}

/// Connections to loopback addresses are the net helper's: the kernel would not route a rewritten one off `lo`.
fn not_to_loopback() -> Rule {
    Rule::new().field(DESTINATION, R0).bits(R0, &[255, 0, 0, 0], &[0; 4]).differs(R0, &[127, 0, 0, 0])
}

fn transit() -> Vec<Rule> {
    let published = PUBLISHED_MARK.to_ne_bytes();
    let internal = |group| Rule::new().meta(group, R0).member("internal", R0, In);
    let idle = from_container().field(DESTINATION, R0).member("idle_vips", R0, In);
    let abroad = from_container().field(DESTINATION, R0).member("containers", R0, In);
    let established_to_nobody = only_established(to_nobody(Rule::new()));
    vec![
        established_to_nobody.verdict(Verdict::Goto("refuse".to_owned())),
        established(),
        inside(internal(Meta::IifGroup), Meta::IifGroup, DESTINATION, NotIn).verdict(Verdict::Drop),
        inside(internal(Meta::OifGroup), Meta::OifGroup, SOURCE, NotIn).verdict(Verdict::Drop),
        inside(idle, Meta::IifGroup, DESTINATION, In).verdict(Verdict::Goto("refuse".to_owned())),
        Rule::new().ct(Ct::Mark, R0).bits(R0, &published, &[0; 4]).differs(R0, &[0; 4]).verdict(Verdict::Accept),
        inside(abroad, Meta::IifGroup, DESTINATION, NotIn).counter().verdict(Verdict::Drop),
        inside(to_container(), Meta::OifGroup, SOURCE, NotIn).counter().verdict(Verdict::Drop),
        to_nobody(from_container()).verdict(Verdict::Goto("refuse".to_owned())),
        to_nobody(Rule::new()).verdict(Verdict::Drop),
    ]
}

fn inward() -> Vec<Rule> {
    let refuse = || Verdict::Goto("refuse".to_owned());
    let port = Rule::new().field(DESTINATION, R0).meta(Meta::L4Proto, R1).field(DESTINATION_PORT, R2);
    vec![
        established(),
        Rule::new().meta(Meta::IifGroup, R0).member("internal", R0, In).verdict(Verdict::Drop),
        port.member("idle_ports", R0, In).verdict(refuse()),
        any_address(Rule::new()).member("idle_ports", R0, In).verdict(refuse()),
    ]
}

fn outward() -> Vec<Rule> {
    vec![
        // Containers reach their neighbours through the node on purpose; the kernel might advise them not to.
        to_container().protocol(ICMP, R0).field(ICMP_TYPE, R0).equals(R0, &[ICMP_REDIRECT]).verdict(Verdict::Drop),
        Rule::new().field(DESTINATION, R0).member("idle_vips", R0, In).verdict(Verdict::Goto("refuse".to_owned())),
    ]
}

fn leave() -> Vec<Rule> {
    let rewritten = DESTINATION_WAS_REWRITTEN.to_ne_bytes();
    vec![
        Rule::new()
            .ct(Ct::Status, R0)
            .bits(R0, &rewritten, &[0; 4])
            .differs(R0, &[0; 4])
            .field(SOURCE, R0)
            .field(DESTINATION, R1)
            .member("hairpin", R0, In)
            .masquerade(),
        Rule::new()
            .meta(Meta::OifName, R0)
            .differs(R0, LINK_PREFIX.as_bytes())
            .field(SOURCE, R0)
            .member("containers", R0, In)
            .field(DESTINATION, R0)
            .member("containers", R0, NotIn)
            .masquerade(),
    ]
}

/// Which map a picking chain looks into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pick {
    /// A service's address; the port stays as it is.
    Vip,
    /// A port published on every address.
    AnyAddress,
    /// A port published on one address.
    OneAddress,
}

/// The chain that picks one of `backends`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Picker {
    pub pick: Pick,
    pub backends: u32,
}

impl Picker {
    pub fn name(self) -> String {
        let prefix = match self.pick {
            Pick::Vip => "vip",
            Pick::AnyAddress => "any",
            Pick::OneAddress => "addr",
        };
        format!("{prefix}-{}", self.backends)
    }

    pub fn chain(self) -> Chain {
        let rule = match self.pick {
            Pick::Vip => Rule::new()
                .field(DESTINATION, R0)
                .random(self.backends, R1)
                .map("vip_backends", R0, R4)
                .redirect(R4, None),
            Pick::AnyAddress => self.port(Rule::new().address(Ipv4Addr::UNSPECIFIED, R0)),
            Pick::OneAddress => self.port(Rule::new().field(DESTINATION, R0)),
        };
        Chain { name: self.name(), hook: None, rules: vec![rule] }
    }

    fn port(self, address: Rule) -> Rule {
        address
            .meta(Meta::L4Proto, R1)
            .field(DESTINATION_PORT, R2)
            .random(self.backends, R3)
            .map("port_backends", R0, R4)
            // Only now is it sure that there is a backend, and R0 is free.
            .ct(Ct::Mark, R0)
            .bits(R0, &(!PUBLISHED_MARK).to_ne_bytes(), &PUBLISHED_MARK.to_ne_bytes())
            .set_ct(Ct::Mark, R0)
            .redirect(R4, Some(R5))
    }
}
