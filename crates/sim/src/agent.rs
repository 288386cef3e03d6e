//! A fake agent: does what the real one does with its assignments, with containers that are only data.
//!
//! ```text
//!  Pulling ─▶ Pulled ─(desired Running)─▶ Starting ─▶ Running ─▶ Ended
//!     └─ rejected      (desired Shutdown: ─▶ Stopping ─▶ Ended)
//! ```
//! Containers survive the daemon, and end with the machine's power. What was assigned last is on disk.

use std::collections::BTreeMap;

use skep_api::{Assignment, AssignmentKey, Assignments};
use skep_model::{
    ContainerStatus, DesiredState, NodeDescription, NodeId, ServiceId, Slot, Task, TaskId, TaskState, TaskStatus,
    Timestamp,
};

use crate::clock::{Nanos, WallClock};
use crate::session::SessionId;

#[derive(Debug)]
pub struct Agent {
    pub node: NodeId,
    pub description: NodeDescription,
    pub up: bool,
    pub epoch: u64,
    /// Counts how often the machine had power.
    pub power: u64,
    pub wall: WallClock,
    pub session: Option<SessionId>,
    pub welcomed: bool,
    pub last_manager: usize,
    pub revision: u64,
    pub assigned: BTreeMap<AssignmentKey, Assignment>,
    pub drivers: BTreeMap<TaskId, Driver>,
    pub containers: BTreeMap<TaskId, Container>,
    /// Until when at-most-one tasks may run, by the machine's monotonic clock.
    pub leases: BTreeMap<TaskId, Nanos>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    pub slot: (ServiceId, Slot),
    pub started: Timestamp,
    pub exit: Option<i32>,
    /// Of an at-most-one task: until when, kept by its warden; the grace that it then has to stop.
    pub lease: Option<Nanos>,
    pub grace: Nanos,
}

#[derive(Debug)]
pub struct Driver {
    pub task: Task,
    pub desired: DesiredState,
    pub forgotten: bool,
    pub phase: Phase,
    /// Only the newest timer counts.
    pub timer: u64,
    pub status: TaskStatus,
    pub unsent: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Pulling,
    Pulled,
    Starting,
    Running,
    Stopping,
    Ended,
}

/// What a driver waits for next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    Nothing,
    Pull,
    Start,
    Stop,
    /// It is gone.
    Forget,
}

impl Agent {
    pub fn new(node: NodeId, description: NodeDescription) -> Self {
        Self {
            node,
            description,
            up: true,
            epoch: 0,
            power: 0,
            wall: WallClock::default(),
            session: None,
            welcomed: false,
            last_manager: 0,
            revision: 0,
            assigned: BTreeMap::new(),
            drivers: BTreeMap::new(),
            containers: BTreeMap::new(),
            leases: BTreeMap::new(),
        }
    }

    /// The daemon ends; containers and what is on disk stay.
    pub fn crash(&mut self) {
        self.up = false;
        self.epoch += 1;
        self.session = None;
        self.welcomed = false;
        self.revision = 0;
        self.drivers.clear();
        self.leases.clear();
    }

    pub fn cut_power(&mut self) {
        self.crash();
        self.power += 1;
        self.containers.clear();
    }

    /// Takes a set or a delta; the tasks to drive, and those to forget. `None` when it does not continue
    /// what is here.
    pub fn take(&mut self, delta: Assignments) -> Option<(Vec<Task>, Vec<TaskId>)> {
        let before = self.revision;
        match delta.base {
            None => self.assigned.clear(),
            Some(base) if base == self.revision => {}
            Some(_) => return None,
        }
        self.revision = delta.revision;
        let mut forgotten: Vec<TaskId> = Vec::new();
        for key in delta.removed {
            if let AssignmentKey::Task(task) = key {
                forgotten.push(task);
            }
            self.assigned.remove(&key);
        }
        let mut driven = Vec::new();
        for assignment in delta.set {
            if let Assignment::Task(task) = &assignment {
                driven.push((**task).clone());
            }
            self.assigned.insert(assignment.key(), assignment);
        }
        if delta.base.is_none() {
            let kept = |task: &TaskId| self.assigned.contains_key(&AssignmentKey::Task(*task));
            forgotten.extend(self.drivers.keys().copied().filter(|task| !kept(task)));
            if before == 0 {
                let kept: Vec<TaskId> = self.containers.keys().copied().filter(kept).collect();
                self.containers.retain(|task, _| kept.contains(task));
            }
        }
        Some((driven, forgotten))
    }

