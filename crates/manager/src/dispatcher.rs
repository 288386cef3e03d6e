//! The dispatcher: an agent's session, from its hello to its end.
//!
//! Each session has one loop. It sends the node's assignments whenever they differ from what the agent
//! has, and takes in heartbeats, reports and answers.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use skep_api::{
    AgentMessage, Caller, DISPATCH_PROTOCOL, Dispatcher, Hello, LeaseGrant, ManagerMessage, Messages, Refusal,
    RefusalKind, Standing, TaskReport, TunnelHello, Welcome,
};
use skep_identity::NodeClock;
use skep_model::{
    Change, Cluster, Feature, Node, NodeDescription, NodeId, NodeState, NodeStatus, Role, TaskId, Version,
};
use skep_store::Store;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;

use crate::allowance::{Allowance, Limits};
use crate::assignments::{AssignmentSet, Difference, own_assignments};
use crate::clock::wall_clock;
use crate::description;
use crate::fanout::Fanout;
use crate::leases::{Grants, LeaseAuthority};
use crate::peers::PeersTold;
use crate::reach::Reach;
use crate::refusal::{not_current, not_written};
use crate::reports::Reports;
use crate::role_news::{addresses, standing_of};
use crate::sessions::{OpenSession, Origin, Sessions};
use crate::settling::{Settling, Taken};
use crate::standing::standing;
use crate::trust::TrustTold;
use crate::tunnels::{Said, Tunnels, refuse_copy};

/// Messages that wait for an agent that is slow to read.
const QUEUE: usize = 256;
const HELLO_WAIT: Duration = Duration::from_secs(10);
/// Of one node. An agent that is refused again and again opens one in a second.
pub const SESSIONS: Limits =
    Limits { burst: 16, interval: Duration::from_millis(500), wait_max: Duration::from_secs(5) };

pub struct DispatcherService {
    pub store: Store,
    pub sessions: Arc<Sessions>,
    pub reach: Arc<Reach>,
    pub fanout: Arc<Fanout>,
    pub reports: Reports,
    pub tunnels: Tunnels,
    pub clock: Arc<NodeClock>,
    pub authority: Arc<LeaseAuthority>,
    pub settling: Arc<Settling>,
    pub allowance: Allowance<NodeId>,
}

impl Dispatcher for DispatcherService {
    async fn session(
        &self,
        caller: Caller,
        mut input: Messages<AgentMessage>,
    ) -> Result<Messages<ManagerMessage>, Refusal> {
        let identity = caller.member()?;
        // A replica that lags behind, as after a start, would take from a node what it was given since, and turn
        // away one that has just joined.
        let cluster = self.store.linearizable().await.map_err(not_current)?;
        let node = Arc::clone(standing(&cluster, identity)?);
        self.take_turn(node.id).await?;
        let hello = match tokio::time::timeout(HELLO_WAIT, input.next()).await {
            Ok(Some(Ok(AgentMessage::Hello(hello)))) => hello,
            Ok(Some(Err(refusal))) => return Err(refusal),
            Ok(_) => return Err(Refusal::new(RefusalKind::Invalid, "a session begins with a hello")),
            Err(_) => return Err(Refusal::new(RefusalKind::TimedOut, "no hello came within 10 s")),
        };
        check_protocol(&hello)?;
        let address = match (&hello.address, caller) {
            (told, _) if !told.is_empty() => told.clone(),
            (_, Caller::Member { address, .. }) => address.ip().to_string(),
            (_, Caller::Local { .. } | Caller::Lapsed { .. } | Caller::Anonymous { .. }) => String::new(),
        };
        let said = hello.tunnel.map(|tunnel| Said::new(node.id, tunnel, &address));
        let seen_at = address.clone();
        said.iter().try_for_each(|said| refuse_copy(&cluster, said))?;
        self.reach.claim(node.id, Origin { instance: hello.instance.clone(), address: address.clone() }).await?;
        self.report_ready(&cluster, &node, &hello, address).await?;
        let held_back = !cluster.has(Feature::Services);
        if let Some(said) = said {
            // The writer ends last, when there are no sessions any more.
            let _ = self.tunnels.send(said);
        }
        let (to_agent, from_manager) = mpsc::channel(QUEUE);
        let session = self.sessions.open(node.id, to_agent.clone());
        tracing::info!(node.id = %node.id, node.hostname = hello.description.hostname, "session opened");
        let driver = Driver {
            session,
            sessions: Arc::clone(&self.sessions),
            cluster: self.fanout.watch(node.id),
            reports: self.reports.clone(),
            grants: Grants::new(Arc::clone(&self.authority), node.id),
            to_agent,
            standing: None,
            certificate_role: identity.role,
            clock: Arc::clone(&self.clock),
            trust: TrustTold::default(),
            taken: hello.acknowledges.then(|| self.settling.follow(node.id)),
            settling: Arc::clone(&self.settling),
            peers: PeersTold::default(),
            sent: AssignmentSet::new(),
            revision: 0,
            held_back: held_back.then_some(hello.description),
            tunnels: self.tunnels.clone(),
            seen_at,
        };
        tokio::spawn(driver.run(input, node.id));
        Ok(ReceiverStream::new(from_manager).map(Ok).boxed())
    }
}

