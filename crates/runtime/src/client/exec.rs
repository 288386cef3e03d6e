//! One exec session: its streams and its end.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::termios::Winsize;

use super::ClientError;
use super::events::Events;
use crate::wire::Event;

/// A process that runs in a container. The parts can be taken apart and used by different owners.
#[derive(Debug)]
pub struct ExecSession {
    /// Unique within its container.
    pub id: u32,
    /// On the host.
    pub pid: i32,
    pub io: ExecIo,
    pub exit: ExecExit,
}

/// Blocking descriptors, owned by the caller alone: closing them is seen inside.
#[derive(Debug)]
pub enum ExecIo {
    Pipes {
        stdin: Option<OwnedFd>,
        stdout: OwnedFd,
        stderr: OwnedFd,
    },
    /// The terminal's master; reading it ends with EIO.
    Terminal(OwnedFd),
}

/// Tells the exit code, once.
#[derive(Debug)]
pub struct ExecExit {
    session: u32,
    events: Events,
}

impl ExecSession {
    pub(super) fn new(id: u32, pid: i32, io: ExecIo, events: Events) -> ExecSession {
        ExecSession { id, pid, io, exit: ExecExit { session: id, events } }
    }
}

impl ExecIo {
    /// Sets the size of the terminal; without one there is nothing to do.
    pub fn resize(&self, rows: u16, columns: u16) -> std::io::Result<()> {
        match self {
            ExecIo::Pipes { .. } => Ok(()),
            ExecIo::Terminal(terminal) => {
                let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
                Ok(rustix::termios::tcsetwinsize(terminal, size)?)
            }
        }
    }
}

impl ExecExit {
    /// The exit code, however long it takes; 128 + n after signal n.
    pub fn wait(&self) -> Result<i32, ClientError> {
        loop {
            if let Some(code) = self.code_of(self.events.wait_event()?) {
                return Ok(code);
            }
        }
    }

    /// The exit code if it is known.
    pub fn try_wait(&self) -> Result<Option<i32>, ClientError> {
        while let Some(event) = self.events.try_next_event()? {
            if let Some(code) = self.code_of(event) {
                return Ok(Some(code));
            }
        }
        Ok(None)
    }

    fn code_of(&self, event: Event) -> Option<i32> {
        match event {
            Event::ExecExited { session, code } if session == self.session => Some(code),
            Event::ExecExited { .. } | Event::Exited { .. } => None,
        }
    }
}

impl AsFd for ExecExit {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}
