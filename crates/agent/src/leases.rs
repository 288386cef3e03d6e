//! Leases of at-most-one tasks: from a manager's grant to the wardens that enforce them.
//!
//! The agent only passes on what a manager granted, counted from when the heartbeat was sent that the grant
//! answers: whatever delays either of the two makes the lease shorter, never longer.
//! It has no say in when a lease ends, and nothing here must run for it to end.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use skep_api::LeaseGrant;
use skep_model::{TaskId, lease};
use skep_runtime::{ClientError, Container, Signal, State, boottime};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::node::chain;

/// When the lease of each task ends, by [`boottime`]. Clones share it.
#[derive(Debug, Clone)]
pub struct Leases(watch::Sender<BTreeMap<TaskId, Duration>>);

impl Default for Leases {
    fn default() -> Self {
        Self(watch::channel(BTreeMap::new()).0)
    }
}

impl Leases {
    /// Takes a grant in; what has run out meanwhile is dropped.
    pub fn take(&self, grant: &LeaseGrant) {
        let now = boottime();
        // Nobody can have sent it later than now, and no lease is longer than the managers wait for.
        let sent = Duration::from_nanos(grant.sent).min(now);
        let until = sent + grant.granted_for.min(lease::DURATION);
        self.0.send_modify(|held| {
            held.retain(|_, until| *until > now);
            for task in &grant.tasks {
                let known = held.entry(*task).or_insert(until);
                *known = until.max(*known);
            }
        });
    }

    pub fn of(&self, task: TaskId) -> TaskLease {
        TaskLease { held: self.0.subscribe(), task }
    }
}

/// The lease of one task.
#[derive(Debug, Clone)]
pub struct TaskLease {
    held: watch::Receiver<BTreeMap<TaskId, Duration>>,
    task: TaskId,
}

impl TaskLease {
    /// When it ends; zero if it has none.
    fn until(&mut self) -> Duration {
        self.held.borrow_and_update().get(&self.task).copied().unwrap_or_default()
    }

    /// Waits for a lease that is long enough to start with, and returns its end. May be dropped and called again.
    pub async fn enough_to_start(&mut self) -> Duration {
        loop {
            let until = self.until();
            if until >= boottime() + lease::LEFT_AT_START_MIN {
                return until;
            }
            self.changed().await;
        }
    }

    async fn changed(&mut self) {
        // The sender's end is an agent that stops, and with it whoever waits here.
        if self.held.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Passes each grant on to a container's warden, for as long as it is kept.
#[derive(Debug)]
pub struct Renewal(JoinHandle<()>);

impl Renewal {
    pub fn start(mut lease: TaskLease, container: Container) -> Self {
        Self(tokio::spawn(async move {
            let mut passed_on = Duration::ZERO;
            loop {
                let until = lease.until();
                if until > passed_on && !renewed(&container, until).await {
                    return;
                }
                passed_on = until;
                lease.changed().await;
            }
        }))
    }
}

impl Drop for Renewal {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// False when there is nothing left to renew.
async fn renewed(container: &Container, until: Duration) -> bool {
    let warden = container.clone();
    let answer = tokio::task::spawn_blocking(move || warden.renew_lease(until));
    match answer.await.expect("renewing a lease does not panic") {
        Ok(()) => true,
        Err(error @ (ClientError::Connection { .. } | ClientError::Unexpected { .. })) => {
            tracing::warn!(task.id = container.id(), error = chain(&error), "a lease was not renewed");
            true
        }
        // It has ended, or is about to; its watch tells.
        Err(error) => {
            tracing::info!(task.id = container.id(), error = chain(&error), "a lease can be renewed no more");
            false
        }
    }
}

/// How often a container is looked at that should have ended.
const LOOK: Duration = Duration::from_millis(200);

/// Returns once nothing of a leased container can run any more: before its end is told, another may not be started.
///
/// Nearly always that is at once. Where its warden cannot be asked, the last lease it can have is waited out.
pub async fn await_end(run_dir: &Path, id: &str, stop_grace: Duration) {
    let gone_at = boottime() + lease::DURATION + stop_grace;
    while boottime() < gone_at {
        let (run_dir, id) = (run_dir.to_owned(), id.to_owned());
        let over = tokio::task::spawn_blocking(move || is_over(&run_dir, &id));
        if over.await.expect("looking at a container does not panic") {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Kills what still runs.
fn is_over(run_dir: &Path, id: &str) -> bool {
    let found = Container::open(run_dir, id).and_then(|container| Ok((container.state()?, container)));
    match found {
        Ok((State::Exited { .. }, _)) => true,
        Ok((State::Created { .. } | State::Running { .. }, container)) => {
            if let Err(error) = container.signal(Signal::KILL) {
                tracing::debug!(task.id = id, error = chain(&error), "SIGKILL was not delivered, it may be gone");
            }
            false
        }
        // Nobody listens: the kernel ended the container together with its warden.
        Err(ClientError::NoWarden { source, .. }) => {
            matches!(source.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused)
        }
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use skep_model::IdSource;

    use super::*;

    fn grant(sent: Duration, tasks: Vec<TaskId>) -> LeaseGrant {
        LeaseGrant { sent: u64::try_from(sent.as_nanos()).unwrap(), granted_for: lease::DURATION, tasks }
    }

    #[tokio::test]
    async fn a_lease_counts_from_the_heartbeat_and_only_for_the_tasks_that_are_named() {
        let mut ids = IdSource::from_seed(1);
        let (granted, other) = (ids.next_id(), ids.next_id());
        let leases = Leases::default();
        let sent = boottime();
        leases.take(&grant(sent, vec![granted]));
        assert_eq!(leases.of(granted).enough_to_start().await, sent + lease::DURATION);
        assert_eq!(leases.of(other).until(), Duration::ZERO);
        // A heartbeat from before adds nothing, one from the future counts from now.
        leases.take(&grant(Duration::ZERO, vec![granted]));
        assert_eq!(leases.of(granted).until(), sent + lease::DURATION);
        leases.take(&grant(boottime() + lease::DURATION * 100, vec![other]));
        assert!(leases.of(other).until() <= boottime() + lease::DURATION);
    }
}
