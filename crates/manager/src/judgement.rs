//! Which nodes are there and which are lost: decided from what was heard of them, and from nothing else.
//!
//! A node is down after four seconds of silence, counted from this leader's own election at the earliest.
//! One that announced that its daemon stops keeps its tasks for a minute.
//! When more than half of at least four nodes fall silent together, nobody is down: then it is more likely the leader's
//! own network that failed, and moving everything would make it worse.

use std::time::{Duration, Instant};

use skep_model::{Change, Cluster, Node, NodeId, NodeState, NodeStatus, Timestamp};

pub use crate::sessions::Heard;

/// Why a node is down that has left the cluster.
pub const LEFT: &str = "it left the cluster";

const SILENCE_MAX: Duration = Duration::from_secs(4);
const RESTART_GRACE: Duration = Duration::from_secs(60);
/// Nodes that fell silent together are not found so in the same round: their last words were up to a heartbeat apart,
/// and came over different managers. From here on a node counts as silent with others; a second is a heartbeat.
const MISSED: Duration = Duration::from_millis(2200);
/// Below this many nodes, losing more than half is not unusual.
const BREAKER_MIN: usize = 4;

/// What is to be written, and whom the breaker spared.
#[derive(Debug, Default)]
pub struct Judgement {
    pub changes: Vec<Change>,
    /// Silent nodes that would be down, were they not so many.
    pub spared: Vec<NodeId>,
}

/// The moment of a judgement.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// Since when this manager leads.
    pub leading_since: Instant,
    pub now: Instant,
    /// As it is written into the nodes.
    pub at: Timestamp,
}

/// Judges every node. `own` is this manager's Raft id.
pub fn judge_all(cluster: &Cluster, heard: &dyn Fn(NodeId) -> Option<Heard>, moment: Moment, own: u64) -> Judgement {
    let mut judgement = Judgement::default();
    let (mut counted, mut missed) = (0, 0);
    let mut lost: Vec<&Node> = Vec::new();
    for node in cluster.nodes.values() {
        let heard = heard(node.id);
        if node.status.state == NodeState::Down {
            // Its last words may be from before its good-bye. One that still speaks when they would be forgotten is there:
            // it was a copy of it that left.
            if node.status.message == LEFT && moment.at.since(node.meta.updated_at) <= SILENCE_MAX {
                continue;
            }
            let speaks = heard.is_some_and(|heard| !heard.leaving && silence(heard.at, moment) <= SILENCE_MAX);
            judgement.changes.extend(speaks.then(|| report(node, NodeState::Ready, "", moment)));
            continue;
        }
        counted += 1;
        if heard.is_none() && node.manager.as_ref().is_some_and(|manager| manager.raft_id == own) {
            // This very process: its agent is about to open its first session, however slow the machine.
            continue;
        }
        let silence = silence(heard.map_or(moment.leading_since, |heard| heard.at.max(moment.leading_since)), moment);
        // Who said good-bye is not missed before its time is over.
        let leaving = heard.is_some_and(|heard| heard.leaving);
        let (patience, missed_after) = if leaving { (RESTART_GRACE, RESTART_GRACE) } else { (SILENCE_MAX, MISSED) };
        missed += usize::from(silence > missed_after);
        if silence > patience {
            lost.push(node);
        }
    }
    if counted >= BREAKER_MIN && missed * 2 > counted {
        judgement.spared = lost.iter().map(|node| node.id).collect();
    } else {
        let down = |node: &Node| report(node, NodeState::Down, "heartbeat failure", moment);
        judgement.changes.extend(lost.into_iter().map(down));
    }
    judgement
}

fn silence(since: Instant, moment: Moment) -> Duration {
    moment.now.saturating_duration_since(since)
}

