//! What services look like at one moment: settled, moving, or in trouble. Pure.
//!
//! ```text
//! each slot:  Running · Done · Underway · Waiting · Unplaced · Failing · GaveUp
//! service:    all slots Running or Done, no update under way  = settled
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use skep_model::{
    Condition, DesiredState, Mode, PublishMode, Service, Slot, Task, TaskId, TaskState, Timestamp, UpdateState,
    UpdateStatus, Version,
};

use crate::cli::failure::{ROLLED_BACK, UNPLACED};

/// A task that cannot even be prepared will hardly be the next time.
const REJECTED_MAX: usize = 2;
const FAILED_MAX: usize = 3;

#[derive(Debug, Default)]
pub struct Picture {
    /// A service's name, and how it is.
    pub lines: Vec<(String, String)>,
    pub settled: bool,
    /// Some task failed since the wait began.
    pub failed_before: bool,
    pub unplaced: Vec<Trouble>,
    pub troubles: Vec<Trouble>,
}

/// Why a service will not get there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    pub code: u8,
    pub service: String,
    pub what: String,
    /// The task that shows it.
    pub task: Option<Task>,
}

impl Picture {
    /// `since` is the version after the change that is waited for; `past` are tasks that had ended before.
    pub fn of(services: &[Service], tasks: &[Task], since: Version, past: &BTreeSet<TaskId>) -> Self {
        let mut picture = Picture { settled: true, ..Picture::default() };
        for service in services {
            let tasks: Vec<&Task> = tasks.iter().filter(|task| task.service == service.id).collect();
            picture.add(service, &Slots::of(service, &tasks, past), since);
        }
        picture.lines.sort();
        picture
    }

    fn add(&mut self, service: &Service, slots: &Slots<'_>, since: Version) {
        let trouble = |code, what: String, task: Option<&Task>| Trouble {
            code,
            service: service.name().to_owned(),
            what,
            task: task.cloned(),
        };
        self.failed_before |= slots.last_failure.is_some();
        self.lines.push((service.name().to_owned(), slots.line(service)));
        for state in &slots.states {
            match state {
                SlotState::Failing(task) => {
                    self.troubles.push(trouble(1, "keeps failing".to_owned(), Some(task)));
                    break;
                }
                SlotState::GaveUp(task) => {
                    let what = "failed, and its restart policy ends here".to_owned();
                    self.troubles.push(trouble(1, what, Some(task)));
                    break;
                }
                SlotState::Unplaced(task) => {
                    let reason = task.status.error.as_deref().unwrap_or_default();
                    self.unplaced.push(trouble(UNPLACED, format!("cannot be placed: {reason}"), Some(task)));
                    break;
                }
                SlotState::Running | SlotState::Done | SlotState::Underway(_) | SlotState::Waiting(_) => {}
            }
        }
        let status = service.update_status.as_ref();
        // One that somebody asked for is what was wanted.
        let rolled_back = service.spec_version > since && !status.is_some_and(UpdateStatus::asked_for);
        let updating = match status.map(|status| status.state) {
            Some(UpdateState::Updating | UpdateState::RollbackStarted) => true,
            Some(UpdateState::Paused) => {
                let what = format!("was not updated: {}", status.map_or("", |status| &status.message));
                self.troubles.push(trouble(1, what, slots.last_failure));
                false
            }
            Some(UpdateState::RollbackPaused) if rolled_back => {
                let message = status.map_or("", |status| &status.message);
                let what = format!("was not updated, and going back failed too: {message}");
                self.troubles.push(trouble(1, what, slots.last_failure));
                false
            }
            Some(UpdateState::RollbackCompleted) if rolled_back => {
                let what = format!("was rolled back ({})", status.map_or("", |status| &status.message));
                self.troubles.push(trouble(ROLLED_BACK, what, slots.last_failure));
                false
            }
            Some(UpdateState::RollbackPaused) => {
                let what = format!("was not rolled back: {}", status.map_or("", |status| &status.message));
                self.troubles.push(trouble(1, what, slots.last_failure));
                false
            }
            Some(UpdateState::RollbackCompleted | UpdateState::Completed) | None => false,
        };
        self.settled &= !updating && slots.complete(service);
    }
}

/// The slots of a service, as far as they are wanted.
struct Slots<'t> {
    states: Vec<SlotState<'t>>,
    wanted: usize,
    /// The newest task that failed since the wait began.
    last_failure: Option<&'t Task>,
}

