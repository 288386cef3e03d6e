//! Who leads, as one value that changes: followed from Raft's metrics.
//!
//! `Leader` is published only when this manager has applied everything that was committed before it was
//! elected: whoever acts on it starts from the current state.

use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::{Raft, ReadPolicy, ServerState};
use tokio::sync::watch;

use crate::error::reason;
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

/// Follows Raft until it stops.
pub(crate) async fn follow(raft: Raft<Types, StateMachine>, leadership: watch::Sender<Leadership>) {
    let mut server = raft.server_metrics();
    loop {
        let (state, term, leader) = {
            let metrics = server.borrow_and_update();
            (metrics.state, metrics.vote.leader_id.term, metrics.current_leader)
        };
        let current = match state {
            ServerState::Leader if *leadership.borrow() == (Leadership::Leader { term }) => Leadership::Leader { term },
            ServerState::Leader => match raft.ensure_linearizable(ReadPolicy::ReadIndex).await {
                Ok(_) => Leadership::Leader { term },
                Err(error) => {
                    tracing::debug!(%error, "elected, but not yet confirmed");
                    tokio::time::sleep(RETRY).await;
                    if matches!(error, openraft::errors::RaftError::APIError(_)) {
                        continue;
                    }
                    Leadership::Follower { leader: None }
                }
            },
            _ => Leadership::Follower { leader },
        };
        leadership.send_if_modified(|known| {
            let changed = *known != current;
            *known = current;
            changed
        });
        if server.changed().await.is_err() {
            break;
        }
    }
    let reason = match &raft.metrics().borrow_watched().running_state {
        Ok(()) => "it was shut down".into(),
        Err(fatal) => reason(fatal),
    };
    leadership.send_replace(Leadership::Stopped { reason });
}
