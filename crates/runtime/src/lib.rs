//! One container on this kernel: namespaces, cgroups, mounts, seccomp, exec; the Plan, and the keeper with its wardens.
//!
//! ```text
//! agent ──Plan──▶ client ──keeper.sock──▶ keeper ──fork──▶ warden ──clone3──▶ child ──exec──▶ the command
//!                   └───────────ctl────────────────────────▶┘ (start, signal, exec, events, release)
//! ```
//! The agent computes a [`Plan`]; the keeper, a small static executable of its own, forks a warden that executes it and
//! stays for as long as the container is not released. Nothing here decides about restarts, health or placement, pulls
//! images or plumbs networks: a network namespace comes in by path.

pub mod caps;
pub mod cgroup;
mod child;
mod client;
pub mod defaults;
mod failure;
pub mod keeper;
pub mod logs;
pub mod plan;
mod recovery;
mod run_dir;
pub mod seccomp;
mod signal;
mod sys;
pub mod user;
mod warden;
mod wire;

use std::path::Path;
use std::time::Duration;

pub use client::{
    ClientError, Container, CreateError, Created, Events, ExecExit, ExecIo, ExecSession, Keeper, KeeperConfig,
    KeeperError,
};
pub use failure::Failure;
pub use plan::{ExecPlan, Plan};
pub use recovery::{Liveness, Lost, SUPERVISOR_LOST};
pub use signal::Signal;
pub use warden::LEASE_RAN_OUT;
pub use wire::{Event, State};

/// Every container of this run folder, and whether its warden lives.
pub fn list(run_dir: impl AsRef<Path>) -> std::io::Result<Vec<(String, Liveness)>> {
    recovery::list(&run_dir::RunDir::new(run_dir.as_ref()))
}

/// Ends every container whose warden is gone: kills its cgroup, removes cgroup and run folder, says how it ended.
/// `cgroup_parent` serves for a container whose plan cannot be read any more.
pub fn recover_lost(run_dir: impl AsRef<Path>, cgroup_parent: &str) -> Result<Vec<Lost>, Failure> {
    recovery::recover_lost(&run_dir::RunDir::new(run_dir.as_ref()), cgroup_parent)
}

/// The clock of leases: time since boot, a suspended machine's sleep included (CLOCK_BOOTTIME).
pub fn boottime() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    // The clock starts at zero and its parts are in range.
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}
