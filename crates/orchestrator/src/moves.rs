//! Rebalancing: spreading the tasks of a service anew, a few at a time.
//!
//! Which task goes where is the scheduler's to say; this says when one may go, and makes its replacement.
//! A move is a replacement like an update's: in the service's order, as many at once as its updates do, with their
//! delay between them, and never below `min-available`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use skep_model::{
    Availability, Change, Cluster, DesiredState, Feature, IdSource, Mode, NodeId, NodeState, Service, Slot, Task,
    TaskId, TaskState, Timestamp,
};

use crate::fleet::Fleet;
use crate::slot::SlotTasks;
use crate::{is_current, leaving, restart};

/// A node that has just come keeps its peace for so long: others may follow it, or it may go again.
const JOIN_REST: Duration = Duration::from_secs(10);

/// Whether somebody asked for the service's tasks to be spread anew, once or whenever nodes join.
pub fn is_asked(service: &Service) -> bool {
    service.rebalancing_since.is_some() || service.spec.scheduling.rebalance_on_join
}

/// The tasks of a service, one for each slot, if one of them may be moved now.
pub fn movable<'c>(cluster: &'c Cluster, service: &'c Arc<Service>, now: Timestamp) -> Option<Vec<&'c Task>> {
    let Mode::Replicated { replicas } = service.spec.mode else { return None };
    if !is_asked(service) || !is_calm(service) || joins_rest(cluster, service, now) {
        return None;
    }
    let mut ids = IdSource::from_seed(0);
    let fleet = Fleet::new(cluster, service, now, &mut ids);
    let mut newest: BTreeMap<Slot, &Task> = BTreeMap::new();
    for task in cluster.tasks_of_service(service.id).filter(|task| task.is_live()) {
        let kept = newest.entry(task.slot).or_insert(task);
        if crate::newest_first(task, kept).is_lt() {
            *kept = task;
        }
    }
    let running = newest.values().filter(|task| task.status.state == TaskState::Running).count();
    let replicas = usize::try_from(replicas).unwrap_or(usize::MAX);
    let at_once = match service.spec.update.parallelism {
        0 => usize::MAX,
        at_once => usize::try_from(at_once).unwrap_or(usize::MAX),
    };
    let in_flight = replicas.saturating_sub(running);
    let held = !leaving::starts_first(&fleet) && leaving::spare(&fleet) == 0;
    let settled = newest.values().filter_map(|task| settled_at(task)).max();
    let waited = settled.is_none_or(|at| restart::wait_is_over(at, at.after(service.spec.update.delay), now));
    let rests = fleet.slots.values().filter_map(failed_try).any(|failed| {
        let at = failed.status.at;
        !restart::wait_is_over(at, restart::back_off(failed, at).1, now)
    });
    let may = newest.len() == replicas && in_flight < at_once && !held && waited && !rests;
    may.then(|| newest.into_values().collect())
}

/// Whether all of the service's tasks run: nothing of a rebalancing is under way.
pub fn is_settled(cluster: &Cluster, service: &Service) -> bool {
    let mut live = cluster.tasks_of_service(service.id).filter(|task| task.is_live());
    live.all(|task| task.status.state == TaskState::Running)
}

/// What makes a task's replacement, and its id. It is to be assigned with the same proposal.
pub fn replace(
    cluster: &Cluster,
    service: &Arc<Service>,
    task: &Task,
    to: &str,
    now: Timestamp,
    ids: &mut IdSource,
) -> Option<(Vec<Change>, TaskId)> {
    let mut fleet = Fleet::new(cluster, service, now, ids);
    let failed = fleet.slots.get(&task.slot).and_then(failed_try);
    let failures = failed.map_or(0, |failed| restart::back_off(failed, now).0);
    if leaving::starts_first(&fleet) {
        fleet.create(task.slot, DesiredState::Running, None, failures);
    } else {
        if !cluster.has(Feature::GentleUpdates) {
            fleet.want_because(task, DesiredState::Shutdown, Some(moved(to)));
        }
        // Ready: its image is pulled while the old task serves.
        fleet.create(task.slot, DesiredState::Ready, Some(now), failures);
    }
    let made = fleet.changes.iter().find_map(|change| match change {
        Change::CreateTask { task } => Some(task.id),
        _ => None,
    })?;
    Some((fleet.changes, made))
}

