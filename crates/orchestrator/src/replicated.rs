//! Replicated services: slots 1 to n, each filled by one task.

use std::collections::BTreeMap;

use skep_model::{DesiredState, NodeId, Slot};

use crate::fleet::Fleet;
use crate::replica_number;

/// Fills missing slots and gives up those above the wanted number.
pub fn reconcile(fleet: &mut Fleet, replicas: u64) {
    let wanted = usize::try_from(replicas).unwrap_or(usize::MAX);
    let held: Vec<Slot> = fleet
        .slots
        .iter()
        .filter(|(_, slot)| slot.tasks.iter().any(|task| task.desired < DesiredState::Remove))
        .map(|(slot, _)| *slot)
        .collect();
    if held.len() > wanted {
        for slot in surplus(fleet, held, wanted) {
            fleet.abandon(slot);
        }
        return;
    }
    let mut missing = wanted - held.len();
    let mut number = 0;
    while missing > 0 {
        number += 1;
        if held.binary_search(&Slot::Replica(number)).is_err() {
            fleet.create(Slot::Replica(number), DesiredState::Running, None, 0);
            missing -= 1;
        }
    }
}

/// Which slots to give up: those that do not run, then those on the nodes with the most tasks of the
/// service, then the highest numbers.
fn surplus(fleet: &Fleet, held: Vec<Slot>, wanted: usize) -> Vec<Slot> {
    let node_of = |slot: &Slot| fleet.slots[slot].newest_live().and_then(|task| task.node);
    let mut load: BTreeMap<NodeId, usize> = BTreeMap::new();
    for node in held.iter().filter_map(node_of) {
        *load.entry(node).or_default() += 1;
    }
    let mut remaining = held;
    let mut given_up = Vec::new();
    while remaining.len() > wanted {
        let rank = |slot: &Slot| {
            let running = fleet.slots[slot].is_running();
            let crowd = node_of(slot).map_or(0, |node| load[&node]);
            (!running, crowd, replica_number(*slot))
        };
        let Some(worst) = remaining.iter().copied().max_by_key(rank) else { break };
        remaining.retain(|slot| *slot != worst);
        if let Some(node) = node_of(&worst) {
            *load.entry(node).or_default() -= 1;
        }
        given_up.push(worst);
    }
    given_up
}
