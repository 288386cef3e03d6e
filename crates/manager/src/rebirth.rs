//! A cluster that goes on with one manager: after a recovery without quorum, or from a backup.
//!
//! Pure: the state before and who goes on in, the state after out. Other managers are managers no more; what they and
//! lost nodes ran is started elsewhere, because they count as down.

use std::sync::Arc;

use skep_model::{Cluster, ManagerStatus, Node, NodeId, NodeState, NodeStatus, Role, Timestamp, Version};

/// The one manager that goes on.
#[derive(Debug, Clone)]
pub struct Survivor {
    pub node: NodeId,
    /// A number that no manager of the cluster ever had.
    pub raft_id: u64,
    /// `host:port` that other nodes reach it under.
    pub address: String,
}

/// The state that a surviving manager goes on with at Raft index `index`. Workers are left as they are: they are heard
/// soon, or found to be silent as always.
///
/// `None` if the state does not know the survivor or has no settings.
pub fn recovered(before: &Cluster, survivor: &Survivor, index: u64, now: Timestamp) -> Option<Cluster> {
    before.nodes.get(&survivor.node)?;
    let lost = |node: &Node| node.id != survivor.node && node.manager.is_some();
    alone(before, survivor, index, now, lost, "lost: the cluster was recovered without it")
}

/// The state that a new node goes on with, from a backup. Every node of the backup counts as down until it is heard.
pub fn restored(before: &Cluster, survivor: &Survivor, node: Node, index: u64, now: Timestamp) -> Option<Cluster> {
    let mut cluster = before.clone();
    cluster.nodes.insert(node.id, Arc::new(node));
    let lost = |node: &Node| node.id != survivor.node;
    alone(&cluster, survivor, index, now, lost, "not heard since the cluster was restored from a backup")
}

/// The names of the managers that `survivor` leaves behind.
pub fn other_managers(cluster: &Cluster, survivor: NodeId) -> Vec<Arc<Node>> {
    let others = cluster.nodes.values().filter(|node| node.manager.is_some() && node.id != survivor);
    others.cloned().collect()
}

/// What a person calls the node.
pub fn name_of(node: &Node) -> String {
    match node.hostname() {
        "" => node.id.to_string(),
        hostname => format!("{hostname} ({})", node.id.short()),
    }
}

fn alone(
    before: &Cluster,
    survivor: &Survivor,
    index: u64,
    now: Timestamp,
    lost: impl Fn(&Node) -> bool,
    why: &str,
) -> Option<Cluster> {
    let mut cluster = before.clone();
    let version = Version(index);
    let mut config = (**cluster.config.as_ref()?).clone();
    config.next_raft_id = config.next_raft_id.max(survivor.raft_id + 1);
    config.meta.version = version;
    cluster.config = Some(Arc::new(config));
    let ids: Vec<NodeId> = cluster.nodes.keys().copied().collect();
    for id in ids {
        let Some(node) = cluster.nodes.get_mut(&id) else { continue };
        let changed = lost(node) || node.manager.is_some() || node.id == survivor.node;
        if !changed {
            continue;
        }
        let is_lost = lost(node);
        let node = Arc::make_mut(node);
        (node.meta.version, node.meta.updated_at) = (version, now);
        if is_lost {
            // What it comes back as, if ever: its manager's files are of a cluster that is no more.
            node.spec.role = Role::Worker;
            node.manager = None;
            // Its key may be on the disk of the machine that goes on under another id; who comes back says it again.
            node.tunnel = None;
            let address = std::mem::take(&mut node.status.address);
            node.status = NodeStatus { state: NodeState::Down, message: why.to_owned(), address };
        } else {
            node.spec.role = Role::Manager;
            let address = survivor.address.clone();
            node.manager = Some(ManagerStatus { raft_id: survivor.raft_id, address });
        }
    }
    cluster.version = version;
    Some(cluster)
}

#[cfg(test)]
mod tests {
    use skep_model::{ClusterConfig, ClusterSpec, Id, JoinTokenHashes, Meta, NodeDescription, NodeSpec};

    use super::*;

    fn node(number: u128, manager: bool) -> Node {
        Node {
            id: Id::from_u128(number),
            meta: Meta::new(Timestamp(1)),
            spec: NodeSpec { role: if manager { Role::Manager } else { Role::Worker }, ..NodeSpec::default() },
            description: Some(NodeDescription { hostname: format!("n{number}"), ..NodeDescription::default() }),
            status: NodeStatus { state: NodeState::Ready, ..NodeStatus::default() },
            manager: manager
                .then(|| ManagerStatus { raft_id: number as u64, address: format!("10.0.0.{number}:7377") }),
            certificate: Default::default(),
            tunnel: None,
        }
    }

    fn three_and_a_worker() -> Cluster {
        let config = ClusterConfig {
            id: Id::from_u128(99),
            meta: Meta::new(Timestamp(1)),
            spec: ClusterSpec::default(),
            ca_certificate: "ca".to_owned(),
            ca_key: "key".to_owned(),
            join_tokens: JoinTokenHashes::default(),
            next_raft_id: 4,
            unlock_key: None,
            level: 1,
            trust: Default::default(),
        };
        let mut cluster = Cluster::default();
        (cluster.version, cluster.config) = (Version(30), Some(Arc::new(config)));
        for node in [node(1, true), node(2, true), node(3, true), node(7, false)] {
            cluster.nodes.insert(node.id, Arc::new(node));
        }
        cluster
    }

    fn picture(cluster: &Cluster) -> Vec<(u128, NodeState, Option<u64>)> {
        let nodes = cluster.nodes.values();
        nodes.map(|n| (n.id.as_u128(), n.status.state, n.manager.as_ref().map(|m| m.raft_id))).collect()
    }

    #[test]
    fn a_recovery_keeps_workers_and_takes_the_lost_managers_out() {
        let before = three_and_a_worker();
        let survivor = Survivor { node: Id::from_u128(2), raft_id: 4, address: "10.0.0.2:7377".to_owned() };
        let after = recovered(&before, &survivor, 40, Timestamp(5)).unwrap();
        use NodeState::{Down, Ready};
        assert_eq!(picture(&after), [(1, Down, None), (2, Ready, Some(4)), (3, Down, None), (7, Ready, None)]);
        assert_eq!((after.version, after.config.as_ref().unwrap().next_raft_id), (Version(40), 5));
        assert_eq!(after.check(), []);
        let names: Vec<_> =
            other_managers(&before, survivor.node).iter().map(|node| node.hostname().to_owned()).collect();
        assert_eq!(names, ["n1", "n3"]);
        let stranger = Survivor { node: Id::from_u128(50), ..survivor };
        assert!(recovered(&before, &stranger, 40, Timestamp(5)).is_none());
    }

    #[test]
    fn a_restored_cluster_has_its_new_manager_and_expects_nobody() {
        let survivor = Survivor { node: Id::from_u128(8), raft_id: 4, address: "10.9.0.1:7377".to_owned() };
        let after = restored(&three_and_a_worker(), &survivor, node(8, false), 90, Timestamp(5)).unwrap();
        use NodeState::{Down, Ready};
        let expected = [(1, Down, None), (2, Down, None), (3, Down, None), (7, Down, None), (8, Ready, Some(4))];
        assert_eq!(picture(&after), expected);
        assert_eq!(after.nodes[&survivor.node].spec.role, Role::Manager);
    }
}
