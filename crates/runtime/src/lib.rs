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

pub use client::{
    ClientError, Container, CreateError, Created, Events, ExecExit, ExecIo, ExecSession, Keeper, KeeperConfig,
    KeeperError,
};
pub use failure::Failure;
pub use plan::{ExecPlan, Plan};
pub use recovery::{Liveness, Lost, SUPERVISOR_LOST};
pub use signal::Signal;
pub use sys::clock::is_synchronised as clock_is_synchronised;
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
