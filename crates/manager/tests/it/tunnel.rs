//! Nodes' places in the tunnel, from an agent's hello to every other agent's assignments.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use skep_api::{
    AgentMessage, AssignedPeer, Assignment, AssignmentKey, Assignments, DISPATCH_PROTOCOL, DispatcherClient, Hello,
    ManagerMessage, Messages, RefusalKind, TunnelHello,
};
use skep_identity::{Credentials, NodeClock};
use skep_model::{Change, FEATURE_LEVEL, Feature, NodeDescription, NodeId, TunnelKey};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::world::World;

/// An agent's end of a session, and what it was assigned.
struct Agent {
    id: NodeId,
    /// Its end would be the session's.
    _to_manager: mpsc::Sender<AgentMessage>,
    messages: Messages<ManagerMessage>,
    assigned: BTreeMap<AssignmentKey, Assignment>,
}

impl Agent {
    async fn open(world: &World, node: &Credentials, key: u8, level: u32) -> Result<Agent, skep_api::Refusal> {
        let (to_manager, outgoing) = mpsc::channel(8);
        let tunnel = TunnelHello { key: TunnelKey([key; 32]), port: 7000 + u16::from(key), address: None };
        let hello = Hello {
            protocol: DISPATCH_PROTOCOL,
            description: NodeDescription { level, ..NodeDescription::default() },
            address: format!("192.0.2.{key}"),
            revision: 0,
            instance: String::new(),
            acknowledges: false,
            tunnel: Some(tunnel),
        };
        to_manager.send(AgentMessage::Hello(hello)).await.unwrap();
        let client = DispatcherClient::new(world.connect(node).await?);
        let messages = client.session(ReceiverStream::new(outgoing)).await?;
        Ok(Agent { id: node.identity().node_id, _to_manager: to_manager, messages, assigned: BTreeMap::new() })
    }

    /// Takes in assignments until `is` holds of what it has; the last delta.
    async fn until(&mut self, is: impl Fn(&Self) -> bool) -> Assignments {
        let wait = async {
            loop {
                let message = self.messages.next().await.expect("the session is open").unwrap();
                let ManagerMessage::Assignments(delta) = message else { continue };
                if delta.base.is_none() {
                    self.assigned.clear();
                }
                delta.removed.iter().for_each(|key| drop(self.assigned.remove(key)));
                self.assigned.extend(delta.set.iter().map(|assignment| (assignment.key(), assignment.clone())));
                if is(self) {
                    return delta;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), wait).await.expect("a hang takes this long")
    }

    fn peers(&self) -> BTreeMap<NodeId, AssignedPeer> {
        let peers = self.assigned.values().filter_map(|assignment| match assignment {
            Assignment::Peer(peer) => Some((peer.node, peer.clone())),
            _ => None,
        });
        peers.collect()
    }

    fn has_place(&self) -> bool {
        self.assigned.contains_key(&AssignmentKey::Place(()))
    }
}

async fn join(world: &World) -> Credentials {
    world.join(&world.worker_token).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_is_told_of_the_others_and_at_once_of_one_that_is_removed() {
    let world = World::start_at_level(NodeClock::new(), Feature::Tunnel.level() - 1).await;
    let (first, second) = (join(&world).await, join(&world).await);
    let mut one = Agent::open(&world, &first, 1, FEATURE_LEVEL).await.unwrap();
    // The level rises while it is connected, and not before can it be written.
    world.raise_level().await;
    one.until(|agent| agent.has_place()).await;
    assert!(one.peers().is_empty(), "it is alone: the manager's own node has no agent here");
    let mut two = Agent::open(&world, &second, 2, FEATURE_LEVEL).await.unwrap();
    one.until(|agent| agent.peers().len() == 1).await;
    two.until(|agent| agent.has_place() && agent.peers().len() == 1).await;
    let peer = one.peers()[&two.id].clone();
    assert_eq!((peer.key, peer.endpoint), (TunnelKey([2; 32]), "192.0.2.2:7002".parse().ok()));
    assert_eq!(two.peers()[&one.id].key, TunnelKey([1; 32]));
    assert_eq!(peer.blocks, [], "of no network that it has");

    world.store.propose(vec![Change::RemoveNode { node: two.id }]).await.unwrap();
    one.until(|agent| agent.peers().is_empty()).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copied_key_is_refused_with_what_to_do_and_older_agents_are_told_of_nobody() {
    let world = World::start(NodeClock::new()).await;
    let (first, copy, older) = (join(&world).await, join(&world).await, join(&world).await);
    let mut one = Agent::open(&world, &first, 1, FEATURE_LEVEL).await.unwrap();
    one.until(|agent| agent.has_place()).await;
    let refused = Agent::open(&world, &copy, 1, FEATURE_LEVEL).await.err().expect("its key is another's");
    assert_eq!(refused.kind, RefusalKind::Conflict);
    assert!(refused.message.contains("tunnel.key"), "{refused}");
    let mut old = Agent::open(&world, &older, 3, Feature::Tunnel.level() - 1).await.unwrap();
    one.until(|agent| agent.peers().len() == 1).await;
    old.until(|agent| !agent.has_place() && agent.peers().is_empty()).await;
    world.stop().await;
}
