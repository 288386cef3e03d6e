//! Joining a cluster, and telling it good-bye.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use skep_agent::chain;
use skep_api::{
    CaClient, IssueRequest, IssuedCertificate, JoinRequest, Joined, Refusal, RefusalKind, RosterClient, connect_join,
};
use skep_identity::{Credentials, Expect, JoinConnector, JoinToken};
use skep_model::Role;

use super::address::{address_towards, advertise_address, listen_address};
use super::config::NodeConfig;
use super::member::{Member, MemberFile};
use super::membership::{Membership, internal, invalid};
use super::node_clock::node_clock;
use super::pool::own_routes;
use super::standing::ask;

/// Longer than the managers take to give up on it.
const LEAVE_WAIT: Duration = Duration::from_secs(40);
/// How long a joining manager waits for its vote: a large state takes its time on a slow link.
const VOTE_WAIT: Duration = Duration::from_secs(60);

impl Membership {
    /// Joins the cluster of the token's manager; returns once the node has the role that the token stands for.
    pub async fn join(&self, request: JoinRequest) -> Result<Joined, Refusal> {
        if request.reconnect {
            return self.reconnect(request.managers).await;
        }
        let JoinRequest { token, managers, advertise_address: advertise, listen_address: listen, availability, .. } =
            request;
        let listen_address = listen.as_deref().map(listen_address).transpose().map_err(invalid)?;
        let advertise = advertise.or_else(|| self.config.advertise_address.clone());
        let advertise = advertise.map(advertise_address).transpose().map_err(invalid)?;
        let parsed: JoinToken = token.parse().map_err(|error| Refusal::new(RefusalKind::Invalid, chain(&error)))?;
        let mut member = self.lock().await;
        self.refuse_member(member.as_ref())?;
        listen_address.inspect(|address| self.config.listen_at(*address));
        let identity = self.identity();
        let key = identity.key().map_err(|error| internal(error.into()))?;
        let csr = Bytes::from(key.request().map_err(|error| internal(error.into()))?);
        let routes = own_routes().await.map_err(internal)?;
        let request = IssueRequest { token, csr, availability, level: skep_agent::own_level(), routes };
        let (issued, manager) = first_certificate(&self.config, &managers, &parsed, &request).await?;
        let credentials =
            Credentials::new(key, &issued.certificate, &issued.authorities).map_err(|error| internal(error.into()))?;
        let advertise_address = match advertise {
            Some(address) => address,
            None => address_towards(manager).await.unwrap_or_default(),
        };
        let file =
            MemberFile { format: MemberFile::FORMAT, managers, advertise_address, raft_id: None, listen_address };
        file.store(&self.config.data_dir).map_err(internal)?;
        identity.store(&credentials).map_err(|error| internal(error.into()))?;
        *member = Some(self.start(&credentials, file).await.map_err(internal)?);
        drop(member);
        let cluster = credentials.identity().cluster_id;
        let mut joined = Joined { node: issued.node, cluster, role: issued.role, warnings: Vec::new() };
        if issued.role == Role::Manager {
            self.become_manager().await.map_err(internal)?;
            joined.warnings.extend(self.await_vote().await.map_err(internal)?);
        }
        Ok(joined)
    }

    /// Goes on as the member that this node is, with managers that are at these addresses now.
    async fn reconnect(&self, managers: Vec<String>) -> Result<Joined, Refusal> {
        let mut guard = self.lock().await;
        let Some(member) = guard.take() else {
            let message = "this node is not part of a cluster; `skep join --token …` makes it part of one";
            return Err(Refusal::new(RefusalKind::Conflict, message));
        };
        let reached = reach(&member, &managers).await;
        if let (Ok(()), None) = (&reached, member.store()) {
            // A worker's agent begins again with what it is told here.
            member.stop(&self.gate).await;
            MemberFile::update(&self.config.data_dir, |file| file.managers = managers).map_err(internal)?;
            self.resume_as(&mut guard).await.map_err(internal)?;
        } else {
            *guard = Some(member);
        }
        reached?;
        let member = guard.as_ref().ok_or_else(|| internal(anyhow!("this node is no member any more")))?;
        let identity = member.tls.identity();
        let (node, cluster, role) = (identity.node_id, identity.cluster_id, identity.role);
        Ok(Joined { node, cluster, role, warnings: Vec::new() })
    }

    /// Returns once this manager has a vote; with what its operator should know.
    async fn await_vote(&self) -> Result<Option<String>> {
        let store = self.look(|member| member.store().cloned()).await.flatten().context("this node is no manager")?;
        let mut members = store.watch_members();
        let voting = async { members.wait_for(|members| members.voters.contains_key(&store.raft_id())).await.is_ok() };
        match tokio::time::timeout(VOTE_WAIT, voting).await {
            Ok(true) => {
                let count = store.members().voters.len();
                Ok(count.is_multiple_of(2).then(|| skep_manager::even_number(count)))
            }
            Ok(false) => bail!("this manager's store has stopped; the daemon's log says why"),
            Err(_) => Ok(Some(format!(
                "this manager has no vote yet after {} s; it gets one when it has the whole state: see `skep node ls`",
                VOTE_WAIT.as_secs()
            ))),
        }
    }
}

/// Looks who is at each address; a manager's replica then knows them there.
async fn reach(member: &Member, managers: &[String]) -> Result<(), Refusal> {
    let mut found = Err(Refusal::new(RefusalKind::Invalid, "no manager's address was given"));
    for address in managers {
        match member.tls.connector(Expect::Role(Role::Manager)).connect(address.as_str()).await {
            Ok((_, identity)) => {
                found = Ok(());
                let Some(store) = member.store() else { continue };
                let cluster = store.cluster();
                let node = cluster.nodes.get(&identity.node_id);
                if let Some(manager) = node.and_then(|node| node.manager.as_ref()) {
                    store.learn_address(manager.raft_id, address);
                }
            }
            Err(error) if found.is_err() => {
                found = Err(Refusal::new(RefusalKind::Unavailable, format!("{address}: {}", chain(&error))));
            }
            Err(error) => tracing::warn!(address, error = chain(&error), "nobody of this cluster is there"),
        }
    }
    found
}

/// The first certificate, from the first manager that gives one; and which that was.
async fn first_certificate<'a>(
    config: &NodeConfig,
    managers: &'a [String],
    token: &JoinToken,
    request: &IssueRequest,
) -> Result<(IssuedCertificate, &'a str), Refusal> {
    let mut refused = Refusal::new(RefusalKind::Invalid, "no manager's address was given");
    for manager in managers {
        let connector = JoinConnector::new(token.ca(), Arc::new(node_clock(config)));
        let issued = match connect_join(manager, connector).await {
            Ok(connection) => CaClient::new(connection).issue(request.clone()).await,
            Err(error) => Err(Refusal::new(RefusalKind::Unavailable, format!("{manager}: {}", chain(&error)))),
        };
        match issued {
            Ok(issued) => return Ok((issued, manager)),
            Err(refusal) => refused = refusal,
        }
    }
    Err(refused)
}

/// Tells the cluster that this node goes: a manager is out of Raft's list when this returns. Another manager sees to it,
/// for whoever leaves the list is not told of its end.
pub(super) async fn tell_leaving(member: &Member) -> Result<(), Refusal> {
    let others = member.others();
    if member.store().is_some_and(|store| store.members().voters.len() <= 1) {
        return Ok(());
    }
    let leave = |connection| async { RosterClient::new(connection).leave(()).await };
    ask(&member.tls, &others, LEAVE_WAIT, leave).await
}
