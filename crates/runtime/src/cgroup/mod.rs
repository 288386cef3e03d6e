//! A container's control group on whatever this kernel has: cgroup v1, v2, or the hybrid of both.
//!
//! ```text
//! CgroupHost::detect ──create(parent, id, limits)──▶ Cgroup ──join / dir_fd──▶ running ──kill──▶ empty ──remove──▶ gone
//!                    └─open(parent, id)────────────▶   (adoption after a restart of the keeper)
//! ```
//! `limits.rs` and `devices.rs` decide (pure), `v1.rs` and `v2.rs` say which file takes what (pure) and make folders,
//! `group.rs` is one container's handle. A limit that this kernel cannot enforce is reported, never dropped in silence:
//! [`Cgroup::unenforced`]. Wrong names, and limits that the kernel refuses, are errors.
//!
//! Hybrid (systemd's old default, and many CI machines): limits live on v1; the cgroup2 mount has no useful controllers
//! and is joined for the sake of `cgroup.kill`.
//!
//! v2's rule "no internal processes": a cgroup that hands controllers to its children may not hold processes. The parent
//! given to `create` must therefore be empty of processes; whoever runs the keeper puts it into a leaf of its own beside
//! the containers (systemd: `DelegateSubgroup=`, or a move before the first `create`). The root is exempt.

mod devices;
mod group;
mod host;
mod limits;
mod stats;
mod sys;
mod v1;
mod v2;

use std::io;
use std::path::PathBuf;

use thiserror::Error;

pub use devices::{Access, DeviceAccess, DeviceKind, DeviceRule, Verdict};
pub use group::{Cgroup, Unenforced};
pub use host::{CgroupHost, MissingController, Mode};
pub use limits::{CPU_PERIOD_US, Limits, Swap, cpu_weight};
pub use stats::Stats;

#[derive(Debug, Error)]
pub enum CgroupError {
    #[error("failed to read `{path}`")]
    Read { path: PathBuf, source: io::Error },
    #[error("no cgroup file system is mounted: mount cgroup2 at /sys/fs/cgroup")]
    NotMounted,
    #[error("`{name}` cannot name a cgroup: no empty parts, no `..`, and no `/` in an id")]
    BadName { name: String },
    #[error("memory and swap together ({total} bytes) must be at least the memory limit ({memory} bytes)")]
    SwapBelowMemory { total: u64, memory: u64 },
    #[error("failed to create cgroup `{path}`")]
    Create { path: PathBuf, source: io::Error },
    #[error("cgroup `{path}` exists and has processes in it")]
    InUse { path: PathBuf },
    #[error("cgroup `{path}` does not exist")]
    NotFound { path: PathBuf },
    #[error("failed to write `{value}` to `{path}`")]
    Write { path: PathBuf, value: String, source: io::Error },
    #[error("failed to move process {pid} into `{path}`")]
    Join { pid: i32, path: PathBuf, source: io::Error },
    #[error("cgroup `{path}` is not {state} after {seconds} s")]
    Stuck { path: PathBuf, state: &'static str, seconds: u64 },
    #[error("failed to remove cgroup `{path}`")]
    Remove { path: PathBuf, source: io::Error },
}
