//! Which of the fitting nodes takes the next task: Swarm's spread.
//!
//! Branches of the placement preferences are equalised first, level by level; within a branch a node
//! comes first that has not lately failed this service, then the one with the fewest tasks of the
//! service, then the one with the fewest tasks at all.
//!
//! A service that is packed takes the fullest node that has room instead, within its branch.
//!
//! Nearly all nodes have no task of the service and no failure of it: they are taken in the order of their
//! load, in one walk for the whole group. The few with a standing come after them, from a heap.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use skep_model::Preference;

use crate::class::{Class, Classes, branch_of};
use crate::filter::{Filter, Verdict};
use crate::fleet::{Fleet, NodeView, Standing};
use crate::loads::Cursor;

/// The lowest goes first; the position settles ties.
type Rank = (Standing, u32, usize);

/// The placing of one group.
#[derive(Debug)]
pub struct Spread<'c> {
    class: &'c mut Class,
    /// As the class's.
    branches: Vec<Progress>,
    /// The branch that the last node came from.
    current: usize,
    /// One node is filled before the next.
    packs: bool,
}

/// How far the group came in one branch.
#[derive(Debug, Clone, Default)]
struct Progress {
    cursor: Cursor,
    /// Nodes with a standing.
    standing: BinaryHeap<Reverse<Rank>>,
    /// All nodes, the best last; only where they are packed.
    packed: Vec<usize>,
    exhausted: bool,
    /// Tasks of the service in all branches whose name begins with the first word of this one's, with the
    /// first two, and so on.
    placed: Vec<u32>,
}

impl<'c> Spread<'c> {
    pub fn new<'a>(filter: &Filter<'a>, fleet: &Fleet<'a>, classes: &'c mut Classes<'a>) -> Self {
        let class = classes.of(filter, &fleet.views);
        let preferences = &filter.placement.preferences;
        let progress = Progress { placed: vec![0; preferences.len()], ..Progress::default() };
        let branches = vec![progress; class.branches.len()];
        let packs = fleet.packs(filter.placement);
        let mut spread = Self { class, branches, current: 0, packs };
        if packs {
            spread.pack(fleet);
        }
        if !fleet.knows_nothing() {
            spread.add_standing(filter, preferences, fleet);
        }
        spread
    }

    fn pack(&mut self, fleet: &Fleet) {
        for (branch, progress) in self.class.branches.iter().zip(&mut self.branches) {
            progress.packed = (0..fleet.views.len()).filter(|at| branch.nodes.contains(*at)).collect();
            progress.packed.sort_by_cached_key(|at| Reverse(pack_rank(&fleet.views[*at], *at)));
        }
    }

    fn add_standing(&mut self, filter: &Filter, preferences: &[Preference], fleet: &Fleet) {
        for at in fleet.with_standing() {
            let view = &fleet.views[at];
            self.count(&branch_of(preferences, view), view.standing.tasks);
            let branch = self.class.branches.iter().position(|branch| branch.nodes.contains(at));
            if let Some(branch) = branch.filter(|_| filter.check(view) == Verdict::Fits) {
                self.branches[branch].standing.push(Reverse(rank(view, at)));
            }
        }
    }

    fn count(&mut self, name: &[String], tasks: u32) {
        for (branch, progress) in self.class.branches.iter().zip(&mut self.branches) {
            let common = branch.name.iter().zip(name).take_while(|(one, other)| one == other).count();
            progress.placed[..common].iter_mut().for_each(|placed| *placed += tasks);
        }
    }

    /// The best node, which the caller lets take a task; [`Self::took`] must follow.
    pub fn pop(&mut self, filter: &Filter, fleet: &Fleet) -> Option<usize> {
        loop {
            let open = self.branches.iter().enumerate().filter(|(_, branch)| !branch.exhausted);
            let (branch, _) = open.min_by_key(|(_, branch)| &branch.placed)?;
            if let Some(at) = self.pop_of(branch, filter, fleet) {
                self.current = branch;
                return Some(at);
            }
            self.branches[branch].exhausted = true;
        }
    }

    fn pop_of(&mut self, branch: usize, filter: &Filter, fleet: &Fleet) -> Option<usize> {
        let nodes = &mut self.class.branches[branch].nodes;
        let progress = &mut self.branches[branch];
        if self.packs {
            // What takes a task is the fuller for it, and stays the best until it is full.
            while let Some(at) = progress.packed.last().copied() {
                let view = &fleet.views[at];
                if filter.has_room(view) && !filter.has_enough(view) {
                    return Some(at);
                }
                progress.packed.pop();
            }
            return None;
        }
        while let Some(at) = fleet.loads.next_of(nodes, &mut progress.cursor) {
            let view = &fleet.views[at];
            if !filter.has_room(view) {
                nodes.remove(at);
            } else if view.standing == Standing::default() {
                return Some(at);
            }
        }
        while let Some(Reverse((.., at))) = progress.standing.pop() {
            let view = &fleet.views[at];
            if filter.has_room(view) && !filter.has_enough(view) {
                return Some(at);
            }
        }
        None
    }

    /// Ranks the node that was popped last anew after it took a task.
    pub fn took(&mut self, at: usize, fleet: &Fleet) {
        if !self.packs {
            self.branches[self.current].standing.push(Reverse(rank(&fleet.views[at], at)));
        }
        if !self.branches[self.current].placed.is_empty() {
            let name = self.class.branches[self.current].name.clone();
            self.count(&name, 1);
        }
    }

    /// Why no node fits. Services of one class that have no tasks are told the same, until a task is placed.
    pub fn explain(&mut self, filter: &Filter, fleet: &Fleet) -> String {
        if !fleet.knows_nothing() {
            return filter.explain(fleet.views.iter());
        }
        if let Some((placed, reason)) = &self.class.explained
            && *placed == fleet.placed
        {
            return reason.clone();
        }
        let reason = filter.explain(fleet.views.iter());
        self.class.explained = Some((fleet.placed, reason.clone()));
        reason
    }
}

fn rank(view: &NodeView, at: usize) -> Rank {
    (view.standing, view.tasks, at)
}

/// The lowest first: where nothing is emulated and nothing failed, the fullest, then the one with the most tasks.
fn pack_rank(view: &NodeView, at: usize) -> (bool, u32, Reverse<u64>, Reverse<u32>, usize) {
    let Standing { emulates, failures, tasks: _ } = view.standing;
    (emulates, failures, Reverse(view.fullness()), Reverse(view.tasks), at)
}
