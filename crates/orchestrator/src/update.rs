//! The updater: replaces tasks that were made from an older spec, a few slots at a time.
//!
//! Its progress is what the slots show plus the service's update status, so a new leader goes on where
//! the old one was.
//! A task counts as updated once it runs, which with a health check means: once it is healthy.

use std::sync::Arc;
use std::time::Duration;

use skep_model::{
    Change, Cluster, DesiredState, FailureAction, Service, Slot, Task, TaskState, Timestamp, UpdateConfig, UpdateOrder,
    UpdateState, UpdateStatus,
};

use crate::fleet::Fleet;
use crate::slot::SlotTasks;
use crate::{is_current, restart};

pub fn reconcile(fleet: &mut Fleet) {
    retire_replaced(fleet);
    let dirty: Vec<Slot> =
        fleet.slots.iter().filter(|(_, slot)| is_dirty(fleet.service, slot)).map(|(slot, _)| *slot).collect();
    let state = fleet.service.update_status.as_ref().map(|status| status.state);
    match state {
        Some(UpdateState::Paused | UpdateState::RollbackPaused) => {}
        Some(UpdateState::Updating | UpdateState::RollbackStarted) => {
            if let Some(failed) = failure(fleet) {
                react(fleet, &failed);
            } else if dirty.is_empty() {
                complete(fleet);
            } else {
                step(fleet, &dirty);
            }
        }
        None | Some(UpdateState::Completed | UpdateState::RollbackCompleted) if dirty.is_empty() => {}
        None | Some(UpdateState::Completed | UpdateState::RollbackCompleted) => {
            set_status(fleet, UpdateState::Updating, fleet.now, None, "update in progress".to_owned());
        }
    }
}

/// When the next steps of a running update fall due, where they wait for time alone.
pub fn next_steps_at(cluster: &Cluster, service: &Service) -> Vec<Timestamp> {
    let running = service.update_status.as_ref().map(|status| status.state);
    let Some(state @ (UpdateState::Updating | UpdateState::RollbackStarted)) = running else { return Vec::new() };
    let config = config_of(service, state);
    let started = service.update_status.as_ref().map(|status| status.started_at);
    let tasks = cluster.tasks_of_service(service.id);
    let settled = tasks.filter_map(|task| settled_at(task));
    settled.chain(started).flat_map(|at| [at.after(config.delay), at.after(config.monitor)]).collect()
}

/// Old tasks whose replacement runs are to stop (start-first, and slots that a new leader finds doubled); so is
/// the older of any two that run.
fn retire_replaced(fleet: &mut Fleet) {
    let service = Arc::clone(fleet.service);
    let runs = |task: &&Arc<Task>| task.status.state == TaskState::Running;
    let mut stale = Vec::new();
    for slot in fleet.slots.values() {
        let current = slot.live().filter(runs).find(|task| is_current(&service, task));
        let Some(kept) = current.or_else(|| slot.live().find(runs)) else { continue };
        let others = slot.live().filter(|task| task.id != kept.id);
        let replaced = |task: &&Arc<Task>| runs(task) || (current.is_some() && !is_current(&service, task));
        stale.extend(others.filter(replaced).cloned());
    }
    for task in stale {
        fleet.want(&task, DesiredState::Shutdown);
    }
}

/// Whether the slot is to be filled anew: a task of an older spec runs, or the last that ran was of one and
/// rests (it is done, or failed and waits). What ended because it was to stop is not the updater's.
fn is_dirty(service: &Service, slot: &SlotTasks) -> bool {
    let stale = |task: &Arc<Task>| !is_current(service, task);
    let rests = |task: &Arc<Task>| task.status.state.is_terminal() && task.desired <= DesiredState::Running;
    // Beside a live task, one that rests is an attempt that was given up.
    let empty = slot.newest_live().is_none();
    slot.live().any(stale) || (empty && slot.newest().is_some_and(|task| stale(task) && rests(task)))
}

/// Starts as many replacements as the configuration allows now.
fn step(fleet: &mut Fleet, dirty: &[Slot]) {
    let service = Arc::clone(fleet.service);
    let state = service.update_status.as_ref().map_or(UpdateState::Updating, |status| status.state);
    let config = config_of(&service, state).clone();
    let pending =
        |slot: &SlotTasks| slot.live().any(|task| is_current(&service, task) && task.status.state < TaskState::Running);
    let in_flight = fleet.slots.values().filter(|slot| pending(slot)).count();
    let at_once =
        if config.parallelism == 0 { usize::MAX } else { usize::try_from(config.parallelism).unwrap_or(usize::MAX) };
    let started_at = service.update_status.as_ref().map(|status| status.started_at).unwrap_or_default();
    let settled = fleet.slots.values().flat_map(|slot| slot.tasks.iter());
    let settled = settled.filter(|task| task.spec_version == service.spec_version).filter_map(|task| settled_at(task));
    if settled.filter(|at| *at >= started_at).any(|at| !waited(at, config.delay, fleet.now)) {
        return;
    }
    let ready: Vec<Slot> = dirty.iter().copied().filter(|slot| !pending(&fleet.slots[slot])).collect();
    for slot in ready.into_iter().take(at_once.saturating_sub(in_flight)) {
        replace(fleet, slot, config.order);
    }
}

