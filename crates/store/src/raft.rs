//! The types that openraft is used with, and how they are written to disk.
//!
//! Nothing outside this crate sees openraft: its 0.10 line is pinned to one pre-release, and the files
//! must outlive it. A leader is a term and a Raft id; the log keeps both.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};
use openraft::impls::leader_id_adv::LeaderId;
use openraft::{EntryPayload, Membership, Vote};
use skep_model::{Cluster, Rejection};

use crate::wal::{Ballot, EntryRecord, LogPos, PayloadKind};

openraft::declare_raft_types!(
    /// openraft's parameters.
    pub(crate) Types:
        D = Proposal,
        R = Outcome,
        NodeId = u64,
        Node = Member,
);

pub(crate) type Entry = openraft::type_config::alias::EntryOf<Types>;
pub(crate) type LogId = openraft::type_config::alias::LogIdOf<Types>;
pub(crate) type StoredMembership = openraft::type_config::alias::StoredMembershipOf<Types>;
pub(crate) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<Types>;
pub(crate) type Voted = Vote<LeaderId<u64, u64>>;

/// The layout of a membership's bytes.
const MEMBERSHIP_FORMAT: u16 = 1;

/// Changes to apply together or not at all, encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Proposal(pub(crate) Bytes);

/// What applying an entry gave.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    pub(crate) result: Result<(), Rejection>,
    /// The state after the batch that the entry was applied with.
    pub(crate) cluster: Arc<Cluster>,
}

/// What Raft knows of a manager besides its Raft id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Member {
    /// Where the other managers reach it: `host:port`.
    pub(crate) address: String,
}

/// Bytes that are not a membership.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MembershipError {
    #[error("the list of managers has format {0}; this build of skep reads format {MEMBERSHIP_FORMAT}")]
    Format(u16),
    #[error("the list of managers is cut short")]
    Short,
    #[error("a manager's address is not UTF-8")]
    Address,
    #[error("the list of managers contradicts itself: {0}")]
    Invalid(String),
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a proposal of {} bytes", self.0.len())
    }
}

pub(crate) fn pos_of(id: &LogId) -> LogPos {
    LogPos { term: id.leader_id.term, node: id.leader_id.node_id, index: id.index }
}

pub(crate) fn log_id_of(pos: &LogPos) -> LogId {
    LogId::new(LeaderId { term: pos.term, node_id: pos.node }, pos.index)
}

pub(crate) fn ballot_of(vote: &Voted) -> Ballot {
    Ballot { term: vote.leader_id.term, node: vote.leader_id.node_id, committed: vote.committed }
}

pub(crate) fn vote_of(ballot: &Ballot) -> Voted {
    let leader_id = LeaderId { term: ballot.term, node_id: ballot.node };
    Vote { leader_id, committed: ballot.committed }
}

pub(crate) fn record_of(entry: Entry) -> EntryRecord {
    let (kind, payload) = match entry.payload {
        EntryPayload::Blank => (PayloadKind::Blank, Bytes::new()),
        EntryPayload::Normal(proposal) => (PayloadKind::Normal, proposal.0),
        EntryPayload::Membership(members) => (PayloadKind::Membership, encode_membership(&members).into()),
    };
    EntryRecord { pos: pos_of(&entry.log_id), kind, payload }
}

pub(crate) fn entry_of(record: &EntryRecord) -> io::Result<Entry> {
    let payload = match record.kind {
        PayloadKind::Blank => EntryPayload::Blank,
        PayloadKind::Normal => EntryPayload::Normal(Proposal(record.payload.clone())),
        PayloadKind::Membership => EntryPayload::Membership(
            decode_membership(&record.payload).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?,
        ),
    };
    Ok(Entry { log_id: log_id_of(&record.pos), payload })
}

/// Format, then the voters of each configuration, then every manager with its address.
pub(crate) fn encode_membership(members: &Membership<u64, Member>) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_u16_le(MEMBERSHIP_FORMAT);
    out.put_u32_le(count(members.get_joint_config().len()));
    for voters in members.get_joint_config() {
        out.put_u32_le(count(voters.len()));
        voters.iter().for_each(|id| out.put_u64_le(*id));
    }
    let nodes: Vec<_> = members.nodes().collect();
    out.put_u32_le(count(nodes.len()));
    for (id, Member { address }) in nodes {
        out.put_u64_le(*id);
        out.put_u32_le(count(address.len()));
        out.put_slice(address.as_bytes());
    }
    out
}

pub(crate) fn decode_membership(mut bytes: &[u8]) -> Result<Membership<u64, Member>, MembershipError> {
    let input = &mut bytes;
    let format = input.try_get_u16_le().map_err(short)?;
    if format != MEMBERSHIP_FORMAT {
        return Err(MembershipError::Format(format));
    }
    let mut configs = Vec::new();
    for _ in 0..input.try_get_u32_le().map_err(short)? {
        let mut voters = BTreeSet::new();
        for _ in 0..input.try_get_u32_le().map_err(short)? {
            voters.insert(input.try_get_u64_le().map_err(short)?);
        }
        configs.push(voters);
    }
    let mut nodes = BTreeMap::new();
    for _ in 0..input.try_get_u32_le().map_err(short)? {
        let id = input.try_get_u64_le().map_err(short)?;
        let length = input.try_get_u32_le().map_err(short)? as usize;
        let address = input.split_off(..length).ok_or(MembershipError::Short)?;
        let address = String::from_utf8(address.to_vec()).map_err(|_| MembershipError::Address)?;
        nodes.insert(id, Member { address });
    }
    if configs.is_empty() && nodes.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(configs, nodes).map_err(|error| MembershipError::Invalid(error.to_string()))
}

fn short(_: bytes::TryGetError) -> MembershipError {
    MembershipError::Short
}

fn count(length: usize) -> u32 {
    u32::try_from(length).expect("a cluster has far fewer than 2^32 managers")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn membership_round_trips_joint_configurations_and_learners() {
        let nodes: BTreeMap<_, _> = (1..=4).map(|id| (id, Member { address: format!("10.0.0.{id}:7377") })).collect();
        let configs = vec![BTreeSet::from([1, 2]), BTreeSet::from([2, 3])];
        let members = Membership::new(configs, nodes).expect("voters are among the nodes");
        let bytes = encode_membership(&members);
        assert_eq!(decode_membership(&bytes).expect("own bytes"), members);
        for cut in 0..bytes.len() {
            decode_membership(&bytes[..cut]).expect_err("a cut list is refused");
        }
    }
}
