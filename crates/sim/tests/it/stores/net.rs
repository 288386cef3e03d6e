//! The way between managers, in memory: delays, losses, cuts of either direction, straight into the real service.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::{BoxFuture, Either, FutureExt, select};
use futures::stream::{BoxStream, StreamExt};
use skep_api::{
    AppendReply, AppendRequest, ApplyHashReply, ApplyHashRequest, Caller, Messages, Peer, ProposeFailure, ProposeReply,
    ProposeRequest, ReadIndexReply, ReadIndexRequest, Refusal, RefusalKind, SnapshotPart, SnapshotReply, TransferReply,
    TransferRequest, VoteReply, VoteRequest,
};
use skep_identity::PeerIdentity;
use skep_model::{ClusterId, IdSource, NodeId, Role};
use skep_store::{Answer, PeerAddress, PeerNetwork, PeerService};
use tokio::sync::watch;

pub struct Net {
    cut: watch::Sender<BTreeSet<(u64, u64)>>,
    services: Mutex<BTreeMap<u64, Arc<PeerService>>>,
    chance: Mutex<IdSource>,
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Net")
    }
}

impl Net {
    pub fn new(seed: u64) -> Arc<Net> {
        let chance = Mutex::new(IdSource::from_seed(u128::from(seed)));
        Arc::new(Net { cut: watch::Sender::new(BTreeSet::new()), services: Mutex::default(), chance })
    }

    pub fn serve(&self, raft_id: u64, service: Arc<PeerService>) {
        self.services.lock().unwrap().insert(raft_id, service);
    }

    pub fn unplug(&self, raft_id: u64) {
        self.services.lock().unwrap().remove(&raft_id);
        self.cut(raft_id, true, true);
    }

    /// Cuts a manager off from all others, in one direction or both.
    pub fn cut(&self, raft_id: u64, out: bool, into: bool) {
        self.cut.send_modify(|cut| {
            for other in (1..10).filter(|other| *other != raft_id) {
                cut.extend(out.then_some((raft_id, other)).into_iter().chain(into.then_some((other, raft_id))));
            }
        });
    }

    pub fn heal(&self, raft_id: u64) {
        self.cut.send_modify(|cut| cut.retain(|(from, to)| *from != raft_id && *to != raft_id));
    }

    fn is_open(&self, from: u64, to: u64) -> bool {
        !self.cut.borrow().contains(&(from, to))
    }

    /// Returns once nothing passes from one to the other.
    fn closed(&self, from: u64, to: u64) -> impl Future<Output = ()> + Send + use<> {
        let mut cut = self.cut.subscribe();
        async move {
            // The net outlives the managers.
            let _ = cut.wait_for(|cut| cut.contains(&(from, to))).await;
        }
    }

    /// A delay; `None` for a message that is lost.
    fn delay(&self) -> Option<Duration> {
        let mut chance = self.chance.lock().unwrap();
        match chance.below(100) {
            0 => None,
            1..=5 => Some(Duration::from_millis(chance.below(60))),
            _ => Some(Duration::from_micros(chance.below(2000))),
        }
    }
}

/// One manager's way to the others.
#[derive(Debug, Clone)]
pub struct Way {
    pub from: u64,
    pub net: Arc<Net>,
}

fn lost() -> Refusal {
    Refusal::new(RefusalKind::Unavailable, "lost on the way")
}

impl Way {
    fn caller(&self) -> Caller {
        let identity = PeerIdentity {
            node_id: NodeId::from_u128(u128::from(self.from)),
            role: Role::Manager,
            cluster_id: ClusterId::from_u128(1),
        };
        Caller::Member { identity, address: "127.0.0.1:1".parse().unwrap() }
    }

