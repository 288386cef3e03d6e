//! Tasks that must leave their node: it is lost or drained, or no longer what they were placed for.
//!
//! ```text
//! lost     ─▶ stop, replace at once: nothing serves there anyway
//! drained  ─┬▶ order start-first: replace, and stop once the replacement runs
//! unfit    ─┴▶ else stop and replace, but only as many as leave `min-available` serving
//! ```
//! What is held back shows in the cluster as it is, so that the next round, or the next leader, goes on.

use std::sync::Arc;

use skep_model::{Availability, DesiredState, Mode, Node, Slot, Task, TaskState, UpdateOrder};

use crate::enforcer::{self, Evicted};
use crate::fleet::Fleet;
use crate::{is_current, restart};

/// Why a task must go, and whether it may take its time.
enum Leaving {
    Lost(String),
    Told(String),
}

pub fn reconcile(fleet: &mut Fleet, evicted: &Evicted) {
    let slots: Vec<Slot> = fleet.slots.keys().copied().collect();
    let mut spare = spare(fleet);
    for slot in slots {
        leave(fleet, slot, evicted, &mut spare);
    }
}

/// How many serving tasks may be stopped before their replacements serve.
pub fn spare(fleet: &Fleet) -> usize {
    let least = usize::try_from(fleet.service.spec.scheduling.min_available).unwrap_or(usize::MAX);
    if least == 0 {
        return usize::MAX;
    }
    let up = |task: &Task| task.node.is_some_and(|node| fleet.node_is_up(node));
    let serving = fleet.slots.values().filter(|slot| slot.live().any(|task| serves(task) && up(task)));
    serving.count().saturating_sub(least)
}

/// Whether the replacement runs before the old task stops.
pub fn starts_first(fleet: &Fleet) -> bool {
    fleet.service.spec.update.order == UpdateOrder::StartFirst && !fleet.service.spec.task.at_most_one
}

fn serves(task: &Task) -> bool {
    task.desired == DesiredState::Running && task.status.state == TaskState::Running
}

fn leave(fleet: &mut Fleet, slot: Slot, evicted: &Evicted, spare: &mut usize) {
    let leaving: Vec<(Arc<Task>, Leaving)> = {
        let live = fleet.slots[&slot].live();
        live.filter_map(|task| Some((Arc::clone(task), leaving(fleet, task, evicted)?))).collect()
    };
    let replicated = matches!(fleet.service.spec.mode, Mode::Replicated { .. } | Mode::ReplicatedJob { .. });
    let gentle = |task: &Task, why: &Leaving| matches!(why, Leaving::Told(_)) && replicated && serves(task);
    // First what nobody is served by: it may be the replacement of what is.
    for (task, why) in leaving.iter().filter(|(task, why)| !gentle(task, why)) {
        stop(fleet, task, why);
        let goes_on = replicated && restart::is_of_this_run(fleet, task);
        if goes_on && fleet.slots[&slot].newest_live().is_none() {
            restart::go_on(fleet, task, DesiredState::Running, None, 0);
        }
    }
    for (task, why) in leaving.iter().filter(|(task, why)| gentle(task, why)) {
        let stays = |other: &&Arc<Task>| leaving.iter().all(|(gone, _)| gone.id != other.id);
        if starts_first(fleet) {
            if fleet.slots[&slot].live().find(stays).is_none() {
                start_beside(fleet, slot);
            }
        } else if *spare > 0 {
            *spare -= 1;
            stop(fleet, task, why);
            if fleet.slots[&slot].newest_live().is_none() && restart::is_of_this_run(fleet, task) {
                restart::go_on(fleet, task, DesiredState::Running, None, 0);
            }
        }
    }
}

/// A replacement for a task that goes on until it runs; after one that failed, in its time.
fn start_beside(fleet: &mut Fleet, slot: Slot) {
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

fn stop(fleet: &mut Fleet, task: &Task, why: &Leaving) {
    let (Leaving::Lost(why) | Leaving::Told(why)) = why;
    fleet.want_because(task, DesiredState::Shutdown, Some(why.clone()));
}

fn leaving(fleet: &Fleet, task: &Task, evicted: &Evicted) -> Option<Leaving> {
    let id = task.node?;
    let Some(node) = fleet.cluster.nodes.get(&id) else {
        return Some(Leaving::Lost("its node was removed".to_owned()));
    };
    if !fleet.node_is_up(id) {
        return Some(Leaving::Lost(format!("its node {} is down", node.hostname())));
    }
    told(fleet, task, node, evicted).map(Leaving::Told)
}

fn told(fleet: &Fleet, task: &Task, node: &Node, evicted: &Evicted) -> Option<String> {
    if node.spec.availability == Availability::Drain {
        return Some(format!("its node {} is drained", node.hostname()));
    }
    evicted.get(&task.id).cloned().or_else(|| enforcer::broken_constraint(fleet.service, task, node))
}
