//! The updater: takes a service from an older spec to the present one, a few slots at a time, or back.
//!
//! ```text
//! Updating ─┬─▶ Completed                  RollbackStarted ─┬─▶ RollbackCompleted
//!           ├─▶ Paused                                      └─▶ RollbackPaused
//!           └─▶ RollbackStarted
//! ```
//! Its progress is what the slots show plus the service's update status, so a new leader goes on where the old one was.
//! A task counts as updated once it runs, which with a health check means: once it is healthy.
//! An update ends: each slot that gets done gives it the progress deadline anew, and when that runs out it has failed.

use std::sync::Arc;
use std::time::Duration;

use skep_model::{
    Availability, Change, Cluster, Condition, FailureAction, Feature, NodeState, Service, Slot, Task, TaskState,
    Timestamp, UpdateConfig, UpdateOrder, UpdateProgress, UpdateState, UpdateStatus,
};

use crate::fleet::Fleet;
use crate::replace::{self, settled_at};
use crate::slot::SlotTasks;
use crate::{is_current, restart};

pub fn reconcile(fleet: &mut Fleet) {
    replace::retire_replaced(fleet);
    let dirty: Vec<Slot> =
        fleet.slots.iter().filter(|(slot, tasks)| is_dirty(fleet, **slot, tasks)).map(|(slot, _)| *slot).collect();
    match fleet.service.update_status.clone() {
        Some(UpdateStatus { state: UpdateState::Paused | UpdateState::RollbackPaused, .. }) => {
            replace::give_up_prepared(fleet);
        }
        Some(status @ UpdateStatus { state: UpdateState::Updating | UpdateState::RollbackStarted, .. }) => {
            go_on(fleet, status, &dirty);
        }
        None | Some(UpdateStatus { state: UpdateState::Completed | UpdateState::RollbackCompleted, .. })
            if dirty.is_empty() => {}
        None | Some(UpdateStatus { state: UpdateState::Completed | UpdateState::RollbackCompleted, .. }) => {
            let (state, started_at) = (UpdateState::Updating, fleet.now);
            let message = "update in progress".to_owned();
            set_status(fleet, UpdateStatus { state, started_at, completed_at: None, message, progress: None });
        }
    }
}

fn go_on(fleet: &mut Fleet, mut status: UpdateStatus, dirty: &[Slot]) {
    let config = config_of(fleet.service, status.state).clone();
    let unfinished = unfinished(fleet, dirty, status.started_at);
    let progress = counted(fleet, &status, unfinished.len() as u64);
    if progress != status.progress {
        status.progress = progress;
        set_status(fleet, status.clone());
    }
    let failed = failure(fleet, &status, &config);
    if let Some(failed) = failed {
        let why = format!("due to failure or early termination of task {}", failed.id);
        react(fleet, status, config.failure_action, &why);
    } else if let Some(why) = stuck(fleet, &status, &config, &unfinished) {
        react(fleet, status, config.failure_action, &why);
    } else if dirty.is_empty() {
        complete(fleet, status, &config);
    } else {
        replace::step(fleet, dirty, &config, status.started_at);
    }
}

/// When the next steps of a running update fall due, where they wait for time alone.
pub fn next_steps_at(cluster: &Cluster, service: &Service) -> Vec<Timestamp> {
    let Some(status) = &service.update_status else { return Vec::new() };
    if !matches!(status.state, UpdateState::Updating | UpdateState::RollbackStarted) {
        return Vec::new();
    }
    let config = config_of(service, status.state);
    let settled = cluster.tasks_of_service(service.id).filter_map(|task| settled_at(task));
    let steps = settled.chain([status.started_at]).flat_map(|at| [at.after(config.delay), at.after(config.monitor)]);
    let deadline = status.progress.map(|progress| deadline(service, config, progress));
    steps.chain(deadline).collect()
}

/// In which order the running or the next update replaces tasks.
pub fn order(service: &Service) -> UpdateOrder {
    if service.spec.task.at_most_one {
        // A spec with both is refused; a task beside another would never be allowed to run.
        return UpdateOrder::StopFirst;
    }
    config_of(service, service.update_status.as_ref().map_or(UpdateState::Updating, |status| status.state)).order
}

