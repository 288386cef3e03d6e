//! Certificates for nodes: the first against a join token, later ones against the node's own.
//!
//! A certificate that has lapsed (expired, or of a retired CA) is good for another one, for the same key: the cluster
//! keeps each node's. So neither a leaked key of an old CA nor a token can take over a node's identity.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use skep_api::{Ca, Caller, IssueRequest, IssuedCertificate, Refusal, RefusalKind, RenewRequest};
use skep_identity::{ClusterCa, JoinToken, KeyDigest, NodeClock, PeerIdentity, SecretHash};
use skep_model::{CertificateRecord, Change, ClusterConfig, IdSource, Meta, Node, NodeId, NodeSpec, NodeStatus, Role};
use skep_store::Store;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::allowance::{Allowance, Limits};
use crate::refusal::not_written;
use crate::standing::standing;
use crate::trust;

/// Of one address, which may have a whole site behind it: each certificate is a signature and a write.
const FIRST_CERTIFICATES: Limits =
    Limits { burst: 256, interval: Duration::from_millis(50), wait_max: Duration::from_secs(10) };
/// What a wrong token counts for beyond its own request: who guesses gets a try in about a second.
const WRONG_TOKEN: u32 = 20;

pub struct CaService {
    pub store: Store,
    pub clock: Arc<NodeClock>,
    pub ids: Mutex<IdSource>,
    pub allowance: Allowance<IpAddr>,
}

impl Ca for CaService {
    async fn issue(&self, caller: Caller, request: IssueRequest) -> Result<IssuedCertificate, Refusal> {
        let source = address_of(&caller);
        self.take_turn(source).await?;
        let config = self.config()?;
        let role = role_of_token(&config, &request.token).inspect_err(|_| self.charge_wrong_token(source))?;
        if role == Role::Manager {
            crate::levels::refuse_older(&self.store.cluster(), request.level, "of this node")
                .map_err(|message| Refusal::new(RefusalKind::Unsupported, message))?;
        }
        if let Some(collision) = self.store.cluster().collision(&request.routes) {
            let message = format!(
                "{collision}: containers and that network would hide each other; give that interface another network, or \
                 make the cluster anew with another pool (`skep init --default-addr-pool CIDR`)"
            );
            return Err(Refusal::new(RefusalKind::Conflict, message));
        }
        let id: NodeId = self.ids.lock().await.next_id();
        let (issued, certificate) = self.sign(&config, &request.csr, id, role)?;
        let spec = NodeSpec { role, availability: request.availability, ..NodeSpec::default() };
        let meta = Meta::new(self.clock.now());
        let node = Node {
            id,
            meta,
            spec,
            description: None,
            status: NodeStatus::default(),
            manager: None,
            certificate,
            tunnel: None,
        };
        self.store.propose(vec![Change::CreateNode { node: Box::new(node) }]).await.map_err(not_written)?;
        tracing::info!(node.id = %id, "node joined");
        Ok(issued)
    }

    async fn renew(&self, caller: Caller, request: RenewRequest) -> Result<IssuedCertificate, Refusal> {
        let (issued, record) = self.signed_again(caller.renewer()?, &request.csr)?;
        if let Some(change) = record {
            self.store.propose(vec![change]).await.map_err(not_written)?;
        }
        Ok(issued)
    }
}

impl CaService {
    pub fn new(store: Store, clock: Arc<NodeClock>, ids: IdSource) -> Self {
        Self { store, clock, ids: Mutex::new(ids), allowance: Allowance::new(FIRST_CERTIFICATES) }
    }

    async fn take_turn(&self, source: Option<IpAddr>) -> Result<(), Refusal> {
        let Some(source) = source else { return Ok(()) };
        match self.allowance.admit(source, Instant::now()) {
            Some(wait) => {
                tokio::time::sleep(wait).await;
                Ok(())
            }
            None => {
                let message = format!(
                    "too many requests for certificates come from {source}; try again in a minute, or at another manager"
                );
                Err(Refusal::new(RefusalKind::Unavailable, message))
            }
        }
    }