fn report(node: &Node, state: NodeState, message: &str, moment: Moment) -> Change {
    let status = NodeStatus { state, message: message.to_owned(), address: node.status.address.clone() };
    Change::ReportNode { node: node.id, description: None, status, at: moment.at }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use skep_model::{ManagerStatus, Meta, NodeSpec, Version};

    use super::*;

    const OWN: u64 = 1;

    /// Nodes 1, 2, … of a cluster; the first is this manager's.
    struct Scene {
        start: Instant,
        nodes: Vec<Node>,
        heard: BTreeMap<NodeId, Heard>,
    }

    impl Scene {
        fn new(count: u128) -> Self {
            let node = |number| Node {
                id: NodeId::from_u128(number),
                meta: Meta::new(Timestamp(0)),
                spec: NodeSpec::default(),
                description: None,
                status: NodeStatus { state: NodeState::Ready, ..NodeStatus::default() },
                manager: (number == 1).then(|| ManagerStatus { raft_id: OWN, address: "m:7377".into() }),
                certificate: Default::default(),
                tunnel: None,
            };
            Self { start: Instant::now(), nodes: (1..=count).map(node).collect(), heard: BTreeMap::new() }
        }

        fn hear(mut self, number: u128, ms: u64, leaving: bool) -> Self {
            let heard = Heard { at: self.start + Duration::from_millis(ms), leaving };
            self.heard.insert(NodeId::from_u128(number), heard);
            self
        }

        fn state(mut self, number: usize, state: NodeState) -> Self {
            self.nodes[number - 1].status.state = state;
            self
        }

        /// Verdicts at a time after this manager's election, as `number:state`, and how many were spared.
        fn at(&self, ms: u64) -> String {
            let nodes = self.nodes.clone();
            let cluster = Cluster::from_tables(Version(1), None, nodes, vec![], vec![], vec![], vec![], vec![], vec![]);
            let now = self.start + Duration::from_millis(ms);
            let moment = Moment { leading_since: self.start, now, at: Timestamp(ms * 1_000_000) };
            let judgement = judge_all(&cluster, &|id| self.heard.get(&id).copied(), moment, OWN);
            let verdict = |change: &Change| match change {
                Change::ReportNode { node, status, .. } => format!("{}:{:?}", node.as_u128(), status.state),
                other => panic!("{other:?}"),
            };
            let mut words: Vec<String> = judgement.changes.iter().map(verdict).collect();
            if !judgement.spared.is_empty() {
                words.push(format!("{} spared", judgement.spared.len()));
            }
            words.join(" ")
        }
    }

    #[test]
    fn silence_counts_from_the_election_and_never_against_the_manager_whose_agent_has_not_started() {
        let scene = Scene::new(2);
        assert_eq!(scene.at(4000), "");
        assert_eq!(scene.at(4001), "2:Down");
        let scene = scene.hear(2, 3000, false);
        assert_eq!(scene.at(7000), "");
        assert_eq!(scene.at(7001), "2:Down");
    }

    #[test]
    fn a_node_that_said_good_bye_keeps_its_tasks_for_a_minute() {
        let scene = Scene::new(2).hear(2, 1000, true);
        assert_eq!(scene.at(61_000), "");
        assert_eq!(scene.at(61_001), "2:Down");
    }

    #[test]
    fn a_node_that_is_down_and_speaks_is_ready() {
        let scene = Scene::new(2).state(2, NodeState::Down);
        assert_eq!(scene.at(9000), "", "nothing was heard");
        assert_eq!(scene.hear(2, 8000, false).at(9000), "2:Ready");
        let mut left = Scene::new(2).state(2, NodeState::Down).hear(2, 8000, false);
        left.nodes[1].status.message = LEFT.to_owned();
        left.nodes[1].meta.updated_at = Timestamp(8_500 * 1_000_000);
        assert_eq!(left.at(9000), "", "it was heard, and then it left");
        assert_eq!(left.hear(2, 12_000, false).at(12_600), "2:Ready", "it speaks on: a copy of it left");
        let old = Scene::new(2).state(2, NodeState::Down).hear(2, 1000, false);
        assert_eq!(old.at(9000), "", "what was heard is what it was lost after");
    }

    #[test]
    fn of_four_nodes_more_than_half_are_not_lost_together() {
        let three = Scene::new(4).hear(1, 9000, false);
        assert_eq!(three.at(9500), "3 spared");
        let two = Scene::new(4).hear(1, 9000, false).hear(2, 9000, false);
        assert_eq!(two.at(9500), "3:Down 4:Down");
        let of_three = Scene::new(3).hear(1, 9000, false);
        assert_eq!(of_three.at(9500), "2:Down 3:Down", "three nodes are too few to tell");
    }

    #[test]
    fn nodes_that_fell_silent_a_heartbeat_apart_fell_together() {
        let scene = Scene::new(5).hear(1, 9900, false).hear(2, 9900, false);
        let scene = scene.hear(3, 5000, false).hear(4, 5900, false).hear(5, 5900, false);
        assert_eq!(scene.at(9100), "1 spared");
        assert_eq!(scene.at(10_000), "3 spared");
        // One after the other is a different thing.
        let slowly = Scene::new(5).hear(1, 9000, false).hear(2, 9000, false).hear(3, 5000, false);
        let slowly = slowly.hear(4, 9000, false).hear(5, 9000, false);
        assert_eq!(slowly.at(9100), "3:Down");
    }

    #[test]
    fn nodes_that_are_down_already_count_for_nothing() {
        let scene = Scene::new(5).state(3, NodeState::Down).state(4, NodeState::Down).hear(1, 9000, false);
        assert_eq!(scene.at(9500), "2:Down 5:Down", "three are left, and that is too few to tell");
    }
}
