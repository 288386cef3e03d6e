//! What agents report of their tasks, merged into few proposals.
//!
//! Only what the cluster must remember or waits for is written: the first Running, every end, and on the way there what
//! [`must_be_written`] says. Other states stay in this manager's memory, for whoever looks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use skep_model::{
    Change, Cluster, DependencyCondition, DesiredState, NodeId, Task, TaskId, TaskState, TaskStatus, UpdateState,
};
use skep_store::{ProposeError, Store};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::sessions::Sessions;

/// How long reports are gathered before they are proposed together.
const GATHER: Duration = Duration::from_millis(20);
/// Reports in one proposal; a proposal has a limit, and thousands of agents report at once.
const REPORTS_PER_PROPOSAL: usize = 1000;
/// Before a proposal that could not be written is tried again.
const RETRY: Duration = Duration::from_millis(200);

type Pending = BTreeMap<TaskId, (NodeId, TaskStatus)>;

/// Where sessions hand in reports. Clones share the queue.
#[derive(Clone)]
pub struct Reports {
    queue: mpsc::UnboundedSender<(NodeId, TaskId, TaskStatus)>,
    sessions: Arc<Sessions>,
    store: Store,
}

impl Reports {
    /// The queue's two ends.
    pub fn new(sessions: Arc<Sessions>, store: Store) -> (Self, mpsc::UnboundedReceiver<(NodeId, TaskId, TaskStatus)>) {
        let (queue, reports) = mpsc::unbounded_channel();
        (Self { queue, sessions, store }, reports)
    }

    pub fn report(&self, node: NodeId, task: TaskId, status: TaskStatus) {
        let written = must_be_written(&self.store.cluster(), task, status.state);
        // Shown until the cluster has it, so that a reader never sees a task go back.
        self.sessions.note_progress(task, status.clone());
        if written {
            // The writer ends last, when nobody reports any more.
            let _ = self.queue.send((node, task, status));
        }
    }
}

/// Whether a report of this state is written.
pub fn must_be_written(cluster: &Cluster, task: TaskId, state: TaskState) -> bool {
    let is_waited_for = |task: &Arc<Task>| match state {
        TaskState::Ready => is_a_replacement(cluster, task),
        TaskState::Starting => lets_others_start(cluster, task),
        _ => false,
    };
    state >= TaskState::Running || cluster.tasks.get(&task).is_some_and(is_waited_for)
}

/// An update, or a move to another node, stops the old task once this one is prepared.
fn is_a_replacement(cluster: &Cluster, task: &Task) -> bool {
    let status = cluster.services.get(&task.service).and_then(|service| service.update_status.as_ref());
    let updating =
        status.is_some_and(|status| matches!(status.state, UpdateState::Updating | UpdateState::RollbackStarted));
    let serves = |other: &Arc<Task>| other.slot == task.slot && other.id != task.id && other.is_live();
    task.desired == DesiredState::Ready && (updating || cluster.tasks_of_service(task.service).any(serves))
}

/// Another service waits for its start, which without a health check is the same as that it runs.
fn lets_others_start(cluster: &Cluster, task: &Task) -> bool {
    let waits = |dependency: &skep_model::Dependency| {
        dependency.condition == DependencyCondition::Started && dependency.service == task.service_name
    };
    task.spec.container.health_check.is_some()
        && cluster.services.values().any(|service| service.spec.depends_on.iter().any(waits))
}

/// Writes reports until `stop`.
pub async fn write(
    store: Store,
    sessions: Arc<Sessions>,
    mut queue: mpsc::UnboundedReceiver<(NodeId, TaskId, TaskStatus)>,
    stop: CancellationToken,
) {
    let mut pending = Pending::new();
    loop {
        tokio::select! {
            report = queue.recv() => match report {
                Some((node, task, status)) => drop(pending.insert(task, (node, status))),
                None => return,
            },
            () = stop.cancelled() => return,
        }
        tokio::time::sleep(GATHER).await;
        while let Ok((node, task, status)) = queue.try_recv() {
            pending.insert(task, (node, status));
        }
        while !pending.is_empty() && !stop.is_cancelled() {
            let rest = pending.keys().nth(REPORTS_PER_PROPOSAL).copied();
            let rest = rest.map(|first| pending.split_off(&first)).unwrap_or_default();
            match propose(&store, &pending).await {
                Ok(()) => {
                    pending.keys().for_each(|task| sessions.forget_progress(*task));
                    pending = rest;
                }
                Err(error) => {
                    pending.extend(rest);
                    tracing::warn!(error = &error as &dyn std::error::Error, "task reports wait for the store");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}

/// One proposal for all; what the cluster has moved past is left out, so that it cannot spoil the rest.
async fn propose(store: &Store, pending: &Pending) -> Result<(), ProposeError> {
    loop {
        let cluster = store.cluster();
        let mut picture = (*cluster).clone();
        let changes: Vec<Change> =
            pending.iter().filter_map(|(task, (node, status))| change(&mut picture, *task, *node, status)).collect();
        if changes.is_empty() {
            return Ok(());
        }
        match store.propose(changes).await {
            Ok(_) => return Ok(()),
            // A task went away in between: decide again on the newer state.
            Err(ProposeError::Rejected(rejection)) => {
                tracing::debug!(%rejection, "a report was overtaken");
                tokio::task::yield_now().await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// The change that a report makes, once `picture` has taken it.
fn change(picture: &mut Cluster, task: TaskId, node: NodeId, status: &TaskStatus) -> Option<Change> {
    let known = picture.tasks.get(&task)?;
    if known.status == *status {
        return None;
    }
    let change = Change::ReportTask { task, node, status: status.clone() };
    let version = picture.version.0 + 1;
    picture.apply(&change, version).ok()?;
    Some(change)
}
