//! What agents say of themselves in the tunnel, written down: once, and again only when it changed.
//!
//! Sessions hand in what they heard; it is written in few proposals, and not before every manager knows this kind of
//! change. A node that was refused (its key is another's) stays without a place until its next session.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use skep_api::{Refusal, RefusalKind, TunnelHello};
use skep_model::{Change, Cluster, Feature, NodeId, Timestamp, TunnelKey};
use skep_store::{ProposeError, Store};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::clock::wall_clock;

/// How long hellos are gathered before they are proposed together: after a power cut all nodes come at once.
const GATHER: Duration = Duration::from_millis(20);
/// Nodes in one proposal.
const NODES_PER_PROPOSAL: usize = 500;
/// Before a proposal that could not be written is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// What one node said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Said {
    pub node: NodeId,
    pub key: TunnelKey,
    pub endpoint: Option<SocketAddr>,
}

impl Said {
    /// `address` is what the managers see the node under, for an agent that does not know better.
    pub fn new(node: NodeId, hello: TunnelHello, address: &str) -> Self {
        let seen = || address.parse().ok().filter(reachable);
        let address = hello.address.filter(reachable).or_else(seen);
        Self { node, key: hello.key, endpoint: address.map(|address| SocketAddr::new(address, hello.port)) }
    }
}

/// An address that leads elsewhere when another node uses it is worse than none.
fn reachable(address: &IpAddr) -> bool {
    !address.is_loopback() && !address.is_unspecified() && !address.is_multicast()
}

/// Where sessions hand in what they heard.
pub type Tunnels = mpsc::UnboundedSender<Said>;

/// Refuses a node that comes with another's key, as a copy of a disk does.
pub fn refuse_copy(cluster: &Cluster, said: &Said) -> Result<(), Refusal> {
    let Some(holder) = cluster.holder_of_key(&said.key, said.node) else { return Ok(()) };
    let holder = match cluster.nodes.get(&holder).map(|node| node.hostname()) {
        Some(name) if !name.is_empty() => format!("{name} ({})", holder.short()),
        _ => holder.short(),
    };
    let message = format!(
        "this node has the tunnel key of node {holder}: its data folder is probably a copy of that node's; stop skep \
         here, remove net/tunnel.key from its data folder and start it again"
    );
    Err(Refusal::new(RefusalKind::Conflict, message))
}

