//! The net helper: a process of its own, one per node, that answers containers' DNS questions and holds published
//! ports on the loopback addresses and IPv6, and carries the tunnel where the kernel does not. It outlives the daemon
//! and serves the last snapshot while none runs.
//!
//! ```text
//! daemon: Helper ──<run>/net.sock, snapshots──▶ helper: run ─▶ resolver  sockets inside each sandbox
//!           └─ starts it again when it dies                  ├▶ listener  sockets in the node's namespace
//!                                                            └▶ tunnel    the TUN device, a socket among the nodes
//! ```
//!
//! The daemon's half ([`Helper`]) starts, feeds and supervises the process; [`run`] is that process's main.
//! It does not touch the kernel's network configuration: that is `realize`'s, in the daemon.

mod cgroup;
mod client;
mod datagram;
mod listener;
mod process;
mod random;
mod resolver;
mod serve;
mod tunnel;
mod wire;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

pub use client::Helper;
pub use serve::run;

/// How the daemon runs its helper.
#[derive(Debug, Clone)]
pub struct HelperConfig {
    /// The daemon's run folder; the helper finds it in the environment variable `SKEP_RUN_DIR`.
    pub run_dir: PathBuf,
    /// The program to run as the helper, and its arguments: `skep` and `net`.
    pub program: PathBuf,
    pub args: Vec<String>,
    /// The helper joins `<cgroup_parent>/net` in every hierarchy, so that ending the daemon's own cgroup does not
    /// end it. Counts from the root of each mount. None: it stays in the daemon's.
    pub cgroup_parent: Option<String>,
}

/// Why the helper cannot be had, or why the helper's process ends.
#[derive(Debug, thiserror::Error)]
pub enum HelperError {
    #[error("failed to write `{path}` for the net helper")]
    File { path: PathBuf, source: io::Error },
    #[error("failed to start the net helper `{program}`")]
    Spawn { program: PathBuf, source: io::Error },
    #[error("the net helper ended as it started ({status}); its words are in `{log}`")]
    Ended { status: ExitStatus, log: PathBuf },
    #[error("the net helper did not answer on `{socket}` within {seconds} s; its words are in `{log}`")]
    Silent { socket: PathBuf, seconds: u64, log: PathBuf },
    #[error("failed to talk to the net helper on `{socket}`")]
    Talk { socket: PathBuf, source: io::Error },
    #[error("the net helper refused what it should serve: {message}")]
    Refused { message: String },
    #[error("failed to end the net helper (pid {pid})")]
    Stop { pid: i32, source: io::Error },
    #[error("the net helper was stopped")]
    Stopped,
    #[error("another net helper serves `{run_dir}` and did not end within {seconds} s")]
    Another { run_dir: PathBuf, seconds: u64 },
    #[error("failed to listen on `{socket}`")]
    Listen { socket: PathBuf, source: io::Error },
    #[error("failed to wait for signals")]
    Signals(#[source] io::Error),
}

/// Where the two halves meet, below the run folder.
#[derive(Debug, Clone)]
struct Paths {
    run_dir: PathBuf,
}

impl Paths {
    fn new(run_dir: &Path) -> Self {
        Self { run_dir: run_dir.to_owned() }
    }

    fn socket(&self) -> PathBuf {
        self.run_dir.join("net.sock")
    }

    fn folder(&self) -> PathBuf {
        self.run_dir.join("net")
    }

    fn snapshot(&self) -> PathBuf {
        self.folder().join("snapshot.json")
    }

    /// Held by the helper that serves.
    fn lock(&self) -> PathBuf {
        self.folder().join("helper.lock")
    }

    fn log(&self) -> PathBuf {
        self.folder().join("helper.log")
    }
}
