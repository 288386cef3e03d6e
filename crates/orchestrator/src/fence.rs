//! When a task on a silent node is surely over: the wait that frees a slot of an at-most-one service.
//!
//! Such a task lives by leases, and none is granted once it is to stop. So it is gone a lease and a stop grace after
//! that wish was committed, heard from or not; it is then marked as orphaned, which is an end like any other, and
//! the slot's next task runs.
//! The count is by a monotonic clock of whoever watches, from when it first saw the wish: wall clocks jump, and a
//! manager that begins to watch late only waits longer. It is therefore deliberately not in the cluster.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use skep_model::{Change, Cluster, DesiredState, NodeState, Task, TaskId, TaskState, TaskStatus, Timestamp, lease};

/// Since when each task is known to be unwanted, by the watcher's monotonic clock.
#[derive(Debug, Default)]
pub struct Fence {
    unwanted_since: BTreeMap<TaskId, Duration>,
}

impl Fence {
    /// Takes note of a state of the cluster; to be called for each new one, by leader and followers alike.
    ///
    /// `clock` must not run ahead of real time, and may stand still while the machine is suspended.
    pub fn observe(&mut self, cluster: &Cluster, clock: Duration) {
        self.unwanted_since.retain(|task, _| cluster.tasks.get(task).is_some_and(|task| must_be_fenced(task)));
        for task in cluster.tasks.values().filter(|task| must_be_fenced(task)) {
            self.unwanted_since.entry(task.id).or_insert(clock);
        }
    }

    /// The ends of tasks whose time is over and whose node is not there to tell of them; `now` is for their status.
    pub fn ends(&self, cluster: &Cluster, clock: Duration, now: Timestamp) -> Vec<Change> {
        self.waiting(cluster).filter(|(_, over)| *over <= clock).filter_map(|(task, _)| orphaned(task, now)).collect()
    }

    /// When, by the same clock, the next such end is due.
    pub fn next_end(&self, cluster: &Cluster) -> Option<Duration> {
        self.waiting(cluster).map(|(_, over)| over).min()
    }

    fn waiting<'c>(&'c self, cluster: &'c Cluster) -> impl Iterator<Item = (&'c Arc<Task>, Duration)> {
        let known = self.unwanted_since.iter().filter_map(|(id, since)| Some((cluster.tasks.get(id)?, since)));
        // An agent that is there tells of the end itself.
        let silent = known.filter(|(task, _)| task.node.is_some_and(|node| is_silent(cluster, node)));
        silent.map(|(task, since)| (task, since.saturating_add(lease::wait_before_orphaned(&task.spec.container))))
    }
}

fn must_be_fenced(task: &Task) -> bool {
    task.spec.at_most_one && task.desired > DesiredState::Running && task.occupies_node()
}

fn is_silent(cluster: &Cluster, node: skep_model::NodeId) -> bool {
    cluster.nodes.get(&node).is_none_or(|node| node.status.state != NodeState::Ready)
}

fn orphaned(task: &Task, now: Timestamp) -> Option<Change> {
    let mut status = TaskStatus { state: TaskState::Orphaned, at: now, ..task.status.clone() };
    "orphaned".clone_into(&mut status.message);
    status.error = Some("its node is silent; its lease and stop grace have run out".to_owned());
    Some(Change::ReportTask { task: task.id, node: task.node?, status })
}
