//! Pipes and terminals between a container's process and whoever holds its other side.
//! Pipes, not sockets: a program must be able to open /dev/stdout again.

use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::child::Stdio;

/// Our side of a process's streams. With a terminal all are `None`; it comes later, from the child.
#[derive(Debug, Default)]
pub struct OurEnds {
    pub stdin: Option<OwnedFd>,
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
}

/// Both sides. Without `stdin` the process reads /dev/null.
pub fn make(terminal: bool, stdin: bool) -> Result<(Stdio, OurEnds), Errno> {
    if terminal {
        return Ok((Stdio::Terminal, OurEnds::default()));
    }
    let (input, our_input) = if stdin {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        (read, Some(write))
    } else {
        (rustix::fs::openat(CWD, "/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?, None)
    };
    let (our_output, output) = pipe_with(PipeFlags::CLOEXEC)?;
    let (our_errors, errors) = pipe_with(PipeFlags::CLOEXEC)?;
    Ok((
        Stdio::Pipes { stdin: input, stdout: output, stderr: errors },
        OurEnds { stdin: our_input, stdout: Some(our_output), stderr: Some(our_errors) },
    ))
}

/// The socket between a warden and its child: ours, the child's.
pub fn channel() -> Result<(OwnedFd, OwnedFd), Errno> {
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}
