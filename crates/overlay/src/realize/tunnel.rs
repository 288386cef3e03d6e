//! The tunnel's interface `sk-tunnel`: made, mended, and removed when the node is alone.
//!
//! With the kernel's carrier it is a WireGuard device, whose peers are set here. With the net helper's it is a TUN
//! device that needs nobody to have it open: its routes outlive daemon and helper, which attaches to it, and may have
//! made it just before.
//! What leads into it is not this file's business.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;

use ipnet::IpNet;

use super::sysctl::Ipv6;
use super::{RealizeError, link, sysctl, wireguard};
use crate::netlink::{Family, NetlinkError, Socket};
use crate::sys;
use crate::tunnel::{Carrier, DataPlane, INTERFACE, Tunnel};

/// Packets that may wait for the carrier; the kernel's 500 for TUN devices are few at gigabits.
const QUEUE: u32 = 1000;
const PROBE: &str = "skep-probe";

/// Who can carry, of those that the settings allow.
pub fn choose(wanted: DataPlane) -> Result<Carrier, RealizeError> {
    match wanted {
        DataPlane::Userspace => Ok(Carrier::Userspace),
        DataPlane::Auto if kernel_can().is_err() => Ok(Carrier::Userspace),
        DataPlane::Auto => Ok(Carrier::Kernel),
        DataPlane::Kernel => kernel_can().map(|()| Carrier::Kernel).map_err(RealizeError::NoKernelWireguard),
    }
}

/// Whether the kernel makes a WireGuard device: tried, for a module may be there or not, built in, or forbidden.
/// It is tried in a network namespace that ends with the thread, where nobody sees it come and go.
fn kernel_can() -> io::Result<()> {
    let attempt = || {
        sys::namespace::unshare_network()?;
        let mut socket = Socket::open(Family::Route).map_err(io::Error::other)?;
        match socket.all(&[link::new_wireguard(PROBE)]) {
            Err(NetlinkError::Refused { source, .. }) => Err(source),
            made => made.map_err(io::Error::other),
        }
    };
    let thread = std::thread::Builder::new().name("skep-probe".to_owned()).spawn(attempt)?;
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Makes the interface be what `tunnel` says, or not be. `before` is what it was told the last time, if known.
pub fn realize(
    route: &mut Socket,
    carrier: Carrier,
    tunnel: Option<&Tunnel>,
    before: Option<&Tunnel>,
) -> Result<(), RealizeError> {
    match tunnel {
        Some(tunnel) => realize_interface(route, carrier, tunnel, before),
        None => remove(route),
    }
}

/// Removes the interface, whoever made it. Nothing happens if there is none.
pub fn remove(route: &mut Socket) -> Result<(), RealizeError> {
    match route.all(&[link::delete(INTERFACE)]) {
        Err(error) if error.errno() == Some(libc::ENODEV) => Ok(()),
        removed => removed.map_err(|source| RealizeError::Remove { interface: INTERFACE.to_owned(), source }),
    }
}

fn realize_interface(
    route: &mut Socket,
    carrier: Carrier,
    tunnel: &Tunnel,
    before: Option<&Tunnel>,
) -> Result<(), RealizeError> {
    let failed = |source| RealizeError::Tunnel { source };
    let kind = match carrier {
        Carrier::Kernel => "wireguard",
        Carrier::Userspace => "tun",
    };
    let mut found = link::find(route, INTERFACE).map_err(failed)?;
    if found.as_ref().is_some_and(|link| link.kind != kind) {
        remove(route)?;
        found = None;
    }
    let link = match found {
        Some(link) => link,
        None => {
            make(route, carrier)?;
            link::find(route, INTERFACE).map_err(failed)?.unwrap_or_default()
        }
    };
    let ipv6 = if tunnel.address_v6.is_some() { Ipv6::On } else { Ipv6::Off };
    sysctl::set_ipv6(INTERFACE, ipv6)
        .map_err(|source| RealizeError::Setting { key: format!("ipv6/conf/{INTERFACE}/disable_ipv6"), source })?;
    let wanted = [Some(tunnel.address.into()), tunnel.address_v6.map(IpAddr::V6)];
    let wanted: BTreeSet<IpNet> = wanted.into_iter().flatten().map(IpNet::from).collect();
    let addresses = link::list_addresses(route).map_err(failed)?.remove(&link.index).unwrap_or_default();
    let wrong = addresses.difference(&wanted);
    let mut changes: Vec<_> = wrong.map(|wrong| link::delete_address(link.index, *wrong)).collect();
    if link.mtu != u32::from(tunnel.mtu) {
        changes.push(link::set_sizes(link.index, tunnel.mtu, QUEUE));
    }
    changes.extend(wanted.difference(&addresses).map(|address| link::new_address(link.index, *address)));
    if !link.is_up {
        changes.push(link::up(link.index));
    }
    route.all(&changes).map_err(failed)?;
    // Last: peers are greeted by an interface that is up.
    match carrier {
        Carrier::Kernel => wireguard::apply(tunnel, before).map_err(RealizeError::Peers),
        Carrier::Userspace => Ok(()),
    }
}

fn make(route: &mut Socket, carrier: Carrier) -> Result<(), RealizeError> {
    match carrier {
        Carrier::Kernel => {
            route.all(&[link::new_wireguard(INTERFACE)]).map_err(|source| RealizeError::Tunnel { source })?;
        }
        Carrier::Userspace => {
            let made = sys::tun::open(INTERFACE).and_then(|queue| sys::tun::keep(queue.as_fd()));
            made.map_err(RealizeError::TunDevice)?;
        }
    }
    Ok(())
}