fn replace(fleet: &mut Fleet, slot: Slot, order: UpdateOrder) {
    let stale: Vec<Arc<Task>> = fleet.slots[&slot].live().cloned().collect();
    // A spec with both is refused; a task beside another would never be allowed to run.
    let order = if fleet.service.spec.task.at_most_one { UpdateOrder::StopFirst } else { order };
    match order {
        UpdateOrder::StopFirst => {
            for task in &stale {
                fleet.want(task, DesiredState::Shutdown);
            }
            // Ready: its image is pulled while the old task stops, and it runs once that has ended.
            let now = fleet.now;
            fleet.create(slot, DesiredState::Ready, Some(now), 0);
        }
        UpdateOrder::StartFirst => {
            // One goes on while the new one starts: the one that serves. What an update that was overtaken
            // left on its way does not.
            let serving = stale.iter().find(|task| task.status.state == TaskState::Running).map(|task| task.id);
            for task in stale.iter().filter(|task| Some(task.id) != serving) {
                fleet.want(task, DesiredState::Shutdown);
            }
            let newest = fleet.slots[&slot].newest().cloned();
            let failed = newest.filter(|task| task.status.state.is_terminal() && is_current(fleet.service, task));
            match failed {
                None => fleet.create(slot, DesiredState::Running, None, 0),
                Some(failed) if restart::must_rest(&failed, fleet.now) => {}
                Some(failed) => {
                    let (failures, not_before) = restart::back_off(&failed, fleet.now);
                    fleet.create(slot, DesiredState::Ready, Some(not_before), failures);
                }
            }
        }
    }
}

/// A task of this update that failed before it ran, or soon after, beyond what the ratio allows.
fn failure(fleet: &Fleet) -> Option<Arc<Task>> {
    let service = fleet.service;
    let status = service.update_status.as_ref()?;
    let config = config_of(service, status.state);
    if config.failure_action == FailureAction::Continue {
        return None;
    }
    let made = fleet.slots.values().flat_map(|slot| slot.tasks.iter());
    let made =
        made.filter(|task| task.spec_version == service.spec_version && task.meta.created_at >= status.started_at);
    let mut failed: Vec<&Arc<Task>> = made.filter(|task| failed_early(task, config.monitor)).collect();
    failed.sort_by_key(|task| (task.status.at, task.id));
    let allowed = config.max_failure_ratio * fleet.slots.len() as f64;
    (failed.len() as f64 > allowed).then(|| failed.last().map(|task| Arc::clone(task)))?
}

fn failed_early(task: &Task, monitor: Duration) -> bool {
    let failed = matches!(task.status.state, TaskState::Failed | TaskState::Rejected);
    let started = task.status.container.as_ref().and_then(|container| container.started_at);
    failed && started.is_none_or(|started| task.status.at.since(started) <= monitor)
}

fn react(fleet: &mut Fleet, failed: &Task) {
    let service = Arc::clone(fleet.service);
    let Some(status) = &service.update_status else { return };
    let why = format!("due to failure or early termination of task {}", failed.id);
    let rolling_back = status.state == UpdateState::RollbackStarted;
    let previous = service
        .revisions
        .last()
        .filter(|_| config_of(&service, status.state).failure_action == FailureAction::Rollback);
    let started = status.started_at;
    match previous {
        Some(previous) if !rolling_back => {
            fleet.changes.push(Change::UpdateService {
                service: service.id,
                expected: service.meta.version,
                spec: Arc::clone(&previous.spec),
                at: fleet.now,
            });
            set_status(fleet, UpdateState::RollbackStarted, fleet.now, None, format!("update rolled back {why}"));
        }
        _ if rolling_back => {
            set_status(fleet, UpdateState::RollbackPaused, started, None, format!("rollback paused {why}"))
        }
        _ => set_status(fleet, UpdateState::Paused, started, None, format!("update paused {why}")),
    }
}

/// No old task is left: done once the new ones run and the last has been watched long enough.
fn complete(fleet: &mut Fleet) {
    let service = Arc::clone(fleet.service);
    let Some(status) = &service.update_status else { return };
    let config = config_of(&service, status.state);
    let unsettled =
        fleet.slots.values().any(|slot| slot.newest_live().is_some_and(|task| task.status.state != TaskState::Running));
    let tasks = fleet.slots.values().filter_map(|slot| slot.newest_live());
    let settled: Vec<Timestamp> = tasks.filter_map(|task| settled_at(task)).collect();
    let watched = if settled.is_empty() { vec![status.started_at] } else { settled };
    if unsettled || watched.into_iter().any(|at| !waited(at, config.monitor, fleet.now)) {
        return;
    }
    let (state, message) = match status.state {
        // Who reads it later must still be able to tell whether a failure began it.
        UpdateState::RollbackStarted if status.asked_for() => {
            (UpdateState::RollbackCompleted, format!("{} completed", UpdateStatus::ASKED_FOR))
        }
        UpdateState::RollbackStarted => (UpdateState::RollbackCompleted, "rollback completed".to_owned()),
        _ => (UpdateState::Completed, "update completed".to_owned()),
    };
    set_status(fleet, state, status.started_at, Some(fleet.now), message);
}

fn waited(since: Timestamp, how_long: Duration, now: Timestamp) -> bool {
    restart::wait_is_over(since, since.after(how_long), now)
}

/// When a task began to run.
fn settled_at(task: &Task) -> Option<Timestamp> {
    (task.status.state == TaskState::Running).then_some(task.status.at)
}

fn config_of(service: &Service, state: UpdateState) -> &UpdateConfig {
    match state {
        UpdateState::RollbackStarted | UpdateState::RollbackPaused | UpdateState::RollbackCompleted => {
            &service.spec.rollback
        }
        UpdateState::Updating | UpdateState::Paused | UpdateState::Completed => &service.spec.update,
    }
}

fn set_status(
    fleet: &mut Fleet,
    state: UpdateState,
    started_at: Timestamp,
    completed_at: Option<Timestamp>,
    message: String,
) {
    let status = UpdateStatus { state, started_at, completed_at, message };
    fleet.changes.push(Change::SetUpdateStatus { service: fleet.service.id, status: Some(status) });
}
