//! What a caller is in the cluster *now*, whatever its certificate said when it was issued.
//!
//! Every service that listens on the cluster's port asks here, so that a node that was removed or demoted loses access
//! at once.

use std::sync::Arc;

use skep_api::{Caller, Refusal, RefusalKind};
use skep_identity::PeerIdentity;
use skep_model::{Cluster, Node, Role};

/// The node that a certificate names, if it is a member still.
pub fn standing(cluster: &Cluster, identity: PeerIdentity) -> Result<&Arc<Node>, Refusal> {
    let id = identity.node_id;
    if let Some(own) = cluster.config.as_ref().map(|config| config.id).filter(|own| *own != identity.cluster_id) {
        let message = format!("node {id} belongs to cluster {}, this manager to {own}", identity.cluster_id);
        return Err(Refusal::new(RefusalKind::Denied, message));
    }
    cluster.nodes.get(&id).ok_or_else(|| {
        let message = format!(
            "node {id} is not (or no longer) a member of this cluster; run `skep leave --force` on it and join it again"
        );
        Refusal::new(RefusalKind::Denied, message)
    })
}

/// The manager that a certificate names, if it is one still.
pub fn manager_standing(cluster: &Cluster, identity: PeerIdentity) -> Result<&Arc<Node>, Refusal> {
    let node = standing(cluster, identity)?;
    match (identity.role, node.spec.role) {
        (Role::Manager, Role::Manager) => Ok(node),
        (Role::Worker, Role::Worker | Role::Manager) | (Role::Manager, Role::Worker) => {
            let message = format!("node {} is not a manager (any more): this is open to managers only", node.id);
            Err(Refusal::new(RefusalKind::Denied, message))
        }
    }
}

/// Whether a caller may operate the cluster: a manager, or whoever may open the socket on one.
pub fn operator(cluster: &Cluster, caller: &Caller) -> Result<(), Refusal> {
    match caller {
        Caller::Local { .. } => Ok(()),
        Caller::Member { identity, .. } => manager_standing(cluster, *identity).map(|_| ()),
        Caller::Lapsed { .. } | Caller::Anonymous { .. } => caller.member().map(|_| ()),
    }
}

#[cfg(test)]
mod tests {
    use skep_model::{ClusterId, Meta, NodeId, NodeSpec, NodeStatus, Timestamp};

    use super::*;

    fn identity(node: u128, role: Role) -> PeerIdentity {
        PeerIdentity { node_id: NodeId::from_u128(node), role, cluster_id: ClusterId::from_u128(1) }
    }

    #[test]
    fn the_store_counts_and_not_the_certificate() {
        let mut cluster = Cluster::default();
        for (id, role) in [(1, Role::Manager), (2, Role::Worker)] {
            let node = Node {
                id: NodeId::from_u128(id),
                meta: Meta::new(Timestamp(0)),
                spec: NodeSpec { role, ..NodeSpec::default() },
                description: None,
                status: NodeStatus::default(),
                manager: None,
                certificate: Default::default(),
                tunnel: None,
            };
            cluster.apply(&skep_model::Change::CreateNode { node: Box::new(node) }, id as u64).unwrap();
        }
        assert!(standing(&cluster, identity(2, Role::Manager)).is_ok(), "demoted, and a member still");
        assert!(standing(&cluster, identity(3, Role::Manager)).is_err(), "removed");
        let may = |node, role| manager_standing(&cluster, identity(node, role)).is_ok();
        assert!(may(1, Role::Manager));
        assert!(!may(1, Role::Worker), "promoted, and without its new certificate yet");
        assert!(!may(2, Role::Manager), "demoted");
        assert!(!may(3, Role::Manager), "removed");
    }
}
