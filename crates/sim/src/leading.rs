//! The leader's loop: decisions, as the real code makes them, and what sabotage makes of those.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use skep_manager::leader;
use skep_model::{
    Availability, Change, Cluster, DesiredState, IdSource, Node, NodeState, Slot, Task, TaskId, Timestamp,
};
use skep_orchestrator::next_wakeup;

use crate::check::Violation;
use crate::clock::{MILLI, Nanos};
use crate::log::Plan;
use crate::manager::Purpose;
use crate::sabotage::Sabotage;
use crate::world::{Answer, Event, World};

/// How long the leader loop rests after a proposal that was not written.
const RETRY: Nanos = 200 * MILLI;
/// Rounds at one moment after which nothing new may be decided: each service is first given its endpoint,
/// then tasks, then an update its state.
const ROUNDS_TO_REST: usize = 8;

impl World {
    /// Something may have changed: the leader loop looks soon.
    pub fn poke(&mut self, m: usize) {
        let manager = &mut self.managers[m];
        let epoch = manager.epoch;
        if manager.leads.is_some() && !manager.leader_loop.waits && !manager.leader_loop.poked {
            manager.leader_loop.poked = true;
            self.after(MILLI / 2, Event::Decide { manager: m, epoch });
        }
    }

    pub fn decide(&mut self, m: usize) -> Result<(), Violation> {
        let manager = &mut self.managers[m];
        manager.leader_loop.poked = false;
        let Some((term, _)) = manager.leads else { return Ok(()) };
        let knows_all = manager.applied >= self.log.barrier || term < self.log.term;
        if manager.leader_loop.waits || !(knows_all || self.sabotage == Some(Sabotage::LeaderSkipsBarrier)) {
            return Ok(());
        }
        let now = manager.wall.read(self.now);
        let (cluster, base) = (Arc::clone(&manager.cluster), manager.applied);
        let mut ids = manager.ids.clone();
        let first = manager.decided_in != Some(term);
        let changes = decided(&cluster, now, &mut ids, self.sabotage, first, base);
        let manager = &mut self.managers[m];
        manager.decided_in = Some(term);
        self.check_decision(m, &cluster, now, &changes, first)?;
        let manager = &mut self.managers[m];
        manager.ids = ids;
        if changes.is_empty() {
            let due = next_wakeup(&cluster, now).map(|at| at.since(now));
            self.sleep_until(m, due);
            return Ok(());
        }
        manager.leader_loop.waits = true;
        self.propose(m, Plan::Leader { term, base }, changes, Purpose::Decision);
        Ok(())
    }

    fn sleep_until(&mut self, m: usize, due: Option<Duration>) {
        let Some(due) = due.and_then(|due| u64::try_from(due.as_nanos()).ok()) else { return };
        let at = self.now.saturating_add(due);
        let (now, timer) = (self.now, &mut self.managers[m].leader_loop.timer);
        if timer.is_none_or(|timer| timer <= now || at < timer) {
            *timer = Some(at);
            let epoch = self.managers[m].epoch;
            self.at(at, Event::Decide { manager: m, epoch });
        }
    }

    /// Laws of decisions: determined by their input, and at rest after a bounded number of rounds.
    fn check_decision(
        &mut self,
        m: usize,
        cluster: &Arc<Cluster>,
        now: Timestamp,
        changes: &[Change],
        first: bool,
    ) -> Result<(), Violation> {
        self.checker.decision(cluster, changes)?;
        self.checker.decisions += 1;
        if !self.checker.decisions.is_multiple_of(4) || changes.is_empty() {
            return Ok(());
        }
        let mut ids = self.managers[m].ids.clone();
        let again = decided(cluster, now, &mut ids, self.sabotage, first, self.managers[m].applied);
        if again != changes {
            return Err(Violation::new("deterministic", "the same state and time gave other changes".to_owned()));
        }
        let mut picture = (**cluster).clone();
        let mut round = changes.to_vec();
        for _ in 0..ROUNDS_TO_REST {
            for change in &round {
                picture.apply(change, picture.version.0 + 1).map_err(|why| {
                    Violation::new("own-decisions-apply", format!("{}: {why}", crate::words::change(change)))
                })?;
            }
            round = decided(&picture, now, &mut ids, self.sabotage, false, self.managers[m].applied);
            if round.is_empty() {
                return Ok(());
            }
        }
        let words: Vec<String> = round.iter().map(crate::words::change).collect();
        Err(Violation::new("fixpoint", format!("after {ROUNDS_TO_REST} rounds still: {}", words.join("; "))))
    }

