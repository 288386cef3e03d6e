//! Global services: one task on each node that can take it and satisfies the constraints.

use std::collections::BTreeSet;

use skep_model::{Availability, DesiredState, Node, NodeState, Slot};

use crate::fleet::Fleet;

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
        let live: Vec<_> = fleet.slots[&slot].live().cloned().collect();
        for task in live {
            fleet.want(&task, DesiredState::Shutdown);
        }
    }
    for slot in wanted {
        let tasks = fleet.slots.get(&slot);
        let never_filled = tasks.is_none_or(|slot| slot.tasks.iter().all(|task| task.desired >= DesiredState::Remove));
        // A task that was stopped because its node was drained does not come back by the restart policy.
        let stopped_for_the_node = tasks
            .and_then(|slot| slot.newest())
            .is_some_and(|task| task.desired == DesiredState::Shutdown && task.status.state.is_terminal());
        if never_filled || stopped_for_the_node {
            fleet.create(slot, DesiredState::Running, None, 0);
        }
    }
}
