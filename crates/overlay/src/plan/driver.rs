//! How a network's containers are joined, and what of a node's network that leaves to be routed.

use super::NodeNetwork;

/// See [`super::Network`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Driver {
    /// Routed, on this node and through the tunnel to others.
    Overlay,
    /// Routed on this node alone. Others lead clients of published ports to it, and nobody else.
    Bridge,
    /// Containers are stations of the local network behind the node's interface `parent`: what they send passes no rule
    /// of the node, and the node itself does not reach them.
    Macvlan { parent: String },
}

/// The node's network without local ones, of which it has only the names.
pub(super) fn routed(node: &NodeNetwork) -> NodeNetwork {
    let mut routed = node.clone();
    routed.networks.retain(|network| !matches!(network.driver, Driver::Macvlan { .. }));
    if routed.networks.len() == node.networks.len() {
        return routed;
    }
    let ids: Vec<&str> = routed.networks.iter().map(|network| network.id.as_str()).collect();
    routed.endpoints.retain(|endpoint| ids.contains(&endpoint.network.as_str()));
    routed.services.retain(|service| ids.contains(&service.network.as_str()));
    routed
}
