//! The managers' network as gRPC over mutual TLS, with connections that are kept, and mended with patience.
//!
//! ```text
//!  Idle ─▶ Connecting ─▶ Ready ── a call fails, or nothing is answered for 2 s ──▶ Idle
//!    ▲          └─ failed: wait 50 ms, twice as long each time, at most 500 ms
//!    └──────────┘
//! ```
//! A connection is made by a task of its own, so that a caller with little time (a heartbeat has 100 ms) can give up
//! and the next one finds it made. A connection that a partition froze is left for a new one: TCP itself would try
//! again only after as long as the partition lasted.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, Shared};
use futures::stream::{BoxStream, Stream};
use skep_api::{
    AppendReply, AppendRequest, ApplyHashReply, ApplyHashRequest, Messages, PeerClient, ProposeFailure, ProposeReply,
    ProposeRequest, ReadIndexReply, ReadIndexRequest, Refusal, RefusalKind, SnapshotPart, SnapshotReply, TransferReply,
    TransferRequest, VoteReply, VoteRequest, connect_tls,
};
use skep_identity::TlsConnector;
use tokio::time::{Instant, timeout};

use super::{Answer, PeerAddress, PeerNetwork};

/// For TCP and TLS together.
const CONNECT: Duration = Duration::from_secs(3);
/// How long a connection may leave calls unanswered before it is given up.
const SILENCE: Duration = Duration::from_secs(2);
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_millis(500);

/// Managers reached over the cluster's port, as the node whose certificate the connector holds.
#[derive(Debug)]
pub struct GrpcPeers {
    connector: TlsConnector,
    lines: Mutex<BTreeMap<(String, Lane), Arc<Line>>>,
    places: Mutex<BTreeMap<u64, Place>>,
}

/// Where a manager is.
#[derive(Debug, Default, Clone)]
struct Place {
    listed: String,
    /// Where it was heard from, or somebody said that it is.
    learnt: Option<String>,
}

/// Which of a manager's two connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Lane {
    /// Small and urgent: heartbeats, votes.
    Control,
    /// Everything that may be large.
    Bulk,
}

/// One connection, made when needed and made again when broken.
#[derive(Debug)]
struct Line {
    address: String,
    connector: TlsConnector,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Idle { failures: u32, not_before: Instant, why: Option<Refusal> },
    Connecting { connecting: Connecting, failures: u32 },
    Ready { client: PeerClient, unanswered_since: Option<Instant> },
}

type Connecting = Shared<BoxFuture<'static, Result<PeerClient, Refusal>>>;

impl GrpcPeers {
    /// `connector` must expect a manager at the other end.
    pub fn new(connector: TlsConnector) -> GrpcPeers {
        GrpcPeers { connector, lines: Mutex::default(), places: Mutex::default() }
    }

    fn places(&self) -> MutexGuard<'_, BTreeMap<u64, Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The listed address, as long as it does not fail more than the learnt one.
    fn line(&self, to: &PeerAddress, lane: Lane) -> Arc<Line> {
        let learnt = {
            let mut places = self.places();
            let place = places.entry(to.raft_id).or_default();
            if place.listed != to.address {
                place.listed.clone_from(&to.address);
            }
            place.learnt.clone().filter(|learnt| *learnt != to.address)
        };
        let listed = self.line_to(&to.address, lane);
        let learnt = learnt.map(|learnt| self.line_to(&learnt, lane));
        learnt.filter(|learnt| learnt.failures() < listed.failures()).unwrap_or(listed)
    }

    fn line_to(&self, address: &str, lane: Lane) -> Arc<Line> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let line = lines.entry((address.to_owned(), lane)).or_insert_with(|| {
            let state = State::Idle { failures: 0, not_before: Instant::now(), why: None };
            Arc::new(Line { address: address.to_owned(), connector: self.connector.clone(), state: Mutex::new(state) })
        });
        Arc::clone(line)
    }

    fn call<T, F>(&self, to: &PeerAddress, lane: Lane, call: impl FnOnce(PeerClient) -> F + Send + 'static) -> Answer<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Refusal>> + Send + 'static,
    {
        let line = self.line(to, lane);
        async move {
            let client = line.client().await?;
            let watched = Watched::begin(line);
            let answer = call(client).await;
            watched.end(answer.as_ref().err());
            answer
        }
        .boxed()
    }
}

impl Line {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tries in a row that failed.
    fn failures(&self) -> u32 {
        match &*self.state() {
            State::Idle { failures, .. } | State::Connecting { failures, .. } => *failures,
            State::Ready { .. } => 0,
        }
    }

    fn is_ready(&self) -> bool {
        matches!(*self.state(), State::Ready { .. })
    }

    async fn client(self: &Arc<Line>) -> Result<PeerClient, Refusal> {
        let connecting = {
            let mut state = self.state();
            match &*state {
                State::Ready { client, .. } => return Ok(client.clone()),
                State::Connecting { connecting, .. } => connecting.clone(),
                State::Idle { not_before, why: Some(why), .. } if Instant::now() < *not_before => {
                    return Err(why.clone());
                }
                State::Idle { failures, .. } => {
                    let (failures, connecting) = (*failures, self.connect(*failures));
                    *state = State::Connecting { connecting: connecting.clone(), failures };
                    connecting
                }
            }
        };
        connecting.await
    }

