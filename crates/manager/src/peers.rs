//! The other nodes that a node meets in the tunnel: its own place there, and each of theirs.
//!
//! Pure. A peer's blocks are those of the networks that the node has: what it could not send a packet to is not told,
//! and a change of one node's blocks is told as that one peer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::OrdMap;
use ipnet::Ipv4Net;
use skep_api::{AssignedPeer, AssignedPlace, Assignment};
use skep_model::{Cluster, ClusterConfig, Feature, Membership, Network, NetworkDriver, NetworkId, Node, NodeId};

use crate::assignments::{AssignmentSet, Difference};

/// What a node was told of its peers.
#[derive(Debug, Clone, Default)]
pub struct PeersTold {
    basis: Option<Basis>,
    told: AssignmentSet,
}

/// What a set was made from. It shares the cluster's tables: comparing them costs next to nothing.
#[derive(Debug, Clone)]
struct Basis {
    nodes: OrdMap<NodeId, Arc<Node>>,
    networks: OrdMap<NetworkId, Arc<Network>>,
    config: Option<Arc<ClusterConfig>>,
    has: BTreeSet<NetworkId>,
}

impl PeersTold {
    /// What the node was not told yet, and is from now on; `has` are the networks that it has. A thousand peers are not
    /// even looked at while nothing has changed that they are made of: tasks come and go all the time.
    pub fn news(&mut self, cluster: &Cluster, node: NodeId, has: &BTreeSet<NetworkId>) -> Difference {
        let Cluster { nodes, networks, config, .. } = cluster;
        let same = |basis: &Basis| {
            basis.nodes.ptr_eq(nodes) && basis.networks.ptr_eq(networks) && basis.config == *config && basis.has == *has
        };
        if self.basis.as_ref().is_some_and(same) {
            return Difference::default();
        }
        let (nodes, networks, config) = (nodes.clone(), networks.clone(), config.clone());
        self.basis = Some(Basis { nodes, networks, config, has: has.clone() });
        let wanted = peers_for(cluster, node, has);
        let news = Difference::between(&self.told, &wanted);
        self.told = wanted;
        news
    }
}

