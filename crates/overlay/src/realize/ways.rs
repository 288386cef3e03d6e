//! Where packets go: routes, the ingress between nodes, and the rules that choose between the two.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::ingress::{self, Kernel};
use super::{RealizeError, link, policy, route, sysctl};
use crate::netlink::Socket;
use crate::plan::{INGRESS, Ingress, Via};
use crate::tunnel::INTERFACE;

/// Makes them be as wanted; the tunnel's interface is there if there is an ingress.
pub fn realize(
    socket: &mut Socket,
    routes: &BTreeMap<IpNet, Via>,
    ingress: Option<&Ingress>,
) -> Result<Kernel, RealizeError> {
    if ingress.is_some() {
        let name = INTERFACE;
        let failed = |source| RealizeError::Setting { key: format!("ipv4/conf/{name}/rp_filter"), source };
        sysctl::loosen_reverse_path(name).map_err(failed)?;
    }
    let kernel = ingress::realize(socket, ingress)?;
    let links = link::list(socket).map_err(RealizeError::List)?;
    let over = ingress.zip(links.get(INGRESS)).filter(|_| kernel == Kernel::Able);
    let others = over.map(|(ingress, link)| ingress::routes(ingress, link.index)).unwrap_or_default();
    route::realize(socket, &links, routes, others)?;
    policy::realize(socket, over.map(|(ingress, _)| ingress))?;
    Ok(kernel)
}

/// Removes all of them.
pub fn remove(socket: &mut Socket) -> Result<(), RealizeError> {
    policy::realize(socket, None)?;
    route::remove_all(socket)?;
    ingress::remove(socket)
}
