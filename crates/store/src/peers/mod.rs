//! The way to the other managers: what Raft and forwarded proposals need of a network, whatever it is made of.
//!
//! [`GrpcPeers`] is the real one; a simulation brings its own, and a test may stand between.

mod grpc;

use std::collections::BTreeMap;
use std::fmt;

use futures::future::{self, BoxFuture, FutureExt};
use futures::stream::BoxStream;
use skep_api::{
    AppendReply, AppendRequest, ApplyHashReply, ApplyHashRequest, Messages, ProposeFailure, ProposeReply,
    ProposeRequest, ReadIndexReply, ReadIndexRequest, Refusal, RefusalKind, SnapshotPart, SnapshotReply, TransferReply,
    TransferRequest, VoteReply, VoteRequest,
};

pub use grpc::GrpcPeers;

/// Where a manager is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PeerAddress {
    pub raft_id: u64,
    /// `host:port`.
    pub address: String,
}

/// An answer that may never come: whoever asks sets the time limit, by dropping it.
pub type Answer<T> = BoxFuture<'static, Result<T, Refusal>>;

/// Carries messages to other managers' [`crate::PeerService`].
///
/// Calls may run at the same time and overtake each other; a stream's messages arrive in order or not at all.
/// A message may arrive although its answer never does.
pub trait PeerNetwork: fmt::Debug + Send + Sync + 'static {
    fn vote(&self, to: &PeerAddress, request: VoteRequest) -> Answer<VoteReply>;
    fn pre_vote(&self, to: &PeerAddress, request: VoteRequest) -> Answer<VoteReply>;
    /// A heartbeat: must not wait behind appends and snapshots.
    fn beat(&self, to: &PeerAddress, request: AppendRequest) -> Answer<AppendReply>;
    fn append(&self, to: &PeerAddress, requests: BoxStream<'static, AppendRequest>) -> Answer<Messages<AppendReply>>;
    fn snapshot(&self, to: &PeerAddress, parts: BoxStream<'static, SnapshotPart>) -> Answer<SnapshotReply>;
    fn transfer_leader(&self, to: &PeerAddress, request: TransferRequest) -> Answer<TransferReply>;
    fn propose(
        &self,
        to: &PeerAddress,
        request: ProposeRequest,
    ) -> BoxFuture<'static, Result<ProposeReply, ProposeFailure>>;
    fn read_index(&self, to: &PeerAddress, request: ReadIndexRequest) -> Answer<ReadIndexReply>;
    fn apply_hash(&self, to: &PeerAddress, request: ApplyHashRequest) -> Answer<ApplyHashReply>;

    /// A manager may also be reached at `address` (`host:port`): it spoke from there, or somebody says so. Tried when
    /// its listed address fails.
    fn learn_address(&self, _raft_id: u64, _address: String) {}

    /// Learnt addresses that differ from the listed ones.
    fn learnt(&self) -> BTreeMap<u64, String> {
        BTreeMap::new()
    }

    /// Managers that answer at a learnt address and not at their listed one.
    fn moved(&self) -> BTreeMap<u64, String> {
        BTreeMap::new()
    }
}

/// No way to anybody: for a manager that is alone in its cluster.
#[derive(Debug, Clone, Copy)]
pub struct NoPeers;

fn nobody(to: &PeerAddress) -> Refusal {
    let PeerAddress { raft_id, address } = to;
    Refusal::new(RefusalKind::Unavailable, format!("there is no network to manager {raft_id} at {address}"))
}

fn none<T: Send + 'static>(to: &PeerAddress) -> Answer<T> {
    future::ready(Err(nobody(to))).boxed()
}

impl PeerNetwork for NoPeers {
    fn vote(&self, to: &PeerAddress, _: VoteRequest) -> Answer<VoteReply> {
        none(to)
    }

    fn pre_vote(&self, to: &PeerAddress, _: VoteRequest) -> Answer<VoteReply> {
        none(to)
    }

    fn beat(&self, to: &PeerAddress, _: AppendRequest) -> Answer<AppendReply> {
        none(to)
    }

    fn append(&self, to: &PeerAddress, _: BoxStream<'static, AppendRequest>) -> Answer<Messages<AppendReply>> {
        none(to)
    }

    fn snapshot(&self, to: &PeerAddress, _: BoxStream<'static, SnapshotPart>) -> Answer<SnapshotReply> {
        none(to)
    }

    fn transfer_leader(&self, to: &PeerAddress, _: TransferRequest) -> Answer<TransferReply> {
        none(to)
    }

    fn propose(&self, to: &PeerAddress, _: ProposeRequest) -> BoxFuture<'static, Result<ProposeReply, ProposeFailure>> {
        future::ready(Err(ProposeFailure::NotProposed(nobody(to)))).boxed()
    }

    fn read_index(&self, to: &PeerAddress, _: ReadIndexRequest) -> Answer<ReadIndexReply> {
        none(to)
    }

    fn apply_hash(&self, to: &PeerAddress, _: ApplyHashRequest) -> Answer<ApplyHashReply> {
        none(to)
    }
}
