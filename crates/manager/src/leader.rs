//! The leader loop: turns what the pure crates decide into proposals, for as long as this manager leads.
//!
//! ```text
//!  cluster changes · time falls due · a proposal was refused
//!        └─▶ reconcile ─▶ schedule (on the reconciled picture) ─▶ one proposal ─▶ again
//! ```
//! The loop is level-triggered: it looks at the newest state whenever something may have changed, so a
//! missed wake-up costs time and never correctness.

use std::sync::Arc;
use std::time::{Duration, Instant};

use skep_model::{Change, Cluster, IdSource, NodeId, Service, TaskId, TaskState, Timestamp};
use skep_orchestrator::{addresses, moves, next_wakeup, reconcile_some};
use skep_scheduler::{Move, Placement, next_move, schedule};
use skep_store::{Leadership, ProposeError, Store};
use tokio_util::sync::CancellationToken;

use crate::clock::wall_clock;
use crate::levels;

/// Changes in one proposal; a decision of more makes several, one after the other.
const CHANGES_PER_PROPOSAL: usize = 1000;
/// A decision looks at no further service once it has this many changes, so that the first tasks of a large deploy start
/// before the last are made.
const CHANGES_PER_DECISION: usize = 10_000;
/// A decision is carried out for no longer than this; what is left of it is decided again on the newest state.
const DECISION_AGE_MAX: Duration = Duration::from_secs(2);
/// A round that found nothing to do is followed by a rest of this many times what it took, so that deciding takes a
/// part of one core even where a hundred thousand tasks report. In small clusters that is no time at all.
const REST_AFTER_NOTHING: u32 = 3;
const REST_MAX: Duration = Duration::from_millis(500);
/// How long to wait after a proposal failed for another reason than its content.
const RETRY: Duration = Duration::from_millis(200);
/// The pause after refused proposals grows to this many times [`RETRY`].
const OVERTAKEN_MAX: u32 = 50;

/// Runs until `stop`; idle while another manager leads.
pub async fn run(store: Store, mut ids: IdSource, stop: CancellationToken) {
    let mut leadership = store.leadership();
    let mut cluster = store.watch();
    // Refused proposals in a row. A race is lost once; what is refused again and again is a mistake of ours,
    // and must not fill the log.
    let mut overtaken = 0;
    loop {
        let round = Instant::now();
        let leads = matches!(*leadership.borrow_and_update(), Leadership::Leader { .. });
        let now = wall_clock();
        let current = cluster.borrow_and_update().clone();
        let changes = if leads { decide_all(&current, now, &mut ids) } else { Vec::new() };
        if !changes.is_empty() {
            let pace = tokio::select! {
                pace = propose(&store, changes) => pace,
                () = stop.cancelled() => return,
            };
            let rest = match pace {
                Pace::Go => {
                    overtaken = 0;
                    continue;
                }
                Pace::Overtaken => {
                    overtaken += 1;
                    RETRY * (overtaken - 1).min(OVERTAKEN_MAX)
                }
                Pace::Rest => RETRY,
            };
            tokio::select! {
                () = tokio::time::sleep(rest) => {}
                () = stop.cancelled() => return,
            }
            continue;
        }
        let due = next_wakeup(&current, now).filter(|_| leads).map(|at| at.since(now));
        tokio::select! {
            () = tokio::time::sleep((round.elapsed() * REST_AFTER_NOTHING).min(REST_MAX)) => {}
            () = stop.cancelled() => return,
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = cluster.changed() => if changed.is_err() { return },
            changed = leadership.changed() => if changed.is_err() { return },
            () = sleep_or_forever(due) => {}
        }
    }
}

async fn sleep_or_forever(due: Option<Duration>) {
    match due {
        Some(due) => tokio::time::sleep(due).await,
        None => std::future::pending().await,
    }
}

enum Pace {
    Go,
    Overtaken,
    Rest,
}

/// Proposes all of a decision, in its order, unless a part of it is refused or it grows old.
///
/// Deciding looks at every object, so a deploy of many tasks would cost their square if each proposal were
/// decided anew.
async fn propose(store: &Store, mut changes: Vec<Change>) -> Pace {
    let decided = Instant::now();
    loop {
        let rest = changes.split_off(changes.len().min(CHANGES_PER_PROPOSAL));
        let pace = propose_one(store, changes).await;
        if rest.is_empty() || !matches!(pace, Pace::Go) || decided.elapsed() > DECISION_AGE_MAX {
            return pace;
        }
        changes = rest;
    }
}