#[derive(Debug)]
enum SlotState<'t> {
    Running,
    /// It completed, and its policy is content with that.
    Done,
    Underway(&'static str),
    /// For another service.
    Waiting(&'t Task),
    Unplaced(&'t Task),
    Failing(&'t Task),
    GaveUp(&'t Task),
}

impl<'t> Slots<'t> {
    fn of(service: &Service, tasks: &[&'t Task], past: &BTreeSet<TaskId>) -> Self {
        let mut slots: BTreeMap<Slot, Vec<&'t Task>> = BTreeMap::new();
        let run = service.job.as_ref().map(|job| job.iteration);
        // What a job's earlier runs left is history.
        let counts = |task: &&&Task| task.desired < DesiredState::Remove && task.iteration == run;
        for task in tasks.iter().filter(counts) {
            slots.entry(task.slot).or_default().push(task);
        }
        for slot in slots.values_mut() {
            slot.sort_by_key(|task| std::cmp::Reverse((task.meta.created_at, task.id)));
        }
        let wanted = match service.spec.mode {
            Mode::Replicated { replicas } => usize::try_from(replicas).unwrap_or(usize::MAX),
            // Before its schedule begins a first run there is nothing to wait for.
            Mode::ReplicatedJob { .. } if run == Some(0) => 0,
            Mode::ReplicatedJob { total_completions, .. } => usize::try_from(total_completions).unwrap_or(usize::MAX),
            Mode::Global | Mode::GlobalJob => {
                slots.values().filter(|slot| slot.iter().any(|t| t.desired < DesiredState::Shutdown)).count()
            }
        };
        let recent = tasks.iter().filter(|task| has_failed(task) && !past.contains(&task.id));
        let last_failure = recent.max_by_key(|task| task.status.at).copied();
        let states = slots.values().filter_map(|slot| state_of(service, slot, past)).collect();
        Self { states, wanted, last_failure }
    }

    fn running(&self) -> usize {
        self.states.iter().filter(|state| matches!(state, SlotState::Running)).count()
    }

    fn complete(&self, service: &Service) -> bool {
        let good = self.states.iter().filter(|state| match state {
            SlotState::Running => service.job.is_none(),
            SlotState::Done => true,
            SlotState::Underway(_)
            | SlotState::Waiting(_)
            | SlotState::Unplaced(_)
            | SlotState::Failing(_)
            | SlotState::GaveUp(_) => false,
        });
        let good = good.count();
        // What a schedule begins takes its own time.
        if service.spec.schedule.is_some() {
            return true;
        }
        good == self.wanted && self.states.len() == self.wanted
    }

    /// `1/3 running, 1 preparing, 1 pending (no suitable node)`
    fn line(&self, service: &Service) -> String {
        let done = self.states.iter().filter(|state| matches!(state, SlotState::Done)).count();
        let mut line = match &service.job {
            Some(job) if job.iteration == 0 => "runs by its schedule".to_owned(),
            Some(_) => format!("{done}/{} completed", self.wanted),
            None => format!("{}/{} running", self.running(), self.wanted),
        };
        let mut others: BTreeMap<&str, usize> = BTreeMap::new();
        let mut reason = None;
        for state in &self.states {
            let word = match state {
                SlotState::Running if service.job.is_some() => "running",
                SlotState::Done if service.job.is_some() => continue,
                SlotState::Running => continue,
                SlotState::Done => "complete",
                SlotState::Underway(word) => word,
                SlotState::Waiting(task) => {
                    reason = reason.or(task.status.error.as_deref());
                    "waiting"
                }
                SlotState::Unplaced(task) => {
                    reason = reason.or(task.status.error.as_deref());
                    "pending"
                }
                SlotState::Failing(_) | SlotState::GaveUp(_) => "failing",
            };
            *others.entry(word).or_default() += 1;
        }
        for (word, count) in others {
            line.push_str(&format!(", {count} {word}"));
        }
        let error = self.last_failure.filter(|_| !self.complete(service)).map(why);
        if let Some(reason) = reason.map(str::to_owned).or(error).filter(|reason| !reason.is_empty()) {
            line.push_str(&format!(" ({reason})"));
        }
        match service.update_status.as_ref().map(|status| status.state) {
            Some(UpdateState::Updating) if self.complete(service) => line.push_str(", watched for failures"),
            Some(UpdateState::RollbackStarted) => line.push_str(", rolling back"),
            _ => {}
        }
        line
    }
}

/// `None` for a slot that holds only what was stopped, and nothing will follow.
fn state_of<'t>(service: &Service, slot: &[&'t Task], past: &BTreeSet<TaskId>) -> Option<SlotState<'t>> {
    let current: Vec<&'t Task> = slot.iter().filter(|task| is_current(service, task)).copied().collect();
    let outdated = slot.iter().any(|task| task.is_live() && !is_current(service, task));
    let Some(newest) = current.first() else {
        return outdated.then_some(SlotState::Underway("to be updated"));
    };
    if newest.status.state == TaskState::Running && newest.desired == DesiredState::Running {
        return Some(if outdated { SlotState::Underway("to be updated") } else { SlotState::Running });
    }
    let recent = || current.iter().filter(|task| !past.contains(&task.id));
    let rejected = recent().filter(|task| task.status.state == TaskState::Rejected).count();
    let failed = recent().filter(|task| has_failed(task)).count();
    if rejected >= REJECTED_MAX || failed >= FAILED_MAX {
        return recent().find(|task| has_failed(task)).map(|task| SlotState::Failing(task));
    }
    if !newest.status.state.is_terminal() {
        if newest.desired >= DesiredState::Shutdown {
            return Some(SlotState::Underway("stopping"));
        }
        // The task before it may be making room.
        let frees = |task: &&Task| task.occupies_node() && task.desired >= DesiredState::Shutdown;
        return Some(match (newest.status.state, &newest.status.error) {
            (TaskState::New, Some(_)) => SlotState::Waiting(newest),
            (TaskState::Pending, Some(_)) if !slot.iter().any(frees) => SlotState::Unplaced(newest),
            (state, _) => SlotState::Underway(state.word()),
        });
    }
    if newest.desired >= DesiredState::Shutdown {
        return (service_wants(service, slot)).then_some(SlotState::Underway("stopped"));
    }
    Some(match (newest.status.state, will_restart(newest, &current)) {
        (_, true) => SlotState::Underway("restarting"),
        (TaskState::Complete, false) => SlotState::Done,
        (_, false) => SlotState::GaveUp(newest),
    })
}

/// A global service's slot on a drained node is not wanted; a replicated one's is until it is removed.
fn service_wants(service: &Service, slot: &[&Task]) -> bool {
    !service.spec.mode.is_global() && !slot.is_empty()
}

/// As the orchestrator sees it: changed labels and numbers replace nothing.
fn is_current(service: &Service, task: &Task) -> bool {
    let host_ports = service.spec.endpoint.ports.iter().filter(|port| port.mode == PublishMode::Host);
    task.spec_version == service.spec_version
        || (*task.spec == service.spec.task && host_ports.eq(task.host_ports.iter()))
}

/// Ended, and not because it was told to or meant to.
fn has_failed(task: &Task) -> bool {
    match task.status.state {
        TaskState::Failed | TaskState::Rejected => true,
        TaskState::Complete => task.spec.restart.condition == Condition::Any && task.iteration.is_none(),
        _ => false,
    }
}

/// As the orchestrator decides it; `made` are the slot's tasks of one spec, `ended` the newest of them.
fn will_restart(ended: &Task, made: &[&Task]) -> bool {
    let policy = &ended.spec.restart;
    let wanted = match policy.condition {
        Condition::None => false,
        Condition::OnFailure => ended.status.state != TaskState::Complete,
        Condition::Any => ended.iteration.is_none() || ended.status.state != TaskState::Complete,
    };
    let oldest = match policy.window {
        Duration::ZERO => Timestamp(0),
        window => Timestamp(ended.status.at.0.saturating_sub(u64::try_from(window.as_nanos()).unwrap_or(u64::MAX))),
    };
    // The first task of a spec is no restart.
    let restarts = made.iter().filter(|task| task.meta.created_at >= oldest).count().saturating_sub(1);
    wanted && (policy.max_attempts == 0 || (restarts as u64) < policy.max_attempts)
}

/// Why a task ended, in one line.
pub fn why(task: &Task) -> String {
    if let Some(error) = &task.status.error {
        return error.clone();
    }
    match task.status.container.as_ref().and_then(|container| container.exit_code) {
        Some(code) => format!("it ended by itself, with exit code {code}"),
        None => task.status.message.clone(),
    }
}

#[cfg(test)]
mod tests;
