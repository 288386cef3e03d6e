//! Contents that change under tasks that live on: where only secrets' and configs' bytes are others, and the service
//! says which signal tells its tasks so, nothing is replaced.
//!
//! Not the updater's: no task stops, so there is no step, no delay and nothing to roll back.

use std::sync::Arc;

use skep_model::{Change, Task};

use crate::fleet::Fleet;
use crate::is_current;

/// Gives live tasks the contents that the service has now.
pub fn reconcile(fleet: &mut Fleet) {
    let service = Arc::clone(fleet.service);
    if service.spec.task.container.on_change.is_none() {
        return;
    }
    let stale: Vec<Arc<Task>> = fleet
        .slots
        .values()
        .flat_map(|slot| slot.live())
        .filter(|task| !is_current(&service, task) && task.spec.differs_in_contents_only(&service.spec.task))
        .cloned()
        .collect();
    for task in stale {
        fleet.refresh(&task);
    }
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
