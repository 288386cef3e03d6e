//! `sk-ingress`: the VXLAN that published traffic takes between nodes. Who is behind which hardware address, and
//! where, is told to the kernel; it learns and asks nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::family::{self, octets};
use super::route::Route;
use super::sysctl::Ipv6;
use super::{RealizeError, link, policy, sysctl};
use crate::netlink::{Message, NetlinkError, Socket, attributes, read_string, read_u32};
use crate::plan::{INGRESS, INGRESS_NETWORK, INGRESS_PORT, Ingress, Way};
use crate::tunnel;

const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
const NEW_NEIGHBOUR: u16 = 28;
const DELETE_NEIGHBOUR: u16 = 29;
const GET_NEIGHBOUR: u16 = 30;
const REPLACE: u16 = 0x100;
const EXCLUSIVE: u16 = 0x200;
const CREATE: u16 = 0x400;

const HARDWARE_ADDRESS: u16 = 1;
const NAME: u16 = 3;
const MTU: u16 = 4;
const INFO: u16 = 18;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const VXLAN_NETWORK: u16 = 1;
const VXLAN_LINK: u16 = 3;
const VXLAN_LOCAL: u16 = 4;
const VXLAN_LEARNING: u16 = 7;
const VXLAN_PORT: u16 = 15;
const UP: u32 = 1;

/// Whether the kernel can have the interface at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    Able,
    Unable,
}

/// Makes the interface be as wanted; none: it goes.
///
/// # Errors
/// Not that the kernel has no VXLAN: then published traffic to other nodes goes under the node's own address.
pub fn realize(route: &mut Socket, wanted: Option<&Ingress>) -> Result<Kernel, RealizeError> {
    let failed = |source| RealizeError::Ingress { step: "set up", source };
    let Some(ingress) = wanted else {
        remove(route)?;
        return Ok(Kernel::Able);
    };
    let tunnel = link::find(route, tunnel::INTERFACE).map_err(failed)?;
    let tunnel = tunnel.ok_or(RealizeError::NoInterface {
        interface: tunnel::INTERFACE.to_owned(),
        to: IpAddr::from(ingress.address).into(),
    })?;
    let shape = Shape {
        data: vxlan(ingress, tunnel.index),
        hardware_address: ingress.number.hardware_address(),
        mtu: ingress.mtu.into(),
    };
    let index = match find(route).map_err(failed)? {
        Some((index, found)) if found == shape => index,
        found => {
            if found.is_some() {
                remove(route)?;
            }
            match route.all(&[new(&shape)]) {
                Err(error) if error.errno() == Some(libc::EOPNOTSUPP) => return Ok(Kernel::Unable),
                made => made.map_err(failed)?,
            }
            let made = link::find(route, INGRESS).map_err(failed)?;
            made.map(|link| link.index).unwrap_or_default()
        }
    };
    let setting = |key: &str, source| RealizeError::Setting { key: format!("{key} of {INGRESS}"), source };
    let ipv6 = if ingress.has_v6 { Ipv6::On } else { Ipv6::Off };
    sysctl::set_ipv6(INGRESS, ipv6).map_err(|source| setting("disable_ipv6", source))?;
    sysctl::loosen_reverse_path(INGRESS).map_err(|source| setting("rp_filter", source))?;
    let address = IpNet::from(IpAddr::from(ingress.address));
    let addresses = link::list_addresses(route).map_err(failed)?;
    if addresses.get(&index).is_none_or(|has| !has.contains(&address)) {
        route.all(&[link::new_address(index, address)]).map_err(failed)?;
    }
    meet(route, index, ingress).map_err(|source| RealizeError::Ingress { step: "name other nodes on", source })?;
    Ok(Kernel::Able)
}

pub fn remove(route: &mut Socket) -> Result<(), RealizeError> {
    match route.all(&[link::delete(INGRESS)]) {
        Err(error) if error.errno() == Some(libc::ENODEV) => Ok(()),
        removed => removed.map_err(|source| RealizeError::Ingress { step: "remove", source }),
    }
}

