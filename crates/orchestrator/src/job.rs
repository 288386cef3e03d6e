//! Jobs: tasks that run until they have ended well, a run at a time.
//!
//! A run is begun by a new spec or by the service's schedule; its tasks carry its number.
//! Each of its completions has a slot, which the restart supervisor fills again while the policy says so.
//! What earlier runs left stays as their slots' history.

use skep_model::{DesiredState, Slot, Task, TaskState};

use crate::fleet::Fleet;
use crate::slot::SlotTasks;
use crate::{global, restart, schedule};

/// Starts what the run lacks, no more at a time than may run beside each other.
pub fn reconcile(fleet: &mut Fleet, max_concurrent: u64, total_completions: u64) {
    stop_earlier_runs(fleet);
    let Some(run) = run(fleet) else { return };
    let of_run = |slot: &SlotTasks| slot.tasks.iter().any(|task| task.iteration == Some(run));
    let started: Vec<Slot> = fleet.slots.iter().filter(|(_, slot)| of_run(slot)).map(|(slot, _)| *slot).collect();
    let total = usize::try_from(total_completions).unwrap_or(usize::MAX);
    if started.len() > total {
        // The job was made smaller: what has not ended is given up, highest first.
        let unfinished = started.iter().rev().filter(|slot| fleet.slots[slot].newest_live().is_some()).copied();
        for slot in unfinished.take(started.len() - total).collect::<Vec<_>>() {
            fleet.abandon(slot);
        }
        return;
    }
    let going_on = started.iter().filter(|slot| goes_on(&fleet.slots[slot], run)).count();
    let at_once = match max_concurrent {
        0 => total,
        most => usize::try_from(most).unwrap_or(usize::MAX),
    };
    let mut lacking = (total - started.len()).min(at_once.saturating_sub(going_on));
    let overlap = schedule::runs_overlap(fleet.service);
    let mut number = 0;
    while lacking > 0 {
        number += 1;
        let slot = Slot::Replica(number);
        let held = fleet.slots.get(&slot);
        let taken = held.is_some_and(|held| held.tasks.iter().any(|task| task.occupies_node() || task.is_live()));
        if started.contains(&slot) || (overlap && taken) {
            continue;
        }
        let now = fleet.now;
        match taken {
            true => fleet.create(slot, DesiredState::Ready, Some(now), 0),
            false => fleet.create(slot, DesiredState::Running, None, 0),
        }
        lacking -= 1;
    }
}

pub fn reconcile_global(fleet: &mut Fleet) {
    stop_earlier_runs(fleet);
    let Some(run) = run(fleet) else { return };
    global::fill(fleet, |task| task.iteration == Some(run));
}

/// The number of the run that goes on or was the last; none before the first.
fn run(fleet: &Fleet) -> Option<u64> {
    fleet.service.job.as_ref().map(|job| job.iteration).filter(|run| *run > 0)
}

/// Whether any slot of the last run has more to do.
pub fn is_busy(fleet: &Fleet) -> bool {
    run(fleet).is_some_and(|run| fleet.slots.values().any(|slot| goes_on(slot, run)))
}

fn goes_on(slot: &SlotTasks, run: u64) -> bool {
    let newest = slot.tasks.iter().find(|task| task.iteration == Some(run));
    newest.is_some_and(|newest| match newest.status.state {
        TaskState::Shutdown | TaskState::Orphaned => slot.newest_live().is_some(),
        _ => !restart::is_over(slot, newest),
    })
}

fn stop_earlier_runs(fleet: &mut Fleet) {
    if schedule::runs_overlap(fleet.service) {
        return;
    }
    let run = run(fleet);
    let earlier = |task: &&std::sync::Arc<Task>| task.iteration != run && task.is_live();
    let stale: Vec<_> = fleet.slots.values().flat_map(|slot| slot.tasks.iter()).filter(earlier).cloned().collect();
    for task in stale {
        fleet.want(&task, DesiredState::Shutdown);
    }
}