impl DispatcherService {
    async fn take_turn(&self, node: NodeId) -> Result<(), Refusal> {
        match self.allowance.admit(node, Instant::now()) {
            Some(wait) => {
                tokio::time::sleep(wait).await;
                Ok(())
            }
            None => {
                let message = format!("node {node} opens sessions too fast: is there a copy of it?");
                Err(Refusal::new(RefusalKind::Unavailable, message))
            }
        }
    }

    /// The node is there: written only when the cluster does not know it already.
    async fn report_ready(
        &self,
        cluster: &Cluster,
        node: &Node,
        hello: &Hello,
        address: String,
    ) -> Result<(), Refusal> {
        let description = description::writable(cluster, &hello.description);
        let status = NodeStatus { state: NodeState::Ready, message: String::new(), address };
        if node.status == status && node.description.as_ref() == Some(&description) {
            return Ok(());
        }
        let description = Some(Box::new(description));
        let change = Change::ReportNode { node: node.id, description, status, at: wall_clock() };
        self.store.propose(vec![change]).await.map_err(not_written)?;
        Ok(())
    }
}

fn check_protocol(hello: &Hello) -> Result<(), Refusal> {
    if hello.protocol == DISPATCH_PROTOCOL {
        return Ok(());
    }
    let message = format!(
        "the agent speaks session protocol {}, this manager {DISPATCH_PROTOCOL}; install the same skep version on both",
        hello.protocol
    );
    Err(Refusal::new(RefusalKind::Unsupported, message))
}

/// One session's loop and what it owns.
struct Driver {
    session: OpenSession,
    sessions: Arc<Sessions>,
    cluster: watch::Receiver<Arc<Cluster>>,
    reports: Reports,
    grants: Grants,
    to_agent: mpsc::Sender<ManagerMessage>,
    /// As the agent was told last.
    standing: Option<Standing>,
    /// The role in the certificate that the session was opened with.
    certificate_role: Role,
    clock: Arc<NodeClock>,
    trust: TrustTold,
    /// Absent where the agent does not say what it has applied.
    taken: Option<watch::Sender<Taken>>,
    settling: Arc<Settling>,
    peers: PeersTold,
    sent: AssignmentSet,
    revision: u64,
    /// What the node said of itself, where not all of it could be written.
    held_back: Option<NodeDescription>,
    tunnels: Tunnels,
    /// Where the managers see the node.
    seen_at: String,
}

#[allow(clippy::large_enum_variant, reason = "there is one at a time, in its session's loop")]
enum Event {
    Message(Option<Result<AgentMessage, Refusal>>),
    ClusterChanged,
    Granted(LeaseGrant),
    Over,
}

impl Driver {
    async fn run(mut self, mut input: Messages<AgentMessage>, node: NodeId) {
        if self.welcome().await.is_err() {
            return;
        }
        loop {
            let event = tokio::select! {
                message = input.next() => Event::Message(message),
                changed = self.cluster.changed() => if changed.is_ok() { Event::ClusterChanged } else { Event::Over },
                grant = self.grants.next() => Event::Granted(grant),
                () = self.session.ended.cancelled() => Event::Over,
            };
            let more = match event {
                Event::Message(Some(Ok(message))) => {
                    // Its daemon waits for the end, so that it knows to have been heard.
                    let leaves = matches!(message, AgentMessage::Leaving);
                    self.take(message);
                    !leaves
                }
                Event::Message(Some(Err(_)) | None) | Event::Over => false,
                Event::ClusterChanged => self.send_changes().await,
                Event::Granted(grant) => self.to_agent.send(ManagerMessage::LeaseGrant(grant)).await.is_ok(),
            };
            if !more {
                tracing::info!(node.id = %node, "session ended");
                return;
            }
        }
    }

