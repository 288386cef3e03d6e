//! Starting the daemon when none runs: a systemd unit where systemd is, else a process of its own session.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::socket_peercred;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use skep_api::{ConnectError, Connection, LocalClient, RefusalKind};
use tokio::time::{Instant, sleep};

use super::Result;
use super::host::Host;
use super::output;
use crate::daemon::config::NodeConfig;

const UNIT: &str = "/etc/systemd/system/skep.service";
/// What a daemon that `init` spawned is known by.
const NEW_SESSION: &str = "--new-session";
const END_PATIENCE: Duration = Duration::from_secs(30);
/// A cold start reads the whole log and adopts containers; a machine under load is slow.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(10);
const LOG_LINES: usize = 15;

/// Where a daemon's log is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DaemonLog {
    Journal,
    File(PathBuf),
}

/// A daemon that this command started.
#[derive(Debug)]
pub struct Started {
    pub log: DaemonLog,
    child: Option<Child>,
}

impl Started {
    /// Ends it again: what it was started for failed.
    pub fn undo(self, host: &Host) -> Result {
        match self.child {
            None => remove_unit(host).map(|_| ()),
            Some(mut child) => {
                rustix::process::kill_process(Pid::from_child(&child), Signal::TERM)
                    .context("failed to end the daemon")?;
                child.wait().context("failed to wait for the daemon")?;
                Ok(())
            }
        }
    }
}

