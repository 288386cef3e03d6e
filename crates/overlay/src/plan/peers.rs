//! The node among the others: what it is in the tunnel, and who else is there.

use std::net::{Ipv4Addr, SocketAddr};

use ipnet::Ipv4Net;

use crate::tunnel::{PrivateKey, PublicKey};

/// A node's place in the tunnel, and the other nodes'.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mesh {
    pub key: PrivateKey,
    /// The UDP port that this node listens on.
    pub port: u16,
    /// This node's own address in the tunnel.
    pub address: Ipv4Addr,
    /// The range that nodes' own addresses are taken from: a part of the pool that no network is given. A node's
    /// number is its address's place in it.
    pub nodes: Ipv4Net,
    /// The longest packet that fits into the tunnel, in bytes.
    pub mtu: u16,
    /// Every other node that has said its key, in any order.
    pub peers: Vec<MeshPeer>,
}

/// Another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshPeer {
    /// The node's id.
    pub node: String,
    pub key: PublicKey,
    /// Where it listens; none while it is not known.
    pub endpoint: Option<SocketAddr>,
    /// Its own address in the tunnel.
    pub address: Ipv4Addr,
    /// Its blocks of every network that it has part in.
    pub blocks: Vec<Ipv4Net>,
    /// How often a packet is sent for the sake of a NAT between, in seconds.
    pub keepalive_s: Option<u16>,
}
