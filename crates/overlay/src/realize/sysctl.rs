//! Kernel settings under /proc/sys/net: they are those of the calling thread's network namespace.

use std::fs;
use std::io;
use std::path::Path;

/// Writes a setting unless it has the value; `key` is a path below `/proc/sys/net`.
pub fn set(key: &str, value: &str) -> io::Result<()> {
    if read(key)? == value {
        return Ok(());
    }
    fs::write(Path::new("/proc/sys/net").join(key), value)
}

fn read(key: &str) -> io::Result<String> {
    Ok(fs::read_to_string(Path::new("/proc/sys/net").join(key))?.trim().to_owned())
}

/// A container on two networks answers by its default route, also for its other address, and clients' packets come from
/// other nodes by another way than answers to them go: strict reverse path filtering would drop that. The ruleset
/// checks sources, and more exactly.
pub fn loosen_reverse_path(interface: &str) -> io::Result<()> {
    set(&format!("ipv4/conf/{interface}/rp_filter"), "2")
}

/// Whoever is on the local network is told at once when an address comes to an interface, so that nothing goes on to where
/// it was before.
pub fn announce_addresses(interface: &str) -> io::Result<()> {
    set(&format!("ipv4/conf/{interface}/arp_notify"), "1")
}

/// Whether an interface of ours has IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ipv6 {
    On,
    Off,
}

/// Where it is on, the interface has the addresses that it is given and no others: with a link-local one of its own
/// making, or one that a router advertises, containers would reach their node past every rule. A kernel without IPv6 has
/// nothing to switch.
pub fn set_ipv6(interface: &str, ipv6: Ipv6) -> io::Result<()> {
    const NO_ADDRESS_OF_ITS_OWN: &str = "1";
    let key = |name: &str| format!("ipv6/conf/{interface}/{name}");
    let is_set = |name: &str, value: &str| read(&key(name)).is_ok_and(|found| found == value);
    let done = match ipv6 {
        Ipv6::Off => set(&key("disable_ipv6"), "1"),
        Ipv6::On if is_set("addr_gen_mode", NO_ADDRESS_OF_ITS_OWN) && is_set("disable_ipv6", "0") => Ok(()),
        // Switched off first, it loses what it took before it was told.
        Ipv6::On => set(&key("disable_ipv6"), "1")
            .and_then(|()| set(&key("addr_gen_mode"), NO_ADDRESS_OF_ITS_OWN))
            .and_then(|()| set(&key("accept_ra"), "0"))
            .and_then(|()| set(&key("disable_ipv6"), "0")),
    };
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound && ipv6 == Ipv6::Off => Ok(()),
        done => done,
    }
}

/// Whether this kernel has IPv6 at all: it may be built without, or told to do without (`ipv6.disable=1`).
pub fn has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6/conf/all/forwarding").exists()
}

/// Lets IPv6 packets pass from one interface to another.
///
/// The kernel then takes itself for a router, and routers take no advice from other routers: interfaces that got their
/// addresses and default route so would lose both. They are told to go on (`accept_ra` 2) before.
pub fn forward_ipv6() -> io::Result<()> {
    const ADVISED: &str = "1";
    const ADVISED_THOUGH_ROUTING: &str = "2";
    const SWITCH: &str = "ipv6/conf/all/forwarding";
    if read(SWITCH)? == "1" {
        return Ok(());
    }
    for entry in fs::read_dir("/proc/sys/net/ipv6/conf")? {
        let entry = entry?;
        let key = |name: &str| format!("ipv6/conf/{}/{name}", entry.file_name().to_string_lossy());
        // One that routes already takes no advice, and somebody wanted it so.
        let listens =
            read(&key("forwarding")).is_ok_and(|on| on == "0") && read(&key("accept_ra")).is_ok_and(|ra| ra == ADVISED);
        if listens && entry.file_name() != "all" {
            match set(&key("accept_ra"), ADVISED_THOUGH_ROUTING) {
                // It has gone meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                done => done?,
            }
        }
    }
    set(SWITCH, "1")
}
