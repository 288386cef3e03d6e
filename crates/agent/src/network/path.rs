//! Whether what the interfaces let through also arrives: a way between nodes may be narrower than both of its ends, and
//! what is lost there is lost without a word, for no answer of a router's comes back through the tunnel.
//!
//! A peer's way is looked at when the peer comes or moves, and again while the tunnel to it carries something. The
//! narrowest counts for all: routes into the tunnel then say so, and with them the segments that TCP connections agree
//! on. The interface keeps its length, so that a way that becomes wider is seen too.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use skep_api::TunnelPeer;
use skep_model::NodeId;
use skep_overlay::echo;

use super::{Command, WeakHandle, blocking};

/// After peers came or moved: they are told of this node as it is of them.
const SOON: Duration = Duration::from_secs(2);
const PERIOD: Duration = Duration::from_secs(60);
/// Peers that are probed at once; with more, the next round comes soon.
const AT_ONCE: usize = 50;
/// What must have gone over the tunnel since the last look: more than the look itself, and handshakes.
const USED_MIN_BYTES: u64 = 100_000;

/// What is known of the way to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Look {
    round: u64,
    endpoint: Option<SocketAddr>,
    /// All that the tunnel had carried then.
    carried: u64,
    /// What the longest packet was compared with.
    longest: u16,
    passes: Option<u16>,
}

/// Looks until the network's last handle is gone.
pub(super) async fn watch(network: WeakHandle) {
    let mut looks = Looks::default();
    let mut peers_changed = network.peers.clone();
    let mut pause = SOON;
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            changed = peers_changed.changed() => match changed {
                Ok(()) => tokio::time::sleep(SOON).await,
                Err(_) => return,
            },
        }
        match looks.round(&network).await {
            Some(next) => pause = next,
            None => return,
        }
    }
}

#[derive(Debug, Default)]
struct Looks {
    by_peer: BTreeMap<NodeId, Look>,
    rounds: u64,
    /// The narrowest way that was told of.
    told: Option<(NodeId, u16)>,
}

impl Looks {
    /// When to look again; none at the end.
    async fn round(&mut self, network: &WeakHandle) -> Option<Duration> {
        let (peers, longest) = now(network).await?;
        self.by_peer.retain(|node, _| peers.iter().any(|peer| peer.node == *node));
        let wanted = self.wanted(&peers, longest);
        let left =
            wanted.len() > AT_ONCE && wanted[AT_ONCE..].iter().any(|peer| !self.by_peer.contains_key(&peer.node));
        let wanted = &wanted[..wanted.len().min(AT_ONCE)];
        if !wanted.is_empty() {
            self.rounds += 1;
            let passing = probe(wanted.iter().map(|peer| peer.address).collect(), longest).await;
            let (after, _) = now(network).await?;
            for (peer, passes) in wanted.iter().zip(passing) {
                let carried = after.iter().find(|now| now.node == peer.node).map_or(0, carried);
                // Of a peer that is away just now, what was known holds.
                let passes = passes.or_else(|| self.by_peer.get(&peer.node)?.passes);
                let look = Look { round: self.rounds, endpoint: peer.endpoint, carried, longest, passes };
                self.by_peer.insert(peer.node, look);
            }
        }
        let narrowest = narrowest(&self.by_peer, longest);
        if std::mem::replace(&mut self.told, narrowest) != narrowest {
            tell(&peers, narrowest, longest);
            network.upgrade()?.send(Command::SetPath(narrowest.map(|(_, passes)| passes))).await;
        }
        Some(if left { SOON } else { PERIOD })
    }

    /// The peers whose ways are to be looked at, those that waited longest first.
    fn wanted<'a>(&self, peers: &'a [TunnelPeer], longest: u16) -> Vec<&'a TunnelPeer> {
        let look = |peer: &TunnelPeer| self.by_peer.get(&peer.node);
        let mut wanted: Vec<_> = peers.iter().filter(|peer| is_due(peer, look(peer), longest)).collect();
        wanted.sort_by_key(|peer| look(peer).map(|look| look.round));
        wanted
    }
}

/// The peers, and the longest packet that this node's interfaces let through.
async fn now(network: &WeakHandle) -> Option<(Vec<TunnelPeer>, u16)> {
    let handle = network.upgrade()?;
    Some((handle.peers().await, handle.condition().mtu))
}

fn is_due(peer: &TunnelPeer, look: Option<&Look>, longest: u16) -> bool {
    let Some(look) = look else { return true };
    let used = carried(peer).saturating_sub(look.carried) >= USED_MIN_BYTES;
    look.endpoint != peer.endpoint || look.longest != longest || look.passes.is_none() || used
}

fn carried(peer: &TunnelPeer) -> u64 {
    peer.received_bytes + peer.sent_bytes
}

/// The peer with the narrowest way, where one is narrower than the interfaces.
fn narrowest(looks: &BTreeMap<NodeId, Look>, longest: u16) -> Option<(NodeId, u16)> {
    let ways = looks.iter().filter_map(|(node, look)| Some((*node, look.passes?)));
    ways.filter(|(_, passes)| *passes < longest).min_by_key(|(_, passes)| *passes)
}

async fn probe(addresses: Vec<Ipv4Addr>, longest: u16) -> Vec<Option<u16>> {
    let probed = blocking(move || echo::longest_passing(&addresses, longest)).await;
    probed.unwrap_or_else(|error| {
        tracing::warn!(%error, "the ways to other nodes could not be probed");
        Vec::new()
    })
}

fn tell(peers: &[TunnelPeer], narrowest: Option<(NodeId, u16)>, longest: u16) {
    match narrowest {
        Some((node, passes)) => {
            let endpoint = peers.iter().find(|peer| peer.node == node).and_then(|peer| peer.endpoint);
            tracing::warn!(
                peer.id = %node,
                endpoint = endpoint.map(tracing::field::display),
                passes,
                longest,
                "the way to a node is narrower than this node's interfaces say: shorter packets go into the tunnel"
            );
        }
        None => tracing::info!(longest, "the ways to all nodes are as wide as this node's interfaces say"),
    }
}
