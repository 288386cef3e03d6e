//! Between managers: Raft's messages, and what a follower passes on to the leader.
//!
//! Every request begins with a [`PeerLink`]: an address may come to belong to another manager, and a manager that was
//! removed may still speak. Both are refused by name, by whoever serves the call.

mod messages;
mod rejection;

pub use messages::{
    Acknowledged, AppendReply, AppendRequest, ApplyHashReply, ApplyHashRequest, NotLeading, PEER_PROTOCOL,
    PEER_PROTOCOL_MIN, PeerLink, ProposeReply, ProposeRequest, RaftEntry, RaftPayload, RaftPosition, RaftVote,
    ReadIndexReply, ReadIndexRequest, SnapshotBegin, SnapshotPart, SnapshotReply, TransferReply, TransferRequest,
    VoteReply, VoteRequest,
};

use std::error::Error;

use crate::rpc::{Refusal, RefusalKind, decode, service};
use crate::transport::ConnectError;
use crate::wire::Element;

service! {
    /// A manager, for the other managers.
    Peer in peer_server::PeerServer, peer_client::PeerClient, via PeerAdapter;
    unary {
        [Manager] vote(VoteRequest) -> VoteReply;
        /// Whether it would vote so; nothing is remembered of it.
        [Manager] pre_vote(VoteRequest) -> VoteReply;
        /// One append, alone: a heartbeat.
        [Manager] beat(AppendRequest) -> AppendReply;
        [Manager] transfer_leader(TransferRequest) -> TransferReply;
        /// Changes for the leader to propose.
        [Manager] propose(ProposeRequest) -> ProposeReply;
        /// The index that a replica must have applied to answer a linearizable read.
        [Manager] read_index(ReadIndexRequest) -> ReadIndexReply;
        /// Whether both replicas became the same at an index.
        [Manager] apply_hash(ApplyHashRequest) -> ApplyHashReply;
    }
    down {}
    up {
        /// The first part is `Begin`, data follows.
        [Manager] snapshot(stream SnapshotPart) -> SnapshotReply;
    }
    both {
        /// Appends in order; a reply to each, in the same order. A reply other than `Matched` is the last.
        [Manager] append(stream AppendRequest) -> stream AppendReply as AppendStream;
    }
}

/// A proposal was not answered.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ProposeFailure {
    /// It surely never came to be proposed: there was no connection, or the other side refused to look at it.
    #[error("{0}")]
    NotProposed(#[source] Refusal),
    /// It may have been proposed.
    #[error("{0}")]
    Unknown(#[source] Refusal),
}

impl PeerClient {
    /// As [`PeerClient::propose`], but tells what can be repeated from what cannot.
    pub async fn propose_once(&self, request: ProposeRequest) -> Result<ProposeReply, ProposeFailure> {
        let reply = match self.0.clone().propose(request.to_element()).await {
            Ok(reply) => reply.into_inner(),
            Err(status) => {
                let never_sent = never_sent(&status);
                let from_the_other_side = status.source().is_none();
                let refusal = Refusal::from(status);
                let refused = from_the_other_side
                    && matches!(refusal.kind, RefusalKind::Denied | RefusalKind::Invalid | RefusalKind::Unsupported);
                return Err(if never_sent || refused {
                    ProposeFailure::NotProposed(refusal)
                } else {
                    ProposeFailure::Unknown(refusal)
                });
            }
        };
        decode(reply).map_err(ProposeFailure::Unknown)
    }
}

/// Whether a call failed because no connection could be made for it.
fn never_sent(status: &tonic::Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}
