//! The leader's watch over nodes, by the rules of the manager's own.

use skep_model::{Change, Cluster, Node, NodeId, NodeState, NodeStatus, Timestamp};

use crate::clock::{Nanos, SECOND};
use crate::log::Plan;
use crate::manager::{Manager, Purpose};
use crate::sabotage::Sabotage;
use crate::world::World;

pub const SILENCE_MAX: Nanos = 4 * SECOND;
const RESTART_GRACE: Nanos = 60 * SECOND;
/// From here on a node counts as silent together with others.
const MISSED: Nanos = 2_200_000_000;
/// With fewer nodes, losing more than half is not unusual.
const BREAKER_MIN: usize = 4;

impl World {
    pub fn watch_nodes(&mut self, m: usize) {
        let manager = &self.managers[m];
        let Some((term, since)) = manager.leads else { return };
        if manager.liveness_waits || manager.applied < self.log.barrier {
            return;
        }
        let since = if self.sabotage == Some(Sabotage::LeaderForgetsElection) { 0 } else { since };
        let mut changes = judge_all(&manager.cluster, manager, since, self.now);
        if self.sabotage == Some(Sabotage::NodesStayDown) {
            changes.retain(
                |change| !matches!(change, Change::ReportNode { status, .. } if status.state == NodeState::Ready),
            );
        }
        if !changes.is_empty() {
            let base = manager.applied;
            self.managers[m].liveness_waits = true;
            self.propose(m, Plan::Leader { term, base }, changes, Purpose::Liveness);
        }
    }
}

fn judge_all(cluster: &Cluster, manager: &Manager, since: Nanos, now: Nanos) -> Vec<Change> {
    let at = manager.wall.read(now);
    let heard = |node: NodeId| manager.heard.get(&node).copied();
    let mut changes = Vec::new();
    let (mut counted, mut missed) = (0, 0);
    let mut lost: Vec<&Node> = Vec::new();
    for node in cluster.nodes.values() {
        let heard = heard(node.id);
        if node.status.state == NodeState::Down {
            let speaks = heard.is_some_and(|heard| !heard.leaving && now - heard.at <= SILENCE_MAX);
            changes.extend(speaks.then(|| report(node, NodeState::Ready, "", at)));
            continue;
        }
        counted += 1;
        let own = node.manager.as_ref().is_some_and(|own| own.raft_id == manager.raft_id);
        if heard.is_none() && own {
            // Its agent is about to open its first session.
            continue;
        }
        let silence = now - heard.map_or(since, |heard| heard.at.max(since));
        let leaving = heard.is_some_and(|heard| heard.leaving);
        let (patience, missed_after) = if leaving { (RESTART_GRACE, RESTART_GRACE) } else { (SILENCE_MAX, MISSED) };
        missed += usize::from(silence > missed_after);
        if silence > patience {
            lost.push(node);
        }
    }
    if counted < BREAKER_MIN || missed * 2 <= counted {
        changes.extend(lost.into_iter().map(|node| report(node, NodeState::Down, "heartbeat failure", at)));
    }
    changes
}

fn report(node: &Node, state: NodeState, message: &str, at: Timestamp) -> Change {
    let status = NodeStatus { state, message: message.to_owned(), address: node.status.address.clone() };
    Change::ReportNode { node: node.id, description: None, status, at }
}