/// Whether the slot is to be filled anew: a task of an older spec runs, or the last that ran was of one and
/// rests (it is done, or failed and waits). What ended because it was to stop is not the updater's.
fn is_dirty(fleet: &Fleet, slot: Slot, tasks: &SlotTasks) -> bool {
    let stale = |task: &Arc<Task>| !is_current(fleet.service, task);
    let rests = |task: &Arc<Task>| task.status.state.is_terminal() && task.desired <= skep_model::DesiredState::Running;
    // Beside a live task, one that rests is an attempt that was given up.
    let empty = tasks.newest_live().is_none();
    !is_closed(fleet, slot)
        && (tasks.live().any(stale) || (empty && tasks.newest().is_some_and(|task| stale(task) && rests(task))))
}

/// Whether the slot is a global service's on a node that takes no new tasks: it stays as it is, until the node does.
fn is_closed(fleet: &Fleet, slot: Slot) -> bool {
    match slot {
        Slot::Replica(_) => false,
        Slot::Node(node) => {
            fleet.cluster.nodes.get(&node).is_none_or(|node| {
                node.status.state != NodeState::Ready || node.spec.availability != Availability::Active
            })
        }
    }
}

/// Slots that are not done: to be filled anew, or with a new task on its way. A failure that was tolerated is done.
fn unfinished(fleet: &Fleet, dirty: &[Slot], started_at: Timestamp) -> Vec<Slot> {
    let on_its_way = |slot: &SlotTasks| slot.newest_live().is_some_and(|task| task.status.state < TaskState::Running);
    let waited_for = |slot: &SlotTasks| on_its_way(slot) && replace::attempts(fleet, slot, started_at) == 0;
    fleet
        .slots
        .iter()
        .filter(|(slot, tasks)| dirty.binary_search(slot).is_ok() || (!is_closed(fleet, **slot) && waited_for(tasks)))
        .map(|(slot, _)| *slot)
        .collect()
}

/// How far the update is; nothing where not every manager would keep it.
fn counted(fleet: &Fleet, status: &UpdateStatus, unfinished: u64) -> Option<UpdateProgress> {
    if !fleet.cluster.has(Feature::Services) {
        return status.progress;
    }
    let begun = UpdateProgress { slots: unfinished, done: 0, at: fleet.now };
    let mut progress = status.progress.unwrap_or(begun);
    if restart::lies_ahead(progress.at, fleet.now) {
        // The clock was set back: how long nothing happened cannot be known.
        progress.at = fleet.now;
    }
    // Nodes that came meanwhile.
    progress.slots = progress.slots.max(unfinished);
    let done = progress.slots - unfinished;
    if done > progress.done {
        (progress.done, progress.at) = (done, fleet.now);
    }
    Some(progress)
}

/// A task of this update that failed before it ran, or soon after, beyond what the ratio allows.
fn failure(fleet: &Fleet, status: &UpdateStatus, config: &UpdateConfig) -> Option<Arc<Task>> {
    if config.failure_action == FailureAction::Continue {
        return None;
    }
    let of_update = |task: &&Arc<Task>| {
        task.spec_version == fleet.service.spec_version && task.meta.created_at >= status.started_at
    };
    let made = fleet.slots.values().flat_map(|slot| slot.tasks.iter()).filter(of_update);
    let failed: Vec<&Arc<Task>> = made.filter(|task| failed_early(task, config.monitor)).collect();
    let slots = status.progress.map_or(fleet.slots.len() as u64, |progress| progress.slots);
    let allowed = config.max_failure_ratio * slots as f64;
    let last = failed.iter().max_by_key(|task| (task.status.at, task.id));
    last.filter(|_| failed.len() as f64 > allowed).map(|task| Arc::clone(task))
}

/// Whether a task ended in a way that it was not to before it had run for `monitor`.
pub fn failed_early(task: &Task, monitor: Duration) -> bool {
    let failed = match task.status.state {
        TaskState::Failed | TaskState::Rejected => true,
        TaskState::Complete => task.spec.restart.condition == Condition::Any && task.iteration.is_none(),
        _ => false,
    };
    // One that is never healthy fails long after its container started, and has not run.
    failed && task.ran_since().is_none_or(|since| task.status.at.since(since) <= monitor)
}

fn deadline(service: &Service, config: &UpdateConfig, progress: UpdateProgress) -> Timestamp {
    progress.at.after(config.delay).after(service.spec.progress_deadline())
}

