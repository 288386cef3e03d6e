//! The node is what the cluster takes it for: promoted, it becomes a manager; demoted, it ceases to be one.
//!
//! ```text
//!  session's news ──┐
//!  own replica ─────┼─▶ ask a manager that is sure ─▶ certificate ─▶ enroll ─▶ replica, port
//!  no leader heard ─┘                                    └────────▶ no manager: replica and port go
//! ```
//! Each step can be repeated: a daemon that was killed in the middle goes on at its next start.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use skep_api::{
    CaClient, Connection, EnrollRequest, NodeStanding, Refusal, RefusalKind, RenewRequest, RosterClient, Standing,
    connect_tls,
};
use skep_identity::{Credentials, Expect, Tls};
use skep_manager::wall_clock;
use skep_model::{Change, Cluster, ManagerStatus, Role};
use skep_store::Leadership;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::address::host_port;
use super::member::{Member, MemberFile};
use super::membership::{Membership, remove_if_there};

/// Between two looks when nothing tells.
const ROUND: Duration = Duration::from_secs(2);
/// A replica that hears no leader for so long asks whether it still belongs.
const LEADERLESS: Duration = Duration::from_secs(3);
/// How long one manager may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is to become of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Stay,
    /// The manager here is listed where it is no more.
    Move,
    BecomeManager,
    BecomeWorker,
}

/// Where news of the node's role come from.
struct News {
    standing: Option<watch::Receiver<Option<Standing>>>,
    /// Of a manager.
    cluster: Option<watch::Receiver<Arc<Cluster>>>,
}

impl News {
    /// Returns at the next news; never where none can come.
    async fn next(self) {
        tokio::select! {
            () = changed(self.standing) => {}
            () = changed(self.cluster) => {}
        }
    }
}

async fn changed<T>(watch: Option<watch::Receiver<T>>) {
    let Some(mut watch) = watch else { return std::future::pending().await };
    if watch.changed().await.is_err() {
        std::future::pending().await
    }
}

