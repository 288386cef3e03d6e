//! Writing and reading at any manager: at the leader directly, at the others through it.
//!
//! ```text
//!  propose ─▶ who leads? ── here ──▶ Raft ─▶ applied ─▶ answer
//!               ▲   └── there ─▶ Peer.propose ─▶ its index ─▶ own replica has applied it ─▶ answer
//!               └── not it (any more): surely not proposed, look again ──┘
//! ```
//! A proposal is sent again only when it surely was not proposed; what may have been is [`ProposeError::Unknown`].

use std::time::Duration;

use bytes::Bytes;
use openraft::ReadPolicy;
use openraft::errors::{ClientWriteError, Fatal, RaftError};
use skep_api::{NotLeading, ProposeFailure, ProposeReply, ProposeRequest, ReadIndexReply, ReadIndexRequest, Refusal};
use skep_model::{Change, Cluster, Rejection};
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::error::{ProposeError, ReadError, reason};
use crate::leadership::Leadership;
use crate::peers::PeerAddress;
use crate::raft::Proposal;
use crate::store::{Committed, Store};

/// The most bytes that one proposal may have, encoded.
pub(crate) const PROPOSAL_BYTES_MAX: usize = 4 << 20;
/// How long a proposal may be under way: long enough for a disk that stalls.
pub(crate) const ANSWER: Duration = Duration::from_secs(15);
/// How long an election is waited for at least.
const ELECTION: Duration = Duration::from_secs(5);
/// How long a follower is given to come to the state that a proposal was refused in.
const CATCH_UP: Duration = Duration::from_secs(2);
const RETRY: Duration = Duration::from_millis(50);

/// What came of a proposal at the leader.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) revision: u64,
    pub(crate) result: Result<Arc<Cluster>, Rejection>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Missed {
    /// This one does not lead; nothing was proposed. Who may lead.
    Elsewhere(Option<PeerAddress>),
    Failed(ProposeError),
}

enum Leader {
    Here,
    There(PeerAddress),
    Nobody,
}

/// Looks for the leader until the time is up.
struct Search {
    store: Store,
    leadership: watch::Receiver<Leadership>,
    until: Instant,
    hint: Option<PeerAddress>,
}

impl Search {
    fn new(store: &Store) -> Search {
        let patience = store.inner.outside.contacts.patience();
        let mut until = Instant::now() + ELECTION.max(4 * patience);
        if store.quorum().is_some_and(|lost| lost.age() > ELECTION) {
            // It has been waited for already.
            until = Instant::now();
        }
        Search { store: store.clone(), leadership: store.leadership(), until, hint: None }
    }

    fn leader(&mut self) -> Leader {
        if let Some(hint) = self.hint.take() {
            return Leader::There(hint);
        }
        let own = self.store.inner.raft_id;
        match *self.leadership.borrow_and_update() {
            Leadership::Leader { .. } => Leader::Here,
            Leadership::Follower { leader: Some(id) } if id != own => {
                self.store.inner.outside.address_of(id).map_or(Leader::Nobody, Leader::There)
            }
            Leadership::Follower { .. } | Leadership::Stopped { .. } => Leader::Nobody,
        }
    }

    /// After a miss: whether it is worth to look again. Waits until something may have changed.
    async fn go_on(&mut self, hint: Option<PeerAddress>) -> bool {
        if Instant::now() >= self.until || self.store.stop_reason().is_some() {
            return false;
        }
        let own = self.store.inner.raft_id;
        self.hint = hint.filter(|at| at.raft_id != own);
        // Also with a hint: two managers may each hold the other for the leader.
        tokio::select! {
            _ = self.leadership.changed() => {}
            () = sleep(RETRY) => {}
        }
        true
    }
}

