//! Which managers there are for Raft, and changing that: at the leader.
//!
//! A new manager is a learner first, gets everything, and only then votes: a voter that lacks the log would make every
//! write wait for it. Voters change through a joint configuration, so any set can follow any other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, Fatal, RaftError};
use openraft::raft::{ClientWriteResponse, VoteRequest};
use openraft::{ChangeMembers, Vote};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::error::{ProposeError, reason};
use crate::propose::ANSWER;
use crate::raft::{LogId, Member, StoredMembership, Types};
use crate::store::Store;

/// An attempt may be lost on its way.
const HAND_OVER_TRIES: u32 = 3;
const POLL: Duration = Duration::from_millis(10);

/// The managers that Raft knows, with their addresses (`host:port`), by Raft id.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Members {
    /// They elect the leader, and a majority of them has everything that was acknowledged.
    pub voters: BTreeMap<u64, String>,
    /// They only follow.
    pub learners: BTreeMap<u64, String>,
}

/// The managers could not be changed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ChangeMembersError {
    /// Another manager leads, or none; nothing was changed.
    #[error("this manager does not lead the cluster{}", .address.as_ref().map(|a| format!("; {a} does")).unwrap_or_default())]
    NotLeader {
        /// The leader's Raft id, if there is one.
        leader: Option<u64>,
        /// Where it is.
        address: Option<String>,
    },
    /// Raft refused: another change is under way, or a manager is not known. Nothing was changed.
    #[error("Raft refuses to change the managers: {0}")]
    Refused(String),
    /// It was not confirmed, and may or may not be done.
    #[error("the change of managers was not confirmed; it may still be made")]
    Unknown,
    /// The store is shut down, or its disk failed.
    #[error("this manager's store has stopped: {reason}")]
    Stopped {
        /// Why.
        reason: Arc<str>,
    },
}

/// The leader could not hand over.
#[derive(Debug, Clone, thiserror::Error)]
pub enum HandOverError {
    /// Nothing to hand over.
    #[error("this manager does not lead the cluster")]
    NotLeader,
    /// The named manager does not vote, or no other one does.
    #[error("there is no other manager that votes and could lead")]
    Nobody,
    /// An election follows.
    #[error("manager {to} did not take over")]
    NotTaken {
        /// Who should have.
        to: u64,
    },
    /// The store is shut down, or its disk failed.
    #[error("this manager's store has stopped: {reason}")]
    Stopped {
        /// Why.
        reason: Arc<str>,
    },
}

impl Members {
    pub(crate) fn of(membership: &StoredMembership) -> Members {
        let membership = membership.membership();
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        let mut members = Members::default();
        for (id, Member { address }) in membership.nodes() {
            let kind = if voters.contains(id) { &mut members.voters } else { &mut members.learners };
            kind.insert(*id, address.clone());
        }
        members
    }

    /// Everybody's address.
    pub(crate) fn addresses(&self) -> BTreeMap<u64, String> {
        let all = self.voters.iter().chain(&self.learners);
        all.map(|(id, address)| (*id, address.clone())).collect()
    }
}

type Changed = Result<ClientWriteResponse<Types>, RaftError<Types, ClientWriteError<Types>>>;

impl Store {
    /// The managers as this one knows them; a change shows as soon as it is logged, and at the leader before the call
    /// that made it returns.
    pub fn members(&self) -> Members {
        Members::of(&self.inner.raft.server_metrics().borrow_watched().membership_config)
    }

    /// The managers, whenever they change.
    pub fn watch_members(&self) -> watch::Receiver<Members> {
        self.inner.members.clone()
    }

    /// Adds a manager that follows. Returns when that is committed, not when it has caught up: see
    /// [`Store::progress`]. One that is there already keeps its address.
    pub async fn add_learner(&self, raft_id: u64, address: impl Into<String>) -> Result<(), ChangeMembersError> {
        let member = Member { address: address.into() };
        self.change(self.inner.raft.add_learner(raft_id, member, false)).await
    }

    /// Makes exactly these managers vote. Each must be a member already. A voter that is not among them is removed
    /// altogether, so that it gets nothing more of the cluster's secrets; learners stay.
    pub async fn set_voters(&self, voters: BTreeSet<u64>) -> Result<(), ChangeMembersError> {
        self.change(self.inner.raft.change_membership(voters, false)).await
    }

    /// Removes a manager, voter or learner; one that is not there is no error. A leader that removes itself hands over.
    pub async fn remove(&self, raft_id: u64) -> Result<(), ChangeMembersError> {
        let Members { voters, learners } = self.members();
        let ids = BTreeSet::from([raft_id]);
        if voters.contains_key(&raft_id) {
            self.change(self.inner.raft.change_membership(ChangeMembers::RemoveVoters(ids), false)).await
        } else if learners.contains_key(&raft_id) {
            self.change(self.inner.raft.change_membership(ChangeMembers::RemoveNodes(ids), false)).await
        } else {
            Ok(())
        }
    }

