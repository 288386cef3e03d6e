//! What members ask of the list of members: their standing, to be taken in, to leave.

use std::sync::Arc;
use std::time::Duration;

use skep_api::{
    AgentMessage, Caller, EnrollRequest, Messages, NodeClaim, NodeStanding, PresenceNote, PresenceReport, Question,
    Refusal, RefusalKind, Roster, SettledRequest,
};
use skep_model::{Change, Cluster, ManagerStatus, Node, NodeId, NodeState, NodeStatus, Role, Version};
use skep_store::{ProposeError, Store};

use crate::clock::wall_clock;
use crate::judgement::LEFT;
use crate::presence;
use crate::reach::Reach;
use crate::refusal::not_written;
use crate::role_news::addresses;
use crate::sessions::Origin;
use crate::settling::Settling;

/// How long a manager that leaves waits to be out of Raft's list.
const LEAVE_WAIT: Duration = Duration::from_secs(30);

pub struct RosterService {
    pub store: Store,
    pub reach: Arc<Reach>,
    pub settling: Arc<Settling>,
}

impl Roster for RosterService {
    async fn standing(&self, caller: Caller, (): ()) -> Result<NodeStanding, Refusal> {
        let id = caller.member()?.node_id;
        // A replica that lags behind must not send a node back to a role that it had.
        let cluster = self.store.linearizable().await.map_err(|error| unavailable(&error))?;
        Ok(standing_of(&cluster, known(&cluster, id)?))
    }

    async fn enroll(&self, caller: Caller, request: EnrollRequest) -> Result<NodeStanding, Refusal> {
        let id = caller.member()?.node_id;
        let address = complete(&request.address, caller)?;
        loop {
            let cluster = self.store.linearizable().await.map_err(|error| unavailable(&error))?;
            let node = known(&cluster, id)?;
            if node.spec.role != Role::Manager {
                let message = format!("node {id} is a worker; `skep node promote` on a manager makes it one");
                return Err(Refusal::new(RefusalKind::Denied, message));
            }
            let raft_id = cluster.config.as_ref().map_or(0, |config| config.next_raft_id);
            let manager = Some(ManagerStatus { raft_id, address: address.clone() });
            match self.store.propose(vec![Change::SetNodeManager { node: id, manager, at: wall_clock() }]).await {
                Ok(committed) => return Ok(standing_of(&committed.cluster, known(&committed.cluster, id)?)),
                // Another node took the number; the next is free.
                Err(ProposeError::Rejected(_)) if self.store.cluster().version != cluster.version => {}
                Err(error) => return Err(not_written(error)),
            }
        }
    }

    async fn leave(&self, caller: Caller, (): ()) -> Result<(), Refusal> {
        leave(&self.store, caller.member()?.node_id).await
    }

    async fn claim(&self, caller: Caller, claim: NodeClaim) -> Result<(), Refusal> {
        self.manager(caller)?;
        let NodeClaim { node, instance, address } = claim;
        self.reach.sessions.claim(node, Origin { instance, address })
    }

    async fn settled(&self, caller: Caller, request: SettledRequest) -> Result<(), Refusal> {
        self.manager(caller)?;
        self.settling.here(Version(request.version)).await;
        Ok(())
    }

    async fn presence(
        &self,
        caller: Caller,
        input: Messages<PresenceReport>,
    ) -> Result<Messages<PresenceNote>, Refusal> {
        let from = self.manager(caller)?;
        Ok(presence::take(self.store.clone(), Arc::clone(&self.reach.sessions), from, input))
    }

    async fn ask(&self, caller: Caller, input: Messages<Question>) -> Result<Messages<AgentMessage>, Refusal> {
        self.manager(caller)?;
        self.reach.answer(input).await
    }
}

impl RosterService {
    /// The Raft id of the manager that calls; its certificate says that it was one, the state that it is.
    fn manager(&self, caller: Caller) -> Result<u64, Refusal> {
        let id = caller.member()?.node_id;
        let cluster = self.store.cluster();
        let manager = cluster.nodes.get(&id).and_then(|node| node.manager.as_ref());
        manager.map(|manager| manager.raft_id).ok_or_else(|| {
            Refusal::new(RefusalKind::Denied, format!("node {id} is not, or no longer, a manager of this cluster"))
        })
    }
}

/// Takes a node out: a manager leaves Raft's list first; what is left is a node that is down, until it is removed.
async fn leave(store: &Store, id: NodeId) -> Result<(), Refusal> {
    let mut watch = store.watch();
    let deadline = tokio::time::Instant::now() + LEAVE_WAIT;
    loop {
        let cluster = watch.borrow_and_update().clone();
        let Some(node) = cluster.nodes.get(&id) else { return Ok(()) };
        if node.spec.role == Role::Manager && node.manager.is_some() {
            let others = cluster.nodes.values().filter(|other| other.id != id && other.manager.is_some()).count();
            if others == 0 {
                let message = "the last manager cannot leave the cluster; `skep leave --force` on it ends the cluster";
                return Err(Refusal::new(RefusalKind::Conflict, message));
            }
            let spec = skep_model::NodeSpec { role: Role::Worker, ..node.spec.clone() };
            let change = Change::UpdateNodeSpec { node: id, expected: node.meta.version, spec, at: wall_clock() };
            match store.propose(vec![change]).await {
                Ok(_) | Err(ProposeError::Rejected(_)) => continue,
                Err(error) => return Err(not_written(error)),
            }
        }
        if node.manager.is_none() {
            let message = LEFT.to_owned();
            let status = NodeStatus { state: NodeState::Down, message, address: node.status.address.clone() };
            let change = Change::ReportNode { node: id, description: None, status, at: wall_clock() };
            return store.propose(vec![change]).await.map(drop).map_err(not_written);
        }
        if tokio::time::timeout_at(deadline, watch.changed()).await.is_err() {
            let message = "the other managers did not take this one out within 30 s; see `skep node ls` on one of them";
            return Err(Refusal::new(RefusalKind::TimedOut, message));
        }
    }
}

fn known(cluster: &Cluster, id: NodeId) -> Result<&Node, Refusal> {
    let node = cluster.nodes.get(&id).map(|node| &**node);
    node.ok_or_else(|| Refusal::new(RefusalKind::Denied, format!("node {id} is no longer a member of this cluster")))
}

/// What the cluster takes a node for. One that is to be a worker stays a manager until Raft's list is without it.
fn standing_of(cluster: &Cluster, node: &Node) -> NodeStanding {
    let role = if node.manager.is_some() { Role::Manager } else { node.spec.role };
    let raft_id = node.manager.as_ref().map(|manager| manager.raft_id);
    NodeStanding { role, raft_id, managers: addresses(cluster) }
}

/// `host:port` with the host that the caller was seen at, if it names none.
fn complete(address: &str, caller: Caller) -> Result<String, Refusal> {
    match (address.strip_prefix(':'), caller) {
        (None, _) if address.contains(':') => Ok(address.to_owned()),
        (Some(port), Caller::Member { address, .. }) if address.is_ipv6() => Ok(format!("[{}]:{port}", address.ip())),
        (Some(port), Caller::Member { address, .. }) => Ok(format!("{}:{port}", address.ip())),
        _ => {
            Err(Refusal::new(RefusalKind::Invalid, format!("`{address}` is no address of a manager: write host:port")))
        }
    }
}

fn unavailable(error: &skep_store::ReadError) -> Refusal {
    Refusal::new(RefusalKind::Unavailable, error.to_string())
}
