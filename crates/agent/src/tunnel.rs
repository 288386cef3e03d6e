//! This node in the tunnel between nodes: its key, and the mesh that its peers make.
//!
//! The key is made once and stays on the node (`<data>/net/tunnel.key`, for root alone): the cluster knows its public
//! half, which the agent says in each session's hello. It goes with the node's folder when the node leaves. A node without
//! peers has no tunnel.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use skep_api::{AssignedPeer, AssignedPlace, TunnelHello, TunnelPeer};
use skep_identity::{FileError, write_private};
use skep_model::{NodeId, TunnelKey};
use skep_overlay::plan::{Mesh, MeshPeer};
use skep_overlay::tunnel::{self, KeyError, PeerStats, PrivateKey, PublicKey};

/// What is sent to a peer whose way is not known is at most as long as Ethernet's.
const ETHERNET_MTU: u32 = 1500;
/// IPv6 knows no shorter packets, and programs expect as much of IPv4.
const MTU_MIN: u16 = 1280;
/// A name server that does not answer must not hold up the session.
const RESOLVE_MAX: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    #[error("failed to read the tunnel's key `{}`", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("failed to create the folder `{}`", path.display())]
    Folder {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{}` holds no key: remove it, and the node makes another", path.display())]
    Damaged {
        path: PathBuf,
        #[source]
        source: KeyError,
    },
    #[error("the kernel gave no random bytes for the tunnel's key")]
    Random(#[source] io::Error),
    #[error("failed to write the tunnel's key")]
    Write(#[from] FileError),
}

/// What this node is in the tunnel.
#[derive(Debug, Clone)]
pub struct OwnTunnel {
    pub key: PrivateKey,
    /// The UDP port that it listens on.
    pub port: u16,
}

/// The node's key; made, and on the disk for good, before its first use.
pub fn load_key(data_dir: &Path) -> Result<PrivateKey, KeyFileError> {
    let path = data_dir.join("net/tunnel.key");
    match fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().map_err(|source| KeyFileError::Damaged { path, source }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => make_key(&path),
        Err(source) => Err(KeyFileError::Read { path, source }),
    }
}

fn make_key(path: &Path) -> Result<PrivateKey, KeyFileError> {
    let folder = path.parent().expect("the file is in a folder");
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|source| KeyFileError::Folder { path: folder.to_owned(), source })?;
    let mut bytes = [0; 32];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| KeyFileError::Random(error.into()))?;
    let key = PrivateKey::from_bytes(bytes);
    write_private(path, format!("{}\n", key.to_base64()).as_bytes())?;
    Ok(key)
}

impl OwnTunnel {
    /// What the agent says of itself. `advertised` is the address that others were told, which may be a name.
    pub async fn hello(&self, advertised: &str) -> TunnelHello {
        let key = TunnelKey(*self.key.public().bytes());
        TunnelHello { key, port: self.port, address: resolved(advertised).await }
    }

    /// The node among its peers; none while there are none.
    pub fn mesh(
        &self,
        place: Option<&AssignedPlace>,
        peers: &BTreeMap<NodeId, AssignedPeer>,
        mtu: u16,
        path: Option<u16>,
    ) -> Option<Mesh> {
        let place = place.filter(|_| !peers.is_empty())?;
        Some(Mesh {
            key: self.key.clone(),
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
    use std::os::unix::fs::PermissionsExt;

    use skep_model::IdSource;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_is_roots_alone() {
        let dir = tempfile::tempdir().unwrap();
        let key = load_key(dir.path()).unwrap();
        assert_eq!(load_key(dir.path()).unwrap(), key);
        let path = dir.path().join("net/tunnel.key");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert!(fs::read_to_string(&path).unwrap().starts_with(&key.to_base64()));
        // A node that forgot its key must not go on as if it were new: the cluster would move its place.
        fs::write(&path, "cut o").unwrap();
        assert!(matches!(load_key(dir.path()), Err(KeyFileError::Damaged { .. })));
        fs::remove_file(&path).unwrap();
        assert_ne!(load_key(dir.path()).unwrap(), key, "a node that left is another one");
    }

    #[test]
    fn a_node_without_peers_has_no_mesh() {
        let own = OwnTunnel { key: PrivateKey::from_bytes([1; 32]), port: 7377 };
        let place = AssignedPlace {
            address: Ipv4Addr::new(10, 127, 240, 1),
            nodes: "10.127.240.0/20".parse().unwrap(),
            pool: "10.64.0.0/10".parse().unwrap(),
            prefix: None,
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
        assert_eq!(own.mesh(Some(&place), &BTreeMap::new(), 1420, None), None);
        assert_eq!(own.mesh(None, &peers, 1420, None), None, "nor has one that was not told its place");
        let mesh = own.mesh(Some(&place), &peers, 1420, None).unwrap();
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