/// The routes that use the interface: to other nodes' blocks, and back by each node.
pub fn routes(ingress: &Ingress, index: u32) -> Vec<Route> {
    let via = |table, to: IpNet, gateway| {
        let mtu = ingress.path_to(to.addr());
        Route { table, to, gateway: Some(gateway), source: None, index, mtu }
    };
    let by = |Way { number, gateway }: Way| {
        let blocks = ingress.peers.get(&number).into_iter().flat_map(|(_, blocks)| blocks);
        let blocks = blocks.filter(move |block| block.addr().is_ipv4() == gateway.is_ipv4());
        let onward = blocks.map(move |block| via(policy::ONWARD, block.trunc(), gateway));
        let anywhere = family::Family::of(gateway).unspecified();
        let back = via(policy::back(number), IpNet::new_assert(anywhere, 0), gateway);
        onward.chain([back])
    };
    ingress.ways().flat_map(by).collect()
}

/// What the kernel keeps of the interface, as far as it matters to us.
#[derive(Debug, PartialEq, Eq)]
struct Shape {
    /// By the kernel's attribute.
    data: BTreeMap<u16, Vec<u8>>,
    hardware_address: [u8; 6],
    mtu: u32,
}

fn vxlan(ingress: &Ingress, tunnel: u32) -> BTreeMap<u16, Vec<u8>> {
    BTreeMap::from([
        (VXLAN_NETWORK, INGRESS_NETWORK.to_ne_bytes().to_vec()),
        // Whatever becomes of routes, no frame leaves by another interface than the tunnel.
        (VXLAN_LINK, tunnel.to_ne_bytes().to_vec()),
        (VXLAN_LOCAL, ingress.address.octets().to_vec()),
        (VXLAN_LEARNING, vec![0]),
        (VXLAN_PORT, INGRESS_PORT.to_be_bytes().to_vec()),
    ])
}

fn new(shape: &Shape) -> Message {
    Message::new(NEW_LINK, CREATE | EXCLUSIVE, &link::header(0, UP)).with(|list| {
        list.string(NAME, INGRESS).bytes(HARDWARE_ADDRESS, &shape.hardware_address).u32(MTU, shape.mtu);
        list.nested(INFO, |info| {
            info.string(INFO_KIND, "vxlan").nested(INFO_DATA, |data| {
                for (kind, value) in &shape.data {
                    data.bytes(*kind, value);
                }
            });
        });
    })
}

/// The interface of that name; its shape is empty if it is no VXLAN or is down.
fn find(route: &mut Socket) -> Result<Option<(u32, Shape)>, NetlinkError> {
    let request = Message::new(GET_LINK, 0, &link::header(0, 0)).with(|list| {
        list.string(NAME, INGRESS);
    });
    let mut found = None;
    match route.get(&request, |_, body| found = read(body)) {
        Err(error) if error.errno() == Some(libc::ENODEV) => Ok(None),
        asked => asked.map(|()| found),
    }
}

fn read(body: &[u8]) -> Option<(u32, Shape)> {
    let (index, flags, list) = (read_u32(body.get(4..)?)?, read_u32(body.get(8..)?)?, body.get(16..)?);
    let part = |list, wanted| attributes(list).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let info = part(list, INFO).unwrap_or_default();
    let is_vxlan = part(info, INFO_KIND).is_some_and(|kind| read_string(kind) == "vxlan");
    let data = part(info, INFO_DATA).filter(|_| is_vxlan && flags & UP != 0).unwrap_or_default();
    let ours = [VXLAN_NETWORK, VXLAN_LINK, VXLAN_LOCAL, VXLAN_LEARNING, VXLAN_PORT];
    let shape = Shape {
        data: ours.into_iter().filter_map(|kind| Some((kind, part(data, kind)?.to_vec()))).collect(),
        hardware_address: part(list, HARDWARE_ADDRESS).and_then(|value| value.try_into().ok()).unwrap_or_default(),
        mtu: part(list, MTU).and_then(read_u32).unwrap_or_default(),
    };
    Some((index, shape))
}

