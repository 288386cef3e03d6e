//! Which of the fitting nodes takes the next task: Swarm's spread.
//!
//! Branches of the placement preferences are equalised first, level by level; within a branch a node
//! comes first that has not lately failed this service, then the one with the fewest tasks of the
//! service, then the one with the fewest tasks at all.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use skep_model::{NodeId, Task};

use crate::filter::{Filter, Verdict};
use crate::node_view::NodeView;

type Branch = Vec<String>;
/// Failures to avoid, tasks of the service, all tasks, and the id to settle ties.
type Rank = (u32, u32, u32, NodeId);

#[derive(Debug)]
pub struct Candidates<'a> {
    task: &'a Task,
    heaps: BTreeMap<Branch, BinaryHeap<Reverse<Rank>>>,
    /// Tasks of the service below each prefix of a branch.
    placed: BTreeMap<Branch, u32>,
}

impl<'a> Candidates<'a> {
    pub fn new(filter: &Filter, task: &'a Task, views: &BTreeMap<NodeId, NodeView>) -> Self {
        let mut candidates = Self { task, heaps: BTreeMap::new(), placed: BTreeMap::new() };
        for view in views.values() {
            let branch = candidates.branch(view);
            candidates.count(&branch, view.tasks_of(task.service));
            if filter.check(view) == Verdict::Fits {
                let rank = candidates.rank(view);
                candidates.heaps.entry(branch).or_default().push(Reverse(rank));
            }
        }
        candidates
    }

    /// Takes the best node out; [`Self::settle`] puts it back if it can take another task.
    pub fn pop(&mut self) -> Option<NodeId> {
        let placed = &self.placed;
        let load = |branch: &Branch| -> Vec<u32> {
            (1..=branch.len()).map(|level| placed.get(&branch[..level]).copied().unwrap_or(0)).collect()
        };
        let branch = self.heaps.iter().filter(|(_, heap)| !heap.is_empty()).map(|(branch, _)| branch);
        let best = branch.min_by_key(|branch| load(branch))?.clone();
        let Reverse((.., node)) = self.heaps.get_mut(&best)?.pop()?;
        self.count(&best, 1);
        Some(node)
    }

    /// Ranks a node anew after it took a task.
    pub fn settle(&mut self, filter: &Filter, view: &NodeView) {
        if filter.check(view) == Verdict::Fits {
            let rank = self.rank(view);
            self.heaps.entry(self.branch(view)).or_default().push(Reverse(rank));
        }
    }

    fn rank(&self, view: &NodeView) -> Rank {
        (view.failures_to_avoid(self.task), view.tasks_of(self.task.service), view.tasks, view.id)
    }

    /// The node's value at each preference's label; a label that is not there is a branch of its own.
    fn branch(&self, view: &NodeView) -> Branch {
        let value = |spread: &str| -> Option<&String> {
            match spread.strip_prefix("node.labels.") {
                Some(name) => view.node.spec.labels.get(name),
                None => view.node.description.as_ref()?.engine_labels.get(spread.strip_prefix("engine.labels.")?),
            }
        };
        let preferences = &self.task.spec.placement.preferences;
        preferences.iter().map(|preference| value(&preference.spread).cloned().unwrap_or_default()).collect()
    }

    fn count(&mut self, branch: &Branch, tasks: u32) {
        for level in 1..=branch.len() {
            *self.placed.entry(branch[..level].to_vec()).or_default() += tasks;
        }
    }
}
