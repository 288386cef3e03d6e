//! The restart supervisor: replaces tasks that ended, with back-off.
//!
//! A replacement is made at once in desired state Ready, so that its image is there when its time comes;
//! it runs after the delay and once the old task has stopped. That of an at-most-one service waits for that however
//! long it takes, the others lose patience.
//! A task that could not even be prepared is replaced after the delay only.
//! All it needs to know lies in the tasks, so a new leader goes on where the old one was.

use std::time::Duration;

use skep_model::{Condition, DesiredState, RestartPolicy, Slot, Task, TaskState, Timestamp, UpdateOrder, UpdateState};

use crate::fleet::Fleet;
use crate::slot::SlotTasks;
use crate::{is_current, leaving, schedule, update};

/// A task that ran this long before it failed starts a new row of failures.
const STABLE_AFTER: Duration = Duration::from_secs(10);
/// The least pause after the second failure in a row, and what the doubling ends at.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// How long a delayed start waits for the old task to stop, beyond the grace that its service gives it.
const STOP_WAIT_MAX: Duration = Duration::from_secs(60);
/// Clocks of one cluster differ by less, or one of them is wrong.
const CLOCK_SKEW_MAX: Duration = Duration::from_secs(60);

pub fn reconcile(fleet: &mut Fleet) {
    let slots: Vec<Slot> = fleet.slots.keys().copied().collect();
    for slot in slots {
        replace_ended(fleet, slot);
        start_delayed(fleet, slot);
    }
}

fn replace_ended(fleet: &mut Fleet, slot: Slot) {
    let tasks = &fleet.slots[&slot];
    // What had to stop is not asked: behind it may be one that was wanted to the end, as where a start-first update
    // lost its new task first.
    let mut wanted = tasks.tasks.iter().filter(|task| task.desired < DesiredState::Shutdown);
    // While an update is paused, its attempts are not what the slot goes on with, where it has something older.
    let older = |task: &&std::sync::Arc<Task>| is_paused(fleet) && !is_current(fleet.service, task);
    let wanted = wanted.clone().find(older).or_else(|| wanted.next());
    let Some(ended) = wanted.filter(|_| tasks.newest_live().is_none()).cloned() else { return };
    if !is_of_this_run(fleet, &ended) {
        return;
    }
    let policy = ended.spec.restart;
    if !wants_restart(&policy, &ended) || attempts_exhausted(&policy, tasks, &ended) {
        return;
    }
    let (failures, not_before) = back_off(&ended, fleet.now);
    if must_rest(&ended, fleet.now) {
        return;
    }
    fleet.want(&ended, DesiredState::Shutdown);
    match not_before > fleet.now {
        true => go_on(fleet, &ended, DesiredState::Ready, Some(not_before), failures),
        false => go_on(fleet, &ended, DesiredState::Running, None, failures),
    }
}

/// Fills the slot of a task that ended or was lost: by the present spec, unless that is one whose update was paused.
pub fn go_on(fleet: &mut Fleet, ended: &Task, desired: DesiredState, not_before: Option<Timestamp>, failures: u32) {
    match is_paused(fleet) && !is_current(fleet.service, ended) {
        true => fleet.create_again(ended, desired, not_before, failures),
        false => fleet.create(ended.slot, desired, not_before, failures),
    }
}

fn is_paused(fleet: &Fleet) -> bool {
    let state = fleet.service.update_status.as_ref().map(|status| status.state);
    matches!(state, Some(UpdateState::Paused | UpdateState::RollbackPaused))
}

/// Whether a job's task is of a run that goes on: the last one, or any where runs may overlap.
pub fn is_of_this_run(fleet: &Fleet, task: &Task) -> bool {
    let last = fleet.service.job.as_ref().map(|job| job.iteration);
    task.iteration == last || schedule::runs_overlap(fleet.service)
}

/// Lets a delayed task run once it is due and its predecessor has stopped.
fn start_delayed(fleet: &mut Fleet, slot: Slot) {
    let waiting = fleet.slots[&slot].live().find(|task| task.desired == DesiredState::Ready).cloned();
    let Some(task) = waiting else { return };
    let free = match task.spec.at_most_one {
        true => !fleet.may_still_run(slot, Some(task.id)),
        false => fleet.slots[&slot].others_that_run(&task).all(|other| lets_start(fleet, other)),
    };
    if is_due(&task, fleet.now) && free {
        fleet.want(&task, DesiredState::Running);
    }
}

/// Whether a delayed task has waited for long enough, by whichever clock its delay was told.
pub fn is_due(task: &Task, now: Timestamp) -> bool {
    let due = task.not_before.unwrap_or(task.meta.created_at);
    due <= now || lies_too_far(due, BACKOFF_MAX.max(task.spec.restart.delay), now)
}

