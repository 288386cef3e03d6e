//! What nodes measured, judged: pure. A way is looked at from both of its ends, for only the end that hears nothing is
//! the one that something keeps packets from.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use skep_api::{Diagnosis, Examined, NodeFindings, PeerProbe, ProbeClock, Reached};
use skep_model::NodeId;

use crate::cli::firewall;
use crate::cli::output::time;

/// Clocks are told in whole seconds, and the answer takes its time.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(2);
/// From this share on.
const LOSS_MIN_PERCENT: u32 = 10;
/// Managers further from each other elect and write slowly.
const MANAGER_ROUND_TRIP_MAX: Duration = Duration::from_millis(100);
/// What the tunnel adds to a packet over IPv4 and over IPv6.
const OVERHEAD: (u16, u16) = (60, 80);

/// Something that is to be mended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Those concerned, by their names; empty: the cluster.
    pub nodes: Vec<String>,
    pub what: String,
    /// The figures, where there are some.
    pub measured: String,
    /// The one command or change that mends it.
    pub mend: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    pub findings: Vec<Finding>,
    /// How much was looked at and is well.
    pub well: usize,
}

impl Verdict {
    fn note(&mut self, findings: Vec<Finding>, looked_at: usize) {
        self.well += looked_at.saturating_sub(findings.len());
        self.findings.extend(findings);
    }
}

pub fn judge(diagnosis: &Diagnosis) -> Verdict {
    let rounds = Rounds::of(diagnosis);
    let mut verdict = Verdict::default();
    for node in &diagnosis.nodes {
        verdict.note(rounds.node(node), 3);
    }
    let managers = diagnosis.nodes.iter().filter_map(|node| node.examined.as_ref()).map(|it| it.managers.len()).sum();
    verdict.note(rounds.managers(), managers);
    let ways = rounds.probes.len();
    let dead = rounds.dead_ways();
    let dead_count = dead.len();
    verdict.note(rounds.tunnel(&dead), ways);
    verdict.note(rounds.loss(), ways.saturating_sub(dead_count));
    verdict.note(rounds.narrow(), ways.saturating_sub(dead_count));
    verdict.note(rounds.far_managers(), 0);
    verdict
}

/// What was told, by who told it.
struct Rounds<'a> {
    nodes: BTreeMap<NodeId, &'a NodeFindings>,
    /// Of the way from the first node to the second, by the first.
    probes: BTreeMap<(NodeId, NodeId), &'a PeerProbe>,
}

/// A manager's control port, and those that do not reach it.
struct Missed {
    manager: Option<NodeId>,
    reached: Reached,
    by: Vec<NodeId>,
}

/// No packet of `from` reaches `to`; or, where nobody can tell, none comes back from there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Dead {
    to: NodeId,
    from: NodeId,
    why: Why,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Why {
    /// `to` heard nothing of `from`.
    Unheard,
    /// `to` hears `from`, and does not answer.
    Unanswered,
    /// Only `from` could be asked.
    OneSided,
}

impl<'a> Rounds<'a> {
    fn of(diagnosis: &'a Diagnosis) -> Self {
        let nodes = diagnosis.nodes.iter().map(|node| (node.node, node)).collect();
        let told = diagnosis.nodes.iter().filter_map(|node| Some((node.node, node.examined.as_ref()?)));
        let probes = told.flat_map(|(from, examined)| examined.peers.iter().map(move |to| ((from, to.node), to)));
        Self { nodes, probes: probes.collect() }
    }

    fn name(&self, node: NodeId) -> String {
        let name = self.nodes.get(&node).map(|node| node.hostname.as_str()).unwrap_or_default();
        if name.is_empty() { node.short() } else { name.to_owned() }
    }

    fn names(&self, nodes: impl IntoIterator<Item = NodeId>) -> String {
        let mut names: Vec<String> = nodes.into_iter().map(|node| self.name(node)).collect();
        names.sort();
        names.join(", ")
    }

