//! The cluster's CAs: what nodes are told of them, and how a rotation goes.
//!
//! ```text
//!  rotate ─▶ a new CA signs; the old one is trusted on ─▶ nodes renew ─▶ all that are up have ─▶ settle: the old one is
//!            and vouches for the new one (cross)                                                  good for renewal only
//! ```
//! Nobody waits for a node that is down: when it comes back, the certificate that it has lets it renew, and the cross
//! certificates let it believe its managers. Pure, but for keys and serial numbers.

use std::sync::Arc;
use std::time::Duration;

use skep_api::{GivenCa, TrustUpdate};
use skep_identity::{CaDigest, CaError, ClusterCa, GivenCaError, JoinToken, JoinTokenError, ROTATIONS_KEPT};
use skep_model::{Change, Cluster, ClusterConfig, JoinTokenHashes, Node, NodeId, NodeState, Role, Timestamp};

/// Certificates that live shorter would be renewed all the time.
pub const VALIDITY_MIN: Duration = Duration::from_secs(3600);

/// Every CA that nodes are to know, as `skep_identity::Credentials::new` reads it.
pub fn authorities(config: &ClusterConfig) -> String {
    let history = &config.trust;
    let parts = [&history.trusted, &history.crosses, &history.retired];
    let mut pem = with_line_end(&config.ca_certificate);
    parts.into_iter().flatten().for_each(|part| pem.push_str(&with_line_end(part)));
    pem
}

fn with_line_end(pem: &str) -> String {
    format!("{}\n", pem.trim_end())
}

/// The present CA as `Node::certificate.issuer` names it.
pub fn issuer(config: &ClusterConfig) -> Result<String, CaError> {
    Ok(CaDigest::of_pem(&config.ca_certificate)?.to_string())
}

#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    #[error("failed to make the new CA")]
    Ca(#[from] CaError),
    #[error(transparent)]
    Given(#[from] GivenCaError),
    #[error("failed to make the new join tokens")]
    Token(#[from] JoinTokenError),
}

/// A cluster's settings after a rotation, and its new join tokens.
pub struct Rotated {
    pub config: ClusterConfig,
    pub worker: JoinToken,
    pub manager: JoinToken,
}

/// Makes a new CA, or takes the one that is given; the present one vouches for it. Join tokens name the CA, so they are
/// new as well.
pub fn rotate(config: &ClusterConfig, given: Option<&GivenCa>, now: Timestamp) -> Result<Rotated, RotateError> {
    let old = ClusterCa::from_pem(config.id, &config.ca_certificate, &config.ca_key)?;
    let new = match given {
        None => ClusterCa::create(config.id, now)?,
        Some(given) => {
            let known = [config.trust.trusted.as_slice(), &config.trust.retired].concat();
            skep_identity::adopt((&given.certificate, &given.key), &old, &known, now)?
        }
    };
    let (worker, manager) = (JoinToken::generate(new.digest())?, JoinToken::generate(new.digest())?);
    let mut next = config.clone();
    next.trust.trusted.insert(0, std::mem::replace(&mut next.ca_certificate, new.certificate_pem().to_owned()));
    next.trust.crosses.insert(0, old.cross_sign(&new, now)?);
    next.trust.crosses.truncate(ROTATIONS_KEPT);
    next.ca_key = new.key_pem();
    next.join_tokens =
        JoinTokenHashes { worker: worker.secret_hash().to_string(), manager: manager.secret_hash().to_string() };
    next.meta.updated_at = now;
    Ok(Rotated { config: next, worker, manager })
}

/// The end of a rotation: once every node that is up has a certificate of the present CA, the older ones retire.
pub fn settle(cluster: &Cluster, now: Timestamp) -> Option<Change> {
    let config = cluster.config.as_ref().filter(|config| !config.trust.trusted.is_empty())?;
    let issuer = issuer(config).ok()?;
    let renewed = |node: &Arc<Node>| node.status.state == NodeState::Down || node.certificate.issuer == issuer;
    if !cluster.nodes.values().all(renewed) {
        return None;
    }
    let mut next = (**config).clone();
    let mut retired = std::mem::take(&mut next.trust.trusted);
    retired.append(&mut next.trust.retired);
    retired.truncate(ROTATIONS_KEPT);
    next.trust.retired = retired;
    next.meta.updated_at = now;
    Some(Change::SetClusterConfig { expected: Some(config.meta.version), config: Box::new(next) })
}

/// What a session has told its node of the CAs.
#[derive(Default)]
pub struct TrustTold {
    seen: Option<Seen>,
    told: Option<TrustUpdate>,
}

#[derive(PartialEq)]
struct Seen {
    config: Arc<ClusterConfig>,
    issuer: String,
    role: Role,
}

impl TrustTold {
    /// What is to be told now: changed CAs, or that the certificate is not of the present CA and role. Called at
    /// every change of the cluster, so it looks at certificates only when the settings or the node have changed.
    pub fn news(&mut self, cluster: &Cluster, node: NodeId, certificate_role: Role) -> Option<TrustUpdate> {
        let (config, node) = (cluster.config.as_ref()?, cluster.nodes.get(&node)?);
        if self.seen.as_ref().is_some_and(|seen| {
            Arc::ptr_eq(&seen.config, config) && seen.issuer == node.certificate.issuer && seen.role == node.spec.role
        }) {
            return None;
        }
        let (issuer_now, role) = (node.certificate.issuer.clone(), node.spec.role);
        self.seen = Some(Seen { config: Arc::clone(config), issuer: issuer_now, role });
        let stale = issuer(config).is_ok_and(|issuer| issuer != node.certificate.issuer);
        let update =
            TrustUpdate { authorities: authorities(config), renew: stale || node.spec.role != certificate_role };
        let news = match &self.told {
            None => update.renew || !config.trust.crosses.is_empty(),
            Some(told) => told.authorities != update.authorities || (update.renew && !told.renew),
        };
        self.told = Some(update.clone());
        news.then_some(update)
    }
}
