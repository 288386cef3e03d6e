//! What other managers ask of this one: Raft's messages, and the proposals that followers pass on.
//!
//! Each message is checked against the cluster's state first: the connection's certificate says who calls, the
//! message says as which manager, and both must still fit. A replica that lags must not shut out who became a manager
//! after what it knows, or it would never catch up; Raft ids are drawn in order, so it can tell.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt, stream};
use openraft::raft::AppendEntriesRequest;
use openraft::storage::Snapshot;
use skep_api::{
    AppendReply, AppendRequest, ApplyHashReply, ApplyHashRequest, Caller, Messages, NotLeading, PEER_PROTOCOL,
    PEER_PROTOCOL_MIN, Peer, PeerLink, ProposeReply, ProposeRequest, ReadIndexReply, ReadIndexRequest, Refusal,
    RefusalKind, SnapshotBegin, SnapshotPart, SnapshotReply, TransferReply, TransferRequest, VoteReply, VoteRequest,
};
use skep_model::Cluster;
use tokio::time::Instant;

use crate::apply_hash;
use crate::error::{ProposeError, chain};
use crate::leadership::Leadership;
use crate::propose::{Missed, PROPOSAL_BYTES_MAX, Written};
use crate::raft::{SnapshotMeta, StoredMembership, Types, decode_membership};
use crate::store::{Inner, Store};
use crate::wire;

/// What is taken for a snapshot's size before it has come.
const SNAPSHOT_RESERVE_MAX: u64 = 64 << 20;

/// Serves the other managers. Does not keep the store open.
#[derive(Clone)]
pub struct PeerService {
    store: Weak<Inner>,
}

impl Store {
    /// What other managers ask of this one, for the daemon's server. Serves a store without a cluster too: that is how
    /// a new manager gets everything.
    pub fn peer_service(&self) -> Arc<PeerService> {
        Arc::new(PeerService { store: Arc::downgrade(&self.inner) })
    }
}

impl PeerService {
    /// The store, if it is open and whoever calls may speak for the manager that they say they are.
    fn admit(&self, caller: &Caller, link: &PeerLink) -> Result<Store, Refusal> {
        let Some(inner) = self.store.upgrade() else { return Err(closed("it was shut down")) };
        let store = Store { inner };
        if let Some(reason) = store.stop_reason() {
            return Err(closed(&reason));
        }
        check_link(link, store.raft_id())?;
        check_caller(caller, link.from, &store.cluster())?;
        if let Caller::Member { address, .. } = caller {
            store.note_place(link.from, address.ip());
        }
        Ok(store)
    }

    fn admit_append(&self, caller: &Caller, request: &AppendRequest) -> Result<Store, Refusal> {
        let store = self.admit(caller, &request.link)?;
        let outside = &store.inner.outside;
        outside.contacts.heard_leader(request.link.from, Instant::now());
        for known in &request.acknowledged {
            outside.presence.learn(*known);
        }
        store.check_disk(outside.presence.of(store.raft_id()))?;
        Ok(store)
    }

    fn admit_vote(&self, caller: &Caller, request: &VoteRequest) -> Result<Store, Refusal> {
        let store = self.admit(caller, &request.link)?;
        store.check_disk(request.acknowledged)?;
        let candidate = request.link.from;
        let last = request.last.map(|last| last.index);
        match store.inner.outside.presence.of(candidate) {
            Some(held) if last < Some(held) => Err(Refusal::new(RefusalKind::Conflict, older_disk(last, held))),
            Some(_) | None => Ok(store),
        }
    }
}

impl Store {
    /// Notes where a manager speaks from: one whose machine got another address is found again there.
    fn note_place(&self, raft_id: u64, from: IpAddr) {
        let outside = &self.inner.outside;
        let listed: Option<SocketAddr> = outside.address_of(raft_id).and_then(|listed| listed.address.parse().ok());
        if let Some(listed) = listed.filter(|listed| listed.ip() != from) {
            outside.peers.learn_address(raft_id, SocketAddr::new(from, listed.port()).to_string());
        }
    }

