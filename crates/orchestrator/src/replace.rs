//! An update's steps: which slots are filled anew now, and how the old task of each gives way to the new one.
//!
//! ```text
//! stop-first    new: prepared ─────────────── runs      old: runs ─────── stops ┘ once the new one is prepared
//! start-first   new: prepared ── runs                   old: runs ───────────── stops once the new one runs
//! ```
//! A task that serves is never stopped for one whose image is not there yet. While as many slots change over as may at
//! once, as many more are prepared, unless tasks compete for places.

use std::sync::Arc;

use skep_model::{DesiredState, Feature, Slot, Task, TaskId, TaskState, Timestamp, UpdateConfig, UpdateOrder};

use crate::fleet::Fleet;
use crate::slot::SlotTasks;
use crate::update::{failed_early, waited};
use crate::{is_current, restart, room};

/// Takes the steps that the configuration allows now; `dirty` are the slots to be filled anew.
pub fn step(fleet: &mut Fleet, dirty: &[Slot], config: &UpdateConfig, started_at: Timestamp) {
    let service = Arc::clone(fleet.service);
    let made = fleet.slots.values().flat_map(|slot| slot.tasks.iter());
    let settled = made.filter(|task| task.spec_version == service.spec_version).filter_map(|task| settled_at(task));
    if settled.filter(|at| *at >= started_at).any(|at| !waited(at, config.delay, fleet.now)) {
        return;
    }
    let at_once = match config.parallelism {
        0 => usize::MAX,
        most => usize::try_from(most).unwrap_or(usize::MAX),
    };
    let changing = fleet.slots.values().filter(|slot| is_changing_over(fleet, slot, config, started_at)).count();
    let mut turns = at_once.saturating_sub(changing);
    let prepared: Vec<Slot> = dirty.iter().copied().filter(|slot| is_prepared(fleet, *slot)).collect();
    for slot in prepared.into_iter().take(turns) {
        for task in stale(fleet, slot) {
            fleet.want(&task, DesiredState::Shutdown);
        }
        turns -= 1;
    }
    let waits = |slot: &&Slot| {
        let tasks = &fleet.slots[*slot];
        is_waiting_for_its_turn(fleet, tasks) && attempts(fleet, tasks, started_at) == 0
    };
    let waiting = dirty.iter().filter(waits).count();
    let ahead = match config.order {
        UpdateOrder::StopFirst if config.delay.is_zero() && room::claims_nothing(&service.spec) => at_once,
        UpdateOrder::StopFirst | UpdateOrder::StartFirst => 0,
    };
    let mut begun = turns.saturating_add(ahead).saturating_sub(waiting);
    let mut untouched: Vec<Slot> =
        dirty.iter().copied().filter(|slot| new(fleet, &fleet.slots[slot]).is_none()).collect();
    // What has not been tried yet comes before what failed.
    untouched.sort_by_key(|slot| attempts(fleet, &fleet.slots[slot], started_at));
    for slot in untouched {
        // Where nothing serves there is nothing to wait for, and the change-over begins at once.
        let serves = kept(fleet, slot).is_some();
        if begun == 0 || (!serves && turns == 0) {
            continue;
        }
        if begin(fleet, slot, config.order) {
            begun -= 1;
            turns = if serves { turns } else { turns - 1 };
        }
    }
}

/// Makes the new task of a slot; false while what it failed at last time must rest.
fn begin(fleet: &mut Fleet, slot: Slot, order: UpdateOrder) -> bool {
    let newest = fleet.slots[&slot].newest().cloned();
    let failed = newest.filter(|task| task.status.state.is_terminal() && is_current(fleet.service, task));
    if failed.as_ref().is_some_and(|failed| restart::must_rest(failed, fleet.now)) {
        return false;
    }
    // One goes on until the new one is there: the one that serves. What an update that was overtaken left on its
    // way does not.
    let serving = kept(fleet, slot);
    for task in stale(fleet, slot).into_iter().filter(|task| Some(task.id) != serving) {
        fleet.want(&task, DesiredState::Shutdown);
    }
    let now = fleet.now;
    match (order, failed) {
        (UpdateOrder::StartFirst, None) => fleet.create(slot, DesiredState::Running, None, 0),
        (UpdateOrder::StopFirst, None) => fleet.create(slot, DesiredState::Ready, Some(now), 0),
        (UpdateOrder::StartFirst | UpdateOrder::StopFirst, Some(failed)) => {
            let (failures, not_before) = restart::back_off(&failed, now);
            fleet.create(slot, DesiredState::Ready, Some(not_before), failures);
        }
    }
    true
}

