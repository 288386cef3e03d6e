//! How a task's container is stopped: first nobody is led to it any more, then those who are with it may finish, and
//! only then it gets its signal.
//!
//! ```text
//! out of this node's maps ─▶ out of every node's (acknowledged) ─▶ no connection left, or `drain` is over
//!     ─▶ pre_stop hooks ─▶ SIGTERM ─▶ SIGKILL, when the grace that began with the hooks is over
//! ```
//! Where no other task serves in its place nobody's connections are waited for: it would only take longer until the next
//! one does.

use std::time::Duration;

use skep_runtime::Signal;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::driver::{Driver, Wish, blocking};
use super::step::{Health, Observed};
use super::watch::Ended;
use crate::node::chain;

/// Between two looks at the connections that are left: a look takes the kernel milliseconds.
const LOOK: Duration = Duration::from_millis(20);
const LOOK_MAX: Duration = Duration::from_millis(250);

impl Driver {
    /// Out of the maps, the connections that are left, then the signal, then the grace, then SIGKILL.
    pub(super) async fn stop(&mut self) {
        let failure = self.failure();
        self.setup.network.set_serving(self.setup.task.id, false).await;
        if failure.is_none() {
            self.drain().await;
        }
        if matches!(self.observed, Observed::Ended { .. }) {
            // While it was drained: its end is told once.
            return;
        }
        let never_ran = self.observed == Observed::Created;
        let grace = if never_ran { Duration::from_secs(1) } else { self.setup.task.spec.container.stop_grace() };
        let until = Instant::now() + grace;
        let ended = match self.pre_stop(until).await {
            Some(ended) => Some(ended),
            None => self.signalled(never_ran, until).await,
        };
        let Some(mut ended) = ended else {
            self.observed = Observed::Ended { exit_code: 0, oom_killed: false, error: None, stop_asked: true };
            return;
        };
        let stop_asked = failure.is_none();
        ended.error = failure.or(ended.error);
        self.ended(ended, stop_asked);
    }

    /// The stop signal, and SIGKILL when it has not ended by then. `None` without a container.
    async fn signalled(&mut self, never_ran: bool, until: Instant) -> Option<Ended> {
        let running = self.container.as_mut()?;
        let container = running.container.clone();
        let first = move || if never_ran { container.signal(Signal::KILL) } else { container.stop() };
        if let Err(error) = blocking(first).await {
            tracing::debug!(
                task.id = self.setup.task.id.to_string(),
                error = chain(&error),
                "the stop signal was not delivered"
            );
        }
        if let Ok(ended) = tokio::time::timeout_at(until, running.watch.ended()).await {
            return Some(ended);
        }
        let container = running.container.clone();
        if let Err(error) = blocking(move || container.signal(Signal::KILL)).await {
            tracing::debug!(
                task.id = self.setup.task.id.to_string(),
                error = chain(&error),
                "SIGKILL was not delivered"
            );
        }
        Some(running.watch.ended().await)
    }

    /// Why a container that nobody asked to stop is stopped.
    fn failure(&self) -> Option<String> {
        match &self.observed {
            Observed::Running { health: Health::Unhealthy } => {
                let last = self.container.as_ref().and_then(|running| running.progress.last.as_ref());
                let last = last.map(|(code, output)| format!(": the last check gave {code}: {}", output.trim()));
                Some(format!("unhealthy container{}", last.unwrap_or_default()))
            }
            Observed::Doomed { reason } => Some(reason.clone()),
            Observed::Nothing
            | Observed::Created
            | Observed::Started
            | Observed::Running { .. }
            | Observed::Ended { .. } => None,
        }
    }

    /// Ends early when the container does, and when the task is taken off this node.
    async fn drain(&mut self) {
        let task = &self.setup.task;
        let limit = task.spec.drain();
        let serves = matches!(self.observed, Observed::Running { .. });
        let waits = !limit.is_zero() && serves && self.setup.network.others_serve(task.service, task.id).await;
        // A hook may take for granted that nobody new comes.
        let settles = serves && !task.spec.container.pre_stop.is_empty();
        if !waits && !settles {
            return;
        }
        let addresses = self.addresses();
        let (network, drains, id) = (self.setup.network.clone(), self.setup.drains.clone(), task.id);
        let drained = async move {
            drains.settle(id).await;
            if !waits {
                return 0;
            }
            let until = Instant::now() + limit;
            let mut pause = LOOK;
            loop {
                let left = network.connections(addresses.clone()).await;
                if left == 0 || Instant::now() >= until {
                    return left;
                }
                sleep(pause.min(until.saturating_duration_since(Instant::now()))).await;
                pause = (pause * 2).min(LOOK_MAX);
            }
        };
        let ended: Option<Ended> = {
            let Some(running) = &mut self.container else { return };
            tokio::select! {
                left = drained => {
                    if left > 0 {
                        tracing::info!(task.id = %id, left, "the drain is over and connections are left");
                    }
                    None
                }
                ended = running.watch.ended() => Some(ended),
                () = forgotten(&mut self.wish) => None,
            }
        };
        if let Some(ended) = ended {
            self.ended(ended, true);
        }
    }
}

async fn forgotten(wish: &mut watch::Receiver<Wish>) {
    // The sender's end is a daemon that stops: its drivers are dropped.
    if wish.wait_for(|wish| *wish == Wish::Forget).await.is_err() {
        std::future::pending::<()>().await;
    }
}