    /// Tells where a manager may be found that does not answer at its listed address. `address`: `host:port`.
    pub fn learn_address(&self, raft_id: u64, address: impl Into<String>) {
        self.inner.outside.peers.learn_address(raft_id, address.into());
    }

    /// Where managers spoke from, or were said to be, if not where they are listed. By Raft id.
    pub fn learnt_addresses(&self) -> BTreeMap<u64, String> {
        self.inner.outside.peers.learnt()
    }

    /// Managers that answer elsewhere than they are listed, by Raft id.
    pub fn moved(&self) -> BTreeMap<u64, String> {
        self.inner.outside.peers.moved()
    }

    /// Whether the disk still has what it is known to have had. If not, this manager must not take part: others count
    /// on it.
    fn check_disk(&self, acknowledged: Option<u64>) -> Result<(), Refusal> {
        let last = self.inner.log.last().map(|last| last.index);
        match acknowledged {
            Some(held) if last < Some(held) => {
                let words = older_disk(last, held);
                self.inner.outside.stop(words.as_str());
                Err(closed(&words))
            }
            Some(_) | None => Ok(()),
        }
    }
}

fn older_disk(last: Option<u64>, held: u64) -> String {
    format!(
        "this manager's disk is older than what it acknowledged: its log ends at {}, and it had {held}. It was restored \
         from an old image, or its file system lost writes. It must not vote. Run `skep leave --force` on it, and join \
         it again",
        last.map_or_else(|| "the beginning".to_owned(), |last| last.to_string())
    )
}

fn closed(reason: &str) -> Refusal {
    Refusal::new(RefusalKind::Unavailable, format!("this manager's store has stopped: {reason}"))
}

fn check_link(link: &PeerLink, own: u64) -> Result<(), Refusal> {
    let PeerLink { protocol, from, to } = *link;
    if !(PEER_PROTOCOL_MIN..=PEER_PROTOCOL).contains(&protocol) {
        let words = format!(
            "manager {from} speaks version {protocol} of the managers' protocol, and this one {PEER_PROTOCOL_MIN} to \
             {PEER_PROTOCOL}: upgrade the older of the two"
        );
        return Err(Refusal::new(RefusalKind::Unsupported, words));
    }
    if to != own {
        let words = format!("this is manager {own}, not manager {to}: that one is at another address now, or gone");
        return Err(Refusal::new(RefusalKind::Denied, words));
    }
    Ok(())
}

/// Whether the calling node is the manager that it says it is.
fn check_caller(caller: &Caller, from: u64, cluster: &Cluster) -> Result<(), Refusal> {
    let identity = caller.member()?;
    // A replica that has nothing yet was not told by anybody who the managers are: the certificate must do.
    let Some(config) = &cluster.config else { return Ok(()) };
    if identity.cluster_id != config.id {
        return Err(Refusal::new(RefusalKind::Denied, "the caller belongs to another cluster"));
    }
    // Drawn after everything that this replica has.
    if from >= config.next_raft_id {
        return Ok(());
    }
    // Not by the role that its spec wants: who is demoted keeps its seat until Raft's list is without it, and as
    // leader must still reach the others to hand over.
    let manager = cluster.nodes.get(&identity.node_id).and_then(|node| node.manager.as_ref());
    if manager.is_some_and(|manager| manager.raft_id == from) {
        return Ok(());
    }
    let words = format!("node {} is not manager {from} of this cluster, or no longer", identity.node_id);
    Err(Refusal::new(RefusalKind::Denied, words))
}

impl Peer for PeerService {
    async fn vote(&self, caller: Caller, request: VoteRequest) -> Result<VoteReply, Refusal> {
        let store = self.admit_vote(&caller, &request)?;
        let response = store.inner.raft.vote(wire::raft_vote_request(&request)).await;
        response.map(|response| wire::vote_reply(&response)).map_err(|error| closed(&error.to_string()))
    }

