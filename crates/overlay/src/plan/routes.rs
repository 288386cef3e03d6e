//! The node's routes to its networks: to containers here, to nobody, and through the tunnel.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use super::ingress::MTU_MIN_V6;
use super::twins::Twins;
use super::{Driver, Mesh, NodeNetwork, bridge_name, link_name};
use crate::tunnel;

/// Where packets to a range go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Via {
    pub interface: String,
    /// The node's own address that its processes' packets there carry.
    pub source: IpAddr,
    /// The longest packet that goes there, in bytes, where that is less than the interface takes.
    pub mtu: Option<u16>,
}

/// The most exact range wins: a container here, then what this node's blocks hold, for which a bridge without ports
/// stands and which is refused; then the rest of a network, which is behind the tunnel.
pub(super) fn routes(node: &NodeNetwork, twins: Option<&Twins>) -> BTreeMap<IpNet, Via> {
    let routes = routes_v4(node);
    let twin = |(range, via): (&Ipv4Net, &Via)| {
        let via = Via { source: twins?.address_of(via.source)?, ..via.clone() };
        Some((IpNet::V6(twins?.range(*range)?), Via { mtu: via.mtu.map(|mtu| mtu.max(MTU_MIN_V6)), ..via }))
    };
    let twins: Vec<_> = routes.iter().filter_map(twin).collect();
    routes.into_iter().map(|(range, via)| (range.into(), via)).chain(twins).collect()
}

fn routes_v4(node: &NodeNetwork) -> BTreeMap<Ipv4Net, Via> {
    let mut routes = BTreeMap::new();
    if let Some(mesh) = &node.mesh {
        let through = || Via { interface: tunnel::INTERFACE.to_owned(), source: mesh.address.into(), mtu: mesh.path };
        routes.insert(mesh.nodes.trunc(), through());
        let networks = node.networks.iter().filter(|network| network.driver == Driver::Overlay);
        routes.extend(networks.map(|network| (network.subnet.trunc(), through())));
        routes.extend(exceptions(node, mesh).map(|block| (block, through())));
    }
    for network in &node.networks {
        let here = || Via { interface: bridge_name(&network.id), source: network.gateway.into(), mtu: None };
        match node.mesh.as_ref().filter(|_| network.driver == Driver::Overlay) {
            Some(_) => routes.extend(network.blocks.iter().map(|block| (block.trunc(), here()))),
            // Behind a network of the node's own is nobody else.
            None => drop(routes.insert(network.subnet.trunc(), here())),
        }
    }
    let gateways: BTreeMap<&str, Ipv4Addr> = node.networks.iter().map(|n| (n.id.as_str(), n.gateway)).collect();
    for endpoint in &node.endpoints {
        if let Some(gateway) = gateways.get(endpoint.network.as_str()) {
            let interface = link_name(&endpoint.sandbox, &endpoint.network);
            routes.insert(endpoint.address.into(), Via { interface, source: (*gateway).into(), mtu: None });
        }
    }
    routes
}

/// Blocks of others that no network's own route leads to: of networks that this node has no part in, where a
/// published port may lead, and single addresses that another node has of a block of this one.
fn exceptions<'a>(node: &'a NodeNetwork, mesh: &'a Mesh) -> impl Iterator<Item = Ipv4Net> + 'a {
    let covered = |block: &Ipv4Net| node.networks.iter().any(|network| network.subnet.contains(block));
    let shared = || node.networks.iter().filter(|network| network.driver == Driver::Overlay);
    let is_own = move |block: &Ipv4Net| shared().flat_map(|n| &n.blocks).any(|own| own.contains(block));
    let blocks = mesh.peers.iter().flat_map(|peer| &peer.blocks).map(Ipv4Net::trunc);
    blocks.filter(move |block| !covered(block) || is_own(block))
}
