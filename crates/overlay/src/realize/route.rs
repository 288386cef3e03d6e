//! Routes over rtnetlink (linux/rtnetlink.h). Ours are known by their protocol number: what has it and is not wanted
//! goes, what somebody deleted or took over comes again, and everybody else's stay.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::RealizeError;
use super::family::{self, Family, octets};
use super::link::{self, Link};
use crate::netlink::{Message, NetlinkError, Socket, attributes, read_u32};
use crate::plan::{LINK_PREFIX, Via};

const NEW_ROUTE: u16 = 24;
const DELETE_ROUTE: u16 = 25;
const GET_ROUTE: u16 = 26;
const REPLACE: u16 = 0x100;
const CREATE: u16 = 0x400;

const DESTINATION: u16 = 1;
const INTERFACE: u16 = 4;
const GATEWAY: u16 = 5;
const SOURCE: u16 = 7;
const METRICS: u16 = 8;
const METRIC_MTU: u16 = 2;
const TABLE: u16 = 15;

/// `rtm_protocol` of every route of ours, and `FRA_PROTOCOL` of every rule.
pub const PROTOCOL: u8 = 73;
pub const MAIN: u32 = 254;

/// A route out of the interface `index`: by way of a gateway on that link, or straight, from the node's address
/// `source`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    pub table: u32,
    pub to: IpNet,
    pub gateway: Option<IpAddr>,
    pub source: Option<IpAddr>,
    pub index: u32,
    /// The longest packet that takes it, where that is less than the interface's.
    pub mtu: Option<u16>,
}

/// Takes the place of any route of the same range and table.
pub fn new(route: &Route) -> Message {
    message(NEW_ROUTE, CREATE | REPLACE, route)
}

fn delete(route: &Route) -> Message {
    message(DELETE_ROUTE, 0, route)
}

fn message(kind: u16, flags: u16, route: &Route) -> Message {
    const UNICAST: u8 = 1;
    const LINK_SCOPE: u8 = 253;
    const ON_LINK: u32 = 4;
    let Route { table, to, gateway, source, index, mtu } = *route;
    let scope = if gateway.is_some() { 0 } else { LINK_SCOPE };
    // A table's number may need more than this byte; the attribute has it whole.
    let family = Family::of(to.addr()).number();
    let mut header = [family, to.prefix_len(), 0, 0, 0, PROTOCOL, scope, UNICAST, 0, 0, 0, 0];
    header[8..].copy_from_slice(&if gateway.is_some() { ON_LINK } else { 0 }.to_ne_bytes());
    Message::new(kind, flags, &header).with(|list| {
        if to.prefix_len() > 0 {
            list.bytes(DESTINATION, &octets(to.network()));
        }
        if let Some(gateway) = gateway {
            list.bytes(GATEWAY, &octets(gateway));
        }
        if let Some(source) = source {
            list.bytes(SOURCE, &octets(source));
        }
        if let Some(mtu) = mtu {
            list.nested(METRICS, |metrics| {
                metrics.u32(METRIC_MTU, mtu.into());
            });
        }
        list.u32(TABLE, table).u32(INTERFACE, index);
    })
}

/// Ends the straight route to a container, whichever build made it.
pub fn delete_straight(to: IpAddr, index: u32) -> Message {
    const ANY_SCOPE: u8 = 255;
    let family = Family::of(to);
    let header = [family.number(), family.length() * 8, 0, 0, 0, 0, ANY_SCOPE, 0, 0, 0, 0, 0];
    Message::new(DELETE_ROUTE, 0, &header).with(|list| {
        list.bytes(DESTINATION, &octets(to)).u32(TABLE, MAIN).u32(INTERFACE, index);
    })
}

/// Every route of ours in the socket's namespace, in whichever table.
fn list(socket: &mut Socket) -> Result<BTreeSet<Route>, NetlinkError> {
    let mut routes = BTreeSet::new();
    let is_ours = |(protocol, route)| (protocol == PROTOCOL).then_some(route);
    for family in Family::BOTH {
        let request = Message::new(GET_ROUTE, 0, &[family.number(), 0, 0, 0, 0, PROTOCOL, 0, 0, 0, 0, 0, 0]);
        socket.dump(&request, |_, body| routes.extend(read(body).and_then(is_ours)))?;
    }
    Ok(routes)
}

