//! Global services and jobs: one task on each node that can take it and satisfies the constraints.

use std::collections::BTreeSet;

use skep_model::{Availability, DesiredState, Node, NodeState, Service, Slot, Task, TaskState};

use crate::fleet::Fleet;
use crate::restart;

pub fn reconcile(fleet: &mut Fleet) {
    fill(fleet, |_| true);
}

/// Fills the slots of all nodes that should have one; tasks that are not `counted` neither fill nor hold any.
pub fn fill(fleet: &mut Fleet, counted: impl Fn(&Task) -> bool) {
    let constraints = &fleet.service.spec.task.placement.constraints;
    let fits = |node: &Node| node.satisfies(constraints);
    let nodes = || fleet.cluster.nodes.values();
    let wanted: BTreeSet<Slot> =
        nodes().filter(|node| takes(node, fleet.service)).map(|node| Slot::Node(node.id)).collect();
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
        let counted: Vec<_> =
            tasks.into_iter().flat_map(|slot| slot.tasks.iter()).filter(|task| counted(task)).collect();
        let never_filled = counted.iter().all(|task| task.desired >= DesiredState::Remove);
        // What lives, or ended by itself, is not the node's affair.
        let all_stopped = counted.iter().all(|task| task.desired >= DesiredState::Shutdown);
        let stopped_for_the_node = all_stopped && counted.first().is_some_and(|task| is_to_return(task));
        if never_filled || stopped_for_the_node {
            // Something of an earlier run may still be there.
            let taken = fleet.slots.get(&slot).is_some_and(|slot| slot.tasks.iter().any(|task| task.occupies_node()));
            let now = fleet.now;
            match taken && fleet.service.spec.mode.is_job() {
                true => fleet.create(slot, DesiredState::Ready, Some(now), 0),
                false => fleet.create(slot, DesiredState::Running, None, 0),
            }
        }
    }
}

/// Whether a node should have a task of a global service.
pub fn takes(node: &Node, service: &Service) -> bool {
    node.status.state == NodeState::Ready
        && node.spec.availability == Availability::Active
        && node.satisfies(&service.spec.task.placement.constraints)
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
