//! The encrypted tunnel between nodes: one interface a node, WireGuard on the wire, whoever carries it.
//!
//! ```text
//! container ─▶ skv-… ─▶ route ─▶ sk-tunnel ─▶ kernel's WireGuard, or the net helper's ─▶ UDP ─▶ another node
//! ```
//! `plan` makes a [`Tunnel`] from what is known of the other nodes; `realize` makes the interface and, where the kernel
//! carries it, gives the peers to the kernel; else they go to the net helper within its snapshot.
//! WireGuard's own rule isolates nodes: a packet leaves to, and is taken from, the one peer whose `allowed` holds its
//! inner address.

mod key;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use key::{KeyError, PrivateKey, PublicKey};

/// The tunnel's interface.
pub const INTERFACE: &str = "sk-tunnel";

/// The UDP port that nodes meet at.
pub const PORT: u16 = 7377;

/// What WireGuard adds to a packet: IPv6 and UDP headers, its own header and the AEAD's tag, in bytes.
pub const OVERHEAD: u16 = 80;

/// Who shall carry the tunnel, as the node's settings say (`data_plane`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DataPlane {
    /// The kernel where it can, else the net helper.
    #[default]
    Auto,
    Kernel,
    Userspace,
}

/// Who carries the tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Carrier {
    /// The kernel's WireGuard.
    Kernel,
    /// The net helper, behind a TUN device.
    Userspace,
}

/// What a node's tunnel should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tunnel {
    pub key: PrivateKey,
    /// The UDP port that this node listens on.
    pub port: u16,
    /// The interface's own address, of length 32.
    pub address: Ipv4Addr,
    /// Another, of length 128; none where nothing of this node has IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address_v6: Option<Ipv6Addr>,
    /// The longest inner packet, in bytes.
    pub mtu: u16,
    pub peers: BTreeMap<PublicKey, Peer>,
}

/// Another node, as the tunnel knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Where it is thought to be; it is believed where its last authentic packet came from, if one came.
    pub endpoint: Option<SocketAddr>,
    /// The inner addresses that are behind it. No address is behind two peers.
    pub allowed: BTreeSet<IpNet>,
    /// How often a packet is sent for the sake of a NAT between; none for most.
    pub keepalive_s: Option<u16>,
}

/// What a tunnel knows of a peer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStats {
    /// Where its last authentic packet came from, or where it is thought to be.
    pub endpoint: Option<SocketAddr>,
    /// Since the last handshake; none if there was none.
    pub handshake_age: Option<Duration>,
    /// Bytes received, of WireGuard's messages.
    pub rx_bytes: u64,
    /// Bytes sent, of WireGuard's messages.
    pub tx_bytes: u64,
}
