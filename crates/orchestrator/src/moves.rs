//! Rebalancing: spreading the tasks of a service anew, a few at a time.
//!
//! Which task goes where is the scheduler's to say; this says when one may go, and makes its replacement.
//! A move is a replacement like an update's: in the service's order, as many at once as its updates do, with their
//! delay between them, and never below `min-available`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use skep_model::{
    Availability, Change, Cluster, DesiredState, IdSource, Mode, NodeId, NodeState, Service, Slot, Task, TaskId,
    TaskState, Timestamp, UpdateState,
};

use crate::fleet::Fleet;
use crate::{leaving, restart};

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
    let may = newest.len() == replicas && in_flight < at_once && !held && waited;
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
    if leaving::starts_first(&fleet) {
        fleet.create(task.slot, DesiredState::Running, None, 0);
    } else {
        fleet.want_because(task, DesiredState::Shutdown, Some(format!("moved to {to}, to spread the service evenly")));
        // Ready: its image is pulled while the old task stops.
        fleet.create(task.slot, DesiredState::Ready, Some(now), 0);
    }
    let made = fleet.changes.iter().find_map(|change| match change {
        Change::CreateTask { task } => Some(task.id),
        _ => None,
    })?;
    Some((fleet.changes, made))
}

/// When a service that is spread anew may go on, where that waits for time alone.
pub fn next_steps_at(cluster: &Cluster, service: &Service) -> Vec<Timestamp> {
    if !is_asked(service) {
        return Vec::new();
    }
    let settled = cluster.tasks_of_service(service.id).filter_map(|task| settled_at(task));
    let steps = settled.map(|at| at.after(service.spec.update.delay));
    let joins = joined(cluster).map(|at| at.after(JOIN_REST));
    steps.chain(joins.filter(|_| service.spec.scheduling.rebalance_on_join)).collect()
}

fn is_calm(service: &Service) -> bool {
    match service.update_status.as_ref().map(|status| status.state) {
        None | Some(UpdateState::Completed | UpdateState::RollbackCompleted) => true,
        Some(
            UpdateState::Updating | UpdateState::Paused | UpdateState::RollbackStarted | UpdateState::RollbackPaused,
        ) => false,
    }
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
