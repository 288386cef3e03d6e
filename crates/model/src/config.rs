//! The cluster's own settings and trust: one object.

use std::net::Ipv6Addr;
use std::time::Duration;

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::{ClusterId, Meta};

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterConfig {
    pub id: ClusterId,
    pub meta: Meta,
    pub spec: ClusterSpec,
    /// PEM of the root certificate.
    pub ca_certificate: String,
    /// PEM of the root's key; at rest only in the encrypted log and snapshots.
    pub ca_key: String,
    pub join_tokens: JoinTokenHashes,
    /// The next Raft node number; numbers are never used twice.
    pub next_raft_id: u64,
    /// What managers' keys are locked with; absent while `spec.autolock` is off.
    pub unlock_key: Option<String>,
    /// The feature level that every manager has: see [`crate::FEATURE_LEVEL`].
    pub level: u32,
    pub trust: TrustHistory,
}

impl ClusterConfig {
    /// The cluster's own IPv6 range, told from all others' by its id (RFC 4193): a twin of every IPv4 address is in it.
    pub fn prefix(&self) -> Ipv6Net {
        const OWN_BITS: u32 = 40;
        let own = self.id.as_u128() & ((1 << OWN_BITS) - 1);
        let first = Ipv6Addr::from_bits(0xfd << 120 | own << 80);
        Ipv6Net::new(first, 48).expect("48 is a prefix length")
    }
}

impl std::fmt::Debug for ClusterConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterConfig").field("id", &self.id).field("spec", &self.spec).finish_non_exhaustive()
    }
}

/// The CAs before the present one. PEM, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TrustHistory {
    /// Older CAs that are trusted until every node that is up has a certificate of the present one.
    pub trusted: Vec<String>,
    /// Each CA's certificate with the signature of the one before, beginning with the present CA's.
    pub crosses: Vec<String>,
    /// CAs whose certificates are good for renewal only.
    pub retired: Vec<String>,
}

/// SHA-256 of the join tokens' secrets, in hexadecimal: a token can be checked and not read back.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct JoinTokenHashes {
    pub worker: String,
    pub manager: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterSpec {
    /// Finished tasks kept for each slot, the running one included.
    pub task_history_limit: u32,
    pub heartbeat_period: Duration,
    pub node_certificate_validity: Duration,
    /// Where the subnets of networks without one of their own come from.
    pub address_pool: Ipv4Net,
    /// Prefix length of such a subnet.
    pub subnet_prefix: u8,
    /// Whether a manager that starts waits for the unlock key.
    pub autolock: bool,
    /// Services that do not say fill one node before the next, instead of spreading.
    pub bin_pack: bool,
}

impl Default for ClusterSpec {
    fn default() -> Self {
        Self {
            task_history_limit: 5,
            heartbeat_period: Duration::from_secs(1),
            node_certificate_validity: Duration::from_secs(90 * 24 * 3600),
            address_pool: Ipv4Net::new_assert(std::net::Ipv4Addr::new(10, 64, 0, 0), 10),
            subnet_prefix: 18,
            autolock: false,
            bin_pack: false,
        }
    }
}
