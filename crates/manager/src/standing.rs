//! What the cluster holds of a node itself, as its agent is told.

use skep_api::Standing;
use skep_model::{Cluster, NodeId};

/// `None` for a node that is not, or no longer, a member.
pub fn standing_of(cluster: &Cluster, node: NodeId) -> Option<Standing> {
    let node = cluster.nodes.get(&node)?;
    let raft_id = node.manager.as_ref().map(|manager| manager.raft_id);
    Some(Standing { role: node.spec.role, raft_id, managers: addresses(cluster) })
}

/// `host:port` of every manager, in the order of node ids.
pub fn addresses(cluster: &Cluster) -> Vec<String> {
    let managers = cluster.nodes.values().filter_map(|node| node.manager.as_ref());
    managers.map(|manager| manager.address.clone()).collect()
}