    /// Where a manager is from now on.
    pub async fn update_address(&self, raft_id: u64, address: impl Into<String>) -> Result<(), ChangeMembersError> {
        let Members { voters, learners } = self.members();
        if !voters.contains_key(&raft_id) && !learners.contains_key(&raft_id) {
            return Err(ChangeMembersError::Refused(format!("there is no manager {raft_id}")));
        }
        let nodes = BTreeMap::from([(raft_id, Member { address: address.into() })]);
        self.change(self.inner.raft.change_membership(ChangeMembers::SetNodes(nodes), true)).await
    }

    async fn change(&self, change: impl Future<Output = Changed>) -> Result<(), ChangeMembersError> {
        let Ok(changed) = timeout(ANSWER, change).await else { return Err(ChangeMembersError::Unknown) };
        let error = match changed {
            Ok(changed) => {
                self.listed(&changed.log_id).await;
                return Ok(());
            }
            Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(error))) => {
                return Err(ChangeMembersError::Refused(error.to_string()));
            }
            Err(RaftError::Fatal(fatal)) => self.fatal(&fatal),
            Err(error) => error.into(),
        };
        Err(match error {
            ProposeError::NotLeader { leader, address } => ChangeMembersError::NotLeader { leader, address },
            ProposeError::Stopped { reason } => ChangeMembersError::Stopped { reason },
            ProposeError::Unknown
            | ProposeError::NoQuorum(_)
            | ProposeError::Rejected(_)
            | ProposeError::TooLarge { .. } => ChangeMembersError::Unknown,
        })
    }

    /// Waits until [`Store::members`] knows of a change: a caller that computes the next one from an old list would undo
    /// it.
    async fn listed(&self, change: &LogId) {
        let mut server = self.inner.raft.server_metrics();
        while server.borrow_and_update().membership_config.log_id().as_ref() < Some(change) {
            if server.changed().await.is_err() {
                return;
            }
        }
    }

    /// How much of the log each manager has on its disk, by Raft id: the last index, as the leader knows. Empty at
    /// any other manager.
    pub fn progress(&self) -> BTreeMap<u64, Option<u64>> {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        let replication = metrics.replication.iter().flatten();
        replication.map(|(id, matched)| (*id, matched.as_ref().map(|log_id| log_id.index))).collect()
    }

    /// Lets another voter lead: the named one, or the one that has most of the log. Returns when this manager no longer
    /// leads. Proposals meanwhile wait for the new leader. Also when nobody takes over, this manager leads no longer
    /// (but may be elected again).
    pub async fn hand_over(&self, to: Option<u64>) -> Result<(), HandOverError> {
        let raft = &self.inner.raft;
        if !raft.is_leader() {
            return Err(HandOverError::NotLeader);
        }
        let to = match to {
            Some(to) => Some(to).filter(|to| self.members().voters.contains_key(to) && *to != self.inner.raft_id),
            None => self.successor(),
        };
        let to = to.ok_or(HandOverError::Nobody)?;
        for _ in 0..HAND_OVER_TRIES {
            raft.trigger().transfer_leader(to).await.map_err(|fatal| self.stopped_by(&fatal))?;
            let until = Instant::now() + self.inner.outside.contacts.patience() / 2;
            while Instant::now() < until {
                if !raft.is_leader() {
                    return Ok(());
                }
                sleep(POLL).await;
            }
        }
        self.step_down(to).await?;
        Err(HandOverError::NotTaken { to })
    }

    /// A leader that began to hand over takes no proposals any more, and openraft has no way back. So it follows, as if
    /// `next` had asked for its vote, and whoever can is elected.
    async fn step_down(&self, next: u64) -> Result<(), HandOverError> {
        let raft = &self.inner.raft;
        let vote = raft.with_raft_state(|state| *state.vote_ref()).await.map_err(|fatal| self.stopped_by(&fatal))?;
        let last_log_id = self.inner.log.last();
        let request =
            VoteRequest { vote: Vote::new(vote.leader_id.term + 1, next), last_log_id, leadership_transfer: true };
        match raft.vote(request).await {
            Ok(_) | Err(RaftError::APIError(_)) => Ok(()),
            Err(RaftError::Fatal(fatal)) => Err(self.stopped_by(&fatal)),
        }
    }

    fn stopped_by(&self, fatal: &Fatal<Types>) -> HandOverError {
        HandOverError::Stopped { reason: self.inner.outside.stopped().unwrap_or_else(|| reason(fatal)) }
    }

    /// The voter that would take over soonest, if one answers.
    fn successor(&self) -> Option<u64> {
        let members = self.members();
        let own = self.inner.raft_id;
        let others = self.progress().into_iter().filter(|(id, _)| *id != own && members.voters.contains_key(id));
        let answering =
            others.filter(|(id, _)| self.inner.outside.contacts.missing_since(*id, Instant::now()).is_none());
        answering.max_by_key(|(_, matched)| *matched).map(|(id, _)| id)
    }
}