    async fn pre_vote(&self, caller: Caller, request: VoteRequest) -> Result<VoteReply, Refusal> {
        let store = self.admit_vote(&caller, &request)?;
        let response = store.inner.raft.pre_vote(wire::raft_vote_request(&request)).await;
        response.map(|response| wire::vote_reply(&response)).map_err(|error| closed(&error.to_string()))
    }

    async fn beat(&self, caller: Caller, request: AppendRequest) -> Result<AppendReply, Refusal> {
        let store = self.admit_append(&caller, &request)?;
        let request = wire::raft_append_request(request).map_err(unreadable)?;
        let output = store.inner.raft.stream_append(stream::iter([request]));
        match std::pin::pin!(output).next().await {
            Some(Ok(result)) => Ok(wire::append_reply(&result)),
            Some(Err(fatal)) => Err(closed(&fatal.to_string())),
            None => Err(closed("it stops")),
        }
    }

    async fn append(&self, caller: Caller, input: Messages<AppendRequest>) -> Result<Messages<AppendReply>, Refusal> {
        let Some(inner) = self.store.upgrade() else { return Err(closed("it was shut down")) };
        let (raft, mut leadership) = (inner.raft.clone(), inner.leadership.clone());
        drop(inner);
        let stopped = async move {
            // Either way the store is gone.
            let _ = leadership.wait_for(|now| matches!(now, Leadership::Stopped { .. })).await;
        };
        let refused: Arc<Mutex<Option<Refusal>>> = Arc::default();
        let requests = self.clone().admitted(caller, input, Arc::clone(&refused));
        let replies = raft.stream_append(requests).map(|result| match result {
            Ok(result) => Ok(wire::append_reply(&result)),
            Err(fatal) => Err(closed(&fatal.to_string())),
        });
        // What ended the requests is told after the replies to those before.
        let last = stream::once(async move { refused.lock().unwrap_or_else(PoisonError::into_inner).take() });
        let replies = replies.chain(last.filter_map(async |refusal| refusal.map(Err)));
        Ok(replies.take_until(stopped).boxed())
    }

    async fn snapshot(&self, caller: Caller, mut input: Messages<SnapshotPart>) -> Result<SnapshotReply, Refusal> {
        let Some(SnapshotPart::Begin(begin)) = input.next().await.transpose()? else {
            return Err(Refusal::new(RefusalKind::Invalid, "a snapshot begins with what it is"));
        };
        let store = self.admit(&caller, &begin.link)?;
        store.inner.outside.contacts.heard_leader(begin.link.from, Instant::now());
        let data = receive(&begin, input).await?;
        let meta = snapshot_meta(&begin).map_err(unreadable)?;
        let installed =
            store.inner.raft.install_full_snapshot(wire::voted(begin.vote), Snapshot { meta, snapshot: data }).await;
        let response = installed.map_err(|fatal| closed(&fatal.to_string()))?;
        Ok(SnapshotReply { vote: wire::raft_vote_of(&response.vote) })
    }

    async fn transfer_leader(&self, caller: Caller, request: TransferRequest) -> Result<TransferReply, Refusal> {
        let store = self.admit(&caller, &request.link)?;
        let handled = store.inner.raft.handle_transfer_leader(wire::raft_transfer_request(&request)).await;
        handled.map(|response| wire::transfer_reply(&response)).map_err(|fatal| closed(&fatal.to_string()))
    }

