//! Waiting until services are what was asked for: a line for each that moves, and an end that says why.
//!
//! The cluster does the work whether anybody waits or not; this only looks.
//! [`picture`] decides what is seen, [`screen`] shows it, [`report`] tells of failures.

pub mod drain;
mod explain;
#[cfg(test)]
pub mod fixture;
mod follow;
mod picture;
mod report;
mod screen;

use std::collections::BTreeSet;
use std::pin::pin;
use std::time::Duration;

use skep_api::{ControlClient, Filter, Refusal};
use skep_model::{Service, Task, TaskId, Version};
use tokio::time::{Instant, timeout};

use super::Result;
use super::failure::{Exit, INTERRUPTED, TIMED_OUT};
use super::output;
pub use follow::{Followed, follow};
use picture::{Picture, Trouble};
pub use screen::{Progress, Screen};

/// How long all must run before it counts, and how long when something failed on the way.
const STABLE: Duration = Duration::from_secs(1);
const STABLE_AFTER_FAILURE: Duration = Duration::from_secs(5);
/// How long a task may find no node: old tasks may be about to make room, a node about to come up.
const UNPLACED: Duration = Duration::from_secs(5);

/// What is waited for.
#[derive(Debug)]
pub struct Goal {
    /// Names of the services.
    pub services: BTreeSet<String>,
    /// Their stack, where they have one.
    pub stack: Option<String>,
    /// The cluster's version after the change that is waited for.
    pub since: Version,
    pub timeout: Duration,
    /// A command that shows what goes on.
    pub watch_with: String,
}

/// Returns once every service is settled; an [`Exit`] says why one is not.
pub async fn until_settled(control: &ControlClient, goal: &Goal, progress: Progress) -> Result {
    let mut interrupted = pin!(tokio::signal::ctrl_c());
    let mut watch = Waiting::new(control, goal, Screen::new(progress));
    tokio::select! {
        // A signal that cannot be listened for ends the program by itself.
        _ = &mut interrupted => {}
        end = timeout(goal.timeout, watch.run()) => {
            let Ok(end) = end else {
                output::complain(format_args!("not settled after {}", output::time::exact(goal.timeout)));
                return Err(Exit::saying(TIMED_OUT, format!("it goes on; watch it with `{}`", goal.watch_with)));
            };
            return match end? {
                troubles if troubles.is_empty() => Ok(()),
                troubles => Err(report::tell(control, &troubles, goal).await),
            };
        }
    }
    output::raw_complaint("\n");
    Err(Exit::saying(INTERRUPTED, format!("interrupted; the deploy goes on, watch it with `{}`", goal.watch_with)))
}

struct Waiting<'a> {
    control: &'a ControlClient,
    goal: &'a Goal,
    screen: Screen,
    /// Tasks that had ended before the wait: their failures are not this change's.
    past: Option<BTreeSet<TaskId>>,
    settled_since: Option<Instant>,
    unplaced_since: Option<Instant>,
}

impl<'a> Waiting<'a> {
    fn new(control: &'a ControlClient, goal: &'a Goal, screen: Screen) -> Self {
        Self { control, goal, screen, past: None, settled_since: None, unplaced_since: None }
    }

    /// What went wrong; nothing when all is settled.
    async fn run(&mut self) -> Result<Vec<Trouble>> {
        let (control, since) = (self.control, self.goal.since);
        follow::run(control, since, async || self.look().await).await
    }

    async fn look(&mut self) -> Result<Option<Vec<Trouble>>, Refusal> {
        let filter = Filter { stack: self.goal.stack.clone(), ..Filter::default() };
        let mut services = self.control.services(filter.clone()).await?;
        services.retain(|service| self.goal.services.contains(service.name()));
        let tasks = self.control.tasks(filter).await?;
        Ok(self.judge(&services, &tasks))
    }

    fn judge(&mut self, services: &[Service], tasks: &[Task]) -> Option<Vec<Trouble>> {
        let ended = || tasks.iter().filter(|task| task.status.state.is_terminal()).map(|task| task.id).collect();
        let past = self.past.get_or_insert_with(ended);
        let picture = Picture::of(services, tasks, self.goal.since, past);
        self.screen.show(&picture.lines);
        let now = Instant::now();
        if !picture.troubles.is_empty() {
            return Some(picture.troubles);
        }
        let lasted = |since: &mut Option<Instant>, holds: bool, enough: Duration| match holds {
            true => now.duration_since(*since.get_or_insert(now)) >= enough,
            false => {
                *since = None;
                false
            }
        };
        if lasted(&mut self.unplaced_since, !picture.unplaced.is_empty(), UNPLACED) {
            return Some(picture.unplaced);
        }
        // A service that is gone is removed by somebody else, and nothing to wait for.
        let enough = if picture.failed_before { STABLE_AFTER_FAILURE } else { STABLE };
        lasted(&mut self.settled_since, picture.settled, enough).then(Vec::new)
    }
}
