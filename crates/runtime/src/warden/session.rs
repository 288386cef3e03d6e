//! Exec sessions: more processes inside the container, children of this warden like the first one.
//! Their streams go to the client as descriptors, so no byte of them passes through here.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::process::{Pid, WaitOptions};

use super::{Membership, Warden, raw, streams};
use crate::child::{self, Channel, ExecChild, Stdio};
use crate::failure::{Failure, Step};
use crate::plan::{ExecPlan, Sharing};
use crate::sys;
use crate::sys::process::{Fork, Spawned};
use crate::wire::{self, ChildMessage, Reply, State};

/// A start that takes longer hangs, on a dead network filesystem for instance; the warden has other things to do.
const START_TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub struct Session {
    pub id: u32,
    pub pid: Pid,
    pub pidfd: OwnedFd,
}

impl Warden {
    /// Starts one; returns the reply, the session's number, and the descriptors for the client.
    pub fn exec(&mut self, descriptors: Vec<OwnedFd>) -> Result<(Reply, u32, Vec<OwnedFd>), Failure> {
        if !matches!(self.state, State::Running { .. }) {
            return Err(Failure::new("exec", format!("container `{}` is not running", self.id)));
        }
        let what = || "failed to start a process in the container".to_owned();
        let Some(plan) = descriptors.into_iter().next() else {
            return Err(Failure::new("exec", "the request came without its plan".to_owned()));
        };
        let exec = ExecPlan::decode(&wire::read_all(&plan).step("exec", what)?)?;
        let (stdio, ours) = streams::make(exec.tty, exec.stdin).step("exec", what)?;
        let (channel, theirs) = streams::channel().step("exec", what)?;
        set_socket_timeout(&channel, Timeout::Recv, Some(START_TIMEOUT)).step("exec", what)?;
        let spawned = self.clone_into_pid_namespace(&exec, stdio, theirs)?;
        let terminal = match await_exec(&channel) {
            Ok(terminal) => terminal,
            Err(failure) => {
                // It may be gone already; either way it is reaped here and never becomes a session.
                let _ = sys::signal::send(spawned.pidfd.as_fd(), libc::SIGKILL);
                let _ = rustix::process::waitpid(Some(spawned.pid), WaitOptions::empty());
                return Err(failure);
            }
        };
        self.sessions_made += 1;
        let id = self.sessions_made;
        let reply = Reply::Exec { session: id, pid: raw(spawned.pid) };
        let attached = match terminal {
            Some(terminal) => vec![terminal],
            None => [ours.stdin, ours.stdout, ours.stderr].into_iter().flatten().collect(),
        };
        self.sessions.push(Session { id, pid: spawned.pid, pidfd: spawned.pidfd });
        Ok((reply, id, attached))
    }

    /// A process can only be born into a PID namespace, so this one steps in for the moment of the clone.
    fn clone_into_pid_namespace(&self, exec: &ExecPlan, stdio: Stdio, channel: OwnedFd) -> Result<Spawned, Failure> {
        let what = || "failed to start a process in the container".to_owned();
        let init = self.init.pidfd.try_clone().step("exec", what)?;
        let membership = Membership::of(&self.cgroup)?;
        let own = match self.pid_sharing {
            Sharing::Host => None,
            Sharing::Private => {
                let flags = OFlags::RDONLY | OFlags::CLOEXEC;
                let own = rustix::fs::openat(CWD, "/proc/self/ns/pid", flags, Mode::empty()).step("exec", what)?;
                sys::namespace::enter(init.as_fd(), libc::CLONE_NEWPID).step("exec", what)?;
                Some(own)
            }
        };
        let forked = sys::process::clone_into(0, membership.birthplace());
        if let Ok(Fork::Child) = forked {
            let channel = Channel::new(channel);
            // The container's plan is read anew, so that the warden need not keep it in memory.
            match self.run_dir.read_plan(&self.id) {
                Ok(plan) => child::run_exec(ExecChild { plan: &plan, exec, stdio, channel, init, membership }),
                Err(failure) => channel.fail(failure),
            }
        }
        if let Some(own) = own {
            // Back out, or every later child would land in there. Own namespace, so it cannot fail.
            sys::namespace::enter(own.as_fd(), libc::CLONE_NEWPID).step("exec", what)?;
        }
        match forked.step("exec", what)? {
            Fork::Parent(spawned) => Ok(spawned),
            Fork::Child => unreachable!("the child has become another program"),
        }
    }

    pub fn signal_exec(&self, session: u32, signal: i32) -> Result<(), Failure> {
        let Some(session) = self.sessions.iter().find(|candidate| candidate.id == session) else {
            return Err(Failure::new("signal", format!("exec session {session} has ended")));
        };
        sys::signal::send(session.pidfd.as_fd(), signal)
            .step("signal", || format!("failed to send signal {signal} to exec session {}", session.id))
    }
}

/// The terminal, if it made one, once the command runs.
fn await_exec(channel: &OwnedFd) -> Result<Option<OwnedFd>, Failure> {
    let mut terminal = None;
    loop {
        match wire::receive::<ChildMessage>(channel) {
            Ok(None) => return Ok(terminal),
            Ok(Some((ChildMessage::Terminal, descriptors))) => terminal = descriptors.into_iter().next(),
            Ok(Some((ChildMessage::Ready, _))) => {}
            Ok(Some((ChildMessage::Failed(failure), _))) => return Err(failure),
            Err(error) => return Err(Failure::new("exec", format!("the new process does not answer: {error}"))),
        }
    }
}