/// Whether a slot's next task may start although `other` still runs there: it is the one that the service's order keeps
/// until then, or it was told to stop too long ago.
fn lets_start(fleet: &Fleet, other: &Task) -> bool {
    if other.desired <= DesiredState::Running {
        let outdated = !is_current(fleet.service, other);
        return match outdated {
            true => update::order(fleet.service) == UpdateOrder::StartFirst,
            false => leaving::starts_first(fleet),
        };
    }
    let until = patience_ends(other);
    fleet.now >= until || lies_too_far(until, until.since(other.meta.updated_at), fleet.now)
}

/// When a task that was told to stop is no longer waited for: two on one volume are a last resort.
pub fn patience_ends(task: &Task) -> Timestamp {
    let stop = task.spec.container.stop_grace_period.unwrap_or_default().saturating_add(task.spec.drain());
    task.meta.updated_at.after(STOP_WAIT_MAX).after(stop)
}

/// Whether a wait that began at `began`, by whichever clock, has ended.
///
/// A beginning far ahead was told by a wrong clock, or before this one was set back: how long ago it was
/// cannot be known, and to wait until then could take years.
pub fn wait_is_over(began: Timestamp, until: Timestamp, now: Timestamp) -> bool {
    now >= until || lies_too_far(began, Duration::ZERO, now)
}

/// Whether a time that has passed lies so far ahead that the clock was set back since.
pub fn lies_ahead(passed: Timestamp, now: Timestamp) -> bool {
    lies_too_far(passed, Duration::ZERO, now)
}

/// Whether a time is further ahead than a wait of this length and clocks that differ explain.
fn lies_too_far(until: Timestamp, longest: Duration, now: Timestamp) -> bool {
    until > now.after(longest).after(CLOCK_SKEW_MAX)
}

/// How many tasks failed in a row up to `ended`, and when its successor may run: an end that lies ahead
/// counts as now.
pub fn back_off(ended: &Task, now: Timestamp) -> (u32, Timestamp) {
    let failures = failures_in_a_row(ended);
    (failures, ended.status.at.min(now).after(pause(&ended.spec.restart, failures)))
}

/// Whether a successor is not even to be prepared yet: preparing is what `ended` failed at.
pub fn must_rest(ended: &Task, now: Timestamp) -> bool {
    let at = ended.status.at;
    ended.status.state == TaskState::Rejected && !wait_is_over(at, back_off(ended, at).1, now)
}

/// When a slot whose last task was rejected is tried again; `None` for every other task.
pub fn rests_until(task: &Task) -> Option<Timestamp> {
    let waits = task.status.state == TaskState::Rejected && task.desired < DesiredState::Shutdown;
    waits.then(|| back_off(task, task.status.at).1)
}

pub fn wants_restart(policy: &RestartPolicy, ended: &Task) -> bool {
    match policy.condition {
        Condition::None => false,
        Condition::OnFailure => ended.status.state != TaskState::Complete,
        // A job's task that ended well is done.
        Condition::Any => ended.iteration.is_none() || ended.status.state != TaskState::Complete,
    }
}

/// Whether a slot is done with the run of `ended`, its newest task: it ended well, or for good.
pub fn is_over(tasks: &SlotTasks, ended: &Task) -> bool {
    let policy = &ended.spec.restart;
    let gave_up = || !wants_restart(policy, ended) || attempts_exhausted(policy, tasks, ended);
    ended.status.state == TaskState::Complete || (ended.status.state.is_terminal() && gave_up())
}

fn attempts_exhausted(policy: &RestartPolicy, tasks: &SlotTasks, ended: &Task) -> bool {
    if policy.max_attempts == 0 {
        return false;
    }
    let oldest = match policy.window {
        Duration::ZERO => Timestamp(0),
        window => Timestamp(ended.status.at.0.saturating_sub(window.as_nanos() as u64)),
    };
    let made_for = |task: &Task| (task.spec_version, task.iteration);
    let of_this_spec = tasks.tasks.iter().filter(|task| made_for(task) == made_for(ended));
    // The first task of a spec is no restart.
    let restarts = of_this_spec.filter(|task| task.meta.created_at >= oldest).count().saturating_sub(1);
    restarts as u64 >= policy.max_attempts
}

/// How many tasks of the slot have failed in a row, `ended` included.
fn failures_in_a_row(ended: &Task) -> u32 {
    let started = ended.status.container.as_ref().and_then(|container| container.started_at);
    let was_stable = started.is_some_and(|started| ended.status.at.since(started) >= STABLE_AFTER);
    if was_stable { 1 } else { ended.failures_before.saturating_add(1) }
}

/// The policy's delay after the first failure; doubled for each further one, to a minute or the delay
/// itself where that is longer.
fn pause(policy: &RestartPolicy, failures: u32) -> Duration {
    if failures <= 1 {
        return policy.delay;
    }
    let doublings = (failures - 1).min(16);
    let grown = policy.delay.max(BACKOFF_MIN).saturating_mul(1 << doublings);
    grown.min(BACKOFF_MAX.max(policy.delay))
}

/// How many ended tasks of a slot must be kept so that attempts can be counted.
pub fn history_needed(policy: &RestartPolicy) -> u64 {
    if policy.max_attempts == 0 { 0 } else { policy.max_attempts.saturating_add(1) }
}
