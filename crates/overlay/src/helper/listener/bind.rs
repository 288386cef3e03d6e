//! Sockets of published ports, and why one cannot be had.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rustix::io::Errno;
use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, UdpSocket};

use crate::ports::{self, Holder};
use crate::snapshot::Protocol;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

pub fn tcp(bind: Option<IpAddr>, port: u16) -> io::Result<TcpListener> {
    let socket = bound(bind, port, Type::STREAM)?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

pub fn udp(bind: Option<IpAddr>, port: u16) -> io::Result<UdpSocket> {
    UdpSocket::from_std(bound(bind, port, Type::DGRAM)?.into())
}

/// For every address: one socket for IPv4 and IPv6, or for IPv4 where the kernel has no IPv6.
fn bound(bind: Option<IpAddr>, port: u16, kind: Type) -> io::Result<Socket> {
    let Some(address) = bind else {
        return match bound_to(Ipv6Addr::UNSPECIFIED.into(), port, kind) {
            Err(error) if lacks_ipv6(&error) => bound_to(Ipv4Addr::UNSPECIFIED.into(), port, kind),
            bound => bound,
        };
    };
    bound_to(address, port, kind)
}

fn bound_to(address: IpAddr, port: u16, kind: Type) -> io::Result<Socket> {
    let address = SocketAddr::new(address, port);
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    socket.set_nonblocking(true)?;
    if kind == Type::STREAM {
        // Connections of an earlier helper may linger in TIME_WAIT.
        socket.set_reuse_address(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

fn lacks_ipv6(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL))
}

/// A sentence for the user that deploys.
pub fn explain(protocol: Protocol, bind: Option<IpAddr>, port: u16, error: &io::Error) -> String {
    match (Errno::from_io_error(error), bind) {
        (Some(Errno::ADDRINUSE), _) => taken(&ports::holders(protocol, bind, port)),
        (Some(Errno::ADDRNOTAVAIL), Some(address)) => format!("this node has no address {address}"),
        _ => format!("the port cannot be bound: {error}"),
    }
}

fn taken(holders: &[Holder]) -> String {
    let is_ours = |holder: &&Holder| holder.process.as_ref().is_some_and(|process| process.pid == std::process::id());
    if let Some(ours) = holders.iter().find(is_ours) {
        return match ours.address {
            address if address.is_unspecified() => "the port is published on every address already".to_owned(),
            address => format!("the port is published on {address} already"),
        };
    }
    let names: BTreeSet<String> = holders.iter().map(ToString::to_string).collect();
    match names.len() {
        0 => "the port is taken by another program".to_owned(),
        _ => format!("the port is taken by {}", Vec::from_iter(names).join(" and ")),
    }
}