    fn examined(&self, node: NodeId) -> Option<&'a Examined> {
        self.nodes.get(&node)?.examined.as_ref()
    }

    /// Where the node is reached, as others know it.
    fn address(&self, node: NodeId) -> String {
        let known = self.nodes.get(&node).map(|node| node.address.clone()).filter(|address| !address.is_empty());
        let probed = || self.probes.iter().find(|((_, to), _)| *to == node).and_then(|(_, probe)| probe.endpoint);
        known.or_else(|| probed().map(|endpoint| endpoint.ip().to_string())).unwrap_or_else(|| self.name(node))
    }

    fn node(&self, node: &NodeFindings) -> Vec<Finding> {
        let name = self.name(node.node);
        let finding = |what: &str, measured: String, mend: String| Finding {
            nodes: vec![name.clone()],
            what: what.to_owned(),
            measured,
            mend,
        };
        if let Some(level) = node.older_level {
            let measured = format!("its skep is of level {level}");
            return vec![finding("cannot examine itself", measured, "update skep on it".to_owned())];
        }
        if let Some(why) = &node.silent {
            let mend = "see there whether its daemon runs and reaches a manager: skep info".to_owned();
            return vec![finding("does not answer", why.clone(), mend)];
        }
        let complaints = node.examined.iter().flat_map(|examined| &examined.complaints);
        let complaints = complaints.map(|it| finding(&it.what, String::new(), it.mend.clone()));
        let clock = node.clock.and_then(clock_off).map(|(difference, side)| {
            let set = node.examined.as_ref().and_then(|examined| examined.clock_synchronised);
            let nobody = if set == Some(false) { ", and nobody sets it" } else { "" };
            let measured = format!("{} {side}{nobody}", time::rough(difference));
            finding(
                "its clock is not that of the manager which was asked",
                measured,
                "timedatectl set-ntp true".to_owned(),
            )
        });
        complaints.chain(clock).collect()
    }

    /// Control ports, grouped by who is not reached.
    fn managers(&self) -> Vec<Finding> {
        let mut missed: BTreeMap<(&str, &str), Missed> = BTreeMap::new();
        for (from, examined) in self.nodes.iter().filter_map(|(id, node)| Some((*id, node.examined.as_ref()?))) {
            for probe in examined.managers.iter().filter(|probe| probe.reached != Reached::Open) {
                let entry = missed.entry((&probe.manager.address, word(probe.reached)));
                let first = || Missed { manager: probe.manager.node, reached: probe.reached, by: Vec::new() };
                entry.or_insert_with(first).by.push(from);
            }
        }
        let finding = |((address, _), Missed { manager, reached, by: from }): ((&str, &str), Missed)| {
            let name = manager.map_or(address.to_owned(), |node| self.name(node));
            let port = address.rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or(7377);
            let mend = match reached {
                Reached::Refused => format!("start skep on {name}, or let its firewall accept {port}/tcp"),
                Reached::Silent => {
                    let firewall = manager.and_then(|node| self.examined(node)?.firewall);
                    let from: Vec<String> = from.iter().map(|node| self.address(*node)).collect();
                    let from: Vec<&str> = from.iter().map(String::as_str).collect();
                    format!("on {name}: {}", firewall::open(firewall, &from, port, "tcp"))
                }
                Reached::NoWay => format!("give {} a route to {address}", self.names(from.clone())),
                Reached::Open => unreachable!("only what was missed is here"),
            };
            let from_names = self.names(from);
            Finding {
                nodes: vec![name],
                what: format!("{from_names} cannot connect to its control port"),
                measured: format!("{address}: {}", word(reached)),
                mend,
            }
        };
        missed.into_iter().map(finding).collect()
    }

    /// Ways that nothing comes back by, from whichever end.
    fn dead_ways(&self) -> BTreeSet<Dead> {
        let mut dead = BTreeSet::new();
        for ((from, to), probe) in self.probes.iter().filter(|(_, probe)| probe.answered == 0) {
            let back = self.probes.get(&(*to, *from));
            if self.nodes.get(to).is_some_and(|node| node.silent.is_some()) {
                // It is told of already, and may well be switched off.
                continue;
            }
            let Some(back) = back else {
                dead.insert(Dead { to: *to, from: *from, why: Why::OneSided });
                continue;
            };
            let (there, here) = (back.received_bytes, probe.received_bytes);
            if there == 0 {
                dead.insert(Dead { to: *to, from: *from, why: Why::Unheard });
            }
            if here == 0 {
                dead.insert(Dead { to: *from, from: *to, why: Why::Unheard });
            }
            if there > 0 && here > 0 {
                dead.insert(Dead { to: *to, from: *from, why: Why::Unanswered });
            }
        }
        dead
    }

    fn tunnel(&self, dead: &BTreeSet<Dead>) -> Vec<Finding> {
        let mut grouped: BTreeMap<(NodeId, Why), Vec<NodeId>> = BTreeMap::new();
        dead.iter().for_each(|Dead { to, from, why }| grouped.entry((*to, *why)).or_default().push(*from));
        let finding = |((to, why), from): ((NodeId, Why), Vec<NodeId>)| {
            let (name, names) = (self.name(to), self.names(from.clone()));
            let examined = self.examined(to);
            let port = examined.map_or(7377, |examined| examined.tunnel_port);
            let sent = from.iter().filter_map(|from| self.probes.get(&(*from, to))).map(|probe| probe.sent).max();
            let lost = format!("0 of {} packets of each answered", sent.unwrap_or_default());
            let addresses: Vec<String> = from.iter().map(|node| self.address(*node)).collect();
            let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
            let firewall = examined.and_then(|examined| examined.firewall);
            let open = format!("on {name}: {}", firewall::open(firewall, &addresses, port, "udp"));
            let (what, mend) = match why {
                Why::Unheard => {
                    (format!("nothing of {names} arrives here through the tunnel: {port}/udp is blocked"), open)
                }
                Why::OneSided => (format!("nothing comes back to {names} through the tunnel"), open),
                Why::Unanswered => (
                    format!("what {names} sends arrives through the tunnel, and is not answered"),
                    match firewall {
                        Some(skep_api::Firewall::Ufw) => format!("on {name}: ufw allow in on sk-tunnel"),
                        _ => format!("on {name}: let in what arrives by sk-tunnel"),
                    },
                ),
            };
            Finding { nodes: vec![name], what, measured: lost, mend }
        };
        grouped.into_iter().map(finding).collect()
    }

    /// The worse of both directions of each way.
    fn loss(&self) -> Vec<Finding> {
        let mut worst: BTreeMap<(NodeId, NodeId), &PeerProbe> = BTreeMap::new();
        for ((from, to), probe) in self.probes.iter().filter(|(_, probe)| probe.answered > 0) {
            let known = worst.entry((*from.min(to), *from.max(to))).or_insert(*probe);
            if probe.answered < known.answered {
                *known = probe;
            }
        }
        worst.retain(|_, probe| (probe.sent - probe.answered) * 100 >= probe.sent * LOSS_MIN_PERCENT);
        let finding = |((one, other), probe): (&(NodeId, NodeId), &&PeerProbe)| Finding {
            nodes: vec![self.name(*one), self.name(*other)],
            what: "packets between them are lost".to_owned(),
            measured: format!("{} of {}", probe.sent - probe.answered, probe.sent),
            mend: "look at the link between them: `ip -s link` on both counts what its interfaces drop".to_owned(),
        };
        worst.iter().map(finding).collect()
    }

    /// Ways that let less through than the interfaces at their ends. A node that is an end of all of them is to blame.
    fn narrow(&self) -> Vec<Finding> {
        let mut narrow: BTreeMap<(NodeId, NodeId), (u16, u16, bool)> = BTreeMap::new();
        for ((from, to), probe) in &self.probes {
            let (Some(passes), Some(examined)) = (probe.passes, self.examined(*from)) else { continue };
            if passes < examined.interface_mtu {
                let is_v6 = probe.endpoint.is_some_and(|endpoint| endpoint.is_ipv6());
                let entry = narrow.entry((*from.min(to), *from.max(to)));
                let known = entry.or_insert((passes, examined.interface_mtu, is_v6));
                *known = (*known).min((passes, examined.interface_mtu, is_v6));
            }
        }
        let shared = |node: &NodeId| narrow.len() > 1 && narrow.keys().all(|(a, b)| a == node || b == node);
        let blamed = self.nodes.keys().copied().find(shared);
        let groups: Vec<Vec<NodeId>> = match blamed {
            Some(node) => vec![vec![node]],
            None => narrow.keys().map(|(a, b)| vec![*a, *b]).collect(),
        };
        let finding = |nodes: Vec<NodeId>| {
            // Of one node, every narrow way is; of two, the one between them.
            let is_of = |(a, b): &(NodeId, NodeId)| nodes.len() == 1 || nodes == [*a, *b];
            let (passes, says, is_v6) =
                narrow.iter().filter(|(pair, _)| is_of(pair)).map(|(_, found)| *found).min().unwrap_or_default();
            let whole = passes + if is_v6 { OVERHEAD.1 } else { OVERHEAD.0 };
            let address = self.address(nodes[0]);
            let in_use =
                nodes.iter().filter_map(|node| self.examined(*node)).map(|it| it.mtu).max().unwrap_or_default();
            let meanwhile = if in_use <= passes { "; skep keeps to it" } else { "" };
            let others: BTreeSet<NodeId> =
                narrow.keys().flat_map(|(a, b)| [*a, *b]).filter(|node| !nodes.contains(node)).collect();
            let what = match nodes.len() {
                1 => format!("the ways to {} are narrower than its interface says", self.names(others)),
                _ => "the way between them is narrower than their interfaces say".to_owned(),
            };
            let on: Vec<String> = nodes.iter().map(|node| self.name(*node)).collect();
            Finding {
                nodes: on.clone(),
                what,
                measured: format!("packets of {passes} bytes pass the tunnel, {says} would have to{meanwhile}"),
                mend: format!(
                    "on {}: ip link set mtu {whole} dev $(ip -o addr show to {address} | awk '{{print $2}}'), or widen the \
                     link",
                    on[0]
                ),
            }
        };
        groups.into_iter().map(finding).collect()
    }

    fn far_managers(&self) -> Vec<Finding> {
        let is_manager = |node: &NodeId| self.nodes.get(node).is_some_and(|node| node.is_manager);
        let far = self.probes.iter().filter(|((from, to), _)| from < to && is_manager(from) && is_manager(to));
        let far = far.filter_map(|(pair, probe)| Some((pair, probe.round_trip?)));
        let far = far.filter(|(_, took)| *took > MANAGER_ROUND_TRIP_MAX);
        let finding = |((one, other), took): (&(NodeId, NodeId), Duration)| Finding {
            nodes: vec![self.name(*one), self.name(*other)],
            what: "these managers are far from each other: writes and elections are slow".to_owned(),
            measured: format!("a round trip takes {} ms", took.as_millis()),
            mend: format!("skep node demote {}", self.name(*other)),
        };
        far.map(finding).collect()
    }
}

pub fn word(reached: Reached) -> &'static str {
    match reached {
        Reached::Open => "open",
        Reached::Refused => "refused",
        Reached::Silent => "no answer",
        Reached::NoWay => "no route, or no such name",
    }
}

/// By how much the clock is certainly off, whatever the answer's time on its way.
fn clock_off(clock: ProbeClock) -> Option<(Duration, &'static str)> {
    let ProbeClock { asked, told, heard } = clock;
    let ahead = Duration::from_nanos(told.0.saturating_sub(heard.0));
    let behind = Duration::from_nanos(asked.0.saturating_sub(told.0));
    if ahead > CLOCK_TOLERANCE {
        return Some((ahead, "ahead"));
    }
    (behind > CLOCK_TOLERANCE).then_some((behind, "behind"))
}

#[cfg(test)]
mod tests;