/// A connection to the daemon, which is started if none runs.
pub async fn connect_or_start(host: &Host, command: &str) -> Result<(Connection, Option<Started>)> {
    match host.connect().await {
        Ok(connection) => return Ok((connection, None)),
        Err(ConnectError::NoDaemon { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    if !rustix::process::geteuid().is_root() {
        bail!("no daemon runs, and starting one needs root: run `sudo skep {command}`");
    }
    let config = NodeConfig::load(&host.overrides)?;
    if config.socket() != host.socket {
        bail!("no daemon listens on `{}`; start it there with `skep daemon`", host.socket.display());
    }
    make_group(host, &config.socket_group);
    if uses_systemd(host) {
        start_unit(host)?;
        let connection = wait(host, None, &DaemonLog::Journal).await?;
        return Ok((connection, Some(Started { log: DaemonLog::Journal, child: None })));
    }
    let log = config.data_dir.join("daemon.log");
    let mut child = spawn(host, &config.data_dir, &log)?;
    let log = DaemonLog::File(log);
    let connection = wait(host, Some(&mut child), &log).await?;
    Ok((connection, Some(Started { log, child: Some(child) })))
}

/// Whether the group that may use the socket is there.
pub fn group_exists(group: &str) -> bool {
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    groups.lines().any(|line| line.split(':').next() == Some(group))
}

/// The daemon gives its socket to the group as it starts. A node elsewhere leaves the machine's groups as they are.
fn make_group(host: &Host, group: &str) {
    if host.elsewhere || group_exists(group) {
        return;
    }
    let made = Command::new("groupadd").args(["--system", group]).stdin(Stdio::null()).output();
    if !made.is_ok_and(|output| output.status.success()) {
        // Root can use the socket without it.
        output::complain(format_args!("warning: the group `{group}` could not be made; only root can use skep"));
    }
}

/// Whether `init` made a unit of this machine's usual node.
fn uses_systemd(host: &Host) -> bool {
    Path::new("/run/systemd/system").exists() && !host.elsewhere
}

fn start_unit(host: &Host) -> Result {
    let program = program()?;
    let config = host.overrides.config.as_ref();
    let config = config.map(|path| format!(" --config {}", path.display())).unwrap_or_default();
    fs::write(UNIT, unit(&program, &config)).with_context(|| format!("failed to write {UNIT}"))?;
    systemctl(&["daemon-reload"])?;
    systemctl(&["enable", "--now", "skep.service"])
}

/// Containers live in cgroups beside the unit's: `process` leaves the keeper and the net helper alone too.
fn unit(program: &Path, arguments: &str) -> String {
    format!(
        "[Unit]\n\
         Description=skep: your compose file, on all your machines\n\
         After=network-online.target\n\
         Wants=network-online.target\n\
         \n\
         [Service]\n\
         ExecStart={}{arguments} daemon\n\
         Restart=always\n\
         RestartSec=1\n\
         KillMode=process\n\
         Delegate=yes\n\
         LimitNOFILE=1048576\n\
         TasksMax=infinity\n\
         OOMScoreAdjust=-900\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n",
        program.display()
    )
}

/// Ends and removes the unit that `init` made; `false` when there is none.
pub fn remove_unit(host: &Host) -> Result<bool> {
    if host.elsewhere || !Path::new(UNIT).exists() || !rustix::process::geteuid().is_root() {
        return Ok(false);
    }
    systemctl(&["disable", "--now", "skep.service"])?;
    fs::remove_file(UNIT).with_context(|| format!("failed to remove {UNIT}"))?;
    systemctl(&["daemon-reload"])?;
    Ok(true)
}

/// Ends the daemon that `init` started without systemd; `false` when another way started it.
pub fn end_spawned(host: &Host) -> Result<bool> {
    if !rustix::process::geteuid().is_root() {
        return Ok(false);
    }
    let stream = UnixStream::connect(&host.socket).context("failed to ask which process the daemon is")?;
    let peer = socket_peercred(&stream).context("failed to ask which process the daemon is")?;
    // Held before the process is looked at, so that no other of its number is meant.
    let process = pidfd_open(peer.pid, PidfdFlags::empty()).context("failed to watch the daemon")?;
    let path = format!("/proc/{}/cmdline", peer.pid.as_raw_nonzero());
    let arguments = fs::read(&path).with_context(|| format!("failed to read {path}"))?;
    if !arguments.split(|&byte| byte == 0).any(|argument| argument == NEW_SESSION.as_bytes()) {
        return Ok(false);
    }
    pidfd_send_signal(&process, Signal::TERM).context("failed to end the daemon")?;
    let limit = Timespec { tv_sec: END_PATIENCE.as_secs().cast_signed(), tv_nsec: 0 };
    if poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&limit)).context("failed to wait for the daemon")? == 0 {
        bail!("the daemon (pid {}) does not end", peer.pid.as_raw_nonzero());
    }
    Ok(true)
}

fn systemctl(args: &[&str]) -> Result {
    let output = Command::new("systemctl").args(args).output().context("failed to run systemctl")?;
    if !output.status.success() {
        bail!("`systemctl {}` failed: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

fn spawn(host: &Host, data_dir: &Path, log: &Path) -> Result<Child> {
    make_private(data_dir)?;
    let open = || File::options().create(true).append(true).open(log);
    let log_file = open().with_context(|| format!("failed to open the daemon's log `{}`", log.display()))?;
    let errors = log_file.try_clone().context("failed to share the daemon's log")?;
    let mut command = Command::new(program()?);
    command.args(["daemon", NEW_SESSION]);
    let overrides = &host.overrides;
    for (flag, path) in
        [("--config", &overrides.config), ("--data-dir", &overrides.data_dir), ("--run-dir", &overrides.run_dir)]
    {
        if let Some(path) = path {
            command.arg(flag).arg(path);
        }
    }
    command.current_dir("/").stdin(Stdio::null()).stdout(log_file).stderr(errors);
    command.spawn().context("failed to start the daemon")
}

fn make_private(data_dir: &Path) -> Result {
    match DirBuilder::new().recursive(true).mode(0o700).create(data_dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(error).with_context(|| format!("failed to create the data folder `{}`", data_dir.display()))
        }
        _ => Ok(()),
    }
}

fn program() -> Result<PathBuf> {
    std::env::current_exe().context("failed to find this program's own file")
}

async fn wait(host: &Host, mut child: Option<&mut Child>, log: &DaemonLog) -> Result<Connection> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match host.connect().await {
            // The socket opens before the node is back as what it was; that may fail, and end the daemon.
            Ok(connection) => match LocalClient::new(connection.clone()).info(()).await {
                Ok(_) => return Ok(connection),
                Err(refusal) if refusal.kind == RefusalKind::Unavailable => {}
                Err(refusal) => return Err(refusal.into()),
            },
            Err(ConnectError::NoDaemon { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let ended = match child.as_mut() {
            Some(child) => child.try_wait().context("failed to wait for the daemon")?,
            None => None,
        };
        if let Some(status) = ended {
            bail!("the daemon ended with {status} before it was ready{}", last_words(log));
        }
        if Instant::now() > deadline {
            bail!("the daemon is not ready after {} s{}", PATIENCE.as_secs(), last_words(log));
        }
        sleep(LOOK_EVERY).await;
    }
}

/// What the daemon said last: most often why it does not run.
fn last_words(log: &DaemonLog) -> String {
    let DaemonLog::File(path) = log else {
        return "; see `journalctl -u skep`".to_owned();
    };
    let Ok(text) = fs::read_to_string(path) else { return format!("; its log is {}", path.display()) };
    let lines: Vec<&str> = text.lines().collect();
    let last = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n  ");
    format!("; its log {} ends with:\n  {last}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_runs_this_program_and_leaves_containers_alone() {
        let text = unit(Path::new("/usr/local/bin/skep"), " --config /etc/x.toml");
        assert!(text.contains("\nExecStart=/usr/local/bin/skep --config /etc/x.toml daemon\n"), "{text}");
        assert!(text.contains("\nKillMode=process\n") && text.contains("\nDelegate=yes\n"));
    }
}
