//! Living beside others' firewalls. A packet must pass every table: ours cannot overrule another's drop.
//!
//! Docker sets the policy of `ip filter FORWARD` to drop, which would cut our containers off; it also keeps the chain
//! DOCKER-USER for what its administrator wants accepted before that, and never changes its rules. So that is where
//! we accept what goes through containers' links (our own table has judged it by then). What else drops forwarded packets
//! is reported, not touched: it was somebody's decision.

use std::fmt;
use std::fs;

use super::family::Family;
use super::nft::{self, Location, Meta, R0, Rule, Verdict};
use crate::netlink::{NetlinkError, Socket};
use crate::plan::{INGRESS, LINK_PREFIX};

/// The comment on our rules in others' chains, as `nft` stores comments: a type (0), a length, text and NUL.
const MARK: &[u8] = b"\0\x05skep\0";
const DOCKER_CHAIN: &str = "DOCKER-USER";

/// Something outside our reach that may stop containers' packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// Another firewall's forward chain drops by default and offers no place for our exception.
    /// The table is told with its family, as `nft` does.
    ForwardDropped { table: String, chain: String },
    /// The kernel has no VXLAN.
    NoVxlan,
    /// A network has IPv6, and the kernel has none.
    NoIpv6,
    /// The old iptables interface is in use; whether it drops forwarded packets cannot be seen over nftables.
    LegacyIptables,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ForwardDropped { table, chain } => write!(
                f,
                "the firewall's chain `{table} {chain}` drops forwarded packets, so containers reach neither each \
                 other nor the outside; allow what goes in or out by interfaces named {LINK_PREFIX}* and {INGRESS}"
            ),
            Self::NoVxlan => write!(
                f,
                "this kernel has no vxlan module, so containers on other nodes see this node's address instead of that of \
                 a published port's client, and this node serves no clients of other nodes; install the module \
                 (linux-modules-extra-raspi for Ubuntu on a Raspberry Pi)"
            ),
            Self::NoIpv6 => f.write_str(
                "this kernel has no IPv6, or no nftables for it, so containers on this node have IPv4 addresses alone, also \
                 on networks that have both; boot without ipv6.disable=1, or install the kernel's modules for nf_tables",
            ),
            Self::LegacyIptables => write!(
                f,
                "iptables-legacy has a filter table on this node; if its FORWARD chain drops packets, allow what goes \
                 in or out by interfaces named {LINK_PREFIX}+ and {INGRESS}"
            ),
        }
    }
}

/// Makes sure that Docker's policy lets our packets through; says what else may not.
/// `families` are those that containers have here.
pub fn settle(socket: &mut Socket, families: &[Family]) -> Result<Vec<Warning>, NetlinkError> {
    let mut chains = Vec::new();
    for family in families {
        chains.extend(nft::list_chains(*family, socket)?);
    }
    let mut warnings = Vec::new();
    for forward in chains.iter().filter(|at| at.drops && at.table != nft::TABLE && is_forward(&at.chain)) {
        let of_docker =
            |at: &&Location| (at.family, &at.table) == (forward.family, &forward.table) && at.chain == DOCKER_CHAIN;
        match chains.iter().find(of_docker) {
            Some(exceptions) => accept_ours(socket, exceptions)?,
            None => {
                let family = match forward.family {
                    Family::V4 => "ip",
                    Family::V6 => "ip6",
                };
                let table = format!("{family} {}", forward.table);
                warnings.push(Warning::ForwardDropped { table, chain: forward.chain.clone() });
            }
        }
    }
    let legacy = fs::read_to_string("/proc/self/net/ip_tables_names").unwrap_or_default();
    if legacy.lines().any(|table| table == "filter") {
        warnings.push(Warning::LegacyIptables);
    }
    Ok(warnings)
}

/// Takes our exceptions out of Docker's chain again.
pub fn withdraw(socket: &mut Socket) -> Result<(), NetlinkError> {
    for family in Family::BOTH {
        for at in nft::list_chains(family, socket)?.iter().filter(|at| at.chain == DOCKER_CHAIN) {
            let removals: Vec<_> = ours(socket, at)?.into_iter().map(|handle| nft::remove_rule(at, handle)).collect();
            if !removals.is_empty() {
                socket.transaction(&removals)?;
            }
        }
    }
    Ok(())
}

fn is_forward(chain: &str) -> bool {
    chain.eq_ignore_ascii_case("forward")
}

fn accept_ours(socket: &mut Socket, at: &Location) -> Result<(), NetlinkError> {
    // The same expressions that `iptables -i skv-+ -j ACCEPT` makes, so that iptables can still list the chain.
    let accept = |meta, interface: &[u8]| {
        let accept = Rule::new().meta(meta, R0).equals(R0, interface).counter().verdict(Verdict::Accept);
        nft::new_rule_first(at, &accept, MARK)
    };
    let exactly = format!("{INGRESS}\0");
    let interfaces = [LINK_PREFIX.as_bytes(), exactly.as_bytes()];
    let wanted: Vec<_> =
        interfaces.iter().flat_map(|name| [Meta::IifName, Meta::OifName].map(|meta| accept(meta, name))).collect();
    let there = ours(socket, at)?;
    if there.len() == wanted.len() {
        return Ok(());
    }
    // An earlier build's, or what somebody left of them.
    let removals = there.into_iter().map(|handle| nft::remove_rule(at, handle));
    socket.transaction(&removals.chain(wanted).collect::<Vec<_>>())
}

/// The handles of our rules in another's chain.
fn ours(socket: &mut Socket, at: &Location) -> Result<Vec<u64>, NetlinkError> {
    let rules = nft::list_rules(socket, at)?;
    Ok(rules.into_iter().filter(|(_, mark)| mark == MARK).map(|(handle, _)| handle).collect())
}
