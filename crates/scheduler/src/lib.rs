//! Places pending tasks on nodes, or says why no node fits.
//!
//! ```text
//!  pending ─▶ groups (service, spec version) ─▶ class of nodes (equal demands) ─▶ spread ─▶ placements
//! ```
//! `schedule` is a pure function of the cluster: filters say which nodes can take a task, the order says
//! which of them takes it.
//! Nodes are filtered once for all services that ask the same of them, and kept in the order of their load,
//! so that a group of tasks is placed in one walk over the least loaded nodes and not by comparing all.
//! It does not decide how many tasks there are, and it changes nothing: its caller proposes what it found.

mod class;
mod columns;
mod company;
mod explain;
mod filter;
mod fleet;
mod hints;
mod home;
mod loads;
mod platform;
mod rebalance;
mod spread;

use class::Classes;
use filter::{Filter, Verdict};
use fleet::Fleet;
use skep_model::{Cluster, NodeId, ServiceId, Slot, Task, TaskId, TaskState, Timestamp, Version};
use spread::Spread;

pub use explain::{Explanation, NodeVerdict, explain_service, explain_task, grounds};
pub use rebalance::{Move, next_move};

/// What became of one task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    Assigned {
        task: TaskId,
        node: NodeId,
    },
    /// No node fits; `reason` is for the user: `no suitable node (insufficient resources on 2 nodes)`.
    Unplaced {
        task: TaskId,
        reason: String,
    },
}

/// Tasks of one service and spec version, which ask the same of a node.
struct Group<'a> {
    first: &'a Task,
    tasks: Vec<(TaskId, Slot)>,
    /// Tasks whose data is somewhere, with the place.
    homed: Vec<(TaskId, NodeId)>,
    priority: i32,
}

/// Decides where `pending` go, in their order; tasks that are unknown or no longer pending are left out.
///
/// Tasks of one service and spec version are placed as a group, those of higher priority first, then in the order of
/// their first task. Within a group those that must go to where their data is come first.
pub fn schedule(cluster: &Cluster, pending: &[TaskId], now: Timestamp) -> Vec<Placement> {
    let groups = groups(cluster, pending);
    let mut placements = Vec::with_capacity(pending.len());
    if groups.is_empty() {
        return placements;
    }
    let mut fleet = Fleet::new(cluster, groups.iter().map(|group| group.first.service), now);
    let mut classes = Classes::default();
    for group in &groups {
        place_group(group, &mut fleet, &mut classes, &mut placements);
    }
    placements
}

/// The tasks, by service and version; groups come in the order of their first task.
fn groups<'a>(cluster: &'a Cluster, pending: &[TaskId]) -> Vec<Group<'a>> {
    let mut tasks: Vec<(ServiceId, Version, usize, &Task)> = Vec::with_capacity(pending.len());
    for (position, id) in pending.iter().enumerate() {
        if let Some(task) = cluster.tasks.get(id).filter(|task| task.status.state == TaskState::Pending) {
            tasks.push((task.service, task.spec_version, position, task));
        }
    }
    tasks.sort_unstable_by_key(|(service, version, position, _)| (*service, *version, *position));
    let ascending = pending.windows(2).all(|pair| pair[0] < pair[1]);
    let mut groups: Vec<(usize, Group)> = tasks
        .chunk_by(|(service, version, ..), next| (*service, *version) == (next.0, next.1))
        .map(|run| {
            let (_, _, position, first) = run[0];
            (position, Group::new(cluster, first, run.iter().map(|(.., task)| *task)))
        })
        .collect();
    if !ascending {
        groups.iter_mut().for_each(|(_, group)| group.forget_repetitions());
    }
    groups.sort_unstable_by_key(|(position, group)| (std::cmp::Reverse(group.priority), *position));
    groups.into_iter().map(|(_, group)| group).collect()
}

impl<'a> Group<'a> {
    fn new(cluster: &Cluster, first: &'a Task, all: impl ExactSizeIterator<Item = &'a Task>) -> Self {
        let service = cluster.services.get(&first.service);
        let priority = service.map_or(0, |service| service.spec.scheduling.priority);
        let mut group = Self { first, tasks: Vec::with_capacity(all.len()), homed: Vec::new(), priority };
        for task in all {
            let home = task.home.and_then(|home| cluster.nodes.get(&home));
            match home.filter(|home| home::holds(home, &task.spec.placement)) {
                Some(home) => group.homed.push((task.id, home.id)),
                None => group.tasks.push((task.id, task.slot)),
            }
        }
        group
    }

    fn forget_repetitions(&mut self) {
        let mut seen = std::collections::BTreeSet::new();
        self.tasks.retain(|(task, _)| seen.insert(*task));
        self.homed.retain(|(task, _)| seen.insert(*task));
    }
}

fn place_group<'a>(
    group: &Group<'a>,
    fleet: &mut Fleet<'a>,
    classes: &mut Classes<'a>,
    placements: &mut Vec<Placement>,
) {
    let filter = fleet.filter_for(group.first);
    fleet.begin(group.first.service, group.first.spec_version, &filter);
    for (task, home) in &group.homed {
        placements.push(place_at_home(*task, *home, group.first, &filter, fleet));
    }
    let mut spread = group.has_replicas().then(|| Spread::new(&filter, fleet, classes));
    // Replicas of one group are alike: what no node takes, no node takes the next time.
    let mut full: Option<String> = None;
    for (task, slot) in &group.tasks {
        let chosen = match slot {
            Slot::Node(node) => fleet.position(*node).filter(|at| filter.check(&fleet.views[*at]) == Verdict::Fits),
            Slot::Replica(_) if full.is_some() => None,
            Slot::Replica(_) => spread.as_mut().and_then(|spread| spread.pop(&filter, fleet)),
        };
        match (chosen, slot) {
            (Some(at), slot) => {
                fleet.take(at, &filter);
                // A version's tasks are all replicas, or each of its own node: the mode is part of the spec.
                if let (Slot::Replica(_), Some(spread)) = (slot, &mut spread) {
                    spread.took(at, fleet);
                }
                placements.push(Placement::Assigned { task: *task, node: fleet.views[at].node.id });
            }
            (None, Slot::Node(node)) => {
                let reason = filter.explain(fleet.position(*node).map(|at| &fleet.views[at]).into_iter());
                placements.push(Placement::Unplaced { task: *task, reason });
            }
            (None, Slot::Replica(_)) => {
                let reason = full.get_or_insert_with(|| match &mut spread {
                    Some(spread) => spread.explain(&filter, fleet),
                    None => filter.explain(fleet.views.iter()),
                });
                placements.push(Placement::Unplaced { task: *task, reason: reason.clone() });
            }
        }
    }
    fleet.end(group.first.service);
}

fn place_at_home(task: TaskId, home: NodeId, like: &Task, filter: &Filter, fleet: &mut Fleet) -> Placement {
    let fits = |at: &usize| filter.check(&fleet.views[*at]) == Verdict::Fits;
    let Some(at) = fleet.position(home).filter(fits) else {
        let view = fleet.position(home).map(|at| &fleet.views[at]);
        let why = view.map(|view| explain::refusal(filter, view)).unwrap_or_default();
        let name = view.map_or("", |view| view.node.hostname());
        let reason = format!("no suitable node (its {} is on {name}: {why})", home::words(&like.spec));
        return Placement::Unplaced { task, reason };
    };
    fleet.take_first(at, filter);
    Placement::Assigned { task, node: home }
}

impl Group<'_> {
    fn has_replicas(&self) -> bool {
        self.tasks.iter().any(|(_, slot)| matches!(slot, Slot::Replica(_)))
    }
}
