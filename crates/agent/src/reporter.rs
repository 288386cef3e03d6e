//! What the node knows of its tasks: sent to the manager, and kept for whoever asks on the node itself.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use skep_api::TaskReport;
use skep_model::{Task, TaskId, TaskStatus};
use tokio::sync::Notify;

/// The last status of each task of this node. Clones share it.
#[derive(Clone, Default)]
pub struct Reporter {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    tasks: Mutex<BTreeMap<TaskId, Known>>,
    news: Notify,
    ended: Notify,
}

/// A task as this node sees it.
#[derive(Debug, Clone)]
pub struct Known {
    pub task: Arc<Task>,
    pub status: TaskStatus,
    /// Absent without a health check, and until its first result.
    pub healthy: Option<bool>,
    /// Not yet sent to a manager.
    unsent: bool,
}

impl Reporter {
    fn tasks(&self) -> MutexGuard<'_, BTreeMap<TaskId, Known>> {
        self.inner.tasks.lock().expect("no holder of this lock panics")
    }

    pub fn report(&self, task: &Arc<Task>, status: &TaskStatus, healthy: Option<bool>) {
        let known = Known { task: Arc::clone(task), status: status.clone(), healthy, unsent: true };
        self.tasks().insert(task.id, known);
        self.inner.news.notify_one();
        if status.state.is_terminal() {
            self.inner.ended.notify_one();
        }
    }

    /// Waits for the end of a task; one waits at a time, and may be dropped and call again.
    pub async fn ended(&self) {
        self.inner.ended.notified().await;
    }

    /// How each task ended that has.
    pub fn ends(&self) -> BTreeMap<TaskId, TaskStatus> {
        let tasks = self.tasks();
        let ended = tasks.iter().filter(|(_, known)| known.status.state.is_terminal());
        ended.map(|(task, known)| (*task, known.status.clone())).collect()
    }

    pub fn forget(&self, task: TaskId) {
        self.tasks().remove(&task);
    }

    /// Every task that has been reported and not forgotten.
    pub fn known(&self) -> Vec<Known> {
        self.tasks().values().cloned().collect()
    }

    /// Waits for something that was not sent; may be dropped and called again.
    pub async fn news(&self) {
        self.inner.news.notified().await;
    }

    /// What was not sent yet; it counts as sent from now on.
    pub fn take_unsent(&self) -> Vec<TaskReport> {
        let mut tasks = self.tasks();
        let report = |(task, known): (&TaskId, &mut Known)| {
            let unsent = std::mem::take(&mut known.unsent);
            unsent.then(|| TaskReport { task: *task, status: known.status.clone() })
        };
        tasks.iter_mut().filter_map(report).collect()
    }

    /// A new session: its manager may not have what was sent to another.
    pub fn send_all_again(&self) {
        self.tasks().values_mut().for_each(|known| known.unsent = true);
        self.inner.news.notify_one();
    }
}