/// Writes until `stop`.
pub async fn write(store: Store, mut queue: mpsc::UnboundedReceiver<Said>, stop: CancellationToken) {
    let mut pending: BTreeMap<NodeId, Said> = BTreeMap::new();
    let mut cluster = store.watch();
    loop {
        let ready = cluster.borrow_and_update().has(Feature::Tunnel);
        tokio::select! {
            said = queue.recv() => match said {
                Some(said) => drop(pending.insert(said.node, said)),
                None => return,
            },
            // The level rises once in a cluster's life, perhaps while all sessions are open.
            changed = cluster.changed(), if !ready && !pending.is_empty() => if changed.is_err() { return },
            () = stop.cancelled() => return,
        }
        if !cluster.borrow().has(Feature::Tunnel) {
            continue;
        }
        tokio::time::sleep(GATHER).await;
        while let Ok(said) = queue.try_recv() {
            pending.insert(said.node, said);
        }
        while !pending.is_empty() && !stop.is_cancelled() {
            let rest = pending.keys().nth(NODES_PER_PROPOSAL).copied();
            let rest = rest.map(|first| pending.split_off(&first)).unwrap_or_default();
            match propose(&store, &pending).await {
                Ok(()) => pending = rest,
                Err(error) => {
                    pending.extend(rest);
                    tracing::warn!(error = &error as &dyn std::error::Error, "nodes' tunnel keys wait for the store");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}

async fn propose(store: &Store, pending: &BTreeMap<NodeId, Said>) -> Result<(), ProposeError> {
    loop {
        let changes = changes(&store.cluster(), pending.values(), wall_clock());
        if changes.is_empty() {
            return Ok(());
        }
        match store.propose(changes).await {
            Ok(_) => return Ok(()),
            // A node was removed in between: decide again on the newer state.
            Err(ProposeError::Rejected(rejection)) => {
                tracing::debug!(%rejection, "a node's tunnel key was overtaken");
                tokio::task::yield_now().await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// What is to be written of what was said; what would be refused is left out, so that it cannot spoil the rest.
fn changes<'a>(cluster: &Cluster, said: impl Iterator<Item = &'a Said>, at: Timestamp) -> Vec<Change> {
    let mut picture = cluster.clone();
    let mut changes = Vec::new();
    for Said { node, key, endpoint } in said.copied() {
        let known = picture.nodes.get(&node).map(|node| node.tunnel);
        let same = known.flatten().is_some_and(|known| (known.key, known.endpoint) == (key, endpoint));
        if same || known.is_none() {
            continue;
        }
        let change = Change::SetNodeTunnel { node, key, endpoint, at };
        let version = picture.version.0 + 1;
        match picture.apply(&change, version) {
            Ok(()) => changes.push(change),
            Err(rejection) => tracing::warn!(node.id = %node, %rejection, "a node has no place in the tunnel"),
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use skep_model::{Meta, Node, NodeSpec, NodeStatus};

    use super::*;

    fn said(node: u128, key: u8, endpoint: &str) -> Said {
        Said { node: NodeId::from_u128(node), key: TunnelKey([key; 32]), endpoint: endpoint.parse().ok() }
    }

    fn cluster(nodes: &[u128]) -> Cluster {
        let mut cluster = Cluster::default();
        for id in nodes {
            let node = Node {
                id: NodeId::from_u128(*id),
                meta: Meta::new(Timestamp(0)),
                spec: NodeSpec::default(),
                description: None,
                status: NodeStatus::default(),
                manager: None,
                certificate: Default::default(),
                tunnel: None,
            };
            cluster.apply(&Change::CreateNode { node: Box::new(node) }, *id as u64).unwrap();
        }
        cluster
    }

    #[test]
    fn what_the_cluster_knows_already_is_not_written_again() {
        let mut cluster = cluster(&[1, 2]);
        let all = [said(1, 1, "10.0.0.1:7377"), said(2, 2, "10.0.0.2:7377"), said(3, 3, "10.0.0.3:7377")];
        let first = changes(&cluster, all.iter(), Timestamp(5));
        assert_eq!(first.len(), 2, "one for each member: {first:?}");
        first.iter().for_each(|change| cluster.apply(change, 9).unwrap());
        assert_eq!(changes(&cluster, all.iter(), Timestamp(6)), []);
        let moved = [said(1, 1, "10.0.0.9:7377")];
        let again = changes(&cluster, moved.iter(), Timestamp(7));
        let address = cluster.nodes[&NodeId::from_u128(1)].tunnel.unwrap().address;
        again.iter().for_each(|change| cluster.apply(change, 10).unwrap());
        let tunnel = cluster.nodes[&NodeId::from_u128(1)].tunnel.unwrap();
        assert_eq!((again.len(), tunnel.endpoint, tunnel.address), (1, moved[0].endpoint, address));
    }

    #[test]
    fn a_copy_gets_no_place_and_spoils_nobody_elses() {
        let mut cluster = cluster(&[1, 2, 3]);
        let all = [said(1, 1, ""), said(2, 1, ""), said(3, 3, "")];
        let written = changes(&cluster, all.iter(), Timestamp(5));
        written.iter().for_each(|change| cluster.apply(change, 9).unwrap());
        let placed = |id| cluster.nodes[&NodeId::from_u128(id)].tunnel.is_some();
        assert_eq!([placed(1), placed(2), placed(3)], [true, false, true]);
        let refused = refuse_copy(&cluster, &all[1]).unwrap_err();
        assert!(refused.message.contains("net/tunnel.key"), "{refused}");
        assert!(refuse_copy(&cluster, &all[0]).is_ok(), "its own key is no copy");
    }

    #[test]
    fn an_agent_that_does_not_know_its_address_is_where_the_managers_see_it() {
        let hello = |address: Option<&str>| TunnelHello {
            key: TunnelKey([1; 32]),
            port: 7377,
            address: address.map(|address| address.parse().unwrap()),
        };
        let endpoint = |told, seen| Said::new(NodeId::from_u128(1), hello(told), seen).endpoint;
        assert_eq!(endpoint(None, "10.0.0.2"), "10.0.0.2:7377".parse().ok());
        assert_eq!(endpoint(Some("203.0.113.9"), "10.0.0.2"), "203.0.113.9:7377".parse().ok());
        assert_eq!(endpoint(None, "fd00::2"), "[fd00::2]:7377".parse().ok());
        assert_eq!(endpoint(Some("127.0.0.1"), "10.0.0.2"), "10.0.0.2:7377".parse().ok());
        assert_eq!(endpoint(None, "127.0.0.1"), None);
        assert_eq!(endpoint(None, "node.example.org"), None);
    }
}
