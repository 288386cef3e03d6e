//! openraft's messages as those that cross the network, and back.

use std::io;

use openraft::EntryPayload;
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use skep_api::{
    Acknowledged, AppendReply, AppendRequest, PeerLink, RaftEntry, RaftPayload, RaftPosition, RaftVote, TransferReply,
    TransferRequest, VoteReply,
};

use crate::raft::{
    Entry, LogId, Proposal, Types, Voted, ballot_of, decode_membership, encode_membership, log_id_of, pos_of, vote_of,
};
use crate::wal::{Ballot, LogPos};

pub(crate) fn position_of(id: &LogId) -> RaftPosition {
    let LogPos { term, node, index } = pos_of(id);
    RaftPosition { term, node, index }
}

pub(crate) fn log_id_at(position: RaftPosition) -> LogId {
    let RaftPosition { term, node, index } = position;
    log_id_of(&LogPos { term, node, index })
}

pub(crate) fn raft_vote_of(vote: &Voted) -> RaftVote {
    let Ballot { term, node, committed } = ballot_of(vote);
    RaftVote { term, node, committed }
}

pub(crate) fn voted(vote: RaftVote) -> Voted {
    let RaftVote { term, node, committed } = vote;
    vote_of(&Ballot { term, node, committed })
}

pub(crate) fn vote_request(
    link: PeerLink,
    request: &VoteRequest<Types>,
    acknowledged: Option<u64>,
) -> skep_api::VoteRequest {
    skep_api::VoteRequest {
        link,
        vote: raft_vote_of(&request.vote),
        last: request.last_log_id.as_ref().map(position_of),
        handed_over: request.leadership_transfer,
        acknowledged,
    }
}

pub(crate) fn raft_vote_request(request: &skep_api::VoteRequest) -> VoteRequest<Types> {
    VoteRequest {
        vote: voted(request.vote),
        last_log_id: request.last.map(log_id_at),
        leadership_transfer: request.handed_over,
    }
}

pub(crate) fn vote_reply(response: &VoteResponse<Types>) -> VoteReply {
    VoteReply {
        vote: raft_vote_of(&response.vote),
        granted: response.vote_granted,
        last: response.last_log_id.as_ref().map(position_of),
    }
}

pub(crate) fn raft_vote_reply(reply: &VoteReply) -> VoteResponse<Types> {
    VoteResponse { vote: voted(reply.vote), vote_granted: reply.granted, last_log_id: reply.last.map(log_id_at) }
}

pub(crate) fn append_request(
    link: PeerLink,
    request: AppendEntriesRequest<Types>,
    acknowledged: Vec<Acknowledged>,
) -> AppendRequest {
    AppendRequest {
        link,
        vote: raft_vote_of(&request.vote),
        previous: request.prev_log_id.as_ref().map(position_of),
        entries: request.entries.into_iter().map(raft_entry).collect(),
        committed: request.leader_commit.as_ref().map(position_of),
        acknowledged,
    }
}

/// `InvalidData` for a list of managers that this build cannot read.
pub(crate) fn raft_append_request(request: AppendRequest) -> io::Result<AppendEntriesRequest<Types>> {
    Ok(AppendEntriesRequest {
        vote: voted(request.vote),
        prev_log_id: request.previous.map(log_id_at),
        entries: request.entries.into_iter().map(entry).collect::<io::Result<_>>()?,
        leader_commit: request.committed.map(log_id_at),
    })
}

fn raft_entry(entry: Entry) -> RaftEntry {
    let payload = match entry.payload {
        EntryPayload::Blank => RaftPayload::Blank,
        EntryPayload::Normal(Proposal(bytes)) => RaftPayload::Changes(bytes),
        EntryPayload::Membership(members) => RaftPayload::Members(encode_membership(&members).into()),
    };
    RaftEntry { position: position_of(&entry.log_id), payload }
}

fn entry(entry: RaftEntry) -> io::Result<Entry> {
    let payload = match entry.payload {
        RaftPayload::Blank => EntryPayload::Blank,
        RaftPayload::Changes(bytes) => EntryPayload::Normal(Proposal(bytes)),
        RaftPayload::Members(bytes) => EntryPayload::Membership(
            decode_membership(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?,
        ),
    };
    Ok(Entry { log_id: log_id_at(entry.position), payload })
}

pub(crate) fn append_reply(result: &StreamAppendResult<Types>) -> AppendReply {
    match result {
        Ok(last) => AppendReply::Matched { last: last.as_ref().map(position_of) },
        Err(StreamAppendError::Conflict(at)) => AppendReply::Conflict(position_of(at)),
        Err(StreamAppendError::HigherVote(vote)) => AppendReply::HigherVote(raft_vote_of(vote)),
    }
}

pub(crate) fn raft_append_reply(reply: AppendReply) -> StreamAppendResult<Types> {
    match reply {
        AppendReply::Matched { last } => Ok(last.map(log_id_at)),
        AppendReply::Conflict(at) => Err(StreamAppendError::Conflict(log_id_at(at))),
        AppendReply::HigherVote(vote) => Err(StreamAppendError::HigherVote(voted(vote))),
    }
}

pub(crate) fn transfer_request(link: PeerLink, request: &TransferLeaderRequest<Types>) -> TransferRequest {
    TransferRequest {
        link,
        from_leader: raft_vote_of(request.from_leader()),
        to: *request.to_node_id(),
        last: request.last_log_id().map(position_of),
    }
}

pub(crate) fn raft_transfer_request(request: &TransferRequest) -> TransferLeaderRequest<Types> {
    TransferLeaderRequest::new(voted(request.from_leader), request.to, request.last.map(log_id_at))
}

pub(crate) fn transfer_reply(response: &TransferLeaderResponse<Types>) -> TransferReply {
    match response {
        Ok(()) => TransferReply::Accepted,
        Err(error) => TransferReply::Refused { reason: error.to_string() },
    }
}