    fn charge_wrong_token(&self, source: Option<IpAddr>) {
        if let Some(source) = source {
            self.allowance.charge(source, WRONG_TOKEN, Instant::now());
        }
    }

    /// A manager's own certificate from its own replica of the CA, so that managers whose certificates have all
    /// expired need nobody. Noting it in the cluster can wait until there is a quorum.
    pub async fn renew_own(&self, own: PeerIdentity, csr: &[u8]) -> Result<IssuedCertificate, Refusal> {
        let (issued, record) = self.signed_again(own, csr)?;
        if let Some(change) = record
            && let Err(error) = self.store.propose(vec![change]).await
        {
            tracing::warn!(error = &error as &dyn std::error::Error, "the own new certificate is not noted yet");
        }
        Ok(issued)
    }

    /// The certificate, and what there is to note of it.
    fn signed_again(&self, identity: PeerIdentity, csr: &[u8]) -> Result<(IssuedCertificate, Option<Change>), Refusal> {
        let cluster = self.store.cluster();
        let node = standing(&cluster, identity)?;
        let config = self.config()?;
        let (issued, certificate) = self.sign(&config, csr, node.id, node.spec.role)?;
        if !node.certificate.key.is_empty() && node.certificate.key != certificate.key {
            let message = format!(
                "node {} asks with another key than it joined with: it may be a copy, or not what it says it is; run \
                 `skep leave --force` on it and join it again",
                node.id
            );
            return Err(Refusal::new(RefusalKind::Denied, message));
        }
        let record =
            (node.certificate != certificate).then_some(Change::RecordCertificate { node: node.id, certificate });
        Ok((issued, record))
    }

    fn config(&self) -> Result<Arc<ClusterConfig>, Refusal> {
        let config = self.store.cluster().config.clone();
        config.ok_or_else(|| Refusal::new(RefusalKind::Unavailable, "the cluster is not initialised yet"))
    }

    fn sign(
        &self,
        config: &ClusterConfig,
        csr: &[u8],
        node: NodeId,
        role: Role,
    ) -> Result<(IssuedCertificate, CertificateRecord), Refusal> {
        self.refuse_wrong_clock()?;
        let ca = ClusterCa::from_pem(config.id, &config.ca_certificate, &config.ca_key)
            .map_err(|error| Refusal::internal(&error))?;
        let invalid = |error: &dyn std::fmt::Display| Refusal::new(RefusalKind::Invalid, error.to_string());
        let key = KeyDigest::of_request(csr).map_err(|error| invalid(&error))?.to_string();
        let certificate = ca
            .issue(csr, node, role, self.clock.now(), config.spec.node_certificate_validity)
            .map_err(|error| invalid(&error))?;
        let record = CertificateRecord { issuer: ca.digest().to_string(), key };
        Ok((IssuedCertificate { certificate, authorities: trust::authorities(config), node, role }, record))
    }

    /// What is signed now would begin in the past: other nodes would take it for expired.
    fn refuse_wrong_clock(&self) -> Result<(), Refusal> {
        match self.clock.behind() {
            None => Ok(()),
            Some(behind) => {
                let message = format!("this manager issues no certificates now: {behind}");
                Err(Refusal::new(RefusalKind::Unavailable, message))
            }
        }
    }
}

/// Where a call comes from; none of this machine's own socket.
fn address_of(caller: &Caller) -> Option<IpAddr> {
    match caller {
        Caller::Member { address, .. } | Caller::Lapsed { address, .. } | Caller::Anonymous { address } => {
            Some(address.ip())
        }
        Caller::Local { .. } => None,
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
    let present = skep_identity::CaDigest::of_pem(&config.ca_certificate);
    if present.is_ok_and(|present| present != token.ca()) {
        let message = "the cluster's CA was rotated after this token was made; `skep join-token worker` on a manager makes a new one";
        return Err(Refusal::new(RefusalKind::Denied, message));
    }
    let message = "the join token is not, or no longer, valid for this cluster; `skep join-token worker` on a manager makes a new one";
    Err(Refusal::new(RefusalKind::Denied, message))
}
