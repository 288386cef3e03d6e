//! What changes under tasks that live on: contents of secrets and configs, where the service says which signal tells its
//! tasks so, and constraints that a task's node satisfies as well.
//!
//! Not the updater's: no task stops, so there is no step, no delay and nothing to roll back.

use std::sync::Arc;

use skep_model::{Change, Feature, Task};

use crate::fleet::Fleet;
use crate::{allocator, is_current};

/// Gives live tasks the contents and constraints that the service has now.
pub fn reconcile(fleet: &mut Fleet) {
    let live = fleet.slots.values().flat_map(|slot| slot.live());
    let stale: Vec<Arc<Task>> = live.filter(|task| lives_on(fleet, task)).cloned().collect();
    for task in stale {
        fleet.refresh(&task);
    }
}

fn lives_on(fleet: &Fleet, task: &Task) -> bool {
    let (service, wanted) = (fleet.service, &fleet.service.spec.task);
    if is_current(service, task) || task.host_ports != allocator::host_ports(service) {
        return false;
    }
    let contents = wanted.container.on_change.is_some() || task.spec.container == wanted.container;
    contents && task.spec.lives_on_as(wanted) && fits(fleet, task)
}

/// Whether the task's node, if it has one, is what the service asks for now.
fn fits(fleet: &Fleet, task: &Task) -> bool {
    let wanted = &fleet.service.spec.task.placement.constraints;
    if task.spec.placement.constraints == *wanted {
        return true;
    }
    let may = fleet.cluster.has(Feature::GentleUpdates) && !fleet.service.spec.mode.is_job();
    let node = task.node.and_then(|node| fleet.cluster.nodes.get(&node));
    may && (task.node.is_none() || node.is_some_and(|node| node.satisfies(wanted)))
}

impl Fleet<'_> {
    fn refresh(&mut self, task: &Task) {
        let (spec, spec_version) = (self.task_spec(), self.service.spec_version);
        let slot = self.slots.entry(task.slot).or_default();
        for known in slot.tasks.iter_mut().filter(|known| known.id == task.id) {
            let refreshed = Task { spec: Arc::clone(&spec), spec_version, ..(**known).clone() };
            *known = Arc::new(refreshed);
        }
        self.changes.push(Change::RefreshTask { task: task.id, spec, spec_version });
    }
}
