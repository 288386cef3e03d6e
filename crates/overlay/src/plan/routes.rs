//! The node's routes to its networks: to containers here, to nobody, and through the tunnel.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::{Mesh, NodeNetwork, bridge_name, link_name};
use crate::tunnel;

/// Where packets to a range go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Via {
    pub interface: String,
    /// The node's own address that its processes' packets there carry.
    pub source: Ipv4Addr,
}

/// The most exact range wins: a container here, then what this node's blocks hold, for which a bridge without ports
/// stands and which is refused; then the rest of a network, which is behind the tunnel.
pub(super) fn routes(node: &NodeNetwork) -> BTreeMap<Ipv4Net, Via> {
    let mut routes = BTreeMap::new();
    if let Some(mesh) = &node.mesh {
        let through = || Via { interface: tunnel::INTERFACE.to_owned(), source: mesh.address };
        routes.insert(mesh.nodes.trunc(), through());
        routes.extend(node.networks.iter().map(|network| (network.subnet.trunc(), through())));
        routes.extend(exceptions(node, mesh).map(|block| (block, through())));
    }
    for network in &node.networks {
        let here = || Via { interface: bridge_name(&network.id), source: network.gateway };
        match node.mesh {
            Some(_) => routes.extend(network.blocks.iter().map(|block| (block.trunc(), here()))),
            None => drop(routes.insert(network.subnet.trunc(), here())),
        }
    }
    let gateways: BTreeMap<&str, Ipv4Addr> = node.networks.iter().map(|n| (n.id.as_str(), n.gateway)).collect();
    for endpoint in &node.endpoints {
        if let Some(gateway) = gateways.get(endpoint.network.as_str()) {
            let interface = link_name(&endpoint.sandbox, &endpoint.network);
            routes.insert(endpoint.address.into(), Via { interface, source: *gateway });
        }
    }
    routes
}

/// Blocks of others that no network's own route leads to: of networks that this node has no part in, where a
/// published port may lead, and single addresses that another node has of a block of this one.
fn exceptions<'a>(node: &'a NodeNetwork, mesh: &'a Mesh) -> impl Iterator<Item = Ipv4Net> + 'a {
    let covered = |block: &Ipv4Net| node.networks.iter().any(|network| network.subnet.contains(block));
    let is_own = |block: &Ipv4Net| node.networks.iter().flat_map(|n| &n.blocks).any(|own| own.contains(block));
    let blocks = mesh.peers.iter().flat_map(|peer| &peer.blocks).map(Ipv4Net::trunc);
    blocks.filter(move |block| !covered(block) || is_own(block))
}
