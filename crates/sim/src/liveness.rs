//! The leader's watch over silent nodes: whom it gives up, and which at-most-one tasks are then surely over.

use std::time::Duration;

use skep_manager::judgement::{self, Moment, judge_all};
use skep_model::{Change, Cluster, DesiredState, NodeId, NodeState, TaskId};

use crate::clock::{HOUR, Nanos, SECOND};
use crate::log::Plan;
use crate::manager::Purpose;
use crate::sabotage::Sabotage;
use crate::world::World;

/// What the real judgement waits for at least.
pub const SILENCE_MAX: Nanos = 4 * SECOND;

impl World {
    pub fn watch_nodes(&mut self, m: usize) {
        let manager = &self.managers[m];
        let Some((term, since)) = manager.leads else { return };
        if manager.liveness_waits || manager.applied < self.log.barrier {
            return;
        }
        let since = if self.sabotage == Some(Sabotage::LeaderForgetsElection) { 0 } else { since };
        let at = |nanos: Nanos| self.origin + Duration::from_nanos(nanos);
        let heard = |node: NodeId| {
            manager.heard.get(&node).map(|heard| judgement::Heard { at: at(heard.at), leaving: heard.leaving })
        };
        let moment = Moment { leading_since: at(since), now: at(self.now), at: manager.wall.read(self.now) };
        let mut changes = judge_all(&manager.cluster, &heard, moment, manager.raft_id).changes;
        let returns = |change: &Change| match change {
            Change::ReportNode { status, .. } => status.state == NodeState::Ready,
            _ => false,
        };
        if self.sabotage == Some(Sabotage::NodesStayDown) {
            changes.retain(|change| !returns(change));
        }
        if !changes.is_empty() {
            let base = manager.applied;
            self.managers[m].liveness_waits = true;
            self.propose(m, Plan::Leader { term, base }, changes, Purpose::Liveness);
        }
    }

    /// Ends tasks on silent nodes once their leases have surely run out.
    pub fn watch_leases(&mut self, m: usize) {
        let manager = &self.managers[m];
        if manager.leads.is_none() || manager.fence_waits || manager.applied < self.log.barrier {
            return;
        }
        let hasty = if self.sabotage == Some(Sabotage::FenceTooSoon) { HOUR } else { 0 };
        let clock = Duration::from_nanos(self.now - manager.began + hasty);
        let ends = manager.fence.ends(&manager.cluster, clock, manager.wall.read(self.now));
        if !ends.is_empty() {
            self.managers[m].fence_waits = true;
            self.propose(m, Plan::Any, ends, Purpose::Fence);
        }
    }
}

/// The node's tasks that may live on, as the manager's leases have it.
pub fn leased_tasks(cluster: &Cluster, node: NodeId) -> Vec<TaskId> {
    let tasks = cluster.tasks_of_node(node).filter(|task| task.spec.at_most_one);
    tasks.filter(|task| task.is_live() && task.desired == DesiredState::Running).map(|task| task.id).collect()
}
