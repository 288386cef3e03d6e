//! The layout of the run folder, and sockets in it.
//!
//! ```text
//! <run>/keeper.sock  keeper.lock  keeper.log
//! <run>/c/<id>/ctl  plan  state
//! ```
//! Only root can enter `c` and use the sockets. They are reached through `/proc/self/fd`, since a run folder of a lab
//! node can have a longer path than a socket address holds (107 bytes).

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::net::sockopt;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::Pid;

use crate::failure::Failure;
use crate::plan::{Plan, is_valid_id};
use crate::wire::{State, WIRE_FORMAT};

pub const KEEPER_SOCKET: &str = "keeper.sock";
pub const KEEPER_LOCK: &str = "keeper.lock";
pub const KEEPER_LOG: &str = "keeper.log";
pub const CONTROL_SOCKET: &str = "ctl";

/// A node's run folder.
#[derive(Debug, Clone)]
pub struct RunDir(PathBuf);

impl RunDir {
    pub fn new(path: impl Into<PathBuf>) -> RunDir {
        RunDir(path.into())
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Where all containers are.
    pub fn containers(&self) -> PathBuf {
        self.0.join("c")
    }

    pub fn container(&self, id: &str) -> PathBuf {
        self.containers().join(id)
    }

    /// Ids that have a folder here, sorted.
    pub fn ids(&self) -> io::Result<Vec<String>> {
        let mut ids = Vec::new();
        let entries = match std::fs::read_dir(self.containers()) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(ids),
            Err(error) => return Err(error),
        };
        for entry in entries {
            if let Ok(name) = entry?.file_name().into_string()
                && is_valid_id(&name)
            {
                ids.push(name);
            }
        }
        ids.sort();
        Ok(ids)
    }

    /// Where a container's folder is made before it appears under its name. Unique to the process.
    pub fn unfinished(&self, id: &str) -> PathBuf {
        self.containers().join(format!(".{id}.{}", rustix::process::getpid().as_raw_nonzero()))
    }

    /// Removes unfinished folders whose makers are gone. One that stays is in nobody's way.
    pub fn sweep(&self) {
        for entry in std::fs::read_dir(self.containers()).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let maker = name.to_str().filter(|name| name.starts_with('.')).and_then(|name| name.rsplit_once('.'));
            if let Some((_, pid)) = maker
                && let Some(pid) = pid.parse().ok().and_then(Pid::from_raw)
                && rustix::process::test_kill_process(pid).is_err()
            {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
    }

    /// The plan that a container was made from.
    pub fn read_plan(&self, id: &str) -> Result<Plan, Failure> {
        let path = self.container(id).join("plan");
        let bytes = std::fs::read(&path)
            .map_err(|error| Failure::new("plan", format!("failed to read `{}`: {error}", path.display())))?;
        Plan::decode(&bytes)
    }

    /// The last state that was written; `None` if there is none.
    pub fn read_state(&self, id: &str) -> io::Result<Option<State>> {
        let bytes = match std::fs::read(self.container(id).join("state")) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        match bytes.split_first() {
            Some((&WIRE_FORMAT, body)) => {
                postcard::from_bytes(body).map(Some).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
            }
            Some(_) | None => Err(io::Error::new(io::ErrorKind::InvalidData, "the state file has an unknown format")),
        }
    }

    /// Replaces the state as one step, so that a reader sees the old or the new one.
    pub fn write_state(&self, id: &str, state: &State) -> io::Result<()> {
        let bytes = postcard::to_extend(state, vec![WIRE_FORMAT])
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let folder = self.container(id);
        let new = folder.join("state.new");
        std::fs::write(&new, bytes)?;
        std::fs::rename(new, folder.join("state"))
    }
}

fn address(folder: &OwnedFd, name: &str) -> io::Result<SocketAddrUnix> {
    Ok(SocketAddrUnix::new(format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()))?)
}

fn open_folder(folder: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(CWD, folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// A listening SEQPACKET socket `folder/name`, mode 0600.
pub fn listen(folder: &Path, name: &str) -> io::Result<OwnedFd> {
    let folder = open_folder(folder)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    // The socket file gets its mode from the umask at bind; the folder is 0700 all the same.
    let umask = rustix::process::umask(Mode::from_raw_mode(0o177));
    let bound = rustix::net::bind(&socket, &address(&folder, name)?);
    rustix::process::umask(umask);
    bound?;
    rustix::net::listen(&socket, 128)?;
    Ok(socket)
}

/// A connection to `folder/name`, and the process that listens there.
pub fn connect(folder: &Path, name: &str) -> io::Result<(OwnedFd, Pid)> {
    let folder = open_folder(folder)?;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    rustix::io::retry_on_intr(|| rustix::net::connect(&socket, &address(&folder, name).map_err(invalid)?))?;
    let peer = sockopt::socket_peercred(&socket)?.pid;
    Ok((socket, peer))
}

fn invalid(_: io::Error) -> rustix::io::Errno {
    rustix::io::Errno::INVAL
}

/// Takes the next connection; refuses, by closing it, anybody but root. `None` when there is none.
pub fn accept(listener: impl AsFd) -> Option<OwnedFd> {
    let connection = rustix::net::accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK).ok()?;
    let peer = sockopt::socket_peercred(&connection).ok()?;
    (peer.uid == rustix::process::getuid()).then_some(connection)
}
