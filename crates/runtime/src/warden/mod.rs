//! A warden: the process that owns one container, forked from the keeper without exec.
//!
//! ```text
//! keeper ─fork─▶ build ──Ready──▶ Created ──start──▶ Running ──its first process ends──▶ Exited ──release──▶ gone
//!                  └─failed─▶ undone, reported, gone      └─cannot exec─▶ Exited ┘
//! ```
//! It holds the container's standard streams and log, its exit code until the agent has taken it, and its exec
//! sessions; it outlives agent and keeper. One thread, one poll loop, little memory: there is one per container.
//! It decides nothing: no restarts, no health checks, no limits beyond what the Plan says.

mod build;
mod lease;
mod membership;
mod output;
mod serve;
mod session;
mod streams;

use std::os::fd::{AsFd, OwnedFd};
use std::time::SystemTime;

use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, WaitOptions, WaitStatus};

use crate::boottime;
use crate::cgroup::Cgroup;
use crate::failure::Failure;
use crate::plan::Sharing;
use crate::run_dir::RunDir;
use crate::sys;
use crate::sys::process::Spawned;
use crate::wire::{self, ChildMessage, ChildOrder, Event, KeeperReply, State};

pub use lease::LEASE_RAN_OUT;
use lease::{Due, Lease};
pub use membership::Membership;
use output::Output;
use serve::Connection;
use session::Session;

/// What the keeper hands to a new warden.
#[derive(Debug)]
pub struct Order {
    pub run_dir: RunDir,
    pub id: String,
    /// The encoded plan.
    pub plan: OwnedFd,
    /// Where the outcome is to be told.
    pub connection: OwnedFd,
}

/// Makes the container and stays with it. Never returns.
pub fn run(order: Order) -> ! {
    let Order { run_dir, id, plan, connection } = order;
    // The name is for `ps`; orphans of a container in the host's PID namespace must come to us.
    let _ = rustix::thread::set_name(c"skep-warden");
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    let (reply, built) = match build::build(run_dir, &id, &plan) {
        Ok((warden, warnings)) => {
            let pid = warden.init.pid.as_raw_nonzero().get();
            (KeeperReply::Created { pid, warnings }, Some(warden))
        }
        Err(failure) => (KeeperReply::Failed(failure), None),
    };
    drop(plan);
    // An agent that went away meanwhile finds the container by its socket.
    let _ = wire::send(&connection, &reply, &[]);
    drop(connection);
    if let Some(mut warden) = built {
        warden.serve_until_released();
    }
    sys::process::exit_now(0)
}

struct Warden {
    run_dir: RunDir,
    id: String,
    state: State,
    init: Spawned,
    /// To the first process, until it runs its command.
    gate: Option<OwnedFd>,
    cgroup: Cgroup,
    output: Output,
    /// Write end of standard input, or the terminal.
    stdin: Option<OwnedFd>,
    terminal: Option<OwnedFd>,
    stop_signal: i32,
    /// The stop signal was asked for: a second one makes many programs give up in haste.
    stop_asked: bool,
    lease: Option<Lease>,
    pid_sharing: Sharing,
    listener: OwnedFd,
    signals: OwnedFd,
    connections: Vec<Connection>,
    sessions: Vec<Session>,
    sessions_made: u32,
    released: bool,
}

impl Warden {
    fn serve_until_released(&mut self) {
        while !self.released {
            self.wait_for_events();
        }
    }

    /// One round: wait, then look at everything that is ready.
    fn wait_for_events(&mut self) {
        let ready = self.poll();
        let mut ready = ready.iter().copied();
        let mut next = || ready.next().unwrap_or(false);
        let (children, newcomer) = (next(), next());
        let output: Vec<bool> = (0..self.output.sources()).map(|_| next()).collect();
        let connections: Vec<bool> = (0..self.connections.len()).map(|_| next()).collect();
        let lease = next();

        self.output.pump(&output);
        if children {
            sys::signal::drain(self.signals.as_fd());
            self.reap();
        }
        if lease {
            self.enforce_lease();
        }
        for index in (0..connections.len()).filter(|index| connections[*index]) {
            self.serve_connection(index);
        }
        self.connections.retain(|connection| !connection.has_ended());
        if newcomer && let Some(connection) = crate::run_dir::accept(&self.listener) {
            self.connections.push(Connection::new(connection));
        }
    }

