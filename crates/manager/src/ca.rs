//! Certificates for nodes: the first against a join token, later ones against the node's own.

use std::sync::Arc;

use skep_api::{Ca, Caller, IssueRequest, IssuedCertificate, Refusal, RefusalKind, RenewRequest};
use skep_identity::{ClusterCa, JoinToken, NodeClock, SecretHash};
use skep_model::{Change, ClusterConfig, IdSource, Meta, Node, NodeId, NodeSpec, NodeStatus, Role};
use skep_store::Store;
use tokio::sync::Mutex;

use crate::refusal::not_written;

pub struct CaService {
    pub store: Store,
    pub clock: Arc<NodeClock>,
    pub ids: Mutex<IdSource>,
}

impl Ca for CaService {
    async fn issue(&self, _caller: Caller, request: IssueRequest) -> Result<IssuedCertificate, Refusal> {
        let config = self.config()?;
        let role = role_of_token(&config, &request.token)?;
        if role == Role::Manager {
            let message = "this version of skep runs one manager; join the node as a worker with the worker token";
            return Err(Refusal::new(RefusalKind::Unsupported, message));
        }
        if role == Role::Manager {
            crate::levels::refuse_older(&self.store.cluster(), request.level, "of this node")
                .map_err(|message| Refusal::new(RefusalKind::Unsupported, message))?;
        }
        let id: NodeId = self.ids.lock().await.next_id();
        let issued = self.sign(&config, &request.csr, id, role)?;
        let spec = NodeSpec { role, availability: request.availability, ..NodeSpec::default() };
        let meta = Meta::new(self.clock.now());
        let node = Node { id, meta, spec, description: None, status: NodeStatus::default(), manager: None };
        self.store.propose(vec![Change::CreateNode { node: Box::new(node) }]).await.map_err(not_written)?;
        tracing::info!(node.id = %id, "node joined");
        Ok(issued)
    }

    async fn renew(&self, caller: Caller, request: RenewRequest) -> Result<IssuedCertificate, Refusal> {
        let identity = caller.member()?;
        let cluster = self.store.cluster();
        let node = cluster.nodes.get(&identity.node_id).ok_or_else(|| {
            Refusal::new(
                RefusalKind::Denied,
                format!("node {} is no longer a member of this cluster", identity.node_id),
            )
        })?;
        let config = self.config()?;
        self.sign(&config, &request.csr, node.id, node.spec.role)
    }
}

impl CaService {
    fn config(&self) -> Result<Arc<ClusterConfig>, Refusal> {
        let config = self.store.cluster().config.clone();
        config.ok_or_else(|| Refusal::new(RefusalKind::Unavailable, "the cluster is not initialised yet"))
    }

    fn sign(&self, config: &ClusterConfig, csr: &[u8], node: NodeId, role: Role) -> Result<IssuedCertificate, Refusal> {
        let ca =
            ClusterCa::from_pem(&config.ca_certificate, &config.ca_key).map_err(|error| Refusal::internal(&error))?;
        let certificate = ca
            .issue(csr, node, role, self.clock.now(), config.spec.node_certificate_validity)
            .map_err(|error| Refusal::new(RefusalKind::Invalid, error.to_string()))?;
        Ok(IssuedCertificate { certificate, authorities: config.ca_certificate.clone(), node, role })
    }
}

/// The role that a token stands for; one message for every token that is not this cluster's.
fn role_of_token(config: &ClusterConfig, text: &str) -> Result<Role, Refusal> {
    let token: JoinToken = text
        .parse()
        .map_err(|error: skep_identity::JoinTokenError| Refusal::new(RefusalKind::Invalid, error.to_string()))?;
    let is = |hash: &str| hash.parse::<SecretHash>().is_ok_and(|stored| token.matches(&stored));
    if is(&config.join_tokens.worker) {
        return Ok(Role::Worker);
    }
    if is(&config.join_tokens.manager) {
        return Ok(Role::Manager);
    }
    let message = "the join token is not, or no longer, valid for this cluster; `skep join-token worker` on a manager makes a new one";
    Err(Refusal::new(RefusalKind::Denied, message))
}
