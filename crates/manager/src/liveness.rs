//! Which nodes are there: the leader's watch over heartbeats. What follows from them is decided in `judgement`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use skep_model::Change;
use skep_store::{Leadership, Store};
use tokio_util::sync::CancellationToken;

use crate::clock::wall_clock;
use crate::judgement::{Judgement, Moment, judge_all};
use crate::sessions::Sessions;

const ROUND: Duration = Duration::from_millis(500);
/// A round that is this late tells of this manager, not of its nodes.
const AWAY_MIN: Duration = Duration::from_secs(1);

pub async fn watch(store: Store, sessions: Arc<Sessions>, stop: CancellationToken) {
    let leadership = store.leadership();
    let mut leading_since: Option<Instant> = None;
    let mut sparing = false;
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
        let moment = Moment { leading_since: since, now: Instant::now(), at: wall_clock() };
        let judgement = judge_all(&store.cluster(), &|node| sessions.heard(node), moment, store.raft_id());
        let Judgement { changes, spared } = judgement;
        tell_of_spared(&mut sparing, spared.len());
        if changes.is_empty() {
            continue;
        }
        changes.iter().for_each(tell);
        if let Err(error) = store.propose(changes).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the state of nodes could not be written, it will be tried again"
            );
        }
    }
}

fn tell(change: &Change) {
    if let Change::ReportNode { node, status, .. } = change {
        tracing::info!(node.id = %node, state.to = ?status.state, "node changed state");
    }
}

/// Once when it begins and once when it ends: an operator must know that lost nodes keep their tasks.
fn tell_of_spared(sparing: &mut bool, spared: usize) {
    match (std::mem::replace(sparing, spared > 0), spared > 0) {
        (false, true) => tracing::warn!(
            silent = spared,
            "more than half of the nodes fell silent together: their tasks are not moved; look at this manager's network"
        ),
        (true, false) => tracing::info!("nodes are counted as lost again when they are silent"),
        (false, false) | (true, true) => {}
    }
}

#[cfg(test)]
mod tests {
    use skep_model::NodeId;
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_good_bye_holds_until_the_next_session() {
        let sessions = Arc::new(Sessions::default());
        let id = NodeId::from_u128(1);
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
