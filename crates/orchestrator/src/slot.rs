//! One slot of a service: the tasks that fill it and those that did.

use std::sync::Arc;

use skep_model::{Task, TaskId, TaskState, lease};

/// The tasks of one slot, newest first.
#[derive(Debug, Default, Clone)]
pub struct SlotTasks {
    pub tasks: Vec<Arc<Task>>,
}

impl SlotTasks {
    /// Tasks that run or are on their way to it; more than one during a start-first update.
    pub fn live(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks.iter().filter(|task| task.is_live())
    }

    pub fn newest_live(&self) -> Option<&Arc<Task>> {
        self.live().next()
    }

    pub fn newest(&self) -> Option<&Arc<Task>> {
        self.tasks.first()
    }

    pub fn is_running(&self) -> bool {
        self.live().any(|task| task.status.state == TaskState::Running)
    }

    /// Whether a container of this slot may run, that of `beside` aside, as far as anybody can know.
    pub fn may_still_run(&self, beside: Option<TaskId>) -> bool {
        self.tasks.iter().any(|task| Some(task.id) != beside && lease::may_run(task))
    }

    /// The tasks of this slot that still run somewhere, `task` aside.
    pub fn others_that_run(&self, task: &Task) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks.iter().filter(move |other| other.id != task.id && other.occupies_node())
    }

    /// The task that runs and is to go on.
    pub fn serving(&self) -> Option<&Arc<Task>> {
        self.live().find(|task| task.status.state == TaskState::Running)
    }
}