impl Store {
    /// Proposes changes, to be applied together or not at all; returns when this manager's state has them.
    ///
    /// At any manager: another one passes them to the leader. While there is no leader it waits for one, at least
    /// 5 s; what was surely not proposed is tried again meanwhile. Any number of proposals may be under way; Raft
    /// writes what is waiting in one go.
    pub async fn propose(&self, changes: Vec<Change>) -> Result<Committed, ProposeError> {
        let bytes = encode(changes)?;
        let mut search = Search::new(self);
        loop {
            let attempt = match search.leader() {
                Leader::Here => self.write(bytes.clone()).await,
                Leader::There(leader) => self.forward(&leader, bytes.clone()).await,
                Leader::Nobody => Err(Missed::Elsewhere(None)),
            };
            match attempt {
                Ok(Written { revision, result }) => return Ok(Committed { revision, cluster: result? }),
                Err(Missed::Failed(error)) => return Err(error),
                Err(Missed::Elsewhere(hint)) => {
                    if !search.go_on(hint).await {
                        return Err(self.no_leader());
                    }
                }
            }
        }
    }

    /// As [`Store::propose`], but only if this manager leads: for what the leader decides, which another leader
    /// would decide anew.
    pub async fn propose_here(&self, changes: Vec<Change>) -> Result<Committed, ProposeError> {
        match self.write(encode(changes)?).await {
            Ok(Written { revision, result }) => Ok(Committed { revision, cluster: result? }),
            Err(Missed::Failed(error)) => Err(error),
            Err(Missed::Elsewhere(leader)) => {
                let (leader, address) = leader.map(|at| (at.raft_id, at.address)).unzip();
                Err(ProposeError::NotLeader { leader, address })
            }
        }
    }

    /// A state with everything that was confirmed to anybody before this call. At any manager; waits for a leader as
    /// [`Store::propose`] does.
    pub async fn linearizable(&self) -> Result<Arc<Cluster>, ReadError> {
        let mut search = Search::new(self);
        loop {
            let attempt = match search.leader() {
                Leader::Here => self.read_index().await,
                Leader::There(leader) => self.ask_read_index(&leader).await,
                Leader::Nobody => ReadIndexReply::NotLeading(NotLeading { leader: None, address: None }),
            };
            let hint = match attempt {
                ReadIndexReply::Index(index) => {
                    if self.applied(index, ANSWER).await {
                        return Ok(self.cluster());
                    }
                    None
                }
                ReadIndexReply::NotLeading(not_leading) => place(not_leading),
                ReadIndexReply::NoQuorum { report } => {
                    if !search.go_on(None).await {
                        return Err(ReadError::NoQuorum(report));
                    }
                    continue;
                }
                ReadIndexReply::Stopped { .. } => None,
            };
            if !search.go_on(hint).await {
                return Err(self.no_leader().into());
            }
        }
    }

