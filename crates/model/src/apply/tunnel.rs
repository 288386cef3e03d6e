//! Nodes' places in the tunnel.

use std::net::SocketAddr;

use super::not_found;
use crate::{Cluster, Kind, Network, NodeId, NodeTunnel, Rejection, Timestamp, TunnelKey, Version};

impl Cluster {
    pub(super) fn set_node_tunnel(
        &mut self,
        id: NodeId,
        key: TunnelKey,
        endpoint: Option<SocketAddr>,
        at: Timestamp,
        version: Version,
    ) -> Result<(), Rejection> {
        let known = self.nodes.get(&id).ok_or_else(|| not_found(Kind::Node, &id))?.tunnel;
        if let Some(holder) = self.holder_of_key(&key, id) {
            let what = format!("the tunnel key of node {id}");
            return Err(Rejection::Taken { what, by: format!("node {holder}") });
        }
        let address = match known {
            Some(known) => known.address,
            None => self.free_node_address().ok_or_else(|| Rejection::NoNodeAddress {
                node: id.to_string(),
                range: self.node_range().to_string(),
            })?,
        };
        let tunnel = Some(NodeTunnel { key, address, endpoint });
        if tunnel != known {
            let node = self.node_mut(id)?;
            node.tunnel = tunnel;
            (node.meta.version, node.meta.updated_at) = (version, at);
        }
        Ok(())
    }

    /// A network must not take over an address that a node has in the tunnel.
    pub(super) fn keep_node_addresses(&self, network: &Network) -> Result<(), Rejection> {
        let inside = |tunnel: &NodeTunnel| network.subnet.contains(&tunnel.address);
        match self.nodes.values().find(|node| node.tunnel.as_ref().is_some_and(inside)) {
            None => Ok(()),
            Some(node) => {
                let what = format!("a part of {}, the subnet of network {},", network.subnet, network.spec.name);
                Err(Rejection::Taken { what, by: format!("node {}", node.id) })
            }
        }
    }
}