/// Where a node is found: its frames' way (AF_BRIDGE), or its hardware address.
type Neighbour = (Family, [u8; 6], IpAddr);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Family {
    Bridge = libc::AF_BRIDGE as isize,
    Internet = libc::AF_INET as isize,
    InternetV6 = libc::AF_INET6 as isize,
}

/// Makes the interface know the other nodes, and nobody else.
fn meet(route: &mut Socket, index: u32, ingress: &Ingress) -> Result<(), NetlinkError> {
    let frames = ingress.peers.iter();
    let frames = frames.map(|(number, (to, _))| (Family::Bridge, number.hardware_address(), IpAddr::V4(*to)));
    let gateways = ingress.ways().map(|Way { number, gateway }| {
        let family = if gateway.is_ipv4() { Family::Internet } else { Family::InternetV6 };
        (family, number.hardware_address(), gateway)
    });
    let wanted: BTreeSet<Neighbour> = frames.chain(gateways).collect();
    let mut there = BTreeSet::new();
    for family in [Family::Bridge, Family::Internet, Family::InternetV6] {
        list_neighbours(route, family, index, &mut there)?;
    }
    let gone = there.difference(&wanted).map(|neighbour| message(DELETE_NEIGHBOUR, 0, index, neighbour));
    let come = wanted.difference(&there).map(|neighbour| message(NEW_NEIGHBOUR, CREATE | REPLACE, index, neighbour));
    for answer in route.each(&gone.chain(come).collect::<Vec<_>>())? {
        match answer {
            // It ended by itself.
            Err(error) if error.errno() == Some(libc::ENOENT) => {}
            answer => answer?,
        }
    }
    Ok(())
}

const PERMANENT: u16 = 0x80;
const NO_ARP: u16 = 0x40;
const NEIGHBOUR_ADDRESS: u16 = 1;
const NEIGHBOUR_HARDWARE: u16 = 2;

fn message(kind: u16, flags: u16, index: u32, (family, hardware, address): &Neighbour) -> Message {
    const SELF: u8 = 2;
    let (state, options) = match family {
        Family::Bridge => (PERMANENT | NO_ARP, SELF),
        Family::Internet | Family::InternetV6 => (PERMANENT, 0),
    };
    let mut header = [*family as u8, 0, 0, 0, 0, 0, 0, 0, 0, 0, options, 0];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..10].copy_from_slice(&state.to_ne_bytes());
    Message::new(kind, flags, &header).with(|list| {
        list.bytes(NEIGHBOUR_ADDRESS, &octets(*address)).bytes(NEIGHBOUR_HARDWARE, hardware);
    })
}

fn list_neighbours(
    route: &mut Socket,
    family: Family,
    index: u32,
    found: &mut BTreeSet<Neighbour>,
) -> Result<(), NetlinkError> {
    const OF_INTERFACE: u16 = 8;
    let mut header = [family as u8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let request = match family {
        Family::Bridge => {
            header[4..8].copy_from_slice(&index.to_ne_bytes());
            Message::new(GET_NEIGHBOUR, 0, &header)
        }
        Family::Internet | Family::InternetV6 => Message::new(GET_NEIGHBOUR, 0, &header).with(|list| {
            list.u32(OF_INTERFACE, index);
        }),
    };
    route.dump(&request, |_, body| {
        let Some(list) = body.get(12..).filter(|_| body.get(4..).and_then(read_u32) == Some(index)) else { return };
        let state = u16::from_ne_bytes([body[8], body[9]]);
        let part = |wanted| attributes(list).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
        let hardware = part(NEIGHBOUR_HARDWARE).and_then(|value| value.try_into().ok());
        let address = part(NEIGHBOUR_ADDRESS).and_then(family::address);
        if let (Some(hardware), Some(address), true) = (hardware, address, state & PERMANENT != 0) {
            found.insert((family, hardware, address));
        }
    })
}
