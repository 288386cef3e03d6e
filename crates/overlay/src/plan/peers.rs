//! The node among the others: what it is in the tunnel, and who else is there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net};

use super::twins::{Twins, both};
use super::{NodeNetwork, Number, Problem};
use crate::tunnel::{Peer, PrivateKey, PublicKey, Tunnel};

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
    /// The longest that was seen to reach every peer, where that is less.
    pub path: Option<u16>,
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

/// The tunnel that the node's place among others asks for: behind a peer are its own address and its blocks.
pub(super) fn tunnel(node: &NodeNetwork, twins: Option<&Twins>) -> Option<Tunnel> {
    let Mesh { key, port, address, nodes: _, mtu, path: _, peers } = node.mesh.as_ref()?;
    let peer = |peer: &MeshPeer| {
        let MeshPeer { node: _, key, endpoint, address, blocks, keepalive_s } = peer;
        let allowed = blocks.iter().copied().chain([Ipv4Net::from(*address)]).map(IpNet::V4);
        let allowed = both(allowed, |range| twins?.range_of(range));
        (*key, Peer { endpoint: *endpoint, allowed, keepalive_s: *keepalive_s })
    };
    let peers = peers.iter().map(peer).collect();
    let address_v6 = twins.and_then(|twins| twins.address(*address));
    Some(Tunnel { key: key.clone(), port: *port, address: *address, address_v6, mtu: *mtu, peers })
}

/// Takes out of the mesh what contradicts this node or a peer before it: WireGuard would give a range that two claim
/// to the later one, and so take the earlier one's packets.
pub(super) fn check(node: &mut NodeNetwork, problems: &mut Vec<Problem>) {
    let Some(mesh) = &mut node.mesh else { return };
    let nodes = mesh.nodes;
    let outside =
        |node, address| Number::of(address, nodes).is_none().then_some(Problem::NodeOutside { node, address, nodes });
    if let Some(problem) = outside(None, mesh.address) {
        problems.push(problem);
        node.mesh = None;
        return;
    }
    let mut claims = Claims::default();
    // An address of the node's own within another's block is kept for its task, and the node has it as a single.
    let singles: BTreeSet<Ipv4Net> =
        node.networks.iter().flat_map(|network| &network.blocks).filter(|block| is_single(block)).copied().collect();
    let own = node.endpoints.iter().map(|endpoint| endpoint.address.into());
    for address in own.filter(|address| !singles.contains(address)).chain([mesh.address.into()]) {
        // An address that the node has twice is a problem that is told elsewhere.
        let _ = claims.claim(address, "this node");
    }
    let mut kept: BTreeMap<Ipv4Net, String> = singles.iter().map(|single| (*single, "this node".to_owned())).collect();
    let mut keys = BTreeMap::from([(mesh.key.public(), "this node".to_owned())]);
    mesh.peers.retain_mut(|peer| {
        if let Some(problem) = outside(Some(peer.node.clone()), peer.address) {
            problems.push(problem);
            return false;
        }
        if let Some(other) = keys.get(&peer.key) {
            problems.push(Problem::TunnelKeyTwice { node: peer.node.clone(), other: other.clone() });
            return false;
        }
        if let Err(problem) = claims.claim(peer.address.into(), &peer.node) {
            problems.push(problem);
            return false;
        }
        keys.insert(peer.key, peer.node.clone());
        // Each block once and the widest first, so that what lies inside another is seen to.
        let blocks: BTreeSet<_> = peer.blocks.iter().map(|block| (block.prefix_len(), block.trunc())).collect();
        let claimed = blocks.into_iter().map(|(_, block)| claims.claim_block(block, &peer.node, &mut kept));
        let (taken, refused): (Vec<_>, Vec<_>) = claimed.partition(Result::is_ok);
        peer.blocks = taken.into_iter().filter_map(Result::ok).flatten().collect();
        problems.extend(refused.into_iter().filter_map(Result::err));
        true
    });
}

fn is_single(block: &Ipv4Net) -> bool {
    block.prefix_len() == 32
}

/// Who has which addresses: ranges that do not overlap, by their first address.
#[derive(Default)]
struct Claims(BTreeMap<Ipv4Addr, (Ipv4Net, String)>);

impl Claims {
    /// None: the node has it already. A single may lie within another node's block, for the most exact range wins.
    fn claim_block(
        &mut self,
        block: Ipv4Net,
        node: &str,
        kept: &mut BTreeMap<Ipv4Net, String>,
    ) -> Result<Option<Ipv4Net>, Problem> {
        if !is_single(&block) {
            return self.claim(block, node).map(|()| Some(block));
        }
        let around = self.0.range(..=block.addr()).next_back().filter(|(_, (range, _))| range.contains(&block));
        match (kept.get(&block), around) {
            (Some(other), _) if other != node => {
                let (range, other) = (block, other.clone());
                Err(Problem::TunnelRangeTaken { node: node.to_owned(), range, other, other_range: range })
            }
            (_, Some((_, (range, other)))) if is_single(range) && other != node => {
                let (other, other_range) = (other.clone(), *range);
                Err(Problem::TunnelRangeTaken { node: node.to_owned(), range: block, other, other_range })
            }
            (_, Some((_, (_, other)))) if other == node => Ok(None),
            _ => {
                kept.insert(block, node.to_owned());
                Ok(Some(block))
            }
        }
    }

    fn claim(&mut self, range: Ipv4Net, node: &str) -> Result<(), Problem> {
        // Of ranges without overlap, only the last that begins before this one's end can reach into it.
        let before = self.0.range(..=range.broadcast()).next_back();
        match before.filter(|(_, (other, _))| other.broadcast() >= range.network()) {
            Some((_, (other_range, other))) if other == node && other_range.contains(&range) => Ok(()),
            Some((_, (other_range, other))) => Err(Problem::TunnelRangeTaken {
                node: node.to_owned(),
                range,
                other: other.clone(),
                other_range: *other_range,
            }),
            None => {
                self.0.insert(range.network(), (range, node.to_owned()));
                Ok(())
            }
        }
    }
}
