//! This node in the tunnel between nodes: its key, and the mesh that its peers make.
//!
//! The key stays on the node ([`keys`]): the cluster knows its public half, which the agent says in each session's hello,
//! and again when it is another. A node without peers has no tunnel.

pub mod keys;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use skep_api::{AssignedPeer, AssignedPlace, TunnelHello, TunnelPeer};
use skep_model::{NodeId, TunnelKey};
use skep_overlay::plan::{Mesh, MeshPeer};
use skep_overlay::tunnel::{self, PeerStats, PrivateKey, PublicKey};
use tokio::sync::watch;

/// What is sent to a peer whose way is not known is at most as long as Ethernet's.
const ETHERNET_MTU: u32 = 1500;
/// IPv6 knows no shorter packets, and programs expect as much of IPv4.
const MTU_MIN: u16 = 1280;
/// A name server that does not answer must not hold up the session.
const RESOLVE_MAX: Duration = Duration::from_secs(2);

/// What this node is in the tunnel.
#[derive(Debug, Clone)]
pub struct OwnTunnel {
    /// The key that the others are to know: the one in use, or the one after it.
    pub told: watch::Receiver<TunnelKey>,
    /// The UDP port that it listens on.
    pub port: u16,
}

impl OwnTunnel {
    /// What the agent says of itself. `advertised` is the address that others were told, which may be a name.
    pub async fn hello(&self, advertised: &str) -> TunnelHello {
        let key = *self.told.borrow();
        TunnelHello { key, port: self.port, address: resolved(advertised).await }
    }

    /// The node among its peers; none while there are none.
    pub fn mesh(
        &self,
        key: &PrivateKey,
        place: Option<&AssignedPlace>,
        peers: &BTreeMap<NodeId, AssignedPeer>,
        mtu: u16,
        path: Option<u16>,
    ) -> Option<Mesh> {
        let place = place.filter(|_| !peers.is_empty())?;
        Some(Mesh {
            key: key.clone(),
            port: self.port,
            address: place.address,
            nodes: place.nodes,
            mtu,
            path,
            peers: peers.values().map(mesh_peer).collect(),
        })
    }
}

fn mesh_peer(peer: &AssignedPeer) -> MeshPeer {
    let AssignedPeer { node, key, endpoint, address, blocks } = peer;
    MeshPeer {
        node: node.to_string(),
        key: PublicKey::from_bytes(key.0),
        endpoint: *endpoint,
        address: *address,
        blocks: blocks.clone(),
        keepalive_s: None,
    }
}

/// What is told of a peer that the tunnel knows `stats` of.
pub fn told(peer: &AssignedPeer, stats: PeerStats) -> TunnelPeer {
    let PeerStats { endpoint, handshake_age, rx_bytes, tx_bytes } = stats;
    TunnelPeer {
        node: peer.node,
        address: peer.address,
        endpoint: endpoint.or(peer.endpoint),
        handshake_age,
        received_bytes: rx_bytes,
        sent_bytes: tx_bytes,
    }
}

/// An address without a port, or a name with or without one.
async fn resolved(advertised: &str) -> Option<IpAddr> {
    if let Ok(address) = advertised.parse::<IpAddr>() {
        return Some(address);
    }
    if let Ok(address) = advertised.parse::<SocketAddr>() {
        return Some(address.ip());
    }
    let name = advertised.rsplit_once(':').map_or(advertised, |(name, _)| name);
    if name.is_empty() {
        return None;
    }
    let found = tokio::time::timeout(RESOLVE_MAX, tokio::net::lookup_host((name, 0))).await.ok()?.ok()?;
    let found: Vec<IpAddr> = found.map(|address| address.ip()).collect();
    found.iter().find(|address| address.is_ipv4()).or(found.first()).copied()
}

/// The longest packet that fits into the tunnel to every one of `endpoints`.
pub fn mtu<'a>(endpoints: impl Iterator<Item = &'a SocketAddr>) -> u16 {
    let underlay = endpoints.filter_map(|endpoint| underlay_mtu(*endpoint).ok()).min().unwrap_or(ETHERNET_MTU);
    u16::try_from(underlay).unwrap_or(u16::MAX).saturating_sub(tunnel::OVERHEAD).max(MTU_MIN)
}

/// What the kernel would send there at most, as it knows now.
fn underlay_mtu(endpoint: SocketAddr) -> io::Result<u32> {
    let any: IpAddr = if endpoint.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    // Connecting a UDP socket sends nothing; it only chooses a route.
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(endpoint)?;
    let mtu = match endpoint {
        SocketAddr::V4(_) => rustix::net::sockopt::ip_mtu(&socket)?,
        SocketAddr::V6(_) => rustix::net::sockopt::ipv6_mtu(&socket)?,
    };
    Ok(mtu)
}

#[cfg(test)]
mod tests {
    use skep_model::IdSource;

    use super::*;

    #[test]
    fn a_node_without_peers_has_no_mesh() {
        let own = OwnTunnel { told: watch::channel(TunnelKey([1; 32])).1, port: 7377 };
        let key = PrivateKey::from_bytes([1; 32]);
        let place = AssignedPlace {
            address: Ipv4Addr::new(10, 127, 240, 1),
            nodes: "10.127.240.0/20".parse().unwrap(),
            pool: "10.64.0.0/10".parse().unwrap(),
            prefix: None,
            key: None,
        };
        let node = IdSource::from_seed(1).next_id();
        let peer = AssignedPeer {
            node,
            key: TunnelKey([7; 32]),
            endpoint: "192.0.2.2:7377".parse().ok(),
            address: Ipv4Addr::new(10, 127, 240, 2),
            blocks: vec!["10.64.0.64/26".parse().unwrap()],
        };
        let peers = BTreeMap::from([(node, peer)]);
        assert_eq!(own.mesh(&key, Some(&place), &BTreeMap::new(), 1420, None), None);
        assert_eq!(own.mesh(&key, None, &peers, 1420, None), None, "nor has one that was not told its place");
        let mesh = own.mesh(&key, Some(&place), &peers, 1420, None).unwrap();
        assert_eq!((mesh.address, mesh.mtu, mesh.peers.len()), (place.address, 1420, 1));
        assert_eq!(mesh.peers[0].key, PublicKey::from_bytes([7; 32]));
    }

    #[test]
    fn a_packet_fits_into_the_narrowest_way() {
        assert_eq!(mtu([].iter()), 1420, "Ethernet's, while nothing is known");
        // Loopback's own is larger than any packet.
        assert_eq!(mtu(["127.0.0.1:7377".parse().unwrap()].iter()), u16::MAX - tunnel::OVERHEAD);
    }

    #[tokio::test]
    async fn what_others_were_told_is_resolved_to_an_address() {
        assert_eq!(resolved("192.0.2.7").await, "192.0.2.7".parse().ok());
        assert_eq!(resolved("192.0.2.7:99").await, "192.0.2.7".parse().ok());
        assert_eq!(resolved("fd00::7").await, "fd00::7".parse().ok());
        assert_eq!(resolved("localhost:99").await, Some(Ipv4Addr::LOCALHOST.into()));
        assert_eq!(resolved("").await, None);
    }
}
