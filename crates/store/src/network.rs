//! Raft's way out: openraft's network traits on a [`PeerNetwork`].
//!
//! Each request gets its time limit here, from openraft's. Where a manager is now is looked up with each call, since
//! openraft keeps the address that a connection began with.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt, Stream, StreamExt, stream};
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{RPCOption, RPCTypes, RaftNetworkFactory, RaftNetworkV2, stream_append_sequential};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError, StreamAppendResult,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use skep_api::{
    AppendReply, Messages, PEER_PROTOCOL, PeerLink, Refusal, RefusalKind, SnapshotBegin, SnapshotPart, SnapshotReply,
    TransferReply,
};
use tokio::time::{Instant, sleep, timeout};

use crate::contacts::Contacts;
use crate::peers::{Answer, PeerAddress, PeerNetwork};
use crate::presence::Presence;
use crate::raft::{Member, Types, Voted, encode_membership};
use crate::state_machine::StateSnapshot;
use crate::wire;

/// The largest part of a snapshot.
const SNAPSHOT_PART: usize = 1 << 20;
/// The slowest that a snapshot may travel, in bytes per second, beyond [`RPCOption::hard_ttl`].
const SNAPSHOT_PACE: u64 = 256 << 10;
/// A connection may have to be made first.
const APPEND_OPEN: Duration = Duration::from_millis(2500);
/// A stream that broke is opened again after this: openraft itself would do so at once, without end.
const APPEND_RETRY: Duration = Duration::from_millis(200);
/// How long a follower's disk may take for an append.
const APPEND_ANSWER: Duration = Duration::from_secs(5);

type Matches<'s> = BoxStream<'s, Result<StreamAppendResult<Types>, RPCError<Types>>>;

/// What this manager knows of the others and how it reaches them; shared by everything that speaks or listens.
pub(crate) struct Outside {
    pub(crate) raft_id: u64,
    pub(crate) peers: Arc<dyn PeerNetwork>,
    pub(crate) contacts: Contacts,
    pub(crate) presence: Presence,
    addresses: RwLock<BTreeMap<u64, String>>,
    halted: OnceLock<Arc<str>>,
    halt: tokio::sync::Notify,
}

impl Outside {
    pub(crate) fn new(raft_id: u64, peers: Arc<dyn PeerNetwork>, patience: Duration) -> Outside {
        Outside {
            raft_id,
            peers,
            contacts: Contacts::new(patience),
            presence: Presence::default(),
            addresses: RwLock::default(),
            halted: OnceLock::new(),
            halt: tokio::sync::Notify::new(),
        }
    }

    pub(crate) fn link(&self, to: u64) -> PeerLink {
        PeerLink { protocol: PEER_PROTOCOL, from: self.raft_id, to }
    }

    pub(crate) fn set_addresses(&self, addresses: BTreeMap<u64, String>) {
        *self.addresses.write().unwrap_or_else(PoisonError::into_inner) = addresses;
    }

    pub(crate) fn address_of(&self, raft_id: u64) -> Option<PeerAddress> {
        let addresses = self.addresses.read().unwrap_or_else(PoisonError::into_inner);
        addresses.get(&raft_id).map(|address| PeerAddress { raft_id, address: address.clone() })
    }

    /// This manager must not go on, for this reason; the first one stays.
    pub(crate) fn stop(&self, reason: impl Into<Arc<str>>) {
        let reason = reason.into();
        if self.halted.set(Arc::clone(&reason)).is_ok() {
            tracing::error!(%reason, "this manager stops taking part in the cluster");
        }
        self.halt.notify_one();
    }

    /// Why it must not go on, if it must not.
    pub(crate) fn stopped(&self) -> Option<Arc<str>> {
        self.halted.get().cloned()
    }

    /// Returns when it must not go on. For one waiter.
    pub(crate) async fn stopping(&self) {
        self.halt.notified().await;
    }
}

/// Makes the connection to each manager in Raft's list.
pub(crate) struct Managers(pub(crate) Arc<Outside>);

/// The connection to one manager.
pub(crate) struct Manager {
    outside: Arc<Outside>,
    to: PeerAddress,
    way: Way,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Heartbeats: one request, one answer.
    Beats,
    Everything,
}

impl Managers {
    fn manager(&self, target: u64, node: &Member, way: Way) -> Manager {
        let to = PeerAddress { raft_id: target, address: node.address.clone() };
        Manager { outside: Arc::clone(&self.0), to, way }
    }
}

impl RaftNetworkFactory<Types> for Managers {
    type Network = Manager;

    async fn new_client(&mut self, target: u64, node: &Member) -> Manager {
        self.manager(target, node, Way::Everything)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &Member) -> Manager {
        self.manager(target, node, Way::Beats)
    }
}

