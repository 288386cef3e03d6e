//! The helper as a process, seen from the daemon: find one that lives, start one, end one.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use super::{HelperConfig, HelperError, Paths, cgroup};

/// From its start to its socket; it serves the snapshot on disk before that.
const START: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(5);
/// From a request to end until it is made to.
const END: Duration = Duration::from_secs(3);
const LOG_BYTES_MAX: u64 = 1 << 20;

/// A helper that lives, or did a moment ago.
#[derive(Debug)]
pub struct Live {
    pub stream: UnixStream,
    pub pid: Pid,
    /// Of the process, so that no other is ever meant.
    exit: OwnedFd,
    /// Kept so that it is reaped, if this daemon started it.
    _child: Option<Child>,
}

impl Live {
    /// Ends when the process has ended, its sockets closed.
    pub async fn ended(&self) -> io::Result<()> {
        const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
        // Looked at again and again: it is short and rare, and the runtime's own watch on descriptors is unsafe.
        while poll(&mut [PollFd::new(&self.exit, PollFlags::IN)], Some(&AT_ONCE))? == 0 {
            sleep(POLL).await;
        }
        Ok(())
    }

    /// Asks it to end, and makes it.
    pub async fn end(self) -> Result<(), HelperError> {
        let failed = |source| HelperError::Stop { pid: self.pid.as_raw_nonzero().get(), source };
        for signal in [Signal::TERM, Signal::KILL] {
            match pidfd_send_signal(&self.exit, signal) {
                Err(rustix::io::Errno::SRCH) => return Ok(()),
                sent => sent.map_err(|error| failed(error.into()))?,
            }
            if let Ok(ended) = timeout(END, self.ended()).await {
                return ended.map_err(failed);
            }
        }
        Err(failed(io::ErrorKind::TimedOut.into()))
    }
}

/// The helper that serves already; None if there is none.
pub async fn find(paths: &Paths) -> Result<Option<Live>, HelperError> {
    match UnixStream::connect(paths.socket()).await {
        Ok(stream) => live(stream, None).map_err(|source| HelperError::Talk { socket: paths.socket(), source }),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => Ok(None),
        Err(source) => Err(HelperError::Talk { socket: paths.socket(), source }),
    }
}

fn live(stream: UnixStream, child: Option<Child>) -> io::Result<Option<Live>> {
    let pid = stream.peer_cred()?.pid().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::other("its process is not visible from here"))?;
    let exit = match pidfd_open(pid, PidfdFlags::empty()) {
        // It ended between our connection and this.
        Err(rustix::io::Errno::SRCH) => return Ok(None),
        opened => opened?,
    };
    Ok(Some(Live { stream, pid, exit, _child: child }))
}

/// Starts one and waits until it answers.
pub async fn start(config: &HelperConfig, paths: &Paths) -> Result<Live, HelperError> {
    let mut child = spawn(config, paths)?;
    let moved = join_cgroup(config.cgroup_parent.clone(), child.id());
    let (started, ()) = tokio::join!(answer(&mut child, paths), moved);
    let stream = started?;
    let failed = |source| HelperError::Talk { socket: paths.socket(), source };
    let found = live(stream, Some(child)).map_err(failed)?;
    found.ok_or_else(|| failed(io::ErrorKind::ConnectionReset.into()))
}

fn spawn(config: &HelperConfig, paths: &Paths) -> Result<Child, HelperError> {
    let (log, errors) = open_log(&paths.log()).map_err(|source| HelperError::File { path: paths.log(), source })?;
    // The helper makes a session of its own as it starts.
    Command::new(&config.program)
        .args(&config.args)
        .env("SKEP_RUN_DIR", &config.run_dir)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .spawn()
        .map_err(|source| HelperError::Spawn { program: config.program.clone(), source })
}

/// Twice the same file. It begins anew when it has grown long; a helper that runs says little.
fn open_log(path: &Path) -> io::Result<(std::fs::File, std::fs::File)> {
    let is_long = path.metadata().is_ok_and(|file| file.len() > LOG_BYTES_MAX);
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    if is_long {
        file.set_len(0)?;
    }
    Ok((file.try_clone()?, file))
}

async fn answer(child: &mut Child, paths: &Paths) -> Result<UnixStream, HelperError> {
    let started = Instant::now();
    while started.elapsed() < START {
        let own = child.id().map(u32::cast_signed);
        if let Ok(stream) = UnixStream::connect(paths.socket()).await
            && stream.peer_cred().is_ok_and(|peer| peer.pid() == own)
        {
            return Ok(stream);
        }
        if let Ok(Some(status)) = child.try_wait() {
            return Err(HelperError::Ended { status, log: paths.log() });
        }
        sleep(POLL).await;
    }
    // One that hangs would keep the ports from the next.
    if let Err(error) = child.start_kill() {
        tracing::warn!(%error, "a net helper that does not answer could not be ended");
    }
    Err(HelperError::Silent { socket: paths.socket(), seconds: START.as_secs(), log: paths.log() })
}

/// Each hierarchy may take the kernel tens of milliseconds, so the helper starts meanwhile. One that stays in the
/// daemon's cgroup serves as well, it only may end with it.
async fn join_cgroup(parent: Option<String>, pid: Option<u32>) {
    let (Some(parent), Some(pid)) = (parent, pid) else { return };
    let joined = tokio::task::spawn_blocking(move || cgroup::join(&parent, pid)).await;
    if let Err(error) = joined.map_err(io::Error::other).flatten() {
        tracing::warn!(%error, "the net helper stays in the daemon's cgroup and may end with it");
    }
}
