//! Sockets inside other network namespaces: a thread goes there, binds, and comes to an end; the sockets stay.

use std::fs::{self, File};
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::snapshot::RESOLVER;

/// Device and inode of a namespace: never used again while a socket of ours is in it.
pub type Identity = (u64, u64);

/// Where a resolver's sockets are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub netns: PathBuf,
    pub port: u16,
}

/// Bound, and not blocking.
pub struct Opened {
    pub identity: Identity,
    pub udp: UdpSocket,
    pub tcp: TcpListener,
}

pub fn identity(netns: &Path) -> io::Result<Identity> {
    let file = fs::metadata(netns)?;
    Ok((file.dev(), file.ino()))
}

/// One result for each, in order.
pub fn open(all: Vec<Wanted>) -> Vec<io::Result<Opened>> {
    if all.is_empty() {
        return Vec::new();
    }
    let count = all.len();
    // A thread of its own, so that no other ever leaves the node's namespace.
    let opened = thread::Builder::new()
        .name("sandbox-sockets".to_owned())
        .stack_size(64 << 10)
        .spawn(move || all.iter().map(open_one).collect::<Vec<_>>())
        .map(|thread| thread.join().expect("opening sockets does not panic"));
    opened.unwrap_or_else(|error| (0..count).map(|_| Err(io::Error::new(error.kind(), error.to_string()))).collect())
}

fn open_one(wanted: &Wanted) -> io::Result<Opened> {
    let Wanted { netns, port } = wanted;
    let failed = |step: &str, error: io::Error| {
        io::Error::new(
            error.kind(),
            format!("failed to {step} in the network namespace `{}`: {error}", netns.display()),
        )
    };
    let namespace = File::open(netns).map_err(|error| failed("look", error))?;
    let identity = identity(netns).map_err(|error| failed("look", error))?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(|error| failed("be", error.into()))?;
    let at = (RESOLVER, *port);
    let bound = |error| failed(&format!("bind {RESOLVER}:{port}"), error);
    let udp = UdpSocket::bind(at).map_err(bound)?;
    let tcp = TcpListener::bind(at).map_err(bound)?;
    udp.set_nonblocking(true)?;
    tcp.set_nonblocking(true)?;
    Ok(Opened { identity, udp, tcp })
}
