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
/// A round that is this late tells of this manager, not of its nodes.
const AWAY_MIN: Duration = Duration::from_secs(1);

pub async fn watch(store: Store, sessions: Arc<Sessions>, stop: CancellationToken) {
    let leadership = store.leadership();
    let mut leading_since: Option<Instant> = None;
    let mut last_round = Instant::now();
    let mut rounds = tokio::time::interval(ROUND);
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = rounds.tick() => {}
            () = stop.cancelled() => return,
        }
        let leads = matches!(*leadership.borrow(), Leadership::Leader { .. });
        // A manager that was itself stopped or starved has heard nobody: it counts from now, as if just elected.
        let was_away = last_round.elapsed() > ROUND + AWAY_MIN;
        last_round = Instant::now();
        leading_since = if leads { leading_since.filter(|_| !was_away).or(Some(Instant::now())) } else { None };
        let Some(since) = leading_since else { continue };
        let (cluster, own) = (store.cluster(), store.raft_id());
        let changes: Vec<Change> =
            cluster.nodes.values().filter_map(|node| judge(node, &sessions, since, own)).collect();
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

/// `own` is this manager's Raft id.
fn judge(node: &Node, sessions: &Sessions, leading_since: Instant, own: u64) -> Option<Change> {
    let heard = sessions.heard(node.id);
    if heard.is_none() && node.manager.as_ref().is_some_and(|manager| manager.raft_id == own) {
        // This very process: its agent is about to open its first session, however slow the machine.
        return None;
    }
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

#[cfg(test)]
mod tests {
    use skep_model::{IdSource, ManagerStatus, Meta, NodeId, NodeSpec, Timestamp};
    use tokio::sync::mpsc;

    use super::*;

    fn node(raft_id: Option<u64>) -> Node {
        Node {
            id: IdSource::from_seed(u128::from(raft_id.unwrap_or(0))).next_id(),
            meta: Meta::new(Timestamp(0)),
            spec: NodeSpec::default(),
            description: None,
            status: NodeStatus { state: NodeState::Ready, ..NodeStatus::default() },
            manager: raft_id.map(|raft_id| ManagerStatus { raft_id, address: "m:7377".into() }),
            certificate: Default::default(),
        }
    }

    fn long_ago() -> Instant {
        Instant::now().checked_sub(SILENCE_MAX * 2).expect("this machine has been up for 8 s")
    }

    #[test]
    fn a_silent_node_is_down_but_never_the_manager_itself_before_its_agent_has_started() {
        let sessions = Sessions::default();
        assert!(judge(&node(None), &sessions, long_ago(), 1).is_some());
        assert!(judge(&node(Some(2)), &sessions, long_ago(), 1).is_some());
        assert!(judge(&node(Some(1)), &sessions, long_ago(), 1).is_none());
        assert!(judge(&node(None), &sessions, Instant::now(), 1).is_none(), "silence counts from the election");
    }

    #[tokio::test]
    async fn a_good_bye_holds_until_the_next_session() {
        let sessions = Arc::new(Sessions::default());
        let id: NodeId = node(None).id;
        let session = sessions.open(id, mpsc::channel(1).0);
        sessions.note_heard(id, true);
        // The rest of a log that was being followed.
        sessions.note_heard(id, false);
        assert!(sessions.heard(id).unwrap().leaving);
        drop(session);
        let _again = sessions.open(id, mpsc::channel(1).0);
        assert!(!sessions.heard(id).unwrap().leaving);
    }
}