    async fn welcome(&mut self) -> Result<(), mpsc::error::SendError<ManagerMessage>> {
        let cluster = self.cluster.borrow_and_update().clone();
        let period = cluster.config.as_ref().map(|config| config.spec.heartbeat_period);
        let welcome = Welcome {
            node: self.session.node,
            heartbeat_period: period.unwrap_or(Duration::from_secs(1)),
            managers: addresses(&cluster),
            time: self.clock.now(),
            settles: true,
        };
        self.to_agent.send(ManagerMessage::Welcome(welcome)).await?;
        self.send_standing(&cluster).await?;
        if let Some(update) = self.trust.news(&cluster, self.session.node, self.certificate_role) {
            self.to_agent.send(ManagerMessage::Trust(update)).await?;
        }
        self.revision = 1;
        let full = self.news(&cluster).whole(self.revision);
        self.note_taken(cluster.version);
        self.to_agent.send(ManagerMessage::Assignments(full)).await
    }

    /// What the agent lacks, which it is taken to have from now on.
    fn news(&mut self, cluster: &Cluster) -> Difference {
        let (wanted, networks) = own_assignments(cluster, self.session.node);
        let mut news = Difference::between(&self.sent, &wanted);
        news.extend(self.peers.news(cluster, self.session.node, &networks));
        self.sent = wanted;
        news
    }

    /// Tells the node of itself when there is something new.
    async fn send_standing(&mut self, cluster: &Cluster) -> Result<(), mpsc::error::SendError<ManagerMessage>> {
        let standing = standing_of(cluster, self.session.node);
        if standing == self.standing {
            return Ok(());
        }
        self.standing = standing.clone();
        match standing {
            Some(standing) => self.to_agent.send(ManagerMessage::Standing(standing)).await,
            None => Ok(()),
        }
    }

    /// False when the agent is gone or the node is no longer a member.
    async fn send_changes(&mut self) -> bool {
        let cluster = self.cluster.borrow_and_update().clone();
        if !cluster.nodes.contains_key(&self.session.node) || self.send_standing(&cluster).await.is_err() {
            return false;
        }
        if let Some(update) = self.trust.news(&cluster, self.session.node, self.certificate_role)
            && self.to_agent.send(ManagerMessage::Trust(update)).await.is_err()
        {
            return false;
        }
        if self.held_back.as_ref().is_some_and(|said| description::is_to_be_said_again(&cluster, said)) {
            // Once in a cluster's life, of the few nodes that have such a thing: the next session says it.
            return false;
        }
        self.grants.note_cluster(&cluster);
        let delta = self.news(&cluster).after(self.revision);
        if let Some(delta) = &delta {
            self.revision = delta.revision;
        }
        self.note_taken(cluster.version);
        let Some(delta) = delta else { return true };
        self.to_agent.send(ManagerMessage::Assignments(delta)).await.is_ok()
    }

    /// What the agent is to have as of this version is in what it was sent, or is about to be.
    fn note_taken(&self, picture: Version) {
        if let Some(taken) = &self.taken {
            taken.send_modify(|taken| (taken.picture, taken.sent) = (picture, self.revision));
        }
    }

    fn note_applied(&self, revision: u64) {
        if let Some(taken) = &self.taken {
            taken.send_modify(|taken| taken.applied = revision);
        }
    }

    /// The node has another key; a key that is another node's is refused where it is written.
    fn note_tunnel(&self, node: NodeId, hello: TunnelHello) {
        // The writer ends last, when there are no sessions any more.
        let _ = self.tunnels.send(Said::new(node, hello, &self.seen_at));
    }

    /// Answers when the cluster has settled; an agent that is gone by then does not wait.
    fn settle(&self, task: TaskId) {
        let (settling, to_agent, ended) =
            (Arc::clone(&self.settling), self.to_agent.clone(), self.session.ended.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = settling.everywhere() => drop(to_agent.send(ManagerMessage::Settled { task }).await),
                () = ended.cancelled() => {}
            }
        });
    }

    fn take(&mut self, message: AgentMessage) {
        let node = self.session.node;
        self.sessions.note_heard(node, matches!(message, AgentMessage::Leaving));
        match message {
            AgentMessage::Report { tasks } => {
                for TaskReport { task, status } in tasks {
                    self.reports.report(node, task, status);
                }
            }
            AgentMessage::Log { .. }
            | AgentMessage::Exec { .. }
            | AgentMessage::Probed { .. }
            | AgentMessage::End { .. } => self.sessions.answer(node, message),
            AgentMessage::Heartbeat { sent } => self.grants.note_heartbeat(sent),
            AgentMessage::Applied { revision } => self.note_applied(revision),
            AgentMessage::Settle { task } => self.settle(task),
            AgentMessage::Tunnel(hello) => self.note_tunnel(node, hello),
            AgentMessage::Leaving | AgentMessage::Hello(_) => {}
        }
    }
}
