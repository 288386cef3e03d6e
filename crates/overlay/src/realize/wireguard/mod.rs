//! The kernel's WireGuard: the peers of `sk-tunnel`, set by what differs, and what the kernel knows of them.

mod changes;
mod message;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use self::message::Device;
use crate::netlink::{Family, Message, NetlinkError, Socket, attributes, read_u16};
use crate::tunnel::{PeerStats, PublicKey, Tunnel};

/// Makes the device, which is there, be what `tunnel` says. `before` is what it was told the last time, if known.
pub fn apply(tunnel: &Tunnel, before: Option<&Tunnel>) -> Result<(), NetlinkError> {
    let mut socket = Socket::open(Family::Generic)?;
    let family = family(&mut socket)?;
    let found = device(&mut socket, family)?;
    let changes = changes::changes(tunnel, &found, before, now());
    if changes.are_none() {
        return Ok(());
    }
    socket.all(&message::set_device(family, &changes))
}

/// What the kernel knows of the peers; nothing if there is no device.
pub fn stats() -> Result<BTreeMap<PublicKey, PeerStats>, NetlinkError> {
    let mut socket = Socket::open(Family::Generic)?;
    let family = family(&mut socket)?;
    let device = match device(&mut socket, family) {
        Err(error) if error.errno() == Some(libc::ENODEV) => Device::default(),
        found => found?,
    };
    let now = now();
    let stats = device.peers.into_iter().map(|(key, peer)| {
        let handshake_age = peer.handshake_at.map(|at| now.saturating_sub(at));
        (key, PeerStats { endpoint: peer.endpoint, handshake_age, rx_bytes: peer.rx_bytes, tx_bytes: peer.tx_bytes })
    });
    Ok(stats.collect())
}

fn device(socket: &mut Socket, family: u16) -> Result<Device, NetlinkError> {
    let mut device = Device::default();
    socket.dump(&message::get_device(family), |_, body| device.read(body))?;
    Ok(device)
}

/// The number that this kernel gave WireGuard among its generic families (linux/genetlink.h).
fn family(socket: &mut Socket) -> Result<u16, NetlinkError> {
    const CONTROLLER: u16 = 16;
    const GET_FAMILY: u8 = 3;
    const FAMILY_ID: u16 = 1;
    const FAMILY_NAME: u16 = 2;
    let mut family = None;
    let request = Message::new(CONTROLLER, 0, &[GET_FAMILY, 1, 0, 0]).with(|list| {
        list.string(FAMILY_NAME, "wireguard");
    });
    socket.get(&request, |_, body| {
        let id = attributes(body.get(4..).unwrap_or_default()).find(|(kind, _)| *kind == FAMILY_ID);
        family = id.and_then(|(_, id)| read_u16(id));
    })?;
    Ok(family.unwrap_or_default())
}

/// Handshakes are told by the wall clock.
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
