//! The nodes' places in the tunnel between them: whose key, which address of its own, reached where.
//!
//! Each node has one address in the tunnel, from a part of the address pool that no network is given
//! ([`ClusterSpec::node_range`]). It is drawn when the node's key is written, lowest first, and kept until the node is
//! removed. No two nodes have one key: the tunnel knows nodes by their keys alone.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::{Cluster, ClusterSpec, NodeId};

/// The longest range of nodes' own addresses: 4094 nodes.
const NODE_RANGE_PREFIX: u8 = 20;
/// The shortest one: two nodes.
const NODE_RANGE_PREFIX_MAX: u8 = 30;

/// What a node is known by in the tunnel: the public half of its Curve25519 key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TunnelKey(pub [u8; 32]);

/// A text that is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a tunnel key is 32 bytes in base64, 44 characters with the `=` at the end")]
pub struct TunnelKeyError;

/// A node's place in the tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeTunnel {
    pub key: TunnelKey,
    /// Its own address in the tunnel.
    pub address: Ipv4Addr,
    /// Where other nodes reach it (UDP); none while nobody knows: it then has to speak first.
    pub endpoint: Option<SocketAddr>,
}

impl fmt::Display for TunnelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for TunnelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TunnelKey {
    type Err = TunnelKeyError;

    fn from_str(text: &str) -> Result<Self, TunnelKeyError> {
        let bytes = STANDARD.decode(text).map_err(|_| TunnelKeyError)?;
        bytes.try_into().map(Self).map_err(|_| TunnelKeyError)
    }
}

impl ClusterSpec {
    /// The part of the address pool that nodes' own addresses come from, and no network: its last /20, or its last
    /// quarter where that is smaller.
    pub fn node_range(&self) -> Ipv4Net {
        let pool = self.address_pool.trunc();
        let quarter = pool.prefix_len() + 2;
        let prefix = NODE_RANGE_PREFIX.max(quarter).min(NODE_RANGE_PREFIX_MAX.max(pool.prefix_len()));
        Ipv4Net::new(pool.broadcast(), prefix).expect("a prefix length of at most 32").trunc()
    }
}

impl ClusterSpec {
    /// Whether a network has room in the pool beside the nodes' own addresses; the words are for who chose it.
    pub fn check_pool(&self) -> Result<(), String> {
        let Self { address_pool: pool, subnet_prefix, .. } = self;
        let nodes = self.node_range();
        let free = |subnet: Ipv4Net| !subnet.contains(&nodes) && !nodes.contains(&subnet);
        match pool.subnets(*subnet_prefix).is_ok_and(|mut subnets| subnets.any(free)) {
            true => Ok(()),
            false => Err(format!(
                "the address pool {pool} has no room for a network of /{subnet_prefix} beside {nodes}, the part for nodes' \
                 own addresses; take a larger pool, or a longer --default-addr-pool-mask-length"
            )),
        }
    }
}

impl Cluster {
    /// The part of the address pool that nodes' own addresses come from.
    pub fn node_range(&self) -> Ipv4Net {
        self.config.as_ref().map_or_else(|| ClusterSpec::default().node_range(), |config| config.spec.node_range())
    }

    /// Another node that has the key.
    pub fn holder_of_key(&self, key: &TunnelKey, but: NodeId) -> Option<NodeId> {
        let has = |tunnel: &NodeTunnel| tunnel.key == *key;
        self.nodes.values().find(|node| node.id != but && node.tunnel.as_ref().is_some_and(has)).map(|node| node.id)
    }

    /// The lowest address of the nodes' range that no node has and that lies in no network: older clusters may have
    /// some there. How it is drawn is part of what the log means, and cannot change.
    pub(crate) fn free_node_address(&self) -> Option<Ipv4Addr> {
        let range = self.node_range();
        let taken: BTreeSet<Ipv4Addr> =
            self.nodes.values().filter_map(|node| Some(node.tunnel.as_ref()?.address)).collect();
        let networks = self.networks.values().map(|network| network.subnet);
        let networks: Vec<Ipv4Net> = networks.filter(|net| net.contains(&range) || range.contains(net)).collect();
        // Its first and its last address look like a network's name and broadcast to other programs.
        range.hosts().find(|address| {
            let named = *address == range.network() || *address == range.broadcast();
            !named && !taken.contains(address) && !networks.iter().any(|network| network.contains(address))
        })
    }
}
