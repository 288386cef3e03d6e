//! What a task's driver does next: a pure function of what is wanted and what is there.
//!
//! ```text
//!  Nothing ──Prepare──▶ Created ──Start──▶ Started ──PostStart──▶ Running ──(healthy)──▶ reported Running
//!     │                   │ (desired ≥ Running)  │ exits: Complete or Failed
//!     └── desired ≥ Shutdown anywhere: Stop, then Shutdown
//! ```

use skep_model::{DesiredState, TaskState};

/// What is there of a task on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observed {
    /// No container.
    Nothing,
    /// Everything is prepared; the command has not been started.
    Created,
    /// The command runs, and hooks of its start are left to run.
    Started,
    Running {
        health: Health,
    },
    /// The command runs and must not: a hook of its start failed.
    Doomed {
        reason: String,
    },
    Ended {
        exit_code: i32,
        oom_killed: bool,
        error: Option<String>,
        stop_asked: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// No health check: running is healthy.
    Unchecked,
    Starting,
    Healthy,
    Unhealthy,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Pull, plumb and create.
    Prepare,
    Start,
    /// Run the hooks that follow the start.
    PostStart,
    /// Say that the task is in this state, then go on.
    Report(TaskState),
    /// Wait for the container, its health or a new wish.
    Wait,
    Stop,
    /// The end: nothing is left to do until the task is taken off the node.
    End(TaskState),
}

/// `reported` is the last state that was sent to the managers.
pub fn next(desired: DesiredState, reported: TaskState, observed: &Observed) -> Step {
    let must_stop = desired >= DesiredState::Shutdown;
    match observed {
        _ if reported.is_terminal() => Step::End(reported),
        Observed::Ended { stop_asked: true, .. } => Step::End(TaskState::Shutdown),
        Observed::Ended { exit_code: 0, error: None, .. } => Step::End(TaskState::Complete),
        Observed::Ended { .. } => Step::End(TaskState::Failed),
        Observed::Nothing if must_stop => Step::End(TaskState::Shutdown),
        Observed::Created | Observed::Started | Observed::Running { .. } if must_stop => Step::Stop,
        Observed::Doomed { .. } => Step::Stop,
        Observed::Nothing => Step::Prepare,
        Observed::Created if reported < TaskState::Ready => Step::Report(TaskState::Ready),
        Observed::Created if desired == DesiredState::Running => Step::Start,
        Observed::Created => Step::Wait,
        Observed::Started if reported < TaskState::Starting => Step::Report(TaskState::Starting),
        Observed::Started => Step::PostStart,
        Observed::Running { health: Health::Unhealthy } => Step::Stop,
        Observed::Running { .. } if reported < TaskState::Starting => Step::Report(TaskState::Starting),
        Observed::Running { health: Health::Unchecked | Health::Healthy } if reported < TaskState::Running => {
            Step::Report(TaskState::Running)
        }
        Observed::Running { .. } => Step::Wait,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNNING: Observed = Observed::Running { health: Health::Unchecked };

    fn ended(exit_code: i32) -> Observed {
        Observed::Ended { exit_code, oom_killed: false, error: None, stop_asked: false }
    }

    #[test]
    fn a_task_walks_to_running_and_reports_on_the_way() {
        let next = |reported, observed: &Observed| next(DesiredState::Running, reported, observed);
        assert_eq!(next(TaskState::Assigned, &Observed::Nothing), Step::Prepare);
        assert_eq!(next(TaskState::Preparing, &Observed::Created), Step::Report(TaskState::Ready));
        assert_eq!(next(TaskState::Ready, &Observed::Created), Step::Start);
        assert_eq!(next(TaskState::Ready, &RUNNING), Step::Report(TaskState::Starting));
        assert_eq!(next(TaskState::Starting, &RUNNING), Step::Report(TaskState::Running));
        assert_eq!(next(TaskState::Running, &RUNNING), Step::Wait);
        assert_eq!(next(TaskState::Running, &ended(0)), Step::End(TaskState::Complete));
        assert_eq!(next(TaskState::Running, &ended(1)), Step::End(TaskState::Failed));
    }

    #[test]
    fn a_prepared_task_waits_until_it_may_run() {
        assert_eq!(next(DesiredState::Ready, TaskState::Ready, &Observed::Created), Step::Wait);
    }

    #[test]
    fn a_task_with_a_health_check_runs_once_it_is_healthy() {
        let with = |health| next(DesiredState::Running, TaskState::Starting, &Observed::Running { health });
        assert_eq!(with(Health::Starting), Step::Wait);
        assert_eq!(with(Health::Healthy), Step::Report(TaskState::Running));
        assert_eq!(with(Health::Unhealthy), Step::Stop);
    }

    #[test]
    fn a_task_with_hooks_runs_once_they_have_ended_and_fails_with_them() {
        let doomed = Observed::Doomed { reason: String::new() };
        let next = |reported, observed: &Observed| next(DesiredState::Running, reported, observed);
        assert_eq!(next(TaskState::Ready, &Observed::Started), Step::Report(TaskState::Starting));
        assert_eq!(next(TaskState::Starting, &Observed::Started), Step::PostStart);
        assert_eq!(next(TaskState::Starting, &doomed), Step::Stop);
        assert_eq!(super::next(DesiredState::Shutdown, TaskState::Starting, &Observed::Started), Step::Stop);
    }

    #[test]
    fn a_stop_ends_in_shutdown_whatever_the_exit_code() {
        let stopped = Observed::Ended { exit_code: 143, oom_killed: false, error: None, stop_asked: true };
        assert_eq!(next(DesiredState::Shutdown, TaskState::Running, &RUNNING), Step::Stop);
        assert_eq!(next(DesiredState::Shutdown, TaskState::Running, &stopped), Step::End(TaskState::Shutdown));
        assert_eq!(
            next(DesiredState::Shutdown, TaskState::Assigned, &Observed::Nothing),
            Step::End(TaskState::Shutdown)
        );
    }
}
