//! At most one: the lease that a container of such a service lives by, and what its slot waits for.
//!
//! ```text
//! manager   confirms that it may speak ── grants ──┐
//! agent     sent heartbeat at t ───────────────────┴─▶ warden: until t + DURATION
//! warden    until: stop signal ── stop grace ──▶ SIGKILL
//! leader    task is to stop ── silence for `wait_before_orphaned` ──▶ Orphaned ──▶ its slot is free
//! ```
//! A lease is granted for a task that is wanted running, and for no other.
//! A slot is free when no other task of it may still run: all have ended, or are known to have run out.
//! The whole protocol and its proof: docs/adr/0006-at-most-one.md.

use std::sync::Arc;
use std::time::Duration;

use crate::{Cluster, ContainerSpec, DesiredState, Task};

/// How long a container runs without news, counted from when its agent sent the heartbeat that was granted.
pub const DURATION: Duration = Duration::from_secs(15);

/// What is left of a lease when a container is started at the latest: it should not end while it starts.
pub const LEFT_AT_START_MIN: Duration = Duration::from_secs(5);

/// Beside lease and grace: the kernel's time to end processes, and a busy machine's to wake the warden.
const MARGIN: Duration = Duration::from_secs(3);

/// One part in this many of the whole wait, for clocks that run at different speeds.
const DRIFT_PARTS: u32 = 50;

/// Docker's grace between the stop signal and SIGKILL.
const STOP_GRACE: Duration = Duration::from_secs(10);

impl ContainerSpec {
    /// How long a task is given between its stop signal and SIGKILL.
    pub fn stop_grace(&self) -> Duration {
        self.stop_grace_period.unwrap_or(STOP_GRACE)
    }
}

/// How long after a task was to stop its container is surely gone, though its node is silent.
///
/// Counted by a monotonic clock from when a manager saw the wish committed.
pub fn wait_before_orphaned(container: &ContainerSpec) -> Duration {
    let wait = DURATION.saturating_add(container.stop_grace()).saturating_add(MARGIN);
    wait.saturating_add(wait / DRIFT_PARTS)
}

/// A task of the same slot that may still run, or may be started, so that `task` must not yet be.
///
/// `None` for a task that is not at most one, whatever the others are.
/// The slot is known by the service's name: what a removed service of that name left counts too.
pub fn held_up_by<'c>(cluster: &'c Cluster, task: &Task) -> Option<&'c Arc<Task>> {
    if !task.spec.at_most_one {
        return None;
    }
    let same_slot = |other: &Task| other.slot == task.slot && other.service_name == task.service_name;
    cluster.tasks.values().find(|other| other.id != task.id && same_slot(other) && may_run(other))
}

/// Whether a container of the task may run, now or without a further decision.
///
/// A task that was only ever to be ready has not been started, nor has one that is to stop before it reached a node.
pub fn may_run(task: &Task) -> bool {
    let stops = task.desired > DesiredState::Running && task.node.is_some() && !task.withdrawn;
    let started = task.desired == DesiredState::Running || stops;
    started && !task.status.state.is_terminal()
}
