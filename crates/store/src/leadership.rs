//! Who leads and who the managers are, as values that change: followed from Raft's metrics.
//!
//! `Leader` is published only when this manager has applied everything that was committed before it was
//! elected: whoever acts on it starts from the current state. A leader that fell silent is forgotten, which Raft itself
//! does only when there is another.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::{Raft, ReadPolicy, ServerState};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::error::reason;
use crate::members::Members;
use crate::network::Outside;
use crate::raft::Types;
use crate::state_machine::StateMachine;

/// How often a new leader asks again whether a majority still follows it.
const RETRY: Duration = Duration::from_millis(100);

/// Who leads, seen from this manager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leadership {
    /// This manager does, and its state is current. Term and Raft id together fence what it does.
    Leader {
        /// The term that it was elected in.
        term: u64,
    },
    /// Another one does, or none.
    Follower {
        /// The leader's Raft id.
        leader: Option<u64>,
    },
    /// The store is shut down, or its disk failed.
    Stopped {
        /// Why.
        reason: Arc<str>,
    },
}

/// Where what is found is published.
pub(crate) struct Published {
    pub(crate) leadership: watch::Sender<Leadership>,
    pub(crate) members: watch::Sender<Members>,
}

/// Follows Raft until it stops, and stops it if this manager must not go on.
pub(crate) async fn follow(raft: Raft<Types, StateMachine>, outside: Arc<Outside>, published: Published) {
    let Published { leadership, members } = published;
    let mut server = raft.server_metrics();
    let mut stopping = std::pin::pin!(outside.stopping());
    loop {
        let (state, term, leader, membership) = {
            let metrics = server.borrow_and_update();
            let membership = Members::of(&metrics.membership_config);
            (metrics.state, metrics.vote.leader_id.term, metrics.current_leader, membership)
        };
        publish_members(&outside, &members, membership);
        let current = match state {
            ServerState::Leader if *leadership.borrow() == (Leadership::Leader { term }) => Leadership::Leader { term },
            ServerState::Leader => match raft.ensure_linearizable(ReadPolicy::ReadIndex).await {
                Ok(_) => Leadership::Leader { term },
                Err(error) => {
                    tracing::debug!(%error, "elected, but not yet confirmed");
                    sleep(RETRY).await;
                    if matches!(error, openraft::errors::RaftError::APIError(_)) {
                        continue;
                    }
                    Leadership::Follower { leader: None }
                }
            },
            ServerState::Learner | ServerState::Follower | ServerState::Candidate | ServerState::Shutdown => {
                Leadership::Follower { leader: leader.filter(|id| outside.contacts.leads(*id, Instant::now())) }
            }
        };
        // Nothing in Raft changes when a leader falls silent, or speaks again.
        let look_again = matches!(current, Leadership::Follower { .. }) && leader.is_some();
        leadership.send_if_modified(|known| {
            let changed = *known != current;
            *known = current;
            changed
        });
        tokio::select! {
            changed = server.changed() => if changed.is_err() { break },
            () = sleep(outside.contacts.patience() / 4), if look_again => {}
            () = &mut stopping => {
                if let Err(error) = raft.shutdown().await {
                    tracing::error!(%error, "Raft's task ended badly");
                }
                break;
            }
        }
    }
    let reason = outside.stopped().unwrap_or_else(|| match &raft.metrics().borrow_watched().running_state {
        Ok(()) => "it was shut down".into(),
        Err(fatal) => reason(fatal),
    });
    leadership.send_replace(Leadership::Stopped { reason });
}

fn publish_members(outside: &Outside, members: &watch::Sender<Members>, current: Members) {
    members.send_if_modified(|known| {
        let changed = *known != current;
        if changed {
            let addresses = current.addresses();
            outside.presence.keep(&addresses.keys().copied().collect::<BTreeSet<_>>());
            outside.set_addresses(addresses);
            *known = current;
        }
        changed
    });
}
