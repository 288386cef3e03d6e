//! Tasks that are about to stop ask their manager whether anybody is still led to them; the session carries it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use skep_model::TaskId;
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

/// A manager answers sooner; one that is gone, never.
const ANSWER_MAX: Duration = Duration::from_secs(3);

/// Questions for the manager. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Drains(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    inner: Mutex<Inner>,
    asked: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    /// Whether there is a manager that answers.
    answered: bool,
    unsent: BTreeSet<TaskId>,
    waiting: BTreeMap<TaskId, oneshot::Sender<()>>,
}

impl Drains {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.inner.lock().expect("no holder of this lock panics")
    }

    /// Returns when no node leads new connections to the task any more, as far as can be known: at once where no manager
    /// answers.
    pub async fn settle(&self, task: TaskId) {
        let (sender, settled) = oneshot::channel();
        {
            let mut inner = self.lock();
            if !inner.answered {
                return;
            }
            inner.unsent.insert(task);
            inner.waiting.insert(task, sender);
        }
        self.0.asked.notify_one();
        // A session that ends drops the sender: nobody will answer.
        let _ = timeout(ANSWER_MAX, settled).await;
        let mut inner = self.lock();
        inner.unsent.remove(&task);
        inner.waiting.remove(&task);
    }

    /// A session has begun with a manager that answers, or one has ended.
    pub fn set_answered(&self, answered: bool) {
        let mut inner = self.lock();
        inner.answered = answered;
        if !answered {
            inner.unsent.clear();
            inner.waiting.clear();
        }
    }

    pub fn is_answered(&self) -> bool {
        self.lock().answered
    }

    /// Waits until there is something to ask. May be dropped and called again.
    pub async fn asked(&self) {
        while self.lock().unsent.is_empty() {
            self.0.asked.notified().await;
        }
    }

    /// The tasks to ask for; each is named once.
    pub fn take_unsent(&self) -> Vec<TaskId> {
        std::mem::take(&mut self.lock().unsent).into_iter().collect()
    }

    pub fn settled(&self, task: TaskId) {
        if let Some(waiting) = self.lock().waiting.remove(&task) {
            // It waits no longer: it has ended meanwhile.
            let _ = waiting.send(());
        }
    }
}