/// The task that goes on until the slot's new one is there.
///
/// Managers of an older level cannot tell a task that was only prepared from one that may run, and an at-most-one slot
/// must: there the old task stops at once.
fn kept(fleet: &Fleet, slot: Slot) -> Option<TaskId> {
    let keeps = !fleet.service.spec.task.at_most_one || fleet.cluster.has(Feature::Services);
    fleet.slots[&slot].serving().map(|task| task.id).filter(|_| keeps)
}

/// Old tasks whose replacement runs are to stop (start-first, and slots that a new leader finds doubled); so is
/// the older of any two that run.
pub fn retire_replaced(fleet: &mut Fleet) {
    let service = Arc::clone(fleet.service);
    let runs = |task: &&Arc<Task>| task.status.state == TaskState::Running;
    let mut stale = Vec::new();
    for slot in fleet.slots.values() {
        let current = slot.live().filter(runs).find(|task| is_current(&service, task));
        let Some(kept) = current.or_else(|| slot.serving()) else { continue };
        let others = slot.live().filter(|task| task.id != kept.id);
        let replaced = |task: &&Arc<Task>| runs(task) || (current.is_some() && !is_current(&service, task));
        stale.extend(others.filter(replaced).cloned());
    }
    for task in stale {
        fleet.want(&task, DesiredState::Shutdown);
    }
}

/// New tasks that were only to be prepared while an old one serves: a paused update does not need them.
pub fn give_up_prepared(fleet: &mut Fleet) {
    let slots = fleet.slots.values().filter(|slot| slot.serving().is_some());
    let prepared = |slot: &SlotTasks| slot.live().find(|task| task.desired == DesiredState::Ready).cloned();
    let given_up: Vec<_> = slots.filter_map(prepared).collect();
    for task in given_up {
        fleet.want(&task, DesiredState::Shutdown);
    }
}

/// When a task began to run.
pub fn settled_at(task: &Task) -> Option<Timestamp> {
    (task.status.state == TaskState::Running).then_some(task.status.at)
}

/// How often the slot's new task failed in this update.
pub fn attempts(fleet: &Fleet, slot: &SlotTasks, started_at: Timestamp) -> usize {
    let service = fleet.service;
    let made = |task: &&Arc<Task>| task.spec_version == service.spec_version && task.meta.created_at >= started_at;
    let failed = slot.tasks.iter().filter(made).filter(|task| failed_early(task, service.spec.update.monitor)).count();
    failed.max(new(fleet, slot).map_or(0, |task| task.failures_before as usize))
}

fn stale(fleet: &Fleet, slot: Slot) -> Vec<Arc<Task>> {
    fleet.slots[&slot].live().filter(|task| !is_current(fleet.service, task)).cloned().collect()
}

/// The slot's task of the present spec, where one is on its way or runs.
fn new<'s>(fleet: &Fleet, slot: &'s SlotTasks) -> Option<&'s Arc<Task>> {
    slot.live().find(|task| is_current(fleet.service, task))
}

/// Whether the slot's old task is gone, or goes on only until the new one runs, and that does not run yet.
///
/// One that failed before is tolerated and does not hold up the others.
fn is_changing_over(fleet: &Fleet, slot: &SlotTasks, config: &UpdateConfig, started_at: Timestamp) -> bool {
    let under_way = new(fleet, slot).is_some_and(|task| task.status.state < TaskState::Running);
    let waits = config.order == UpdateOrder::StopFirst && is_waiting_for_its_turn(fleet, slot);
    under_way && !waits && attempts(fleet, slot, started_at) == 0
}

/// Whether the slot's old task serves until its turn has come and the new one is prepared.
fn is_waiting_for_its_turn(fleet: &Fleet, slot: &SlotTasks) -> bool {
    let waits = new(fleet, slot).is_some_and(|task| task.desired == DesiredState::Ready);
    waits && slot.serving().is_some_and(|task| !is_current(fleet.service, task))
}

/// Whether the old task is to go now: the new one is prepared, or cannot be while the old one is there.
fn is_prepared(fleet: &Fleet, slot: Slot) -> bool {
    let tasks = &fleet.slots[&slot];
    if !is_waiting_for_its_turn(fleet, tasks) {
        return false;
    }
    let (Some(new), Some(old)) = (new(fleet, tasks), tasks.serving()) else { return false };
    let due = restart::is_due(new, fleet.now);
    let refused = new.status.state == TaskState::Pending && new.status.error.is_some();
    match new.status.state {
        TaskState::Ready => due && stops_first(fleet),
        _ => refused && stops_first(fleet) && room::stopping_makes_room(fleet.cluster, new, old),
    }
}

fn stops_first(fleet: &Fleet) -> bool {
    crate::update::order(fleet.service) == UpdateOrder::StopFirst
}
