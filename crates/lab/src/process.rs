//! Naming, signalling and outwaiting processes that may not be our children.
//!
//! A process number alone is not a name: it is used again. So a process is its number and its start time, signals go through a
//! pidfd, and its end is waited for on that pidfd.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal, waitpid};
use serde::{Deserialize, Serialize};

/// How long a process may take to stand still: one in an uninterruptible call does so after it.
const STANDSTILL: Duration = Duration::from_secs(60);

/// A process, told apart from a later one with the same number by its start time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    pub pid: i32,
    /// Clock ticks since boot, field 22 of `/proc/PID/stat` (proc(5)).
    pub started_ticks: u64,
}

/// How a lab ends a daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopSignal {
    /// SIGTERM: the daemon goes in order.
    Term,
    /// SIGKILL: as a crash would.
    Kill,
}

impl ProcessId {
    pub fn current() -> Result<ProcessId> {
        let pid = i32::try_from(std::process::id()).context("own process number does not fit")?;
        ProcessId::of(pid).context("own entry under /proc cannot be read")
    }

    /// The live process with this number; `None` when there is none or it has ended and only waits to be reaped.
    pub fn of(pid: i32) -> Option<ProcessId> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The command name may hold blanks and brackets: fields count from the last bracket.
        let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace();
        if matches!(fields.next()?, "Z" | "X") {
            return None;
        }
        Some(ProcessId { pid, started_ticks: fields.nth(18)?.parse().ok()? })
    }

    pub fn is_alive(self) -> bool {
        ProcessId::of(self.pid) == Some(self)
    }

    /// Sends `signal` and waits until the process has ended; whoever started it still collects its exit code.
    /// One that has ended already is fine.
    pub fn stop(self, signal: StopSignal, patience: Duration) -> Result<()> {
        let Some(pid) = Pid::from_raw(self.pid) else { bail!("process number {} is not one", self.pid) };
        let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else {
            return Ok(());
        };
        // Checked after the pidfd is held: from here on the number cannot pass to another process unnoticed.
        if !self.is_alive() {
            return Ok(());
        }
        let signal = match signal {
            StopSignal::Term => Signal::TERM,
            StopSignal::Kill => Signal::KILL,
        };
        match pidfd_send_signal(&pidfd, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(error).with_context(|| format!("cannot signal process {}", self.pid)),
        }
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).context("patience does not fit a timespec")?;
            match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) {
                Ok(0) => bail!("process {} is still there {patience:?} after {signal:?}", self.pid),
                Ok(_) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).context("cannot wait for a process"),
            }
        }
        Ok(())
    }

    /// Stops the process where it stands (SIGSTOP); returns once it stands still.
    pub fn pause(self) -> Result<()> {
        self.signal(Signal::STOP)?;
        let deadline = Instant::now() + STANDSTILL;
        while self.is_alive() && !self.is_paused() {
            if Instant::now() > deadline {
                bail!("process {} still runs {STANDSTILL:?} after SIGSTOP", self.pid);
            }
            // A process's standstill is told to its parent alone.
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Lets a stopped process go on (SIGCONT). One that runs is fine.
    pub fn resume(self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Whether the process has been stopped, and is there.
    pub fn is_paused(self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        let state = stat.rsplit_once(')').and_then(|(_, fields)| fields.split_ascii_whitespace().next());
        matches!(state, Some("T" | "t")) && self.is_alive()
    }

    fn signal(self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.pid).filter(|_| self.is_alive());
        let pidfd = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()).filter(|_| self.is_alive());
        let Some(pidfd) = pidfd else { bail!("process {} has ended", self.pid) };
        pidfd_send_signal(&pidfd, signal).with_context(|| format!("cannot signal process {}", self.pid))
    }

    /// Collects an ended child whose `Child` value was given up. One that is not our child is its parent's to collect.
    pub(crate) fn reap(self) {
        if let Some(pid) = Pid::from_raw(self.pid) {
            let _not_our_child = waitpid(Some(pid), WaitOptions::NOHANG);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reused_number_is_another_process() {
        let me = ProcessId::current().unwrap();
        let other = ProcessId { started_ticks: me.started_ticks + 1, ..me };
        assert!(me.is_alive());
        assert!(!other.is_alive());
    }

    #[test]
    fn stop_returns_after_the_end() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let id = ProcessId::of(i32::try_from(child.id()).unwrap()).unwrap();
        id.stop(StopSignal::Kill, Duration::from_secs(10)).unwrap();
        assert!(!id.is_alive());
        id.stop(StopSignal::Kill, Duration::from_secs(10)).unwrap();
        assert!(!child.wait().unwrap().success());
    }
}
