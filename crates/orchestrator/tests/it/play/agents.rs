//! Agents that need time: each image pulls, starts, becomes healthy, ends and stops in its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use skep_model::*;

use crate::sim::Sim;

/// How an image behaves.
#[derive(Debug, Clone)]
pub struct Behaviour {
    pub pull: Duration,
    pub start: Duration,
    /// The health check passes this long after the start; `None` never.
    pub healthy: Option<Duration>,
    pub stop: Duration,
    /// Why it cannot be prepared.
    pub rejected: Option<String>,
    /// With which code it ends, how long after its start.
    pub exits: Option<(i32, Duration)>,
    /// When a health check that never passed ends it.
    pub gives_up: Duration,
}

impl Default for Behaviour {
    fn default() -> Self {
        let tenths = |n: u64| Duration::from_millis(100 * n);
        Self {
            pull: tenths(5),
            start: tenths(2),
            healthy: Some(Duration::ZERO),
            stop: tenths(10),
            rejected: None,
            exits: None,
            gives_up: Duration::from_secs(30),
        }
    }
}

/// What is under way of a task on its node.
#[derive(Debug, Clone, Copy)]
struct Doing {
    state: TaskState,
    since: Timestamp,
    stopping: Option<Timestamp>,
    ran_from: Option<Timestamp>,
}

/// All agents; what they do survives managers and their own silence.
#[derive(Debug, Default)]
pub struct Agents {
    pub images: BTreeMap<String, Behaviour>,
    doing: BTreeMap<TaskId, Doing>,
}

impl Agents {
    fn behaviour(&self, task: &Task) -> Behaviour {
        self.images.get(&task.spec.container.image).cloned().unwrap_or_default()
    }

    /// Every node that is up does what is due, and reports it. True if anything was reported.
    pub fn step(&mut self, sim: &mut Sim) -> bool {
        let tasks: Vec<Arc<Task>> = sim.cluster.tasks.values().cloned().collect();
        self.doing.retain(|id, _| sim.cluster.tasks.contains_key(id));
        let mut reported = false;
        for task in tasks {
            let Some(node) = task.node.filter(|node| is_up(&sim.cluster, *node)) else { continue };
            if task.status.state.is_terminal() {
                continue;
            }
            let now = sim.now;
            let assigned = Doing { state: TaskState::Assigned, since: now, stopping: None, ran_from: None };
            let mut doing = *self.doing.entry(task.id).or_insert(assigned);
            while let Some((at, state, error)) = self.next(&task, &doing) {
                if at > now {
                    break;
                }
                let ran_from = if state == TaskState::Starting { Some(now) } else { doing.ran_from };
                doing = Doing { state, since: now, ran_from, ..doing };
                let mut status = TaskStatus { error, ..TaskStatus::new(state, now, "") };
                let container = ContainerStatus { started_at: ran_from, ..ContainerStatus::default() };
                status.container = ran_from.map(|_| container);
                sim.apply(Change::ReportTask { task: task.id, node, status });
                reported = true;
                if state.is_terminal() {
                    break;
                }
            }
            if task.desired >= DesiredState::Shutdown && doing.stopping.is_none() {
                doing.stopping = Some(now);
            }
            self.doing.insert(task.id, doing);
        }
        reported
    }

    /// When anything is due next.
    pub fn next_due(&self, sim: &Sim) -> Option<Timestamp> {
        let tasks = sim.cluster.tasks.values().filter(|task| !task.status.state.is_terminal());
        let up = tasks.filter(|task| task.node.is_some_and(|node| is_up(&sim.cluster, node)));
        let due = up.filter_map(|task| self.next(task, self.doing.get(&task.id)?));
        due.map(|(at, ..)| at).filter(|at| *at > sim.now).min()
    }

    fn next(&self, task: &Task, doing: &Doing) -> Option<(Timestamp, TaskState, Option<String>)> {
        let image = self.behaviour(task);
        let exit = || -> Option<(Timestamp, TaskState, Option<String>)> {
            let (code, after) = image.exits?;
            let state = if code == 0 { TaskState::Complete } else { TaskState::Failed };
            let error = (code != 0).then(|| format!("task: non-zero exit ({code})"));
            Some((doing.ran_from?.after(after), state, error))
        };
        let stop = || {
            let stop = if doing.state < TaskState::Starting { Duration::ZERO } else { image.stop };
            doing.stopping.map(|since| (since.after(stop), TaskState::Shutdown, None))
        };
        let goes_on = match doing.state {
            TaskState::Assigned => match &image.rejected {
                Some(why) => Some((doing.since.after(image.pull), TaskState::Rejected, Some(why.clone()))),
                None => Some((doing.since.after(image.pull), TaskState::Ready, None)),
            },
            TaskState::Ready if task.desired == DesiredState::Running => {
                Some((doing.since.after(Duration::ZERO), TaskState::Starting, None))
            }
            TaskState::Starting => {
                let up = doing.since.after(image.start);
                let unhealthy =
                    || (up.after(image.gives_up), TaskState::Failed, Some("unhealthy container".to_owned()));
                Some(image.healthy.map_or_else(unhealthy, |healthy| (up.after(healthy), TaskState::Running, None)))
            }
            _ => None,
        };
        [goes_on.filter(|_| doing.stopping.is_none()), exit().filter(|_| doing.state >= TaskState::Starting), stop()]
            .into_iter()
            .flatten()
            .min_by_key(|(at, ..)| *at)
    }
}

pub fn is_up(cluster: &Cluster, node: NodeId) -> bool {
    cluster.nodes.get(&node).is_some_and(|node| node.status.state == NodeState::Ready)
}