async fn propose_one(store: &Store, changes: Vec<Change>) -> Pace {
    match store.propose_here(changes).await {
        Ok(_) => Pace::Go,
        Err(ProposeError::Rejected(rejection)) => {
            // Something else was written in between: the next round decides on the new state.
            tracing::debug!(%rejection, "a decision was overtaken");
            Pace::Overtaken
        }
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "a decision could not be written, it will be made again"
            );
            Pace::Rest
        }
    }
}

/// What services need; when they need nothing, what the cluster does.
fn decide_all(cluster: &Cluster, now: Timestamp, ids: &mut IdSource) -> Vec<Change> {
    match decide(cluster, now, ids) {
        changes if changes.is_empty() => {
            levels::level_change(cluster).into_iter().chain(addresses::abandoned_blocks(cluster)).collect()
        }
        changes => changes,
    }
}

/// One round: what the orchestrator wants, and where the tasks that wait, the new ones among them, go.
pub fn decide(cluster: &Cluster, now: Timestamp, ids: &mut IdSource) -> Vec<Change> {
    let mut changes = reconcile_some(cluster, now, ids, CHANGES_PER_DECISION);
    let mut picture = cluster.clone();
    for (number, change) in changes.iter().enumerate() {
        // A change that does not apply to the picture will be refused by the store too; the round is then
        // repeated on the state that overtook it.
        if picture.apply(change, cluster.version.0 + 1).is_err() {
            changes.truncate(number);
            break;
        }
    }
    changes.extend(place(&picture, now));
    if changes.is_empty() {
        changes = rebalance(cluster, now, ids);
    }
    changes
}

/// The next moves of services whose tasks are to be spread anew: one of each service.
///
/// A move is written whole, with the node that the scheduler found for it: had the replacement to look for one itself,
/// it might find itself where it came from.
fn rebalance(cluster: &Cluster, now: Timestamp, ids: &mut IdSource) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut picture = cluster.clone();
    for service in cluster.services.values().filter(|service| moves::is_asked(service)) {
        let step = moves::movable(cluster, service, now).map(|tasks| next_move(&picture, service, &tasks, now));
        let decided = match step {
            Some(Some(step)) => relocate(&picture, service, step, now, ids),
            Some(None) if service.rebalancing_since.is_some() && moves::is_settled(cluster, service) => {
                vec![Change::SetRebalancing { service: service.id, since: None }]
            }
            Some(None) | None => Vec::new(),
        };
        let mut next = picture.clone();
        if decided.iter().all(|change| next.apply(change, cluster.version.0 + 1).is_ok()) {
            picture = next;
            changes.extend(decided);
        }
    }
    changes
}

fn relocate(cluster: &Cluster, service: &Arc<Service>, step: Move, now: Timestamp, ids: &mut IdSource) -> Vec<Change> {
    let Some(task) = cluster.tasks.get(&step.task) else { return Vec::new() };
    let name = moves::name_of(cluster, step.to);
    let Some((mut changes, made)) = moves::replace(cluster, service, task, &name, now, ids) else { return Vec::new() };
    let mut picture = cluster.clone();
    for change in &changes {
        if picture.apply(change, cluster.version.0 + 1).is_err() {
            return Vec::new();
        }
    }
    changes.extend(addresses::blocks_for(&picture, &[(made, step.to)], now));
    changes.push(Change::AssignTask { task: made, node: step.to, at: now });
    changes
}

fn place(cluster: &Cluster, now: Timestamp) -> Vec<Change> {
    let waits = |task: &skep_model::Task| task.status.state == TaskState::Pending && task.is_live();
    let mut pending: Vec<TaskId> = cluster.tasks.values().filter(|task| waits(task)).map(|task| task.id).collect();
    let mut assigned: Vec<(TaskId, NodeId)> = Vec::new();
    let mut changes = Vec::new();
    let mut held = Vec::new();
    pending.retain(|id| match cluster.tasks.get(id).and_then(|task| addresses::still_held(cluster, task)) {
        Some(reason) => {
            held.push(Placement::Unplaced { task: *id, reason });
            false
        }
        None => true,
    });
    for placement in schedule(cluster, &pending, now).into_iter().chain(held) {
        match placement {
            Placement::Assigned { task, node } => assigned.push((task, node)),
            Placement::Unplaced { task, reason } => {
                let known = cluster.tasks.get(&task).and_then(|task| task.status.error.as_deref());
                if known != Some(reason.as_str()) {
                    changes.push(Change::SetTaskPending { task, reason: Some(reason), at: now });
                }
            }
        }
    }
    changes.extend(addresses::blocks_for(cluster, &assigned, now));
    changes.extend(assigned.into_iter().map(|(task, node)| Change::AssignTask { task, node, at: now }));
    changes
}
