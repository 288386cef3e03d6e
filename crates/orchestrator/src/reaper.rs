//! The reaper: bounds the history of each slot, and forgets what nobody wants any more.

use skep_model::{Change, Cluster, DesiredState, Slot, Task, Timestamp};

use crate::fleet::Fleet;
use crate::restart;

/// Removes the oldest ended tasks of each slot beyond the cluster's limit, and abandoned ones once they
/// have stopped.
pub fn trim_history(fleet: &mut Fleet) {
    let limit = fleet.cluster.config.as_ref().map_or(5, |config| config.spec.task_history_limit);
    let needed = restart::history_needed(&fleet.service.spec.task.restart);
    let keep = usize::try_from(needed.max(u64::from(limit))).unwrap_or(usize::MAX);
    let created: Vec<_> = fleet.changes.iter().filter_map(created_task).collect();
    let slots: Vec<Slot> = fleet.slots.keys().copied().collect();
    for slot in slots {
        let tasks = fleet.slots[&slot].tasks.clone();
        // Of a slot that is done, the task that was done with it is what says so.
        let keep = if fleet.slots[&slot].newest_live().is_none() { keep.max(1) } else { keep };
        for (age, task) in tasks.iter().enumerate().filter(|(_, task)| !created.contains(&task.id)) {
            let surplus = age >= keep && task.status.state.is_terminal();
            // There is nothing to remember of a task that no node ever had.
            let never_ran = task.desired >= DesiredState::Shutdown && task.node.is_none();
            if surplus || never_ran || is_forgotten(fleet.cluster, task) {
                fleet.changes.push(Change::RemoveTask { task: task.id });
            }
        }
    }
}

/// Tasks whose service was removed: stop them, then forget them.
pub fn orphans(cluster: &Cluster, now: Timestamp) -> Vec<Change> {
    let orphaned = cluster.tasks.values().filter(|task| !cluster.services.contains_key(&task.service));
    orphaned
        .filter_map(|task| {
            if task.desired != DesiredState::Remove {
                let unassigned_or_ended = task.node.is_none() || task.status.state.is_terminal();
                return Some(match unassigned_or_ended {
                    true => Change::RemoveTask { task: task.id },
                    false => {
                        Change::SetTaskDesired { task: task.id, desired: DesiredState::Remove, at: now, reason: None }
                    }
                });
            }
            is_forgotten(cluster, task).then_some(Change::RemoveTask { task: task.id })
        })
        .collect()
}

/// Wanted gone, and nothing of it runs: it ended, or its node is gone; or it was given up before it reached one.
///
/// A node that comes back stops what is not among its assignments. An at-most-one task is only over once it was told
/// so, or fenced: its slot waits for that.
fn is_forgotten(cluster: &Cluster, task: &Task) -> bool {
    let node_is_up = task.node.and_then(|node| cluster.nodes.get(&node));
    let node_is_up = node_is_up.is_some_and(|node| node.status.state != skep_model::NodeState::Down);
    if task.desired >= DesiredState::Shutdown && task.node.is_none() && !task.status.state.is_terminal() {
        return true;
    }
    let may_live_on = task.spec.at_most_one && task.node.is_some();
    let lost = !node_is_up && !may_live_on;
    task.desired == DesiredState::Remove && (task.status.state.is_terminal() || lost)
}

fn created_task(change: &Change) -> Option<skep_model::TaskId> {
    match change {
        Change::CreateTask { task } => Some(task.id),
        _ => None,
    }
}
