//! What client, keeper and wardens say to each other: postcard behind one format number, one message per
//! SEQPACKET datagram, descriptors beside it. Plans travel as memfds, so that no message needs to be large.
//! Old wardens live as long as their containers: only add variants, at the end, and never reorder fields.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, SystemTime};

use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;

pub const WIRE_FORMAT: u8 = 1;
const MESSAGE_BYTES_MAX: usize = 4096;
const DESCRIPTORS_MAX: usize = 3;

#[derive(Debug, Serialize, Deserialize)]
pub enum KeeperRequest {
    /// Is somebody there? Answered with `Alive`.
    Ping,
    /// Make this container; its plan is in the memfd that comes along.
    Create { id: String },
    /// End, if there is no warden.
    Stop,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum KeeperReply {
    /// The socket's peer credentials would name the process that began to listen, which was not the keeper itself yet.
    Alive {
        pid: i32,
    },
    /// Sent by the new warden itself, over the connection that it inherited.
    /// `warnings` are limits that this kernel does not enforce.
    Created {
        pid: i32,
        warnings: Vec<String>,
    },
    Failed(Failure),
    Stopping,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    State,
    Start,
    Signal {
        signal: i32,
    },
    Stop,
    /// The ExecPlan is in the memfd that comes along. `Exited` events of this session come on this connection.
    Exec,
    SignalExec {
        session: u32,
        signal: i32,
    },
    Resize {
        rows: u16,
        columns: u16,
    },
    /// The write end of standard input, or the terminal.
    Stdin,
    Subscribe,
    Release,
    /// Extends the lease that the container lives by; `until` is since boot (CLOCK_BOOTTIME).
    Lease {
        until: Duration,
    },
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    Done,
    State(State),
    /// Descriptors beside it: the terminal alone, or stdin (if asked for), stdout, stderr.
    Exec {
        session: u32,
        pid: i32,
    },
    Stdin,
    Failed(Failure),
    Event(Event),
}

/// Where a container is; its run folder holds the same as a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Made and waiting before its command.
    Created {
        pid: i32,
    },
    Running {
        pid: i32,
        started_at: SystemTime,
    },
    Exited {
        /// As a shell reports it: 128 + n after signal n.
        code: i32,
        oom_killed: bool,
        started_at: Option<SystemTime>,
        finished_at: SystemTime,
        /// Why it could not start, or `supervisor lost`.
        error: Option<String>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    Exited { code: i32, oom_killed: bool },
    ExecExited { session: u32, code: i32 },
}

/// From a child on its way to exec, to its warden.
#[derive(Debug, Serialize, Deserialize)]
pub enum ChildMessage {
    /// The terminal's master comes along.
    Terminal,
    /// Everything before the command is done.
    Ready,
    Failed(Failure),
}

/// From a warden to its child.
#[derive(Debug, Serialize, Deserialize)]
pub enum ChildOrder {
    /// Run the command.
    Start,
}

#[derive(Debug, thiserror::Error)]
pub enum WireError {
    #[error("the connection failed")]
    Socket(#[from] Errno),
    #[error("a message of format {0} came, this build speaks format {WIRE_FORMAT}")]
    Format(u8),
    #[error("a message cannot be read")]
    Encoding(#[from] postcard::Error),
}

/// Sends one message; blocks only if the socket does.
pub fn send<T: Serialize>(socket: impl AsFd, message: &T, descriptors: &[BorrowedFd<'_>]) -> Result<(), WireError> {
    let mut buffer = [0u8; MESSAGE_BYTES_MAX];
    buffer[0] = WIRE_FORMAT;
    let body = postcard::to_slice(message, &mut buffer[1..])?.len();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        let fits = control.push(SendAncillaryMessage::ScmRights(descriptors));
        debug_assert!(fits, "at most {DESCRIPTORS_MAX} descriptors travel together");
    }
    let bytes = [IoSlice::new(&buffer[..=body])];
    rustix::io::retry_on_intr(|| rustix::net::sendmsg(&socket, &bytes, &mut control, SendFlags::NOSIGNAL))?;
    Ok(())
}

/// Receives one message with its descriptors; `None` when the peer is gone.
pub fn receive<T: DeserializeOwned>(socket: impl AsFd) -> Result<Option<(T, Vec<OwnedFd>)>, WireError> {
    let mut buffer = [0u8; MESSAGE_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = {
        let mut bytes = [IoSliceMut::new(&mut buffer)];
        match rustix::io::retry_on_intr(|| {
            rustix::net::recvmsg(&socket, &mut bytes, &mut control, RecvFlags::CMSG_CLOEXEC)
        }) {
            Ok(received) => received.bytes,
            Err(Errno::CONNRESET) => 0,
            Err(errno) => return Err(errno.into()),
        }
    };
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            descriptors.extend(fds);
        }
    }
    match buffer[..received].split_first() {
        None => Ok(None),
        Some((&WIRE_FORMAT, body)) => Ok(Some((postcard::from_bytes(body)?, descriptors))),
        Some((format, _)) => Err(WireError::Format(*format)),
    }
}

/// Bytes as a descriptor that can be sent along.
pub fn memfd(name: &str, bytes: &[u8]) -> Result<OwnedFd, Errno> {
    let fd = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)?;
    let mut rest = bytes;
    while !rest.is_empty() {
        let written = rustix::io::retry_on_intr(|| rustix::io::write(&fd, rest))?;
        rest = &rest[written..];
    }
    Ok(fd)
}

/// All of what `memfd` holds, wherever its offset is.
pub fn read_all(fd: impl AsFd) -> Result<Vec<u8>, Errno> {
    let size = usize::try_from(rustix::fs::fstat(&fd)?.st_size).map_err(|_| Errno::FBIG)?;
    let mut bytes = vec![0; size];
    let mut at = 0;
    while at < size {
        match rustix::io::retry_on_intr(|| rustix::io::pread(&fd, &mut bytes[at..], at as u64))? {
            0 => break,
            read => at += read,
        }
    }
    bytes.truncate(at);
    Ok(bytes)
}