/// Why the update has failed though nothing of it did: no slot got done for too long.
fn stuck(fleet: &Fleet, status: &UpdateStatus, config: &UpdateConfig, unfinished: &[Slot]) -> Option<String> {
    let progress = status.progress.filter(|_| !unfinished.is_empty())?;
    if !restart::wait_is_over(progress.at, deadline(fleet.service, config, progress), fleet.now) {
        return None;
    }
    let seconds = fleet.service.spec.progress_deadline().as_secs();
    let limit = match seconds % 60 {
        0 => format!("{}m", seconds / 60),
        _ => format!("{seconds}s"),
    };
    let newest = |slot: &Slot| fleet.slots[slot].tasks.iter().find(|task| is_current(fleet.service, task));
    let what = match unfinished.iter().find_map(newest) {
        None => "no task of the new spec was made".to_owned(),
        Some(task) => {
            let reason = task.status.error.as_ref().unwrap_or(&task.status.message);
            format!("task {} ({}) is {}: {reason}", task.id, task.name(), task.status.state.word())
        }
    };
    Some(format!("after {limit} without progress: {what}"))
}

fn react(fleet: &mut Fleet, status: UpdateStatus, action: FailureAction, why: &str) {
    let service = Arc::clone(fleet.service);
    let previous = service.last_good().filter(|_| action == FailureAction::Rollback);
    let rolling_back = status.state == UpdateState::RollbackStarted;
    match previous {
        Some(previous) if !rolling_back => {
            fleet.changes.push(Change::UpdateService {
                service: service.id,
                expected: service.meta.version,
                spec: Arc::clone(&previous.spec),
                at: fleet.now,
            });
            let (state, message) = (UpdateState::RollbackStarted, format!("update rolled back {why}"));
            let started_at = fleet.now;
            set_status(fleet, UpdateStatus { state, started_at, completed_at: None, message, progress: None });
        }
        _ if rolling_back => {
            let (state, message) = (UpdateState::RollbackPaused, format!("rollback paused {why}"));
            set_status(fleet, UpdateStatus { state, message, ..status });
        }
        _ => {
            let (state, message) = (UpdateState::Paused, format!("update paused {why}"));
            set_status(fleet, UpdateStatus { state, message, ..status });
        }
    }
}

/// No old task is left: done once the new ones run and the last has been watched long enough.
fn complete(fleet: &mut Fleet, status: UpdateStatus, config: &UpdateConfig) {
    let unsettled = !unfinished(fleet, &[], status.started_at).is_empty();
    let tasks = fleet.slots.values().filter_map(|slot| slot.newest_live());
    let settled: Vec<Timestamp> = tasks.filter_map(|task| settled_at(task)).collect();
    let watched = if settled.is_empty() { vec![status.started_at] } else { settled };
    if unsettled || watched.into_iter().any(|at| !waited(at, config.monitor, fleet.now)) {
        return;
    }
    let (state, message) = match status.state {
        // Who reads it later must still be able to tell whether a failure began it, and which.
        UpdateState::RollbackStarted if status.asked_for() => {
            (UpdateState::RollbackCompleted, format!("{} completed", UpdateStatus::ASKED_FOR))
        }
        UpdateState::RollbackStarted => {
            (UpdateState::RollbackCompleted, format!("rollback completed; {}", status.message))
        }
        _ => (UpdateState::Completed, "update completed".to_owned()),
    };
    let completed_at = Some(fleet.now);
    set_status(fleet, UpdateStatus { state, completed_at, message, ..status });
}

pub fn waited(since: Timestamp, how_long: Duration, now: Timestamp) -> bool {
    restart::wait_is_over(since, since.after(how_long), now)
}

pub fn config_of(service: &Service, state: UpdateState) -> &UpdateConfig {
    match state {
        UpdateState::RollbackStarted | UpdateState::RollbackPaused | UpdateState::RollbackCompleted => {
            &service.spec.rollback
        }
        UpdateState::Updating | UpdateState::Paused | UpdateState::Completed => &service.spec.update,
    }
}

fn set_status(fleet: &mut Fleet, status: UpdateStatus) {
    // One write says all that was decided in a round.
    let service = fleet.service.id;
    fleet.changes.retain(|change| !matches!(change, Change::SetUpdateStatus { .. }));
    fleet.changes.push(Change::SetUpdateStatus { service, status: Some(status) });
}
