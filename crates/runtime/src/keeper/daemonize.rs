//! From a child of the daemon to a process of its own: lock, cgroup, socket, session.
//! The socket listens before the started process returns, so whoever started it can connect at once.

use std::fs::{DirBuilder, File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use rustix::process::Pid;

use crate::cgroup::{CgroupHost, DeviceAccess, Limits};
use crate::failure::{Failure, Step};
use crate::recovery::cgroup_failure;
use crate::run_dir::{self, RunDir};
use crate::sys;
use crate::sys::process::Fork;

/// The keeper's and the wardens' own cgroup below the given parent, beside the containers'.
const CGROUP_NAME: &str = "keeper";
/// Killing the keeper frees next to nothing.
const OOM_SCORE_ADJ: &str = "-999";

#[derive(Debug)]
pub struct Prepared {
    pub listener: OwnedFd,
    pub signals: OwnedFd,
    /// Held for as long as this keeper lives; wardens drop their copy.
    _lock: File,
}

/// Takes the node; `None` if another keeper has it.
pub fn prepare(run_dir: &RunDir, cgroup_parent: &str) -> Result<Option<Prepared>, Failure> {
    require_one_thread()?;
    let what = || format!("failed to use the run folder `{}`", run_dir.path().display());
    // The folder may be shared with sockets for others than root; what is below `c` is not.
    DirBuilder::new().recursive(true).mode(0o755).create(run_dir.path()).step("run folder", what)?;
    DirBuilder::new().recursive(true).mode(0o700).create(run_dir.containers()).step("run folder", what)?;
    let lock = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(run_dir.path().join(run_dir::KEEPER_LOCK))
        .step("run folder", what)?;
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Ok(None),
        Err(errno) => return Err(errno).step("run folder", what),
    }
    join_own_cgroup(cgroup_parent)?;
    // Needs CAP_SYS_RESOURCE, which a nested node lacks; then the kernel may choose the keeper as anybody else.
    let _ = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE_ADJ);
    match std::fs::remove_file(run_dir.path().join(run_dir::KEEPER_SOCKET)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error).step("run folder", what),
        Ok(()) | Err(_) => {}
    }
    let listener = run_dir::listen(run_dir.path(), run_dir::KEEPER_SOCKET).step("run folder", what)?;
    let signals =
        sys::signal::descriptor(&[libc::SIGCHLD]).step("signals", || "failed to watch children".to_owned())?;
    Ok(Some(Prepared { listener, signals, _lock: lock }))
}

/// Forks; the child goes on in a session of its own, deaf to what is meant for the daemon.
pub fn into_background(run_dir: &RunDir) -> Result<Fork<Pid>, Failure> {
    let what = || "failed to go into the background".to_owned();
    let log = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(run_dir.path().join(run_dir::KEEPER_LOG))
        .step("run folder", what)?;
    let null = OpenOptions::new().read(true).write(true).open("/dev/null").step("stdio", what)?;
    match sys::process::fork().step("clone", what)? {
        Fork::Parent(pid) => Ok(Fork::Parent(pid)),
        Fork::Child => {
            rustix::process::setsid().step("clone", what)?;
            for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGPIPE] {
                sys::signal::ignore(signal);
            }
            rustix::process::set_child_subreaper(Some(rustix::process::getpid())).step("clone", what)?;
            // For `ps` only.
            let _ = rustix::thread::set_name(c"skep-keeper");
            rustix::process::chdir("/").step("clone", what)?;
            rustix::stdio::dup2_stdin(&null).step("stdio", what)?;
            rustix::stdio::dup2_stdout(&null).step("stdio", what)?;
            rustix::stdio::dup2_stderr(&log).step("stdio", what)?;
            Ok(Fork::Child)
        }
    }
}

/// Everything here forks without exec, which only a single thread may do.
fn require_one_thread() -> Result<(), Failure> {
    let status =
        std::fs::read_to_string("/proc/self/status").step("threads", || "failed to count threads".to_owned())?;
    let threads = status.lines().find_map(|line| line.strip_prefix("Threads:")).map(str::trim);
    match threads {
        Some("1") => Ok(()),
        other => Err(Failure::new("threads", format!("the keeper must have one thread, it has {other:?}"))),
    }
}

/// The cgroup may be there already, with the wardens of an earlier keeper in it.
fn join_own_cgroup(parent: &str) -> Result<(), Failure> {
    let host = CgroupHost::detect().map_err(cgroup_failure)?;
    let limits = Limits { devices: DeviceAccess::Unrestricted, ..Limits::default() };
    let cgroup = match host.open(parent, CGROUP_NAME) {
        Ok(cgroup) => cgroup,
        Err(_) => host.create(parent, CGROUP_NAME, &limits).map_err(cgroup_failure)?,
    };
    cgroup.join(super::own_pid()).map_err(cgroup_failure)
}
