//! The control socket of one container: one request, one reply; events beside them for whoever asked.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::termios::Winsize;

use super::{LEASE_RAN_OUT, Warden};
use crate::boottime;
use crate::failure::{Failure, Step};
use crate::sys;
use crate::wire::{self, Event, Reply, Request, State, WireError};

pub struct Connection {
    pub socket: OwnedFd,
    subscribed: bool,
    /// Sessions that were started here and whose end is to be told here.
    sessions: Vec<u32>,
    /// Only marked, and gone at the round's end: what is ready is known by its place in the list.
    ended: bool,
}

impl Connection {
    pub fn new(socket: OwnedFd) -> Connection {
        Connection { socket, subscribed: false, sessions: Vec::new(), ended: false }
    }

    pub fn has_ended(&self) -> bool {
        self.ended
    }

    fn wants(&self, event: &Event) -> bool {
        match event {
            Event::Exited { .. } => self.subscribed,
            Event::ExecExited { session, .. } => self.subscribed || self.sessions.contains(session),
        }
    }
}

impl Warden {
    /// Takes one request from a ready connection and answers it; drops a connection that ended or does not read.
    pub fn serve_connection(&mut self, index: usize) {
        if self.connections[index].ended {
            return;
        }
        let (request, descriptors) = match wire::receive::<Request>(&self.connections[index].socket) {
            Ok(Some(received)) => received,
            Err(WireError::Socket(Errno::AGAIN)) => return,
            Ok(None) | Err(WireError::Socket(_)) => return self.drop_connection(index),
            Err(error) => {
                // A newer client may ask for what this warden does not know: it gets an answer, not silence.
                let failure = Failure::new("request", format!("this container's supervisor is too old: {error}"));
                return self.answer(index, &Reply::Failed(failure), &[]);
            }
        };
        let (reply, attached) = self.obey(index, request, descriptors);
        let attached: Vec<_> = attached.iter().map(AsFd::as_fd).collect();
        self.answer(index, &reply, &attached);
        if matches!(reply, Reply::Done) && self.subscribed_late(index) {
            self.tell_of_exit(index);
        }
    }

    fn obey(&mut self, index: usize, request: Request, descriptors: Vec<OwnedFd>) -> (Reply, Vec<OwnedFd>) {
        let result = match request {
            Request::State => return (Reply::State(self.state.clone()), Vec::new()),
            Request::Start => self.start(),
            Request::Signal { signal } => self.signal(signal),
            Request::Stop => {
                self.stop_asked = true;
                self.signal(self.stop_signal)
            }
            Request::Lease { until } => self.renew_lease(until),
            Request::Exec => {
                return match self.exec(descriptors) {
                    Ok((reply, session, attached)) => {
                        self.connections[index].sessions.push(session);
                        (reply, attached)
                    }
                    Err(failure) => (Reply::Failed(failure), Vec::new()),
                };
            }
            Request::SignalExec { session, signal } => self.signal_exec(session, signal),
            Request::Resize { rows, columns } => self.resize(rows, columns),
            Request::Stdin => {
                return match self.share_stdin() {
                    Ok(stdin) => (Reply::Stdin, vec![stdin]),
                    Err(failure) => (Reply::Failed(failure), Vec::new()),
                };
            }
            Request::Subscribe => {
                self.connections[index].subscribed = true;
                Ok(())
            }
            Request::Release => self.release(),
        };
        match result {
            Ok(()) => (Reply::Done, Vec::new()),
            Err(failure) => (Reply::Failed(failure), Vec::new()),
        }
    }

    fn answer(&mut self, index: usize, reply: &Reply, attached: &[std::os::fd::BorrowedFd<'_>]) {
        if wire::send(&self.connections[index].socket, reply, attached).is_err() {
            self.drop_connection(index);
        }
    }

    /// Tells everybody who wants to know. Who does not read what is sent is dropped: it must ask for the state again.
    pub fn report(&mut self, event: &Event) {
        for connection in self.connections.iter_mut().filter(|connection| !connection.ended && connection.wants(event))
        {
            connection.ended = wire::send(&connection.socket, &Reply::Event(event.clone()), &[]).is_err();
        }
    }

    fn drop_connection(&mut self, index: usize) {
        self.connections[index].ended = true;
    }

    fn subscribed_late(&self, index: usize) -> bool {
        let connection = &self.connections[index];
        connection.subscribed && !connection.ended && matches!(self.state, State::Exited { .. })
    }

    /// Whoever subscribes after the end learns of it at once, so that no order of calls can miss it.
    fn tell_of_exit(&mut self, index: usize) {
        if let State::Exited { code, oom_killed, .. } = &self.state {
            let event = Event::Exited { code: *code, oom_killed: *oom_killed };
            self.answer(index, &Reply::Event(event), &[]);
        }
    }

    fn signal(&self, signal: i32) -> Result<(), Failure> {
        if matches!(self.state, State::Exited { .. }) {
            return Err(Failure::new("signal", format!("container `{}` is not running", self.id)));
        }
        sys::signal::send(self.init.pidfd.as_fd(), signal)
            .step("signal", || format!("failed to send signal {signal} to container `{}`", self.id))
    }

    fn renew_lease(&mut self, until: Duration) -> Result<(), Failure> {
        let runs = matches!(self.state, State::Running { .. });
        let Some(lease) = &mut self.lease else {
            return Err(Failure::new("lease", format!("container `{}` does not live by a lease", self.id)));
        };
        match lease.renew(until, boottime(), runs).step("lease", || "failed to set the lease's timer".to_owned())? {
            true => Ok(()),
            false => Err(Failure::new("lease", LEASE_RAN_OUT.to_owned())),
        }
    }

    fn resize(&self, rows: u16, columns: u16) -> Result<(), Failure> {
        let Some(terminal) = &self.terminal else {
            return Err(Failure::new("resize", format!("container `{}` has no terminal", self.id)));
        };
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(terminal, size).step("resize", || "failed to resize the terminal".to_owned())
    }

    fn share_stdin(&self) -> Result<OwnedFd, Failure> {
        let Some(stdin) = self.terminal.as_ref().or(self.stdin.as_ref()) else {
            return Err(Failure::new("stdin", format!("standard input of container `{}` is not open", self.id)));
        };
        stdin.try_clone().step("stdin", || "failed to share standard input".to_owned())
    }
}