/// Every route of the main table that is not ours, but those by several ways at once.
pub fn foreign(socket: &mut Socket) -> Result<Vec<Route>, NetlinkError> {
    let mut routes = Vec::new();
    let is_foreign = |(protocol, route): (u8, Route)| (protocol != PROTOCOL && route.table == MAIN).then_some(route);
    let request = Message::new(GET_ROUTE, 0, &[Family::V4.number(), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    socket.dump(&request, |_, body| routes.extend(read(body).and_then(is_foreign)))?;
    Ok(routes)
}

/// The addresses that this node routes straight to one interface, by its index: those of containers.
pub fn routed_addresses(socket: &mut Socket) -> Result<BTreeSet<(u32, IpAddr)>, NetlinkError> {
    let mut addresses = BTreeSet::new();
    for family in Family::BOTH {
        let request = Message::new(GET_ROUTE, 0, &[family.number(), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        socket.dump(&request, |_, body| {
            let route = read(body).map(|(_, route)| route);
            let is_host = |to: &IpNet| to.prefix_len() == to.max_prefix_len();
            let straight = route.filter(|route| route.table == MAIN && is_host(&route.to) && route.gateway.is_none());
            addresses.extend(straight.map(|route| (route.index, route.to.addr())));
        })?;
    }
    Ok(addresses)
}

/// A route and its protocol; none: it has several next hops, or no interface.
fn read(body: &[u8]) -> Option<(u8, Route)> {
    let (header, list) = (body.get(..12)?, body.get(12..)?);
    let value = |wanted| attributes(list).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let address = |wanted| value(wanted).and_then(family::address);
    let family = Family::BOTH.into_iter().find(|family| family.number() == header[0])?;
    let to = address(DESTINATION).unwrap_or(family.unspecified());
    let route = Route {
        table: value(TABLE).and_then(read_u32)?,
        to: IpNet::new(to, header[1]).ok()?,
        gateway: address(GATEWAY),
        source: address(SOURCE),
        index: value(INTERFACE).and_then(read_u32)?,
        mtu: value(METRICS).and_then(mtu),
    };
    Some((header[5], route))
}

fn mtu(metrics: &[u8]) -> Option<u16> {
    let (_, value) = attributes(metrics).find(|(kind, _)| *kind == METRIC_MTU)?;
    u16::try_from(read_u32(value)?).ok()
}

/// Makes our routes be those of `main`, in the main table, and `others`.
///
/// A route to a container's link is only mended: it comes with the container's sandbox and goes with it.
pub fn realize(
    socket: &mut Socket,
    links: &BTreeMap<String, Link>,
    main: &BTreeMap<IpNet, Via>,
    others: Vec<Route>,
) -> Result<(), RealizeError> {
    let mut wanted = others;
    for (to, Via { interface, source, mtu }) in main {
        match links.get(interface) {
            Some(link) => {
                let source = Some(*source);
                wanted.push(Route { table: MAIN, to: *to, gateway: None, source, index: link.index, mtu: *mtu });
            }
            // Its sandbox is being made, or is gone.
            None if interface.starts_with(LINK_PREFIX) => {}
            None => return Err(RealizeError::NoInterface { interface: interface.clone(), to: *to }),
        }
    }
    let there = list(socket).map_err(RealizeError::List)?;
    let missing: Vec<_> = wanted.iter().filter(|route| !there.contains(route)).collect();
    raise(socket, links, &missing)?;
    let requests: Vec<_> = missing.iter().map(|route| new(route)).collect();
    for (route, answer) in missing.iter().zip(socket.each(&requests).map_err(RealizeError::List)?) {
        answer.map_err(|source| RealizeError::Route { to: route.to, table: route.table, source })?;
    }
    let places: BTreeSet<_> = wanted.iter().map(|route| (route.table, route.to)).collect();
    let of_containers: BTreeSet<u32> =
        links.iter().filter(|(name, _)| name.starts_with(LINK_PREFIX)).map(|(_, link)| link.index).collect();
    let is_stray = |route: &Route| !places.contains(&(route.table, route.to)) && !of_containers.contains(&route.index);
    remove(socket, there.into_iter().filter(is_stray))
}

/// A link that somebody took down took its routes along, and would take no new ones.
fn raise(socket: &mut Socket, links: &BTreeMap<String, Link>, missing: &[&Route]) -> Result<(), RealizeError> {
    let needed: BTreeSet<u32> = missing.iter().map(|route| route.index).collect();
    let down = links.values().filter(|link| !link.is_up && needed.contains(&link.index));
    socket.all(&down.map(|link| link::up(link.index)).collect::<Vec<_>>()).map_err(RealizeError::List)
}

/// Removes every route of ours.
pub fn remove_all(socket: &mut Socket) -> Result<(), RealizeError> {
    let routes = list(socket).map_err(RealizeError::List)?;
    remove(socket, routes.into_iter())
}

fn remove(socket: &mut Socket, routes: impl Iterator<Item = Route>) -> Result<(), RealizeError> {
    let routes: Vec<_> = routes.collect();
    let requests: Vec<_> = routes.iter().map(delete).collect();
    for (route, answer) in routes.iter().zip(socket.each(&requests).map_err(RealizeError::List)?) {
        match answer {
            // Its interface went first.
            Err(error) if matches!(error.errno(), Some(libc::ESRCH | libc::ENODEV)) => {}
            answer => answer.map_err(|source| RealizeError::Route { to: route.to, table: route.table, source })?,
        }
    }
    Ok(())
}