/// Stops old tasks whose replacement on another node is prepared; as many as leave `min-available` serving.
pub fn hand_over(fleet: &mut Fleet) {
    if leaving::starts_first(fleet) || !fleet.cluster.has(Feature::GentleUpdates) {
        return;
    }
    let mut spare = leaving::spare(fleet);
    let prepared: Vec<(Arc<Task>, NodeId)> = fleet.slots.values().filter_map(|slot| prepared(fleet, slot)).collect();
    for (old, to) in prepared {
        if spare == 0 {
            return;
        }
        spare -= 1;
        let to = name_of(fleet.cluster, to);
        fleet.want_because(&old, DesiredState::Shutdown, Some(moved(&to)));
    }
}

/// A task that serves though the next one of the same spec is prepared, and where that is.
fn prepared(fleet: &Fleet, slot: &SlotTasks) -> Option<(Arc<Task>, NodeId)> {
    let next = slot.newest_live().filter(|task| is_current(fleet.service, task))?;
    let old = slot.serving().filter(|task| task.id != next.id && is_current(fleet.service, task))?;
    let ready = next.desired == DesiredState::Ready && next.status.state == TaskState::Ready;
    let node = next.node.filter(|_| ready && restart::is_due(next, fleet.now))?;
    Some((Arc::clone(old), node))
}

/// The slot's last task where that failed elsewhere while an older one serves: a move that is tried again in its time.
fn failed_try(slot: &SlotTasks) -> Option<&Arc<Task>> {
    let failed = |task: &&Arc<Task>| matches!(task.status.state, TaskState::Failed | TaskState::Rejected);
    slot.newest().filter(failed).filter(|_| slot.serving().is_some())
}

fn moved(to: &str) -> String {
    format!("moved to {to}, to spread the service evenly")
}

/// When a service that is spread anew may go on, where that waits for time alone.
pub fn next_steps_at(cluster: &Cluster, service: &Service) -> Vec<Timestamp> {
    if !is_asked(service) {
        return Vec::new();
    }
    let settled = cluster.tasks_of_service(service.id).filter_map(|task| settled_at(task));
    let steps = settled.map(|at| at.after(service.spec.update.delay));
    let failed = cluster.tasks_of_service(service.id).filter(|task| task.status.state.is_terminal());
    let steps = steps.chain(failed.map(|task| restart::back_off(task, task.status.at).1));
    let joins = joined(cluster).map(|at| at.after(JOIN_REST));
    steps.chain(joins.filter(|_| service.spec.scheduling.rebalance_on_join)).collect()
}

fn is_calm(service: &Service) -> bool {
    service.update_status.as_ref().is_none_or(|status| status.state.is_completed())
}

fn joins_rest(cluster: &Cluster, service: &Service, now: Timestamp) -> bool {
    let rests = |at: Timestamp| !restart::wait_is_over(at, at.after(JOIN_REST), now);
    service.rebalancing_since.is_none() && joined(cluster).any(rests)
}

/// When each node that takes tasks last changed.
fn joined(cluster: &Cluster) -> impl Iterator<Item = Timestamp> {
    let takes = |node: &&Arc<skep_model::Node>| {
        node.status.state == NodeState::Ready && node.spec.availability == Availability::Active
    };
    cluster.nodes.values().filter(takes).map(|node| node.meta.updated_at)
}

fn settled_at(task: &Task) -> Option<Timestamp> {
    (task.status.state == TaskState::Running && task.is_live()).then_some(task.status.at)
}

/// A node's name, for reasons.
pub fn name_of(cluster: &Cluster, node: NodeId) -> String {
    cluster.nodes.get(&node).map_or_else(|| node.to_string(), |node| node.hostname().to_owned())
}
