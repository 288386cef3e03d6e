//! One container, by its warden's control socket.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use super::ClientError;
use super::events::Events;
use super::exec::{ExecIo, ExecSession};
use crate::plan::ExecPlan;
use crate::run_dir::{self, RunDir};
use crate::signal::Signal;
use crate::wire::{self, Reply, Request, State};

/// A name for a container; every call makes its own connection, so it can be kept and shared.
#[derive(Debug, Clone)]
pub struct Container {
    run_dir: RunDir,
    id: String,
}

impl Container {
    /// Fails with [`ClientError::NoWarden`] if nobody looks after it.
    pub fn open(run_dir: impl AsRef<Path>, id: &str) -> Result<Container, ClientError> {
        let container = Container { run_dir: RunDir::new(run_dir.as_ref()), id: id.to_owned() };
        container.connect()?;
        Ok(container)
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    /// Runs the command. Returns when it runs, or with why it cannot: then the container has exited with that code.
    pub fn start(&self) -> Result<(), ClientError> {
        self.order(&Request::Start)
    }

    pub fn state(&self) -> Result<State, ClientError> {
        match self.ask(&Request::State, &[])? {
            (Reply::State(state), _) => Ok(state),
            (other, _) => Err(self.unexpected(other)),
        }
    }

    /// To the first process. SIGKILL ends the whole container.
    pub fn signal(&self, signal: Signal) -> Result<(), ClientError> {
        self.order(&Request::Signal { signal: signal.number() })
    }

    /// Sends the plan's stop signal; whoever calls waits for the grace period and then kills.
    pub fn stop(&self) -> Result<(), ClientError> {
        self.order(&Request::Stop)
    }

    /// Starts one more process inside. Fails with exit code 127 or 126 in the [`crate::Failure`] as the command line shows it.
    pub fn exec(&self, plan: &ExecPlan) -> Result<ExecSession, ClientError> {
        let connection = self.connect()?;
        let memfd = wire::memfd("skep-exec", &plan.encode())
            .map_err(|errno| ClientError::Connection { id: self.id.clone(), source: errno.into() })?;
        let (reply, descriptors) = self.ask_on(&connection, &Request::Exec, &[memfd.as_fd()])?;
        let Reply::Exec { session, pid } = reply else { return Err(self.unexpected(reply)) };
        let mut descriptors = descriptors.into_iter();
        let mut next = || descriptors.next().ok_or_else(|| ClientError::Unexpected { id: self.id.clone() });
        let io = if plan.tty {
            ExecIo::Terminal(next()?)
        } else {
            let stdin = if plan.stdin { Some(next()?) } else { None };
            ExecIo::Pipes { stdin, stdout: next()?, stderr: next()? }
        };
        Ok(ExecSession::new(session, pid, io, Events::new(connection, self.id.clone())))
    }

    pub fn signal_exec(&self, session: u32, signal: Signal) -> Result<(), ClientError> {
        self.order(&Request::SignalExec { session, signal: signal.number() })
    }

    /// The size of the container's own terminal.
    pub fn resize(&self, rows: u16, columns: u16) -> Result<(), ClientError> {
        self.order(&Request::Resize { rows, columns })
    }

    /// The write end of standard input (`open_stdin`), or the terminal; the warden keeps its own, so closing this one
    /// is no end of file for the container. A terminal's descriptor is non-blocking.
    pub fn stdin(&self) -> Result<OwnedFd, ClientError> {
        match self.ask(&Request::Stdin, &[])? {
            (Reply::Stdin, descriptors) => {
                descriptors.into_iter().next().ok_or_else(|| ClientError::Unexpected { id: self.id.clone() })
            }
            (other, _) => Err(self.unexpected(other)),
        }
    }

    /// Lets a container whose plan has a lease live until `until`, by [`crate::boottime`]; never shortens.
    /// Refused when the lease has run out while it ran: then it is about to end.
    pub fn renew_lease(&self, until: Duration) -> Result<(), ClientError> {
        self.order(&Request::Lease { until })
    }

    /// Events from now on; an exit that already happened comes first.
    pub fn subscribe(&self) -> Result<Events, ClientError> {
        let connection = self.connect()?;
        match self.ask_on(&connection, &Request::Subscribe, &[])? {
            (Reply::Done, _) => Ok(Events::new(connection, self.id.clone())),
            (other, _) => Err(self.unexpected(other)),
        }
    }

    /// After its exit: removes cgroup and run folder; the warden ends. Files and log stay, they are the caller's.
    pub fn release(&self) -> Result<(), ClientError> {
        self.order(&Request::Release)
    }

    fn connect(&self) -> Result<OwnedFd, ClientError> {
        run_dir::connect(&self.run_dir.container(&self.id), run_dir::CONTROL_SOCKET)
            .map(|(connection, _)| connection)
            .map_err(|source| ClientError::NoWarden { id: self.id.clone(), source })
    }

    fn order(&self, request: &Request) -> Result<(), ClientError> {
        match self.ask(request, &[])? {
            (Reply::Done, _) => Ok(()),
            (other, _) => Err(self.unexpected(other)),
        }
    }

    fn ask(&self, request: &Request, attached: &[BorrowedFd<'_>]) -> Result<(Reply, Vec<OwnedFd>), ClientError> {
        self.ask_on(&self.connect()?, request, attached)
    }

    fn ask_on(
        &self,
        connection: &OwnedFd,
        request: &Request,
        attached: &[BorrowedFd<'_>],
    ) -> Result<(Reply, Vec<OwnedFd>), ClientError> {
        let failed = |source| ClientError::Connection { id: self.id.clone(), source };
        wire::send(connection, request, attached).map_err(failed)?;
        wire::receive(connection).map_err(failed)?.ok_or_else(|| ClientError::Gone { id: self.id.clone() })
    }

    fn unexpected(&self, reply: Reply) -> ClientError {
        match reply {
            Reply::Failed(failure) => ClientError::Refused(failure),
            _ => ClientError::Unexpected { id: self.id.clone() },
        }
    }
}