impl Manager {
    fn target(&self) -> PeerAddress {
        self.outside.address_of(self.to.raft_id).unwrap_or_else(|| self.to.clone())
    }

    async fn ask<T>(&self, what: RPCTypes, limit: Duration, answer: Answer<T>) -> Result<T, RPCError<Types>> {
        let contacts = &self.outside.contacts;
        match timeout(limit, answer).await {
            Ok(Ok(answer)) => {
                contacts.answered(self.to.raft_id);
                Ok(answer)
            }
            Ok(Err(refusal)) => {
                contacts.failed(self.to.raft_id, Instant::now());
                Err(Unreachable::from_string(self.words(&refusal)).into())
            }
            Err(_) => {
                contacts.failed(self.to.raft_id, Instant::now());
                let (id, target) = (self.outside.raft_id, self.to.raft_id);
                Err(Timeout { action: what, id, target, timeout: limit }.into())
            }
        }
    }

    /// As `ask`; a peer that turns this manager away says why.
    async fn ask_vote<T: 'static>(&self, option: &RPCOption, answer: Answer<T>) -> Result<T, RPCError<Types>> {
        let outside = Arc::clone(&self.outside);
        let watched = answer.inspect(move |answer| {
            if let Err(Refusal { kind: RefusalKind::Conflict, message }) = answer {
                outside.stop(message.as_str());
            }
        });
        self.ask(RPCTypes::Vote, option.hard_ttl(), watched.boxed()).await
    }

    fn words(&self, refusal: &Refusal) -> String {
        format!("manager {} at {}: {refusal}", self.to.raft_id, self.target().address)
    }

    fn append_request(&self, request: AppendEntriesRequest<Types>) -> skep_api::AppendRequest {
        let presence = &self.outside.presence;
        if let Some(committed) = &request.leader_commit {
            presence.committed(request.vote.leader_id.term, committed.index);
        }
        wire::append_request(self.outside.link(self.to.raft_id), request, presence.all())
    }

    fn snapshot_parts(&self, vote: &Voted, snapshot: StateSnapshot) -> stream::BoxStream<'static, SnapshotPart> {
        let meta = snapshot.meta;
        let mut data: Bytes = snapshot.snapshot;
        let begin = SnapshotPart::Begin(SnapshotBegin {
            link: self.outside.link(self.to.raft_id),
            vote: wire::raft_vote_of(vote),
            last: meta.last_log_id.as_ref().map(wire::position_of),
            members_at: meta.last_membership.log_id().as_ref().map(wire::position_of),
            members: encode_membership(meta.last_membership.membership()).into(),
            size: data.len() as u64,
        });
        let parts = std::iter::from_fn(move || {
            let part = data.split_to(data.len().min(SNAPSHOT_PART));
            (!part.is_empty()).then_some(SnapshotPart::Data(part))
        });
        stream::iter(std::iter::once(begin).chain(parts)).boxed()
    }
}

impl RaftNetworkV2<Types> for Manager {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let term = request.vote.leader_id.term;
        let request = self.append_request(request);
        let beat = self.outside.peers.beat(&self.target(), request);
        let reply = self.ask(RPCTypes::AppendEntries, option.hard_ttl(), beat).await?;
        match checked(&self.outside, self.to.raft_id, term, reply)? {
            Ok(_) => Ok(AppendEntriesResponse::Success),
            Err(StreamAppendError::Conflict(_)) => Ok(AppendEntriesResponse::Conflict),
            Err(StreamAppendError::HigherVote(vote)) => Ok(AppendEntriesResponse::HigherVote(vote)),
        }
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<Matches<'s>, RPCError<Types>>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + Send + Unpin + 'static,
    {
        if self.way == Way::Beats {
            return stream_append_sequential(self, input, option);
        }
        Box::pin(pipeline(self, input))
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let Outside { peers, presence, .. } = &*self.outside;
        let request = wire::vote_request(self.outside.link(self.to.raft_id), &request, presence.of(self.to.raft_id));
        let reply = self.ask_vote(&option, peers.vote(&self.target(), request)).await?;
        Ok(wire::raft_vote_reply(&reply))
    }

