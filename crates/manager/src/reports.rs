//! What agents report of their tasks, merged into few proposals.
//!
//! Only what the cluster must remember is written: the first Running, and every end.
//! States on the way there stay in this manager's memory, for whoever looks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use skep_model::{Change, Cluster, NodeId, TaskId, TaskState, TaskStatus};
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
#[derive(Debug, Clone)]
pub struct Reports {
    queue: mpsc::UnboundedSender<(NodeId, TaskId, TaskStatus)>,
    sessions: Arc<Sessions>,
}

impl Reports {
    /// The queue's two ends.
    pub fn new(sessions: Arc<Sessions>) -> (Self, mpsc::UnboundedReceiver<(NodeId, TaskId, TaskStatus)>) {
        let (queue, reports) = mpsc::unbounded_channel();
        (Self { queue, sessions }, reports)
    }

    pub fn report(&self, node: NodeId, task: TaskId, status: TaskStatus) {
        let written = status.state >= TaskState::Running;
        // Shown until the cluster has it, so that a reader never sees a task go back.
        self.sessions.note_progress(task, status.clone());
        if written {
            // The writer ends last, when nobody reports any more.
            let _ = self.queue.send((node, task, status));
        }
    }
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