impl Membership {
    /// Follows the node's standing until `stop`.
    pub async fn mind_standing(self: Arc<Self>, stop: CancellationToken) {
        let mut told = None;
        loop {
            // From here on, so that nothing is missed while the turn is taken.
            let news = self.news().await;
            let turned = match self.turn().await {
                Ok(Turn::Stay) => Ok(()),
                Ok(Turn::Move) => self.list_own_address().await,
                Ok(Turn::BecomeManager) => self.become_manager().await,
                Ok(Turn::BecomeWorker) => self.become_worker().await,
                Err(error) => Err(error),
            };
            let problem = turned.err().map(|error| format!("{error:#}"));
            if let Some(problem) = problem.as_ref().filter(|problem| told.as_ref() != Some(*problem)) {
                tracing::warn!(problem, "this node's role could not be followed; it will be tried again");
            }
            told = problem;
            tokio::select! {
                () = news.next() => {}
                () = tokio::time::sleep(ROUND) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// What may change the node's role from now on.
    async fn news(&self) -> News {
        let watches = self.look(|member| (member.agent.standing(), member.store().map(|store| store.watch()))).await;
        let Some((mut standing, mut cluster)) = watches else { return News { standing: None, cluster: None } };
        // A fresh receiver calls news what was there before it.
        standing.mark_unchanged();
        cluster.iter_mut().for_each(watch::Receiver::mark_unchanged);
        News { standing: Some(standing), cluster }
    }

    async fn turn(&self) -> Result<Turn> {
        let seen = self.look(Seen::of).await;
        let Some(seen) = seen else { return Ok(Turn::Stay) };
        let Seen { is_manager, has_moved, told, own_role, leaderless, tls, others } = seen;
        match is_manager {
            false if told == Some(Role::Manager) || tls.identity().role == Role::Manager => Ok(Turn::BecomeManager),
            false => Ok(Turn::Stay),
            true if own_role == Some(Role::Worker) || told == Some(Role::Worker) || leaderless => {
                // Only a manager that is sure may end a replica.
                match ask(&tls, &others, PATIENCE, |connection| async {
                    RosterClient::new(connection).standing(()).await
                })
                .await
                {
                    Ok(NodeStanding { role: Role::Worker, raft_id: None, .. }) => Ok(Turn::BecomeWorker),
                    Ok(_) => Ok(Turn::Stay),
                    // The others may be as much in the dark as this one.
                    Err(refusal) if refusal.kind != RefusalKind::Denied => Ok(Turn::Stay),
                    Err(refusal) => Err(anyhow!("{refusal}; `skep leave --force` here, then join again")),
                }
            }
            true if has_moved => Ok(Turn::Move),
            true => Ok(Turn::Stay),
        }
    }

    /// Tells the cluster where its manager here is now.
    async fn list_own_address(&self) -> Result<()> {
        let own = |member: &Member| {
            Some((member.store()?.clone(), member.tls.identity().node_id, member.own_address.clone()))
        };
        let Some((store, node, address)) = self.look(own).await.flatten() else { return Ok(()) };
        let manager = Some(ManagerStatus { raft_id: store.raft_id(), address });
        let change = Change::SetNodeManager { node, manager, at: wall_clock() };
        store.propose(vec![change]).await.context("the new address of this manager could not be written")?;
        Ok(())
    }

    /// Makes this member a manager; returns once its replica and its port are there.
    pub(super) async fn become_manager(&self) -> Result<()> {
        let mut guard = self.lock().await;
        let Some(member) = guard.as_mut().filter(|member| member.store().is_none()) else { return Ok(()) };
        if member.tls.identity().role != Role::Manager {
            self.renew(member).await.context("failed to get a manager's certificate")?;
        }
        let port = self.config.listen_address().port();
        let request = EnrollRequest { address: host_port(&member.file.advertise_address, port) };
        let managers = member.others();
        let enroll = |connection| {
            let request = request.clone();
            async move { RosterClient::new(connection).enroll(request).await }
        };
        let enrolled = ask(&member.tls, &managers, PATIENCE, enroll).await;
        let NodeStanding { raft_id, managers, .. } = enrolled.map_err(|refusal| anyhow!(refusal))?;
        // Under a fresh number a replica begins empty.
        remove_if_there(&self.config.data_dir.join("raft"))?;
        member.file.raft_id = raft_id;
        MemberFile::update(&self.config.data_dir, |file| {
            file.raft_id = raft_id;
            file.managers = managers;
        })?;
        member.start_manager(&self.setup()).await?;
        tracing::info!(raft_id, "this node is a manager now");
        Ok(())
    }

    async fn become_worker(&self) -> Result<()> {
        let mut guard = self.lock().await;
        let Some(member) = guard.as_mut() else { return Ok(()) };
        self.renew(member).await.context("failed to get a worker's certificate")?;
        member.file.raft_id = None;
        let others = member.others();
        MemberFile::update(&self.config.data_dir, |file| {
            file.raft_id = None;
            file.managers = others;
        })?;
        member.stop_manager(&self.setup()).await;
        remove_if_there(&self.config.data_dir.join("raft"))?;
        // A worker has no key that would be worth a lock.
        let vault = Arc::clone(&self.vault);
        tokio::task::spawn_blocking(move || vault.release()).await??;
        tracing::info!("this node is a worker now");
        Ok(())
    }

    /// A certificate with the role that the node has now.
    async fn renew(&self, member: &Member) -> Result<()> {
        let identity = self.identity();
        let key = self.vault.node_key()?;
        let csr = Bytes::from(key.request()?);
        let renew = |connection| {
            let request = RenewRequest { csr: csr.clone() };
            async move { CaClient::new(connection).renew(request).await }
        };
        let issued = ask(&member.tls, &member.others(), PATIENCE, renew).await.map_err(|refusal| anyhow!(refusal))?;
        let credentials = Credentials::new(key, &issued.certificate, &issued.authorities)?;
        identity.store(&credentials)?;
        member.tls.replace(&credentials)?;
        Ok(())
    }
}

/// What a node sees of its own standing.
struct Seen {
    is_manager: bool,
    has_moved: bool,
    /// What its session said last.
    told: Option<Role>,
    /// What its own replica holds.
    own_role: Option<Role>,
    leaderless: bool,
    tls: Tls,
    others: Vec<String>,
}

impl Seen {
    fn of(member: &Member) -> Seen {
        let told = member.agent.standing().borrow().as_ref().map(|standing| match standing.raft_id {
            Some(_) => Role::Manager,
            None => standing.role,
        });
        let own = member.tls.identity().node_id;
        let own_role = member.store().and_then(|store| {
            let cluster = store.cluster();
            let node = cluster.nodes.get(&own)?;
            Some(if node.manager.is_some() { node.spec.role } else { Role::Worker })
        });
        let listed = member.store().and_then(|store| Some(store.cluster().nodes.get(&own)?.manager.clone()?.address));
        // Without an address of its own it was listed where others saw it.
        let has_moved = !member.file.advertise_address.is_empty() && listed.is_some_and(|it| it != member.own_address);
        let leaderless = member.store().is_some_and(|store| {
            matches!(*store.leadership().borrow(), Leadership::Follower { leader: None })
                && store.quorum().is_some_and(|lost| lost.age() > LEADERLESS)
        });
        let others = member.others();
        Seen {
            is_manager: member.store().is_some(),
            has_moved,
            told,
            own_role,
            leaderless,
            tls: member.tls.clone(),
            others,
        }
    }
}

/// Asks one manager after the other; a refusal of the request itself ends it.
pub(super) async fn ask<T, F>(
    tls: &Tls,
    managers: &[String],
    patience: Duration,
    call: impl Fn(Connection) -> F,
) -> Result<T, Refusal>
where
    F: Future<Output = Result<T, Refusal>>,
{
    let mut last = Refusal::new(RefusalKind::Unavailable, "no other manager is known");
    for manager in managers {
        let answer = tokio::time::timeout(patience, async {
            let connection = connect_tls(manager, tls.connector(Expect::Role(Role::Manager)))
                .await
                .map_err(|error| Refusal::new(RefusalKind::Unavailable, format!("manager {manager}: {error}")))?;
            call(connection).await
        });
        match answer.await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(refusal)) if refusal.kind == RefusalKind::Denied => return Err(refusal),
            Ok(Err(refusal)) => last = refusal,
            Err(_) => last = Refusal::new(RefusalKind::TimedOut, format!("manager {manager} did not answer")),
        }
    }
    Err(last)
}
