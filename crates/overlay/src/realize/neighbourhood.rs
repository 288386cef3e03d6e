//! The machine's own routes: where its packets go without skep.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use super::{RealizeError, link, route};
use crate::netlink::{self, Socket};
use crate::plan::{BRIDGE_PREFIX, INGRESS, LINK_PREFIX};
use crate::tunnel;

/// A route of the main table that is not skep's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRoute {
    pub to: Ipv4Net,
    pub interface: String,
    /// The machine's own address there, where the kernel knows one.
    pub source: Option<Ipv4Addr>,
}

/// The routes of the calling thread's network namespace that lead to other networks than the cluster's; blocks.
pub fn host_routes() -> Result<Vec<HostRoute>, RealizeError> {
    let mut socket = Socket::open(netlink::Family::Route).map_err(RealizeError::Open)?;
    let links = link::list(&mut socket).map_err(RealizeError::List)?;
    let names: BTreeMap<u32, String> = links.into_iter().map(|(name, link)| (link.index, name)).collect();
    let routes = route::foreign(&mut socket).map_err(RealizeError::List)?;
    let told = routes.into_iter().filter_map(|route| {
        let IpNet::V4(to) = route.to else { return None };
        let interface = names.get(&route.index)?.clone();
        let is_ours = [LINK_PREFIX, BRIDGE_PREFIX].iter().any(|prefix| interface.starts_with(prefix))
            || [INGRESS, tunnel::INTERFACE, "lo"].contains(&interface.as_str());
        let source = route.source.and_then(|source| match source {
            IpAddr::V4(source) => Some(source),
            IpAddr::V6(_) => None,
        });
        (!is_ours).then_some(HostRoute { to, interface, source })
    });
    Ok(told.collect())
}
