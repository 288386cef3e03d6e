//! Kernel settings under /proc/sys/net: they are those of the calling thread's network namespace.

use std::fs;
use std::io;
use std::path::Path;

/// Writes a setting unless it has the value; `key` is a path below `/proc/sys/net`.
pub fn set(key: &str, value: &str) -> io::Result<()> {
    let path = Path::new("/proc/sys/net").join(key);
    if fs::read_to_string(&path)?.trim() == value {
        return Ok(());
    }
    fs::write(path, value)
}

/// A container on two networks answers by its default route, also for its other address, and clients' packets come from
/// other nodes by another way than answers to them go: strict reverse path filtering would drop that. The ruleset
/// checks sources, and more exactly.
pub fn loosen_reverse_path(interface: &str) -> io::Result<()> {
    set(&format!("ipv4/conf/{interface}/rp_filter"), "2")
}

/// Overlay networks are IPv4: without this an interface would take a link-local IPv6 address, by which containers
/// reach their node past every rule. A kernel without IPv6 has nothing to switch off.
pub fn disable_ipv6(interface: &str) -> io::Result<()> {
    match set(&format!("ipv6/conf/{interface}/disable_ipv6"), "1") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}
