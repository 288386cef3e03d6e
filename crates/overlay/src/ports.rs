//! Who holds a port: so that "address in use" can say by which program.
//!
//! Sockets come from `/proc/thread-self/net/*` (the calling thread's network namespace), their owners from every
//! process's descriptors. Only called when a bind has failed; it reads all of /proc.

use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use crate::snapshot::Protocol;

/// A socket bound to a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    pub address: IpAddr,
    /// None: its process belongs to another pid namespace or hides from us.
    pub process: Option<Process>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    pub pid: u32,
    /// The program's name as the kernel keeps it: 15 bytes at most.
    pub name: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.process {
            Some(Process { pid, name }) => write!(f, "{name} (pid {pid})"),
            None => f.write_str("a program that cannot be seen from here"),
        }
    }
}

/// The sockets that keep others from binding `port` on `bind` (none: on every address). A listening TCP socket or a
/// bound UDP one, on the same address or where either is for every address.
pub fn holders(protocol: Protocol, bind: Option<IpAddr>, port: u16) -> Vec<Holder> {
    let files = match protocol {
        Protocol::Tcp => ["tcp", "tcp6"],
        Protocol::Udp => ["udp", "udp6"],
    };
    let mut holders = Vec::new();
    for file in files {
        // A kernel without IPv6 has no tcp6.
        let table = fs::read_to_string(Path::new("/proc/thread-self/net").join(file)).unwrap_or_default();
        let sockets = table.lines().skip(1).filter_map(|line| parse(line, protocol));
        for socket in sockets.filter(|socket| socket.port == port && overlap(socket.address, bind)) {
            holders.push(Holder { address: socket.address, process: owner(socket.inode) });
        }
    }
    holders
}

fn overlap(held: IpAddr, wanted: Option<IpAddr>) -> bool {
    let wanted = wanted.filter(|address| !address.is_unspecified());
    held.is_unspecified() || wanted.is_none_or(|wanted| wanted == held.to_canonical())
}

#[derive(Debug, PartialEq, Eq)]
struct Socket {
    address: IpAddr,
    port: u16,
    inode: u64,
}

/// A line of /proc/net/tcp or udp (proc(5)): `sl local remote state tx:rx tr:when retransmits uid timeout inode …`.
fn parse(line: &str, protocol: Protocol) -> Option<Socket> {
    const LISTEN: &str = "0A";
    let mut fields = line.split_ascii_whitespace();
    let (address, port) = fields.nth(1)?.split_once(':')?;
    let state = fields.nth(1)?;
    if protocol == Protocol::Tcp && state != LISTEN {
        return None;
    }
    let inode = fields.nth(5)?.parse().ok()?;
    Some(Socket { address: parse_address(address)?, port: u16::from_str_radix(port, 16).ok()?, inode })
}

/// Groups of 4 bytes, each as a number of the machine's order.
fn parse_address(text: &str) -> Option<IpAddr> {
    let mut bytes = Vec::new();
    for at in (0..text.len()).step_by(8) {
        bytes.extend(u32::from_str_radix(text.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    }
    let v4 = <[u8; 4]>::try_from(&bytes[..]).map(|bytes| Ipv4Addr::from(bytes).into());
    v4.or_else(|_| <[u8; 16]>::try_from(&bytes[..]).map(|bytes| Ipv6Addr::from(bytes).into())).ok()
}

/// The process that has a descriptor of this socket. A process that ends while we look is none.
fn owner(inode: u64) -> Option<Process> {
    let link = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc").ok()?.filter_map(Result::ok);
    processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).find_map(|pid| {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.filter_map(Result::ok);
        let mut targets = descriptors.filter_map(|entry| fs::read_link(entry.path()).ok());
        targets.any(|target| target.as_os_str() == link.as_str()).then_some(())?;
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        Some(Process { pid, name: name.trim_end().to_owned() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_proc_net_are_read() {
        let tcp = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1 0";
        let expected = Socket { address: [127, 0, 0, 1].into(), port: 8080, inode: 4242 };
        if cfg!(target_endian = "little") {
            assert_eq!(parse(tcp, Protocol::Tcp), Some(expected));
        }
        assert_eq!(parse(&tcp.replace(" 0A ", " 01 "), Protocol::Tcp), None, "connected, not listening");
        assert_eq!(parse("garbage", Protocol::Tcp), None);
    }

    #[test]
    fn a_port_is_held_by_its_address_or_by_all() {
        let one: IpAddr = [192, 0, 2, 1].into();
        let other: IpAddr = [192, 0, 2, 2].into();
        let any: IpAddr = [0, 0, 0, 0].into();
        assert!(overlap(one, Some(one)) && overlap(one, None) && overlap(one, Some(any)) && overlap(any, Some(one)));
        assert!(!overlap(one, Some(other)));
    }
}
