//! Starting a keeper where none lives, and asking it for containers.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;

use crate::failure::Failure;
use crate::keeper::ALREADY_RUNNING;
use crate::plan::Plan;
use crate::run_dir::{self, RunDir};
use crate::wire::{self, KeeperReply, KeeperRequest};

#[derive(Debug, Clone)]
pub struct KeeperConfig {
    /// Of this node alone; made where missing. On a tmpfs: it must not survive a reboot.
    pub run_dir: PathBuf,
    /// Absolute within each hierarchy. The keeper lives in its child `keeper`; on cgroup v2 it must hold no process.
    pub cgroup_parent: String,
}

/// A live keeper. The connection ends when the keeper does: then call [`Keeper::ensure`] again.
#[derive(Debug)]
pub struct Keeper {
    run_dir: RunDir,
    connection: OwnedFd,
    pid: i32,
}

/// A container that waits for [`crate::Container::start`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    pub pid: i32,
    /// Limits that this kernel cannot enforce, in words for the user.
    pub warnings: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    #[error("failed to put the keeper's executable into memory")]
    Memory(#[source] io::Error),
    #[error("failed to start the keeper")]
    Spawn(#[source] io::Error),
    #[error("the keeper did not start: {0}")]
    Failed(String),
    #[error("failed to connect to the keeper at `{path}`")]
    Connect {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the keeper does not answer: {0}")]
    Silent(String),
    #[error(transparent)]
    Refused(#[from] Failure),
}

impl Keeper {
    /// Connects to this node's keeper, or starts one from `elf`, the keeper's executable.
    /// Two callers at once are fine: the second keeper sees the first one's lock and leaves.
    pub fn ensure(config: &KeeperConfig, elf: &[u8]) -> Result<Keeper, KeeperError> {
        let run_dir = RunDir::new(&config.run_dir);
        if let Ok(keeper) = Keeper::connect(&run_dir) {
            return Ok(keeper);
        }
        spawn(config, elf)?;
        Keeper::connect(&run_dir)
    }

    fn connect(run_dir: &RunDir) -> Result<Keeper, KeeperError> {
        let (connection, _) = run_dir::connect(run_dir.path(), run_dir::KEEPER_SOCKET)
            .map_err(|source| KeeperError::Connect { path: run_dir.path().join(run_dir::KEEPER_SOCKET), source })?;
        match ask(&connection, &KeeperRequest::Ping, &[])? {
            KeeperReply::Alive { pid } => Ok(Keeper { run_dir: run_dir.clone(), connection, pid }),
            other => Err(KeeperError::Silent(format!("{other:?}"))),
        }
    }

    /// Its process, as this PID namespace numbers it.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Makes a container up to the point where its command would run.
    /// On failure nothing of it is left but its folders and its log.
    pub fn create(&self, plan: &Plan) -> Result<Created, Failure> {
        let transport =
            |error: String| Failure::new("keeper", format!("the keeper did not make the container: {error}"));
        let memfd = wire::memfd("skep-plan", &plan.encode()).map_err(|errno| transport(errno.to_string()))?;
        let (connection, _) = run_dir::connect(self.run_dir.path(), run_dir::KEEPER_SOCKET)
            .map_err(|error| transport(error.to_string()))?;
        let request = KeeperRequest::Create { id: plan.id.clone() };
        match ask(&connection, &request, &[memfd.as_fd()]) {
            Ok(KeeperReply::Created { pid, warnings }) => Ok(Created { pid, warnings }),
            Ok(KeeperReply::Failed(failure)) => Err(failure),
            Ok(other) => Err(transport(format!("it answered {other:?}"))),
            Err(error) => Err(transport(error.to_string())),
        }
    }

    /// Ends the keeper and removes its lock and log; refused while it looks after containers.
    pub fn stop(&self) -> Result<(), KeeperError> {
        match ask(&self.connection, &KeeperRequest::Stop, &[])? {
            KeeperReply::Stopping => {
                for file in [run_dir::KEEPER_LOCK, run_dir::KEEPER_LOG] {
                    // What cannot be removed is empty and harms nobody; the next keeper takes it over.
                    let _ = std::fs::remove_file(self.run_dir.path().join(file));
                }
                Ok(())
            }
            KeeperReply::Failed(failure) => Err(failure.into()),
            other => Err(KeeperError::Silent(format!("{other:?}"))),
        }
    }
}

/// Becomes readable when the keeper is gone.
impl AsFd for Keeper {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

fn ask(socket: &OwnedFd, request: &KeeperRequest, attached: &[BorrowedFd<'_>]) -> Result<KeeperReply, KeeperError> {
    let silent = |error: wire::WireError| KeeperError::Silent(error.to_string());
    wire::send(socket, request, attached).map_err(silent)?;
    match wire::receive(socket).map_err(silent)? {
        Some((reply, _)) => Ok(reply),
        None => Err(KeeperError::Silent("it closed the connection".to_owned())),
    }
}

/// Runs the executable from a sealed memfd, so that no container can ever write to it (CVE-2019-5736).
/// std starts it by vfork (posix_spawn), which does not copy the daemon's memory. It returns at once: the keeper proper
/// is its child, in the background.
fn spawn(config: &KeeperConfig, elf: &[u8]) -> Result<(), KeeperError> {
    let memfd = sealed(elf).map_err(|errno| KeeperError::Memory(errno.into()))?;
    let output = Command::new(format!("/proc/self/fd/{}", memfd.as_raw_fd()))
        .arg0("skep-keeper")
        .arg(&config.run_dir)
        .arg(&config.cgroup_parent)
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .map_err(KeeperError::Spawn)?;
    match output.status.code() {
        Some(0) => Ok(()),
        Some(code) if code == i32::from(ALREADY_RUNNING) => Ok(()),
        _ => {
            let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(KeeperError::Failed(if words.is_empty() { output.status.to_string() } else { words }))
        }
    }
}

fn sealed(elf: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Before Linux 6.3 the flag is unknown and every memfd is executable.
    let fd = match rustix::fs::memfd_create("skep-keeper", flags | MemfdFlags::EXEC) {
        Err(Errno::INVAL) => rustix::fs::memfd_create("skep-keeper", flags)?,
        other => other?,
    };
    let mut rest = elf;
    while !rest.is_empty() {
        let written = rustix::io::retry_on_intr(|| rustix::io::write(&fd, rest))?;
        rest = &rest[written..];
    }
    rustix::fs::fcntl_add_seals(&fd, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
    Ok(fd)
}
