//! The other nodes that a node meets in the tunnel: its own place there, and each of theirs.
//!
//! Pure. A peer's blocks are those of the networks that the node has: what it could not send a packet to is not told,
//! and a change of one node's blocks is told as that one peer.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::Ipv4Net;
use skep_api::{AssignedPeer, AssignedPlace, Assignment};
use skep_model::{Cluster, Feature, Membership, NetworkId, Node, NodeId};

use crate::assignments::AssignmentSet;

/// Whether `node` may be told of the tunnel, and of whom it is told.
#[derive(Debug, Clone, Default)]
pub struct PeersTold {
    basis: Option<Basis>,
    set: AssignmentSet,
}

/// What a set was made from. Comparing it costs next to nothing while nothing changed: the tables are shared.
#[derive(Debug, Clone)]
struct Basis {
    cluster: Cluster,
    networks: BTreeSet<NetworkId>,
}

impl PeersTold {
    /// The node's place and peers, `networks` being those that it has.
    pub fn of(&mut self, cluster: &Cluster, node: NodeId, networks: &BTreeSet<NetworkId>) -> &AssignmentSet {
        let same = |basis: &Basis| {
            basis.cluster.nodes.ptr_eq(&cluster.nodes)
                && basis.cluster.networks.ptr_eq(&cluster.networks)
                && basis.cluster.config == cluster.config
                && basis.networks == *networks
        };
        if !self.basis.as_ref().is_some_and(same) {
            self.set = peers_for(cluster, node, networks);
            self.basis = Some(Basis { cluster: cluster.clone(), networks: networks.clone() });
        }
        &self.set
    }
}

/// The place and peers of `id`; nothing while it has no place, or its skep knows of none.
pub fn peers_for(cluster: &Cluster, id: NodeId, networks: &BTreeSet<NetworkId>) -> AssignmentSet {
    let knows = |node: &&std::sync::Arc<Node>| {
        node.description.as_ref().is_some_and(|description| description.level >= Feature::Tunnel.level())
    };
    let Some(own) = cluster.nodes.get(&id).filter(knows).and_then(|node| node.tunnel) else {
        return AssignmentSet::new();
    };
    let mut blocks: BTreeMap<NodeId, Vec<Ipv4Net>> = BTreeMap::new();
    for network in networks.iter().filter_map(|network| cluster.networks.get(network)) {
        network.blocks.iter().for_each(|(block, holder)| blocks.entry(*holder).or_default().push(*block));
    }
    let pool = cluster.config.as_ref().map(|config| config.spec.clone()).unwrap_or_default().address_pool;
    let place = AssignedPlace { address: own.address, nodes: cluster.node_range(), pool };
    let others = cluster.nodes.values().filter(|node| node.id != id && node.spec.membership == Membership::Accepted);
    let peers = others.filter_map(|node| {
        let tunnel = node.tunnel?;
        Some(Assignment::Peer(AssignedPeer {
            node: node.id,
            key: tunnel.key,
            endpoint: tunnel.endpoint,
            address: tunnel.address,
            blocks: blocks.remove(&node.id).unwrap_or_default(),
        }))
    });
    peers.chain([Assignment::Place(place)]).map(|assignment| (assignment.key(), assignment)).collect()
}