    /// Calls the other's service; the answer goes back over the other direction.
    fn call<T: Send + 'static, F>(
        &self,
        to: u64,
        call: impl FnOnce(Arc<PeerService>, Caller) -> F + Send + 'static,
    ) -> Answer<T>
    where
        F: Future<Output = Result<T, Refusal>> + Send + 'static,
    {
        let (way, net) = (self.clone(), Arc::clone(&self.net));
        async move {
            let there = net.delay().filter(|_| net.is_open(way.from, to));
            let Some(there) = there else { return never().await };
            tokio::time::sleep(there).await;
            let service = net.services.lock().unwrap().get(&to).cloned().ok_or_else(lost)?;
            let back = net.closed(to, way.from);
            let answered = std::pin::pin!(call(service, way.caller()));
            let answer = match select(answered, std::pin::pin!(back)).await {
                Either::Left((answer, _)) => answer,
                Either::Right(_) => return Err(lost()),
            };
            match net.delay() {
                Some(delay) => tokio::time::sleep(delay).await,
                None => return never().await,
            }
            answer
        }
        .boxed()
    }
}

async fn never<T>() -> Result<T, Refusal> {
    tokio::time::sleep(Duration::from_secs(2)).await;
    Err(lost())
}

impl PeerNetwork for Way {
    fn vote(&self, to: &PeerAddress, request: VoteRequest) -> Answer<VoteReply> {
        self.call(to.raft_id, move |service, caller| async move { service.vote(caller, request).await })
    }

    fn pre_vote(&self, to: &PeerAddress, request: VoteRequest) -> Answer<VoteReply> {
        self.call(to.raft_id, move |service, caller| async move { service.pre_vote(caller, request).await })
    }

    fn beat(&self, to: &PeerAddress, request: AppendRequest) -> Answer<AppendReply> {
        self.call(to.raft_id, move |service, caller| async move { service.beat(caller, request).await })
    }

    fn append(&self, to: &PeerAddress, requests: BoxStream<'static, AppendRequest>) -> Answer<Messages<AppendReply>> {
        let (from, to) = (self.from, to.raft_id);
        let requests = requests.map(Ok).take_until(self.net.closed(from, to)).boxed();
        let (back, net) = (self.net.closed(to, from), Arc::clone(&self.net));
        // A stream that is cut breaks; one whose requests came to their end just ends.
        let end = async move { (!net.is_open(from, to) || !net.is_open(to, from)).then(|| Err(lost())) };
        let end = futures::stream::once(end).filter_map(async |end| end);
        let replies = self.call(to, move |service, caller| async move { service.append(caller, requests).await });
        async move { Ok(replies.await?.take_until(back).chain(end).boxed()) }.boxed()
    }

    fn snapshot(&self, to: &PeerAddress, parts: BoxStream<'static, SnapshotPart>) -> Answer<SnapshotReply> {
        let parts = parts.map(Ok).take_until(self.net.closed(self.from, to.raft_id)).boxed();
        self.call(to.raft_id, move |service, caller| async move { service.snapshot(caller, parts).await })
    }

    fn transfer_leader(&self, to: &PeerAddress, request: TransferRequest) -> Answer<TransferReply> {
        self.call(to.raft_id, move |service, caller| async move { service.transfer_leader(caller, request).await })
    }

    fn propose(
        &self,
        to: &PeerAddress,
        request: ProposeRequest,
    ) -> BoxFuture<'static, Result<ProposeReply, ProposeFailure>> {
        if !self.net.is_open(self.from, to.raft_id) {
            return async { Err(ProposeFailure::NotProposed(lost())) }.boxed();
        }
        let answer =
            self.call(to.raft_id, move |service, caller| async move { service.propose(caller, request).await });
        answer.map(|answer| answer.map_err(ProposeFailure::Unknown)).boxed()
    }

    fn read_index(&self, to: &PeerAddress, request: ReadIndexRequest) -> Answer<ReadIndexReply> {
        self.call(to.raft_id, move |service, caller| async move { service.read_index(caller, request).await })
    }

    fn apply_hash(&self, to: &PeerAddress, request: ApplyHashRequest) -> Answer<ApplyHashReply> {
        self.call(to.raft_id, move |service, caller| async move { service.apply_hash(caller, request).await })
    }
}