    async fn propose(&self, caller: Caller, request: ProposeRequest) -> Result<ProposeReply, Refusal> {
        let store = match self.admit(&caller, &request.link) {
            Ok(store) => store,
            // Nothing was proposed: the caller looks for another leader.
            Err(refusal) if refusal.kind == RefusalKind::Unavailable => {
                return Ok(ProposeReply::NotLeading(NotLeading { leader: None, address: None }));
            }
            Err(refusal) => return Err(refusal),
        };
        let (bytes, limit) = (request.changes.len() as u64, PROPOSAL_BYTES_MAX as u64);
        if bytes > limit {
            return Ok(ProposeReply::TooLarge { bytes, limit });
        }
        // In the log, what this build cannot read would halt it.
        skep_api::decode_changes(&request.changes)?;
        Ok(match store.write(request.changes).await {
            Ok(Written { revision, result: Ok(_) }) => ProposeReply::Committed(revision),
            Ok(Written { revision, result: Err(rejection) }) => ProposeReply::Rejected { rejection, revision },
            Err(Missed::Elsewhere(hint)) => {
                let (leader, address) = hint.map(|at| (at.raft_id, at.address)).unzip();
                ProposeReply::NotLeading(NotLeading { leader, address })
            }
            Err(Missed::Failed(ProposeError::Stopped { reason })) => {
                ProposeReply::Stopped { reason: reason.to_string() }
            }
            Err(Missed::Failed(_)) => ProposeReply::Unknown,
        })
    }

    async fn read_index(&self, caller: Caller, request: ReadIndexRequest) -> Result<ReadIndexReply, Refusal> {
        Ok(self.admit(&caller, &request.link)?.read_index().await)
    }

    async fn apply_hash(&self, caller: Caller, request: ApplyHashRequest) -> Result<ApplyHashReply, Refusal> {
        let store = self.admit(&caller, &request.link)?;
        Ok(match store.inner.hashes.at(request.index) {
            None => ApplyHashReply::Unknown,
            Some(own) if own == request.hash => ApplyHashReply::Equal,
            Some(own) => {
                if request.decided {
                    store.inner.outside.stop(apply_hash::words(request.index));
                }
                ApplyHashReply::Differs(own)
            }
        })
    }
}

impl PeerService {
    /// The requests of an append stream up to the first that is refused, which is noted.
    fn admitted(
        self,
        caller: Caller,
        input: Messages<AppendRequest>,
        refused: Arc<Mutex<Option<Refusal>>>,
    ) -> impl Stream<Item = AppendEntriesRequest<Types>> + Send + 'static {
        let note = move |refusal| *refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(refusal);
        stream::unfold((self, input, note), move |(service, mut input, note)| async move {
            let request = input.next().await?;
            let admitted = request.and_then(|request| {
                service.admit_append(&caller, &request)?;
                wire::raft_append_request(request).map_err(unreadable)
            });
            match admitted {
                Ok(request) => Some((request, (service, input, note))),
                Err(refusal) => {
                    note(refusal);
                    None
                }
            }
        })
    }
}

fn unreadable(error: io::Error) -> Refusal {
    Refusal::new(RefusalKind::Invalid, chain(&error))
}

async fn receive(begin: &SnapshotBegin, mut input: Messages<SnapshotPart>) -> Result<Bytes, Refusal> {
    let size = begin.size;
    let wrong = |words: String| Refusal::new(RefusalKind::Invalid, words);
    let reserve = usize::try_from(size.min(SNAPSHOT_RESERVE_MAX)).unwrap_or_default();
    let mut data = BytesMut::with_capacity(reserve);
    while let Some(part) = input.next().await {
        match part? {
            SnapshotPart::Data(part) => data.extend_from_slice(&part),
            SnapshotPart::Begin(_) => return Err(wrong("a snapshot began inside another".to_owned())),
        }
        if data.len() as u64 > size {
            return Err(wrong(format!("a snapshot of {size} bytes came with more")));
        }
    }
    if (data.len() as u64) < size {
        return Err(wrong(format!("a snapshot of {size} bytes ended after {}", data.len())));
    }
    Ok(data.freeze())
}

fn snapshot_meta(begin: &SnapshotBegin) -> io::Result<SnapshotMeta> {
    let members =
        decode_membership(&begin.members).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(SnapshotMeta {
        last_log_id: begin.last.map(wire::log_id_at),
        last_membership: StoredMembership::new(begin.members_at.map(wire::log_id_at), members),
    })
}
