//! What managers say to each other. Positions and votes name a leader by its term and Raft id.

use bytes::Bytes;
use skep_model::Rejection;

use crate::wire::{choice, message};

/// The version of these messages that this build speaks.
pub const PEER_PROTOCOL: u32 = 1;
/// The oldest version that it still understands.
pub const PEER_PROTOCOL_MIN: u32 = 1;

/// Who speaks to whom, by Raft id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerLink {
    pub protocol: u32,
    pub from: u64,
    pub to: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RaftVote {
    pub term: u64,
    pub node: u64,
    /// A majority granted it: a leader's, not a candidate's.
    pub committed: bool,
}

/// A place in the log: its index, and the leader that wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RaftPosition {
    pub term: u64,
    pub node: u64,
    pub index: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VoteRequest {
    pub link: PeerLink,
    pub vote: RaftVote,
    pub last: Option<RaftPosition>,
    /// The leader itself asked for this election.
    pub handed_over: bool,
    /// What the receiver has on its disk, as far as the sender knows: see [`Acknowledged`].
    pub acknowledged: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VoteReply {
    pub vote: RaftVote,
    pub granted: bool,
    pub last: Option<RaftPosition>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppendRequest {
    pub link: PeerLink,
    pub vote: RaftVote,
    pub previous: Option<RaftPosition>,
    pub entries: Vec<RaftEntry>,
    pub committed: Option<RaftPosition>,
    /// What the cluster's managers have on their disks for certain.
    pub acknowledged: Vec<Acknowledged>,
}

/// A manager said that it has everything up to this index on its disk, and a majority has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledged {
    pub raft_id: u64,
    pub index: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaftEntry {
    pub position: RaftPosition,
    pub payload: RaftPayload,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RaftPayload {
    Blank,
    /// What [`crate::encode_changes`] wrote.
    Changes(Bytes),
    /// The list of managers, in the store's own encoding.
    Members(Bytes),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppendReply {
    /// On disk up to here.
    Matched {
        last: Option<RaftPosition>,
    },
    /// The log has something else, or nothing, at the request's `previous`.
    Conflict(RaftPosition),
    HigherVote(RaftVote),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotPart {
    Begin(SnapshotBegin),
    Data(Bytes),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotBegin {
    pub link: PeerLink,
    pub vote: RaftVote,
    /// The last entry that the snapshot includes.
    pub last: Option<RaftPosition>,
    pub members_at: Option<RaftPosition>,
    pub members: Bytes,
    /// Bytes of data that follow.
    pub size: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotReply {
    pub vote: RaftVote,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransferRequest {
    pub link: PeerLink,
    pub from_leader: RaftVote,
    /// Who shall lead: not always who is told so.
    pub to: u64,
    pub last: Option<RaftPosition>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransferReply {
    Accepted,
    /// It follows another leader by now, or its log is behind.
    Refused {
        reason: String,
    },
}

#[derive(Clone, PartialEq, Eq)]
pub struct ProposeRequest {
    pub link: PeerLink,
    /// What [`crate::encode_changes`] wrote.
    pub changes: Bytes,
}

impl std::fmt::Debug for ProposeRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProposeRequest").field("link", &self.link).field("bytes", &self.changes.len()).finish()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProposeReply {
    /// Applied, at this index.
    Committed(u64),
    /// Refused when its turn came, at this index.
    Rejected {
        rejection: Rejection,
        revision: u64,
    },
    NotLeading(NotLeading),
    /// The leader changed meanwhile: it may or may not come to be applied.
    Unknown,
    TooLarge {
        bytes: u64,
        limit: u64,
    },
    Stopped {
        reason: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotLeading {
    pub leader: Option<u64>,
    pub address: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadIndexRequest {
    pub link: PeerLink,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadIndexReply {
    Index(u64),
    NotLeading(NotLeading),
    /// Who does not answer, in words.
    NoQuorum {
        report: String,
    },
    Stopped {
        reason: String,
    },
}

/// What the sender's state became at an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApplyHashRequest {
    pub link: PeerLink,
    pub index: u64,
    pub hash: u64,
    /// Most managers have this hash: a receiver with another one must stop.
    pub decided: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApplyHashReply {
    Equal,
    /// The receiver has not come to that index, or no longer knows.
    Unknown,
    /// The receiver's hash.
    Differs(u64),
}

message!(PeerLink = PeerLink { protocol, from, to });
message!(RaftVote = RaftVote { term, node, committed });
message!(RaftPosition = RaftPosition { term, node, index });
message!(VoteRequest = VoteRequest { link, vote, last, handed_over, acknowledged });
message!(VoteReply = VoteReply { vote, granted, last });
message!(AppendRequest = AppendRequest { link, vote, previous, entries, committed, acknowledged });
message!(Acknowledged = Acknowledged { raft_id, index });
message!(RaftEntry = RaftEntry { position, payload });
choice!(RaftPayload = RaftPayload in raft_payload { Changes, Members; Blank(RaftBlank) {} });
choice!(AppendReply = AppendReply in append_reply { Conflict, HigherVote; Matched(AppendMatched) { last } });
choice!(SnapshotPart = SnapshotPart in snapshot_part { Begin, Data });
message!(SnapshotBegin = SnapshotBegin { link, vote, last, members_at, members, size });
message!(SnapshotReply = SnapshotReply { vote });
message!(TransferRequest = TransferRequest { link, from_leader, to, last });
choice!(TransferReply = TransferReply in transfer_reply {; Accepted(TransferAccepted) {}, Refused(TransferRefused) { reason } });
message!(ProposeRequest = ProposeRequest { link, changes });
choice!(ProposeReply = ProposeReply in propose_reply {
    Committed, NotLeading;
    Rejected(ProposeRejected) { rejection, revision }, Unknown(ProposeUnknown) {},
    TooLarge(ProposeTooLarge) { bytes, limit }, Stopped(PeerStopped) { reason }
});
message!(NotLeading = NotLeading { leader, address });
message!(ReadIndexRequest = ReadIndexRequest { link });
choice!(ReadIndexReply = ReadIndexReply in read_index_reply {
    Index, NotLeading; NoQuorum(ReadNoQuorum) { report }, Stopped(PeerStopped) { reason }
});
message!(ApplyHashRequest = ApplyHashRequest { link, index, hash, decided });
choice!(ApplyHashReply = ApplyHashReply in apply_hash_reply {
    Differs; Equal(ApplyHashEqual) {}, Unknown(ApplyHashUnknown) {}
});
