//! Decides how many tasks there are and what is wanted of each: replicated and global services, jobs and their
//! schedules, restarts, updates, order, history, and what services need allocated.
//!
//! `reconcile` is a pure function: the cluster and the time in, changes out.
//! It says nothing about where tasks run; the scheduler does, and the two do not know each other.
//! Laws: the same input gives the same changes; applying them and asking again at the same time gives
//! none; every loop is bounded by the size of the cluster.

pub mod addresses;
pub mod allocator;
mod enforcer;
mod fence;
mod fleet;
mod global;
mod job;
mod leaving;
pub mod moves;
mod order;
mod reaper;
mod refresh;
mod replace;
mod replicated;
mod restart;
mod room;
mod schedule;
mod slot;
mod update;

use skep_model::{Change, Cluster, DesiredState, IdSource, Mode, Service, ServiceId, Slot, Task, Timestamp};

pub use fence::Fence;
use fleet::Fleet;

/// All that is to be done now, for every service and for tasks that no service owns any more.
pub fn reconcile(cluster: &Cluster, now: Timestamp, ids: &mut IdSource) -> Vec<Change> {
    reconcile_some(cluster, now, ids, usize::MAX)
}

/// As [`reconcile`], but looks at no further service once there are `enough` changes: what is left is found by the next
/// call, when these are applied.
pub fn reconcile_some(cluster: &Cluster, now: Timestamp, ids: &mut IdSource, enough: usize) -> Vec<Change> {
    let mut changes = Vec::new();
    // What one service is given is taken for the next.
    let mut picture = cluster.clone();
    let evicted = enforcer::evicted(cluster);
    for service in cluster.services.keys() {
        if changes.len() >= enough {
            return changes;
        }
        let decided = reconcile_one(&picture, *service, &evicted, now, ids);
        for change in decided.iter().filter(|change| matches!(change, Change::SetServiceEndpoint { .. })) {
            picture.apply(change, cluster.version.0).expect("a service of the cluster takes an endpoint");
        }
        changes.extend(decided);
    }
    changes.extend(reaper::orphans(cluster, now));
    changes
}

/// All that is to be done now for one service; nothing when it is not there.
pub fn reconcile_service(cluster: &Cluster, id: ServiceId, now: Timestamp, ids: &mut IdSource) -> Vec<Change> {
    reconcile_one(cluster, id, &enforcer::evicted(cluster), now, ids)
}

fn reconcile_one(
    cluster: &Cluster,
    id: ServiceId,
    evicted: &enforcer::Evicted,
    now: Timestamp,
    ids: &mut IdSource,
) -> Vec<Change> {
    let Some(service) = cluster.services.get(&id) else { return Vec::new() };
    if let Some(endpoint) = allocator::missing_endpoint(cluster, service) {
        // Tasks are made from an allocated service; the next round goes on.
        return match endpoint {
            Ok(endpoint) => vec![Change::SetServiceEndpoint { service: id, endpoint }],
            Err(_) => Vec::new(),
        };
    }
    let mut fleet = Fleet::new(cluster, service, now, ids);
    if let Some(due) = schedule::follow(&fleet) {
        // The run's tasks are made from a service that knows of it; the next round goes on.
        return vec![due];
    }
    match service.spec.mode {
        Mode::Replicated { replicas } => replicated::reconcile(&mut fleet, replicas),
        Mode::Global => global::reconcile(&mut fleet),
        Mode::ReplicatedJob { max_concurrent, total_completions } => {
            job::reconcile(&mut fleet, max_concurrent, total_completions);
        }
        Mode::GlobalJob => job::reconcile_global(&mut fleet),
    }
    refresh::reconcile(&mut fleet);
    leaving::reconcile(&mut fleet, evicted);
    restart::reconcile(&mut fleet);
    if !service.spec.mode.is_job() {
        moves::hand_over(&mut fleet);
        update::reconcile(&mut fleet);
    }
    order::reconcile(&mut fleet);
    reaper::trim_history(&mut fleet);
    fleet.changes
}

/// When something falls due that no change of the cluster will announce: a delayed restart, a pause
/// between two steps of an update, a job's next run.
///
/// Always later than `now`; `None` when nothing waits for time.
pub fn next_wakeup(cluster: &Cluster, now: Timestamp) -> Option<Timestamp> {
    let waiting = cluster.tasks.values().filter(|task| is_waiting(task)).filter_map(|task| task.not_before);
    let stopping = cluster.tasks.values().filter(|task| is_stopping(task)).map(|task| restart::patience_ends(task));
    let restarts = waiting.chain(stopping);
    let updates = cluster.services.values().flat_map(|service| update::next_steps_at(cluster, service));
    let rejected = cluster.tasks.values().filter_map(|task| restart::rests_until(task));
    let schedules = cluster.services.values().filter_map(|service| schedule::next_due(service));
    let moves = cluster.services.values().flat_map(|service| moves::next_steps_at(cluster, service));
    restarts.chain(updates).chain(schedules).chain(rejected).chain(moves).filter(|at| *at > now).min()
}

fn is_waiting(task: &Task) -> bool {
    task.desired == DesiredState::Ready && !task.status.state.is_terminal()
}

/// To stop, and not known to have: its slot's next task may wait for it.
fn is_stopping(task: &Task) -> bool {
    task.desired == DesiredState::Shutdown && task.occupies_node()
}

/// Whether a task was made from what its service asks for now: a changed label or number of replicas
/// replaces nothing.
fn is_current(service: &Service, task: &Task) -> bool {
    let same_version = task.spec_version == service.spec_version;
    same_version || (*task.spec == service.spec.task && task.host_ports == allocator::host_ports(service))
}

/// The slot's own order: a task that fills it comes before those that did.
fn newest_first(a: &Task, b: &Task) -> std::cmp::Ordering {
    (b.meta.created_at, b.id).cmp(&(a.meta.created_at, a.id))
}

/// Slots of a replicated service in the order of their numbers.
fn replica_number(slot: Slot) -> u64 {
    match slot {
        Slot::Replica(number) => number,
        Slot::Node(_) => 0,
    }
}
