//! How Raft reaches other managers.
//!
//! This build runs one manager per cluster: there is nobody to reach, and each attempt says so. Raft
//! only tries when a second manager is in its list, and nothing puts one there.

use bytes::Bytes;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};

use crate::raft::{Member, Types, Voted};
use crate::state_machine::StateSnapshot;

/// Makes the connection to each manager in Raft's list.
pub(crate) struct Managers;

/// The connection to one manager.
pub(crate) struct Manager {
    raft_id: u64,
    address: String,
}

impl Manager {
    fn unreachable(&self) -> Unreachable<Types> {
        Unreachable::from_string(format!(
            "manager {} at {} cannot be reached: this build of skep runs one manager per cluster",
            self.raft_id, self.address
        ))
    }
}

impl RaftNetworkFactory<Types> for Managers {
    type Network = Manager;

    async fn new_client(&mut self, target: u64, node: &Member) -> Manager {
        Manager { raft_id: target, address: node.address.clone() }
    }
}

impl RaftNetworkV2<Types> for Manager {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        _: AppendEntriesRequest<Types>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        Err(self.unreachable().into())
    }

    async fn vote(&mut self, _: VoteRequest<Types>, _: RPCOption) -> Result<VoteResponse<Types>, RPCError<Types>> {
        Err(self.unreachable().into())
    }

    /// openraft's own answer would be to grant it.
    async fn pre_vote(&mut self, _: VoteRequest<Types>, _: RPCOption) -> Result<VoteResponse<Types>, RPCError<Types>> {
        Err(self.unreachable().into())
    }

    async fn full_snapshot(
        &mut self,
        _: Voted,
        _: StateSnapshot,
        _: impl Future<Output = ReplicationClosed> + Send + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        Err(self.unreachable().into())
    }
}