    /// Begins or goes on with a task that was assigned.
    pub fn drive(&mut self, task: Task) -> Next {
        let id = task.id;
        if let Some(driver) = self.drivers.get_mut(&id) {
            // A daemon that lost what it reported last runs a task whose end is known.
            let ended = if task.status.state.is_terminal() { DesiredState::Shutdown } else { task.desired };
            driver.desired = driver.desired.max(task.desired).max(ended);
            return self.advance(id);
        }
        let ended = task.status.state.is_terminal();
        let (phase, status) = match self.containers.get(&id) {
            _ if ended => (Phase::Ended, task.status.clone()),
            Some(Container { exit: None, started, .. }) => (Phase::Running, running(*started)),
            Some(Container { exit: Some(code), started, .. }) => {
                (Phase::Ended, exited(*code, *started, self.wall_at(task.meta.created_at)))
            }
            None => (Phase::Pulling, TaskStatus::new(TaskState::Preparing, task.meta.created_at, "preparing")),
        };
        let unsent = !ended && status.state >= TaskState::Ready;
        let driver = Driver { desired: task.desired, task, forgotten: false, phase, timer: 0, status, unsent };
        self.drivers.insert(id, driver);
        match phase {
            Phase::Pulling => Next::Pull,
            _ => self.advance(id),
        }
    }

    /// An end that was found later is dated by the daemon: never before the task began.
    fn wall_at(&self, least: Timestamp) -> Timestamp {
        self.containers.values().map(|container| container.started).max().unwrap_or(least).max(least)
    }

    /// What follows from a new wish or from an end, without waiting.
    pub fn advance(&mut self, id: TaskId) -> Next {
        let Some(driver) = self.drivers.get_mut(&id) else { return Next::Nothing };
        let must_stop = driver.forgotten || driver.desired >= DesiredState::Shutdown;
        match driver.phase {
            Phase::Pulling | Phase::Pulled | Phase::Starting if must_stop => {
                driver.phase = Phase::Ended;
                driver.timer += 1;
                driver.status = TaskStatus::new(TaskState::Shutdown, driver.status.at, "shutdown");
                driver.unsent = true;
                if driver.forgotten { Next::Forget } else { Next::Nothing }
            }
            Phase::Pulled if driver.desired == DesiredState::Running => {
                driver.phase = Phase::Starting;
                Next::Start
            }
            Phase::Running if must_stop => {
                driver.phase = Phase::Stopping;
                Next::Stop
            }
            Phase::Ended if driver.forgotten => Next::Forget,
            Phase::Pulling | Phase::Pulled | Phase::Starting | Phase::Running | Phase::Stopping | Phase::Ended => {
                Next::Nothing
            }
        }
    }

    /// Notes a grant: a later one never shortens an earlier.
    pub fn note_lease(&mut self, task: TaskId, until: Nanos) {
        let known = self.leases.entry(task).or_default();
        *known = until.max(*known);
        if let Some(lease) = self.containers.get_mut(&task).and_then(|container| container.lease.as_mut()) {
            *lease = until.max(*lease);
        }
    }

    pub fn unsent(&mut self) -> Vec<(TaskId, TaskStatus)> {
        let unsent = self.drivers.iter_mut().filter(|(_, driver)| driver.unsent);
        unsent
            .map(|(task, driver)| {
                driver.unsent = false;
                (*task, driver.status.clone())
            })
            .collect()
    }

    pub fn live_containers(&self) -> impl Iterator<Item = (TaskId, &Container)> {
        self.containers.iter().filter(|(_, container)| container.exit.is_none()).map(|(task, c)| (*task, c))
    }
}

pub fn running(started: Timestamp) -> TaskStatus {
    let container = ContainerStatus { started_at: Some(started), pid: 1, ..ContainerStatus::default() };
    TaskStatus { container: Some(container), ..TaskStatus::new(TaskState::Running, started, "started") }
}

pub fn exited(code: i32, started: Timestamp, at: Timestamp) -> TaskStatus {
    let container = ContainerStatus { started_at: Some(started), exit_code: Some(code), ..ContainerStatus::default() };
    let state = if code == 0 { TaskState::Complete } else { TaskState::Failed };
    TaskStatus { container: Some(container), ..TaskStatus::new(state, at, "exited") }
}
