//! Which task to move so that a service is spread as though it were placed anew.
//!
//! A move is found only where it makes the spread strictly better: at the first level of the preferences at which the
//! two places differ, or between nodes of one branch, the one that gives has at least two tasks more than the one that
//! takes. The sums of squares of all levels, read in order, fall with each move, so that moves come to an end.

use std::collections::BTreeMap;

use skep_model::{Cluster, NodeId, Service, Task, TaskId, TaskState, Timestamp};

use crate::class::branch_of;
use crate::filter::{Filter, Verdict};
use crate::fleet::{Fleet, Standing};
use crate::{explain, home};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    pub task: TaskId,
    pub to: NodeId,
}

/// A node as the spread of one service sees it.
struct Place {
    at: usize,
    branch: Vec<String>,
    /// The task that would go from here; none where there is none, or none that may.
    task: Option<TaskId>,
    tasks: u64,
    takes: bool,
}

/// The move that evens the spread of `tasks` most, of one service: its live tasks, one for each slot.
///
/// A task whose volumes keep it where it is never moves, nor does anything of a service that is packed.
pub fn next_move(cluster: &Cluster, service: &Service, tasks: &[&Task], now: Timestamp) -> Option<Move> {
    let spec = &service.spec.task;
    let mut fleet = Fleet::new(cluster, std::iter::once(service.id), now);
    // An address that is asked for by name is given up before it is taken, so a move would be an outage.
    let settled = home::matters(spec) || spec.networks.iter().any(|network| network.is_fixed());
    if fleet.packs(&spec.placement) || settled {
        return None;
    }
    let ports = explain::host_ports(service);
    let filter = Filter { company: fleet.company(service.id), ..Filter::of(spec, &ports) };
    fleet.begin(service.id, service.spec_version, &filter);
    let places = places(&fleet, &filter, tasks);
    let loads = loads(&places);
    let levels = spec.placement.preferences.len();
    // The emptiest node of each branch stands for it.
    let mut takers: BTreeMap<&[String], &Place> = BTreeMap::new();
    for place in places.iter().filter(|place| place.takes) {
        let best = takers.entry(&place.branch).or_insert(place);
        if (place.tasks, place.at) < (best.tasks, best.at) {
            *best = place;
        }
    }
    let gain = |from: &Place, to: &Place| -> Option<(usize, u64)> {
        let common = from.branch.iter().zip(&to.branch).take_while(|(one, other)| one == other).count();
        let (more, fewer) = match common == levels {
            true => (from.tasks, to.tasks),
            false => (loads[&from.branch[..=common]], loads[&to.branch[..=common]]),
        };
        // An outer level counts before an inner one.
        (more >= fewer + 2).then(|| (levels - common, more - fewer))
    };
    let mut best: Option<((usize, u64), Move)> = None;
    for from in &places {
        let Some(task) = from.task else { continue };
        for to in takers.values().filter(|to| to.at != from.at) {
            let gain = gain(from, to).filter(|gain| best.as_ref().is_none_or(|(most, _)| gain > most));
            if let Some(gain) = gain {
                best = Some((gain, Move { task, to: fleet.views[to.at].node.id }));
            }
        }
    }
    best.map(|(_, step)| step)
}

fn places(fleet: &Fleet, filter: &Filter, tasks: &[&Task]) -> Vec<Place> {
    let mut here: BTreeMap<usize, (u64, Option<TaskId>)> = BTreeMap::new();
    for task in tasks {
        if let Some(at) = task.node.and_then(|node| fleet.position(node)) {
            let (count, last) = here.entry(at).or_default();
            *count += 1;
            if task.status.state == TaskState::Running {
                *last = (*last).max(Some(task.id));
            }
        }
    }
    let preferences = &filter.placement.preferences;
    let view = |(at, view): (usize, &crate::fleet::NodeView)| {
        let (tasks, task) = here.get(&at).copied().unwrap_or_default();
        let Standing { emulates, failures, tasks: _ } = view.standing;
        let takes = !emulates && failures == 0 && filter.check(view) == Verdict::Fits;
        Place { at, branch: branch_of(preferences, view), task, tasks, takes }
    };
    fleet.views.iter().enumerate().map(view).collect()
}

/// The tasks below each branch, by every beginning of its name.
fn loads(places: &[Place]) -> BTreeMap<&[String], u64> {
    let mut loads = BTreeMap::new();
    for place in places {
        for length in 1..=place.branch.len() {
            *loads.entry(&place.branch[..length]).or_default() += place.tasks;
        }
    }
    loads
}
