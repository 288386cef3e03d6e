//! A switch between managers: a closed way loses what is sent and what would be answered over it.

use std::collections::BTreeSet;

use futures::future::{BoxFuture, FutureExt, select};
use futures::stream::{self, BoxStream, StreamExt};
use skep_api::{
    AppendReply, AppendRequest, ApplyHashReply, ApplyHashRequest, Messages, ProposeFailure, ProposeReply,
    ProposeRequest, ReadIndexReply, ReadIndexRequest, Refusal, RefusalKind, SnapshotPart, SnapshotReply, TransferReply,
    TransferRequest, VoteReply, VoteRequest,
};
use skep_store::{Answer, GrpcPeers, PeerAddress, PeerNetwork};
use std::sync::Arc;
use tokio::sync::watch;

/// Which managers can reach which.
#[derive(Debug)]
pub struct Switch {
    cut: watch::Sender<BTreeSet<(u64, u64)>>,
}

impl Default for Switch {
    fn default() -> Switch {
        Switch { cut: watch::Sender::new(BTreeSet::new()) }
    }
}

impl Switch {
    /// Nothing to or from this manager passes.
    pub fn isolate(&self, raft_id: u64) {
        self.cut.send_modify(|cut| cut.extend((1..10).flat_map(|other| [(raft_id, other), (other, raft_id)])));
    }

    pub fn heal(&self) {
        self.cut.send_modify(BTreeSet::clear);
    }

    fn is_open(&self, from: u64, to: u64) -> bool {
        !self.cut.borrow().contains(&(from, to))
    }

    /// Returns once nothing passes between these two.
    fn closed(&self, from: u64, to: u64) -> BoxFuture<'static, ()> {
        let mut cut = self.cut.subscribe();
        async move {
            // The switch outlives the managers.
            let _ = cut.wait_for(|cut| cut.contains(&(from, to))).await;
        }
        .boxed()
    }
}

/// One manager's way to the others, through the switch.
#[derive(Debug)]
pub struct Switched {
    pub from: u64,
    pub switch: Arc<Switch>,
    pub inner: GrpcPeers,
}

fn lost() -> Refusal {
    Refusal::new(RefusalKind::Unavailable, "cut off by the test's switch")
}

impl Switched {
    fn pass<T: Send + 'static>(&self, to: &PeerAddress, call: impl FnOnce() -> Answer<T>) -> Answer<T> {
        if !self.switch.is_open(self.from, to.raft_id) {
            return async { Err(lost()) }.boxed();
        }
        let closed = self.switch.closed(self.from, to.raft_id);
        select(call(), closed.map(|()| Err(lost()))).map(|first| first.factor_first().0).boxed()
    }
}

impl PeerNetwork for Switched {
    fn vote(&self, to: &PeerAddress, request: VoteRequest) -> Answer<VoteReply> {
        self.pass(to, || self.inner.vote(to, request))
    }

    fn pre_vote(&self, to: &PeerAddress, request: VoteRequest) -> Answer<VoteReply> {
        self.pass(to, || self.inner.pre_vote(to, request))
    }

    fn beat(&self, to: &PeerAddress, request: AppendRequest) -> Answer<AppendReply> {
        self.pass(to, || self.inner.beat(to, request))
    }

    fn append(&self, to: &PeerAddress, requests: BoxStream<'static, AppendRequest>) -> Answer<Messages<AppendReply>> {
        let closed = self.switch.closed(self.from, to.raft_id);
        let requests = requests.take_until(self.switch.closed(self.from, to.raft_id)).boxed();
        let replies = self.pass(to, || self.inner.append(to, requests));
        async move {
            let passing = (replies.await?, closed);
            let replies = stream::unfold(Some(passing), |passing| async {
                let (mut replies, mut closed) = passing?;
                tokio::select! {
                    reply = replies.next() => reply.map(|reply| (reply, Some((replies, closed)))),
                    () = &mut closed => Some((Err(lost()), None)),
                }
            });
            Ok(replies.boxed())
        }
        .boxed()
    }

    fn snapshot(&self, to: &PeerAddress, parts: BoxStream<'static, SnapshotPart>) -> Answer<SnapshotReply> {
        self.pass(to, || self.inner.snapshot(to, parts))
    }

    fn transfer_leader(&self, to: &PeerAddress, request: TransferRequest) -> Answer<TransferReply> {
        self.pass(to, || self.inner.transfer_leader(to, request))
    }

    fn propose(
        &self,
        to: &PeerAddress,
        request: ProposeRequest,
    ) -> BoxFuture<'static, Result<ProposeReply, ProposeFailure>> {
        if !self.switch.is_open(self.from, to.raft_id) {
            return async { Err(ProposeFailure::NotProposed(lost())) }.boxed();
        }
        let closed = self.switch.closed(self.from, to.raft_id).map(|()| Err(ProposeFailure::Unknown(lost())));
        select(self.inner.propose(to, request), closed).map(|first| first.factor_first().0).boxed()
    }

    fn read_index(&self, to: &PeerAddress, request: ReadIndexRequest) -> Answer<ReadIndexReply> {
        self.pass(to, || self.inner.read_index(to, request))
    }

    fn apply_hash(&self, to: &PeerAddress, request: ApplyHashRequest) -> Answer<ApplyHashReply> {
        self.pass(to, || self.inner.apply_hash(to, request))
    }
}
