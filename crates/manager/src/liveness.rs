//! Which nodes are there: the leader's watch over heartbeats.
//!
//! A node is down after four seconds of silence, counted from this leader's own election at the earliest.
//! One that announced that its daemon stops keeps its tasks for a minute.

use std::sync::Arc;
use std::time::{Duration, Instant};

use skep_model::{Change, Node, NodeState, NodeStatus};
use skep_store::{Leadership, Store};
use tokio_util::sync::CancellationToken;

use crate::clock::wall_clock;
use crate::sessions::Sessions;

const SILENCE_MAX: Duration = Duration::from_secs(4);
const RESTART_GRACE: Duration = Duration::from_secs(60);
const ROUND: Duration = Duration::from_millis(500);

pub async fn watch(store: Store, sessions: Arc<Sessions>, stop: CancellationToken) {
    let leadership = store.leadership();
    let mut leading_since: Option<Instant> = None;
    let mut rounds = tokio::time::interval(ROUND);
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = rounds.tick() => {}
            () = stop.cancelled() => return,
        }
        let leads = matches!(*leadership.borrow(), Leadership::Leader { .. });
        leading_since = if leads { leading_since.or(Some(Instant::now())) } else { None };
        let Some(since) = leading_since else { continue };
        let cluster = store.cluster();
        let changes: Vec<Change> = cluster.nodes.values().filter_map(|node| judge(node, &sessions, since)).collect();
        if changes.is_empty() {
            continue;
        }
        if let Err(error) = store.propose(changes).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the state of nodes could not be written, it will be tried again"
            );
        }
    }
}

fn judge(node: &Node, sessions: &Sessions, leading_since: Instant) -> Option<Change> {
    let heard = sessions.heard(node.id);
    let last = heard.map_or(leading_since, |heard| heard.at.max(leading_since));
    let patience = if heard.is_some_and(|heard| heard.leaving) { RESTART_GRACE } else { SILENCE_MAX };
    let silent = last.elapsed() > patience;
    let (state, message) = match (node.status.state, silent) {
        (NodeState::Ready | NodeState::Unknown | NodeState::Disconnected, true) => {
            (NodeState::Down, "heartbeat failure")
        }
        (NodeState::Down, false) if sessions.is_open(node.id) => (NodeState::Ready, ""),
        _ => return None,
    };
    tracing::info!(node.id = %node.id, state.from = ?node.status.state, state.to = ?state, "node changed state");
    let status = NodeStatus { state, message: message.to_owned(), address: node.status.address.clone() };
    Some(Change::ReportNode { node: node.id, description: None, status, at: wall_clock() })
}