    /// openraft's own answer would be to grant it.
    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let Outside { peers, presence, .. } = &*self.outside;
        let request = wire::vote_request(self.outside.link(self.to.raft_id), &request, presence.of(self.to.raft_id));
        let reply = self.ask_vote(&option, peers.pre_vote(&self.target(), request)).await?;
        Ok(wire::raft_vote_reply(&reply))
    }

    async fn full_snapshot(
        &mut self,
        vote: Voted,
        snapshot: StateSnapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let size = snapshot.snapshot.len() as u64;
        let limit = option.hard_ttl() + Duration::from_secs(size / SNAPSHOT_PACE);
        let sending = self.outside.peers.snapshot(&self.target(), self.snapshot_parts(&vote, snapshot));
        let SnapshotReply { vote } = tokio::select! {
            reply = self.ask(RPCTypes::InstallSnapshot, limit, sending) => reply?,
            closed = cancel => return Err(closed.into()),
        };
        Ok(SnapshotResponse::new(wire::voted(vote)))
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        let message = wire::transfer_request(self.outside.link(self.to.raft_id), &request);
        let transfer = self.outside.peers.transfer_leader(&self.target(), message);
        match self.ask(RPCTypes::TransferLeader, option.hard_ttl(), transfer).await? {
            TransferReply::Accepted => Ok(Ok(())),
            TransferReply::Refused { reason } => Err(Unreachable::from_string(reason).into()),
        }
    }
}

/// Appends in one stream, any number of them under way.
async fn pipeline<'s, S>(manager: &'s Manager, input: S) -> Result<Matches<'s>, RPCError<Types>>
where
    S: Stream<Item = AppendEntriesRequest<Types>> + Send + Unpin + 'static,
{
    let raft_id = manager.to.raft_id;
    // When each request was sent, and in which term.
    let under_way: Arc<Mutex<VecDeque<(Instant, u64)>>> = Arc::default();
    let sent = Arc::clone(&under_way);
    let sender = Manager { outside: Arc::clone(&manager.outside), to: manager.to.clone(), way: manager.way };
    let requests = input.map(move |request| {
        sent.lock().unwrap_or_else(PoisonError::into_inner).push_back((Instant::now(), request.vote.leader_id.term));
        sender.append_request(request)
    });
    let opening = manager.outside.peers.append(&manager.target(), requests.boxed());
    let replies = match timeout(APPEND_OPEN, opening).await {
        Ok(Ok(replies)) => replies,
        Ok(Err(refusal)) => {
            sleep(APPEND_RETRY).await;
            return Err(Unreachable::from_string(manager.words(&refusal)).into());
        }
        Err(_) => return Err(Unreachable::from_string("no answer in time").into()),
    };
    let matches = stream::unfold(Some(replies), move |replies| {
        let under_way = Arc::clone(&under_way);
        async move {
            let mut replies = replies?;
            let matched = match next_reply(&mut replies, &under_way).await? {
                Ok(reply) => {
                    let (_, term) = under_way.lock().unwrap_or_else(PoisonError::into_inner).pop_front()?;
                    manager.outside.contacts.answered(raft_id);
                    checked(&manager.outside, raft_id, term, reply)
                }
                Err(refusal) => Err(Unreachable::from_string(manager.words(&refusal)).into()),
            };
            if matched.is_err() {
                sleep(APPEND_RETRY).await;
            }
            let goes_on = matches!(matched, Ok(Ok(_)));
            Some((matched, goes_on.then_some(replies)))
        }
    });
    Ok(Box::pin(matches))
}

/// The next reply; an error when one has been awaited for too long, and none when the stream ended.
async fn next_reply(
    replies: &mut Messages<AppendReply>,
    under_way: &Mutex<VecDeque<(Instant, u64)>>,
) -> Option<Result<AppendReply, Refusal>> {
    loop {
        if let Ok(reply) = timeout(APPEND_ANSWER, replies.next()).await {
            return reply;
        }
        let oldest = under_way.lock().unwrap_or_else(PoisonError::into_inner).front().copied();
        if oldest.is_some_and(|(sent, _)| sent.elapsed() >= APPEND_ANSWER) {
            let words = format!("no answer to an append within {} s", APPEND_ANSWER.as_secs());
            return Some(Err(Refusal::new(RefusalKind::TimedOut, words)));
        }
    }
}

/// Notes what a follower acknowledged. One that conflicts with what it acknowledged before has lost it: openraft
/// takes that for a bug and panics, so it is treated as out of reach until the leader changes.
fn checked(
    outside: &Outside,
    raft_id: u64,
    term: u64,
    reply: AppendReply,
) -> Result<StreamAppendResult<Types>, RPCError<Types>> {
    match &reply {
        AppendReply::Matched { last: Some(last) } => outside.presence.matched(raft_id, term, last.index),
        AppendReply::Conflict(at) if outside.presence.has_matched(raft_id, term, at.index) => {
            let words = format!("manager {raft_id} lost entry {}, which it had acknowledged", at.index);
            return Err(Unreachable::from_string(words).into());
        }
        AppendReply::Matched { last: None } | AppendReply::Conflict(_) | AppendReply::HigherVote(_) => {}
    }
    Ok(wire::raft_append_reply(reply))
}