    /// Readiness of signals, listener, output sources, connections and the lease's timer, in this order.
    fn poll(&self) -> Vec<bool> {
        let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN), PollFd::new(&self.listener, PollFlags::IN)];
        fds.extend(self.output.fds().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        fds.extend(self.connections.iter().map(|c| PollFd::new(&c.socket, PollFlags::IN)));
        fds.extend(self.lease.iter().map(|lease| PollFd::from_borrowed_fd(lease.timer(), PollFlags::IN)));
        match rustix::event::poll(&mut fds, None) {
            Ok(_) => fds.iter().map(|fd| !fd.revents().is_empty()).collect(),
            // Interrupted: look at nothing and come again.
            Err(_) => Vec::new(),
        }
    }

    fn enforce_lease(&mut self) {
        let runs = matches!(self.state, State::Running { .. });
        let signal = match self.lease.as_mut().map_or(Due::Nothing, |lease| lease.due(boottime(), runs)) {
            Due::Nothing => return,
            Due::Stop if self.stop_asked => return,
            Due::Stop => self.stop_signal,
            Due::Kill => libc::SIGKILL,
        };
        eprintln!("skep-warden {}: {LEASE_RAN_OUT}, sending signal {signal}", self.id);
        // A process that is gone already is about to be reaped.
        let _ = sys::signal::send(self.init.pidfd.as_fd(), signal);
    }

    fn reap(&mut self) {
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if pid == self.init.pid {
                self.finish(exit_code(status), None);
            } else if let Some(at) = self.sessions.iter().position(|session| session.pid == pid) {
                let session = self.sessions.swap_remove(at);
                self.report(&Event::ExecExited { session: session.id, code: exit_code(status) });
            }
        }
    }

    /// Opens the gate and waits until the command runs or cannot.
    fn start(&mut self) -> Result<(), Failure> {
        if self.lease.as_ref().is_some_and(|lease| !lease.is_held(boottime())) {
            return Err(Failure::new("lease", format!("container `{}` has no lease to start with", self.id)));
        }
        let Some(gate) = self.gate.take() else {
            return Err(Failure::new("start", format!("container `{}` was started already", self.id)));
        };
        let sent = wire::send(&gate, &ChildOrder::Start, &[]);
        match sent.and_then(|()| wire::receive::<ChildMessage>(&gate)) {
            Ok(Some((ChildMessage::Failed(failure), _))) => {
                // It ends by itself right after this message; nobody else waits for it.
                let _ = rustix::process::waitpid(Some(self.init.pid), WaitOptions::empty());
                self.finish(failure.exit_code, Some(failure.message.clone()));
                Err(failure)
            }
            // End of file: the command runs, or died on the way, which the next SIGCHLD tells.
            Ok(_) | Err(_) => {
                self.set_state(State::Running {
                    pid: self.init.pid.as_raw_nonzero().get(),
                    started_at: SystemTime::now(),
                });
                Ok(())
            }
        }
    }

    /// The first process is gone, and with its PID namespace all others.
    fn finish(&mut self, code: i32, error: Option<String>) {
        if self.pid_sharing == Sharing::Host
            && let Err(error) = self.cgroup.kill()
        {
            eprintln!("skep-warden {}: {error}", self.id);
        }
        self.output.drain();
        let started_at = match &self.state {
            State::Running { started_at, .. } => Some(*started_at),
            State::Created { .. } | State::Exited { .. } => None,
        };
        let oom_killed = self.cgroup.oom_kills() > 0;
        let ran_out = self.lease.as_ref().is_some_and(Lease::has_run_out);
        let error = error.or_else(|| ran_out.then(|| LEASE_RAN_OUT.to_owned()));
        self.gate = None;
        self.set_state(State::Exited { code, oom_killed, started_at, finished_at: SystemTime::now(), error });
        self.report(&Event::Exited { code, oom_killed });
    }

    fn set_state(&mut self, state: State) {
        // The file only matters when this process is lost; a full /run must not take the container down.
        if let Err(error) = self.run_dir.write_state(&self.id, &state) {
            eprintln!("skep-warden {}: failed to write the state: {error}", self.id);
        }
        self.state = state;
    }

    /// Everything of the container but its files and its log.
    fn release(&mut self) -> Result<(), Failure> {
        if !matches!(self.state, State::Exited { .. }) {
            return Err(Failure::new("release", format!("container `{}` has not exited", self.id)));
        }
        self.cgroup.remove().map_err(|error| Failure::new("release", format!("{error}")))?;
        self.output.close();
        let folder = self.run_dir.container(&self.id);
        std::fs::remove_dir_all(&folder)
            .map_err(|error| Failure::new("release", format!("failed to remove `{}`: {error}", folder.display())))?;
        self.released = true;
        Ok(())
    }
}

/// As a shell reports it: 128 + n after signal n.
pub fn exit_code(status: WaitStatus) -> i32 {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        (None, None) => 255,
    }
}

/// The pid as others write it.
fn raw(pid: Pid) -> i32 {
    pid.as_raw_nonzero().get()
}