    pub fn decision_answered(&mut self, m: usize, answer: &Answer) {
        let epoch = self.managers[m].epoch;
        match answer {
            Answer::Applied => {
                self.managers[m].leader_loop.waits = false;
                self.poke(m);
            }
            Answer::Rejected | Answer::Unknown => self.after(RETRY, Event::Rested { manager: m, epoch }),
        }
    }
}

/// The real decision, and what sabotage makes of it.
fn decided(
    cluster: &Cluster,
    now: Timestamp,
    ids: &mut IdSource,
    sabotage: Option<Sabotage>,
    first: bool,
    index: u64,
) -> Vec<Change> {
    let mut changes = leader::decide(cluster, now, ids);
    match sabotage {
        Some(Sabotage::DropDesiredShutdown) => {
            changes.retain(|change| !matches!(change, Change::SetTaskDesired { desired: DesiredState::Shutdown, .. }));
        }
        Some(Sabotage::ReaperSleeps) => changes.retain(|change| !matches!(change, Change::RemoveTask { .. })),
        Some(Sabotage::IgnoreConstraints) => {
            let ready: Vec<_> = cluster.nodes.values().filter(|node| node.status.state == NodeState::Ready).collect();
            for (number, change) in changes.iter_mut().enumerate() {
                if let (Change::AssignTask { node, .. }, false) = (change, ready.is_empty()) {
                    *node = ready[(index as usize + number) % ready.len()].id;
                }
            }
        }
        Some(Sabotage::Overcommit) => crowd(cluster, &mut changes),
        Some(Sabotage::SchedulerOverlooks) => changes.retain(|change| match change {
            Change::AssignTask { task, .. } => task.as_u128() % 4 != 0,
            _ => true,
        }),
        Some(Sabotage::RestlessReconcile) => {
            if let Some(service) = cluster.services.values().next() {
                let endpoint = service.endpoint.clone();
                changes.push(Change::SetServiceEndpoint { service: service.id, endpoint });
            }
        }
        Some(Sabotage::LeaderReshuffles) if first => {
            let running = cluster.tasks.values().find(|task| task.is_live() && task.node.is_some());
            if let (Some(task), true) = (running, changes.is_empty()) {
                changes.push(Change::SetTaskDesired {
                    task: task.id,
                    desired: DesiredState::Shutdown,
                    at: now,
                    reason: None,
                });
            }
        }
        _ => {}
    }
    changes
}

/// Puts every task that may run anywhere on one node.
fn crowd(cluster: &Cluster, changes: &mut [Change]) {
    let takes =
        |node: &&Arc<Node>| node.status.state == NodeState::Ready && node.spec.availability == Availability::Active;
    let Some(one) = cluster.nodes.values().find(takes).map(|node| node.id) else { return };
    let made: BTreeMap<TaskId, Task> = changes
        .iter()
        .filter_map(|change| match change {
            Change::CreateTask { task } => Some((task.id, (**task).clone())),
            _ => None,
        })
        .collect();
    for change in changes {
        let Change::AssignTask { task, node, .. } = change else { continue };
        let task = cluster.tasks.get(task).map(|task| &**task).or_else(|| made.get(task));
        if task.is_some_and(|task| matches!(task.slot, Slot::Replica(_)) && task.spec.placement.constraints.is_empty())
        {
            *node = one;
        }
    }
}
