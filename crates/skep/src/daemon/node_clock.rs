//! The node's clock over restarts: the latest time that was certainly right is kept, and a wrong clock is told of.

use std::sync::Arc;
use std::time::{Duration, Instant};

use skep_agent::chain;
use skep_identity::{IdentityDir, NodeClock, Synchronised};

use super::config::NodeConfig;

/// An idle node writes nothing: once an hour is often enough for a floor.
const STORE_PERIOD: Duration = Duration::from_secs(3600);

/// This machine's clock, shifted where the settings say so.
pub fn node_clock(config: &NodeConfig) -> NodeClock {
    match config.clock_shift_seconds {
        0 => NodeClock::system(kernels_word),
        // Nobody keeps such a clock right.
        shift => NodeClock::shifted(shift, || Synchronised::No),
    }
}

fn kernels_word() -> Synchronised {
    match skep_runtime::clock_is_synchronised() {
        Some(true) => Synchronised::Yes,
        Some(false) => Synchronised::No,
        None => Synchronised::Unknown,
    }
}

/// Stores the clock now and then, and tells the log when it is wrong and when it is right again.
pub struct ClockKeeper {
    identity: IdentityDir,
    clock: Arc<NodeClock>,
    stored: Option<Instant>,
    behind: bool,
}

impl ClockKeeper {
    /// From now on `clock` reads the stored time at the earliest.
    pub fn new(identity: IdentityDir, clock: Arc<NodeClock>) -> Self {
        if let Some(passed) = identity.load_clock() {
            clock.at_least(passed);
        }
        Self { identity, clock, stored: None, behind: false }
    }

    pub fn tick(&mut self) {
        match (self.clock.behind(), self.behind) {
            (Some(behind), false) => {
                tracing::warn!("{behind}; nothing is refused or issued for time's sake until then");
                self.behind = true;
            }
            (None, true) => {
                tracing::info!("the clock is right again");
                self.behind = false;
            }
            (Some(_), true) | (None, false) => {}
        }
        if self.stored.is_none_or(|at| at.elapsed() >= STORE_PERIOD) {
            self.store();
        }
    }

    pub fn stop(&mut self) {
        self.store();
    }

    fn store(&mut self) {
        let Some(now) = self.clock.worth_storing() else { return };
        if let Err(error) = self.identity.store_clock(now) {
            tracing::warn!(error = chain(&error), "the time could not be stored");
        }
        self.stored = Some(Instant::now());
    }
}
