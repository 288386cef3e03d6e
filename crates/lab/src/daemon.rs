//! The daemon of a node: start it, find it whoever started it, end it kindly or not.

use std::fs::{self, File};
use std::io;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::cgroup;
use crate::node::Node;
use crate::process::{ProcessId, StopSignal};

/// How long a daemon may take to open its socket, or to end. Generous: machines are shared and builds run beside tests.
const PATIENCE: Duration = Duration::from_secs(60);
/// How much of a failed daemon's log an error shows.
const LOG_LINES: usize = 40;

impl Node {
    /// Starts `skep daemon` in the node and returns once its socket answers.
    pub fn start_daemon(&self) -> Result<ProcessId> {
        self.start_daemon_with(&[], &[])
    }

    /// As [`Node::start_daemon`], with more arguments and environment variables.
    pub fn start_daemon_with(&self, args: &[&str], env: &[(&str, &str)]) -> Result<ProcessId> {
        self.start_daemon_of(&self.binary()?, args, env)
    }

    /// The daemon of another build than the lab's.
    pub fn start_daemon_of(&self, binary: &Path, args: &[&str], env: &[(&str, &str)]) -> Result<ProcessId> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.daemon_log())
            .context("cannot open the daemon's log")?;
        let mut command = self.command(binary);
        command.arg("daemon").args(args).envs(env.iter().copied());
        // Out of the terminal's reach: a lab that stays outlives the terminal that it was made from.
        command.process_group(0);
        command.stdin(Stdio::null()).stdout(log.try_clone().context("cannot share the log")?).stderr(log);
        let mut child = command.spawn().context("cannot start the daemon")?;
        self.wait_for_socket(&mut child)?;
        let pid = i32::try_from(child.id()).context("process number does not fit")?;
        ProcessId::of(pid).context("the daemon ended at once")
    }

    /// The process that listens on the node's socket, whoever started it; `None` when nobody does.
    pub fn daemon(&self) -> Result<Option<ProcessId>> {
        let stream = match UnixStream::connect(self.socket()) {
            Ok(stream) => stream,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                return Ok(None);
            }
            Err(error) => return Err(error).with_context(|| format!("cannot connect to {}", self.socket().display())),
        };
        let peer = rustix::net::sockopt::socket_peercred(&stream).context("cannot ask who listens on the socket")?;
        Ok(ProcessId::of(peer.pid.as_raw_nonzero().get()))
    }

    /// Stops the node's daemon where it stands, as a machine that hangs: its sockets are there and nobody answers.
    pub fn pause(&self) -> Result<()> {
        self.the_daemon()?.pause()
    }

    /// Lets the daemon go on after [`Node::pause`].
    pub fn resume(&self) -> Result<()> {
        self.the_daemon()?.resume()
    }

    fn the_daemon(&self) -> Result<ProcessId> {
        match self.daemon()? {
            Some(daemon) => Ok(daemon),
            None => bail!("no daemon listens on {}", self.socket().display()),
        }
    }

    /// Ends the node's daemon, whoever started it, and returns once it is gone. No daemon is an error.
    pub fn kill_daemon(&self, signal: StopSignal) -> Result<()> {
        let daemon = self.the_daemon()?;
        // A stopped process takes SIGTERM only when it goes on.
        if signal == StopSignal::Term && daemon.is_paused() {
            daemon.resume()?;
        }
        daemon.stop(signal, PATIENCE)?;
        daemon.reap();
        Ok(())
    }

    /// Kills all that runs in the node but what holds its namespaces: what a power cut does to processes.
    pub fn kill_everything(&self) -> Result<()> {
        // In a power cut nobody sees the others go: the daemon must not take the containers' ends for their own.
        if let Some(daemon) = self.daemon()? {
            daemon.stop(StopSignal::Kill, PATIENCE)?;
            daemon.reap();
        }
        cgroup::kill(self.cgroup_parent().trim_start_matches('/'), Some(self.holder()))
    }

    fn wait_for_socket(&self, child: &mut Child) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if UnixStream::connect(self.socket()).is_ok() {
                return Ok(());
            }
            if let Some(status) = child.try_wait().context("cannot wait for the daemon")? {
                bail!(
                    "the daemon of {} ended with {status} before its socket opened:\n{}",
                    self.name(),
                    self.log_tail()
                );
            }
            if Instant::now() > deadline {
                child.kill().context("cannot kill the daemon")?;
                child.wait().context("cannot wait for the daemon")?;
                bail!("the daemon of {} opened no socket within {PATIENCE:?}:\n{}", self.name(), self.log_tail());
            }
            // A socket's appearance could be watched for; that it accepts connections could not.
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn log_tail(&self) -> String {
        let log =
            fs::read_to_string(self.daemon_log()).unwrap_or_else(|error| format!("(its log cannot be read: {error})"));
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }
}