    fn connect(self: &Arc<Line>, failures: u32) -> Connecting {
        let line = Arc::clone(self);
        let task = tokio::spawn(async move {
            let connected = match timeout(CONNECT, connect_tls(&line.address, line.connector.clone())).await {
                Ok(Ok(connection)) => Ok(PeerClient::new(connection)),
                Ok(Err(error)) => Err(Refusal { kind: RefusalKind::Unavailable, ..Refusal::internal(&error) }),
                Err(_) => {
                    let words = format!("no connection to {} within {} s", line.address, CONNECT.as_secs());
                    Err(Refusal::new(RefusalKind::Unavailable, words))
                }
            };
            *line.state() = match &connected {
                Ok(client) => State::Ready { client: client.clone(), unanswered_since: None },
                Err(why) => {
                    tracing::debug!(peer.address = %line.address, %why, "no connection to a manager");
                    let wait = BACKOFF_MAX.min(BACKOFF_MIN * 2_u32.saturating_pow(failures));
                    State::Idle { failures: failures + 1, not_before: Instant::now() + wait, why: Some(why.clone()) }
                }
            };
            connected
        });
        // A panic in there has been reported where it happened.
        async move { task.await.unwrap_or_else(|error| Err(Refusal::internal(&error))) }.boxed().shared()
    }

    /// What is broken is not used again; calls that run on it end by themselves.
    fn give_up(&self) {
        let mut state = self.state();
        if matches!(*state, State::Ready { .. }) {
            *state = State::Idle { failures: 0, not_before: Instant::now(), why: None };
        }
    }
}

/// A call under way. Dropped without an answer, it counts against the connection.
struct Watched {
    line: Arc<Line>,
    answered: bool,
}

impl Watched {
    fn begin(line: Arc<Line>) -> Watched {
        if let State::Ready { unanswered_since, .. } = &mut *line.state() {
            unanswered_since.get_or_insert_with(Instant::now);
        }
        Watched { line, answered: false }
    }

    fn end(mut self, failed: Option<&Refusal>) {
        self.answered = true;
        if failed.is_some_and(|refusal| refusal.kind == RefusalKind::Unavailable) {
            self.line.give_up();
        } else if let State::Ready { unanswered_since, .. } = &mut *self.line.state() {
            *unanswered_since = None;
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if self.answered {
            return;
        }
        let silent = match &*self.line.state() {
            State::Ready { unanswered_since: Some(since), .. } => since.elapsed() > SILENCE,
            _ => false,
        };
        if silent {
            self.line.give_up();
        }
    }
}

/// A type without a lifetime: with one, the compiler cannot prove that the calls' futures are `Send`
/// (<https://github.com/rust-lang/rust/issues/110338>).
struct Outgoing<T>(BoxStream<'static, T>);

impl<T> Stream for Outgoing<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        self.0.as_mut().poll_next(cx)
    }
}

impl PeerNetwork for GrpcPeers {
    fn vote(&self, to: &PeerAddress, request: VoteRequest) -> Answer<VoteReply> {
        self.call(to, Lane::Control, async move |peer| peer.vote(request).await)
    }

    fn pre_vote(&self, to: &PeerAddress, request: VoteRequest) -> Answer<VoteReply> {
        self.call(to, Lane::Control, async move |peer| peer.pre_vote(request).await)
    }

    fn beat(&self, to: &PeerAddress, request: AppendRequest) -> Answer<AppendReply> {
        self.call(to, Lane::Control, async move |peer| peer.beat(request).await)
    }

    fn append(&self, to: &PeerAddress, requests: BoxStream<'static, AppendRequest>) -> Answer<Messages<AppendReply>> {
        self.call(to, Lane::Bulk, async move |peer| peer.append(Outgoing(requests)).await)
    }

    fn snapshot(&self, to: &PeerAddress, parts: BoxStream<'static, SnapshotPart>) -> Answer<SnapshotReply> {
        self.call(to, Lane::Bulk, async move |peer| peer.snapshot(Outgoing(parts)).await)
    }

    fn transfer_leader(&self, to: &PeerAddress, request: TransferRequest) -> Answer<TransferReply> {
        self.call(to, Lane::Control, async move |peer| peer.transfer_leader(request).await)
    }

    fn propose(
        &self,
        to: &PeerAddress,
        request: ProposeRequest,
    ) -> BoxFuture<'static, Result<ProposeReply, ProposeFailure>> {
        let line = self.line(to, Lane::Bulk);
        async move {
            let client = line.client().await.map_err(ProposeFailure::NotProposed)?;
            let watched = Watched::begin(line);
            let answer = client.propose_once(request).await;
            watched.end(match &answer {
                Ok(_) => None,
                Err(ProposeFailure::NotProposed(refusal) | ProposeFailure::Unknown(refusal)) => Some(refusal),
            });
            answer
        }
        .boxed()
    }

    fn read_index(&self, to: &PeerAddress, request: ReadIndexRequest) -> Answer<ReadIndexReply> {
        self.call(to, Lane::Control, async move |peer| peer.read_index(request).await)
    }

    fn apply_hash(&self, to: &PeerAddress, request: ApplyHashRequest) -> Answer<ApplyHashReply> {
        self.call(to, Lane::Bulk, async move |peer| peer.apply_hash(request).await)
    }

    fn learn_address(&self, raft_id: u64, address: String) {
        self.places().entry(raft_id).or_default().learnt = Some(address);
    }

    fn learnt(&self) -> BTreeMap<u64, String> {
        let places = self.places();
        let learnt = |place: &Place| place.learnt.clone().filter(|learnt| *learnt != place.listed);
        places.iter().filter_map(|(raft_id, place)| Some((*raft_id, learnt(place)?))).collect()
    }

    fn moved(&self) -> BTreeMap<u64, String> {
        let places = self.places().clone();
        let moved = places.into_iter().filter_map(|(raft_id, Place { listed, learnt })| {
            let learnt = learnt.filter(|learnt| *learnt != listed)?;
            let answers = self.line_to(&learnt, Lane::Control).is_ready();
            (answers && self.line_to(&listed, Lane::Control).failures() > 0).then_some((raft_id, learnt))
        });
        moved.collect()
    }
}
