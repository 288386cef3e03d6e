//! What a warden tells by itself: the container's exit, and the ends of exec sessions.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec};

use super::ClientError;
use crate::wire::{self, Event, Reply};

/// A stream of events. It ends with [`ClientError::Gone`] when the warden does.
#[derive(Debug)]
pub struct Events {
    connection: OwnedFd,
    id: String,
}

impl Events {
    pub(super) fn new(connection: OwnedFd, id: String) -> Events {
        Events { connection, id }
    }

    /// The next event, however long it takes.
    pub fn wait_event(&self) -> Result<Event, ClientError> {
        match wire::receive::<Reply>(&self.connection) {
            Ok(Some((Reply::Event(event), _))) => Ok(event),
            Ok(Some(_)) => Err(ClientError::Unexpected { id: self.id.clone() }),
            Ok(None) => Err(ClientError::Gone { id: self.id.clone() }),
            Err(source) => Err(ClientError::Connection { id: self.id.clone(), source }),
        }
    }

    /// The next event if one is there. With an event loop: call it until `None` whenever the descriptor is readable.
    pub fn try_next_event(&self) -> Result<Option<Event>, ClientError> {
        let mut fds = [PollFd::new(&self.connection, PollFlags::IN)];
        match rustix::event::poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
            Ok(0) | Err(_) => Ok(None),
            Ok(_) => self.wait_event().map(Some),
        }
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}