    /// Proposes here, if this manager leads.
    pub(crate) async fn write(&self, bytes: Bytes) -> Result<Written, Missed> {
        if let Some(reason) = self.stop_reason() {
            return Err(Missed::Failed(ProposeError::Stopped { reason }));
        }
        let Ok(written) = timeout(ANSWER, self.inner.raft.client_write(Proposal(bytes))).await else {
            return Err(Missed::Failed(ProposeError::Unknown));
        };
        match written {
            Ok(written) => Ok(Written {
                revision: written.log_id.index,
                result: written.data.result.map(|()| written.data.cluster),
            }),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to))) => {
                let hint = to.leader_id.and_then(|id| {
                    let known = self.inner.outside.address_of(id);
                    known.or_else(|| Some(PeerAddress { raft_id: id, address: to.leader_node?.address }))
                });
                Err(Missed::Elsewhere(hint))
            }
            Err(RaftError::Fatal(fatal)) => Err(Missed::Failed(self.fatal(&fatal))),
            Err(error) => Err(Missed::Failed(error.into())),
        }
    }

    async fn forward(&self, leader: &PeerAddress, changes: Bytes) -> Result<Written, Missed> {
        let outside = &self.inner.outside;
        let request = ProposeRequest { link: outside.link(leader.raft_id), changes };
        let Ok(answer) = timeout(ANSWER, outside.peers.propose(leader, request)).await else {
            return Err(Missed::Failed(ProposeError::Unknown));
        };
        match answer {
            Ok(ProposeReply::Committed(revision)) => {
                if !self.applied(revision, ANSWER).await {
                    return Err(Missed::Failed(ProposeError::Unknown));
                }
                Ok(Written { revision, result: Ok(self.cluster()) })
            }
            Ok(ProposeReply::Rejected { rejection, revision }) => {
                // So that who looks for the reason, or tries again, sees what the leader saw.
                self.applied(revision, CATCH_UP).await;
                Ok(Written { revision, result: Err(rejection) })
            }
            Ok(ProposeReply::NotLeading(not_leading)) => Err(Missed::Elsewhere(place(not_leading))),
            Ok(ProposeReply::TooLarge { bytes, limit }) => {
                let size = |bytes| usize::try_from(bytes).unwrap_or(usize::MAX);
                Err(Missed::Failed(ProposeError::TooLarge { bytes: size(bytes), limit: size(limit) }))
            }
            Ok(ProposeReply::Unknown | ProposeReply::Stopped { .. }) => Err(Missed::Failed(ProposeError::Unknown)),
            Err(ProposeFailure::NotProposed(refusal)) => {
                self.unanswered(leader, &refusal);
                Err(Missed::Elsewhere(None))
            }
            Err(ProposeFailure::Unknown(refusal)) => {
                self.unanswered(leader, &refusal);
                Err(Missed::Failed(ProposeError::Unknown))
            }
        }
    }

    /// The index that a state must have to be current, if this manager leads.
    pub(crate) async fn read_index(&self) -> ReadIndexReply {
        match self.inner.raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
            Ok(linearizer) => ReadIndexReply::Index(linearizer.read_log_id().index()),
            Err(error) => match ReadError::from(error) {
                ReadError::NotLeader { leader, address } => ReadIndexReply::NotLeading(NotLeading { leader, address }),
                ReadError::NoQuorum(words) => {
                    let report = self.quorum().map_or(words, |lost| lost.to_string());
                    ReadIndexReply::NoQuorum { report }
                }
                ReadError::Stopped { reason } => ReadIndexReply::Stopped { reason: reason.to_string() },
            },
        }
    }

    async fn ask_read_index(&self, leader: &PeerAddress) -> ReadIndexReply {
        let outside = &self.inner.outside;
        let nobody = ReadIndexReply::NotLeading(NotLeading { leader: None, address: None });
        let request = ReadIndexRequest { link: outside.link(leader.raft_id) };
        match timeout(ELECTION, outside.peers.read_index(leader, request)).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(refusal)) => {
                self.unanswered(leader, &refusal);
                nobody
            }
            Err(_) => nobody,
        }
    }

    fn unanswered(&self, leader: &PeerAddress, refusal: &Refusal) {
        let PeerAddress { raft_id, address } = leader;
        tracing::debug!(peer.id = raft_id, peer.address = %address, %refusal, "the leader did not answer");
    }

    /// Waits until the own state has everything up to `index`; whether it came so far.
    async fn applied(&self, index: u64, limit: Duration) -> bool {
        let mut applied = self.inner.applied.clone();
        let came = timeout(limit, applied.wait_for(|applied| applied.is_some_and(|last| last >= index))).await;
        matches!(came, Ok(Ok(_)))
    }

    /// Why nothing could be proposed: there is no leader, and perhaps for a reason.
    fn no_leader(&self) -> ProposeError {
        if let Some(reason) = self.stop_reason() {
            return ProposeError::Stopped { reason };
        }
        if let Some(lost) = self.quorum() {
            return ProposeError::NoQuorum(lost);
        }
        let leader = match *self.inner.leadership.borrow() {
            Leadership::Follower { leader } => leader,
            Leadership::Leader { .. } | Leadership::Stopped { .. } => None,
        };
        let address = leader.and_then(|id| self.inner.outside.address_of(id)).map(|at| at.address);
        ProposeError::NotLeader { leader, address }
    }

    pub(crate) fn fatal(&self, fatal: &Fatal<crate::raft::Types>) -> ProposeError {
        ProposeError::Stopped { reason: self.inner.outside.stopped().unwrap_or_else(|| reason(fatal)) }
    }
}

fn encode(changes: Vec<Change>) -> Result<Bytes, ProposeError> {
    let bytes = skep_api::encode_changes(&changes);
    if bytes.len() > PROPOSAL_BYTES_MAX {
        return Err(ProposeError::TooLarge { bytes: bytes.len(), limit: PROPOSAL_BYTES_MAX });
    }
    Ok(bytes.into())
}

fn place(NotLeading { leader, address }: NotLeading) -> Option<PeerAddress> {
    Some(PeerAddress { raft_id: leader?, address: address? })
}