/// The place and peers of `id`; nothing while it has no place, or its skep knows of none.
pub fn peers_for(cluster: &Cluster, id: NodeId, has: &BTreeSet<NetworkId>) -> AssignmentSet {
    let knows = |node: &&Arc<Node>| {
        node.description.as_ref().is_some_and(|description| description.level >= Feature::Tunnel.level())
    };
    let Some(own) = cluster.nodes.get(&id).filter(knows).and_then(|node| node.tunnel) else {
        return AssignmentSet::new();
    };
    let mut blocks: BTreeMap<NodeId, Vec<Ipv4Net>> = BTreeMap::new();
    // Stations of a local network are reached there, not through the tunnel.
    let routed = |network: &&Arc<Network>| network.spec.driver() != NetworkDriver::Macvlan;
    for network in has.iter().filter_map(|network| cluster.networks.get(network)).filter(routed) {
        network.blocks.iter().for_each(|(block, holder)| blocks.entry(*holder).or_default().push(*block));
    }
    let pool = cluster.config.as_ref().map(|config| config.spec.clone()).unwrap_or_default().address_pool;
    let prefix = cluster.config.as_ref().map(|config| config.prefix());
    let key = cluster.has(Feature::Rekeying).then_some(own.key);
    let place = AssignedPlace { address: own.address, nodes: cluster.node_range(), pool, prefix, key };
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

#[cfg(test)]
mod tests {
    use skep_api::AssignmentKey;
    use skep_model::{
        Change, Id, IdSource, Meta, NetworkSpec, NodeDescription, NodeSpec, NodeStatus, Timestamp, TunnelKey,
    };

    use super::*;
    use crate::assignments::delta;

    fn key(number: u32) -> TunnelKey {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&number.to_be_bytes());
        TunnelKey(key)
    }

    /// As many nodes with a place, and a network that none of them has part in.
    fn cluster(count: u32) -> (Cluster, Vec<NodeId>, NetworkId) {
        let mut ids = IdSource::from_seed(1);
        let mut cluster = Cluster::default();
        let nodes: Vec<NodeId> = (0..count).map(|_| ids.next_id()).collect();
        for (number, id) in (0..).zip(&nodes) {
            let description = NodeDescription { level: Feature::Tunnel.level(), ..NodeDescription::default() };
            let node = Node {
                id: *id,
                meta: Meta::new(Timestamp(0)),
                spec: NodeSpec::default(),
                description: Some(description),
                status: NodeStatus::default(),
                manager: None,
                certificate: Default::default(),
                tunnel: None,
            };
            cluster.apply(&Change::CreateNode { node: Box::new(node) }, 1).unwrap();
            let set = Change::SetNodeTunnel { node: *id, key: key(number), endpoint: None, at: Timestamp(0) };
            cluster.apply(&set, 1).unwrap();
        }
        let (id, subnet): (_, Ipv4Net) = (Id::from_u128(9), "10.64.0.0/18".parse().unwrap());
        let spec = NetworkSpec { name: "front".to_owned(), ..NetworkSpec::default() };
        let gateway = subnet.hosts().next().unwrap();
        let network = Network {
            id,
            meta: Meta::new(Timestamp(0)),
            spec,
            subnet,
            gateway,
            blocks: BTreeMap::new(),
            subnet_v6: None,
        };
        cluster.apply(&Change::CreateNetwork { network: Box::new(network) }, 2).unwrap();
        (cluster, nodes, id)
    }

    #[test]
    fn a_change_of_one_nodes_blocks_is_told_as_that_one_peer_to_nodes_of_that_network() {
        let (mut cluster, nodes, network) = cluster(1000);
        let told = |cluster: &Cluster, networks: &[NetworkId]| {
            peers_for(cluster, nodes[0], &networks.iter().copied().collect())
        };
        let (with, without) = (told(&cluster, &[network]), told(&cluster, &[]));
        assert_eq!(with.len(), 1000, "its own place and 999 others");
        let block = "10.64.1.0/26".parse().unwrap();
        cluster.apply(&Change::AssignBlock { network, block, node: nodes[7] }, 3).unwrap();
        let news = delta(1, &with, &told(&cluster, &[network])).unwrap();
        let expected = |assignment: &Assignment| matches!(assignment, Assignment::Peer(peer) if peer.node == nodes[7] && peer.blocks == [block]);
        assert!(news.set.len() == 1 && news.set.iter().all(expected) && news.removed.is_empty(), "{news:?}");
        assert_eq!(delta(1, &without, &told(&cluster, &[])), None);
    }

    #[test]
    fn what_was_told_is_told_again_only_when_it_changed() {
        let (mut cluster, nodes, network) = cluster(3);
        let has = BTreeSet::from([network]);
        let mut told = PeersTold::default();
        assert_eq!(told.news(&cluster, nodes[0], &has).whole(1).set.len(), 3, "its place and two others");
        let nothing = Difference::default();
        assert_eq!(told.news(&cluster, nodes[0], &has), nothing);
        cluster.apply(&Change::RemoveNode { node: nodes[2] }, 4).unwrap();
        let gone = told.news(&cluster, nodes[0], &has).after(1).unwrap();
        assert_eq!((gone.set.len(), gone.removed), (0, vec![AssignmentKey::Peer(nodes[2])]));
        let block = "10.64.1.0/26".parse().unwrap();
        cluster.apply(&Change::AssignBlock { network, block, node: nodes[1] }, 5).unwrap();
        let grown = told.news(&cluster, nodes[0], &has).after(2).unwrap();
        assert!(matches!(&grown.set[..], [Assignment::Peer(peer)] if peer.blocks == [block]), "{grown:?}");
        // Of a network that it left it needs no blocks.
        let left = told.news(&cluster, nodes[0], &BTreeSet::new()).after(3).unwrap();
        assert!(matches!(&left.set[..], [Assignment::Peer(peer)] if peer.blocks.is_empty()), "{left:?}");
        let before = cluster.clone();
        cluster.nodes = cluster.nodes.iter().map(|(id, node)| (*id, Arc::clone(node))).collect();
        assert!(!before.nodes.ptr_eq(&cluster.nodes));
        assert_eq!(told.news(&cluster, nodes[0], &BTreeSet::new()), nothing, "made anew, and the same");
    }

    #[test]
    fn a_node_that_is_not_accepted_is_nobodys_peer() {
        let (mut cluster, nodes, _) = cluster(2);
        let mut pending = (*cluster.nodes[&nodes[1]]).clone();
        pending.spec.membership = Membership::Pending;
        cluster.nodes.insert(nodes[1], Arc::new(pending));
        assert_eq!(peers_for(&cluster, nodes[0], &BTreeSet::new()).len(), 1, "its own place");
    }
}
