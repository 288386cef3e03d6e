//! Global services: one task on each node that can take it and satisfies the constraints.

use std::collections::BTreeSet;

use skep_model::{Availability, DesiredState, Node, NodeState, Slot, Task, TaskState};

use crate::fleet::Fleet;
use crate::restart;

pub fn reconcile(fleet: &mut Fleet) {
    let constraints = &fleet.service.spec.task.placement.constraints;
    let fits = |node: &Node| node.satisfies(constraints);
    let takes = |node: &Node| node.status.state == NodeState::Ready && node.spec.availability == Availability::Active;
    let nodes = || fleet.cluster.nodes.values();
    let wanted: BTreeSet<Slot> =
        nodes().filter(|node| fits(node) && takes(node)).map(|node| Slot::Node(node.id)).collect();
    // A paused or silent node keeps what it has.
    let kept: BTreeSet<Slot> = nodes()
        .filter(|node| fits(node) && node.spec.availability != Availability::Drain)
        .map(|node| Slot::Node(node.id))
        .collect();
    let held: Vec<Slot> = fleet.slots.keys().copied().collect();
    for slot in held.into_iter().filter(|slot| !kept.contains(slot)) {
        // Those that ended too: nothing is to be restarted or updated here.
        for task in fleet.slots[&slot].tasks.clone() {
            fleet.want(&task, DesiredState::Shutdown);
        }
    }
    for slot in wanted {
        let tasks = fleet.slots.get(&slot);
        let never_filled = tasks.is_none_or(|slot| slot.tasks.iter().all(|task| task.desired >= DesiredState::Remove));
        let stopped_for_the_node = tasks.and_then(|slot| slot.newest()).is_some_and(|task| is_to_return(task));
        if never_filled || stopped_for_the_node {
            fleet.create(slot, DesiredState::Running, None, 0);
        }
    }
}

/// Whether the slot's last task had to stop because its node was drained or lost, and the node's return is
/// its: the restart policy is not asked, unless the task came to its own end first.
fn is_to_return(task: &Task) -> bool {
    task.desired == DesiredState::Shutdown
        && match task.status.state {
            TaskState::Shutdown | TaskState::Orphaned => true,
            // It never reached its node.
            TaskState::New | TaskState::Pending => true,
            state => state.is_terminal() && restart::wants_restart(&task.spec.restart, task),
        }
}
