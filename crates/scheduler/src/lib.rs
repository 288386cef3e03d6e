//! Places pending tasks on nodes, or says why no node fits.
//!
//! `schedule` is a pure function of the cluster: filters say which nodes can take a task, the order says
//! which of them takes it.
//! It does not decide how many tasks there are, and it changes nothing: its caller proposes what it found.

mod filter;
mod node_view;
mod spread;

use std::collections::{BTreeMap, BTreeSet};

use filter::{Filter, Verdict};
use node_view::NodeView;
use skep_model::{Cluster, NodeId, ServiceId, Slot, Task, TaskId, Timestamp, Version};
use spread::Candidates;

/// What became of one task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    Assigned {
        task: TaskId,
        node: NodeId,
    },
    /// No node fits; `reason` is for the user: `no suitable node (insufficient resources on 2 nodes)`.
    Unplaced {
        task: TaskId,
        reason: String,
    },
}

/// Decides where `pending` go, in their order; tasks that are unknown or no longer pending are left out.
///
/// Tasks of one service and spec version are placed as a group: their filters are evaluated once for
/// each node, and again only for the node that just took one.
pub fn schedule(cluster: &Cluster, pending: &[TaskId], now: Timestamp) -> Vec<Placement> {
    let mut views: BTreeMap<NodeId, NodeView> =
        cluster.nodes.values().map(|node| (node.id, NodeView::new(cluster, node, now))).collect();
    let mut placements = Vec::with_capacity(pending.len());
    for group in groups(cluster, pending) {
        place_group(&group, &mut views, &mut placements);
    }
    placements
}

/// The tasks, by service and version; groups come in the order of their first task.
fn groups<'a>(cluster: &'a Cluster, pending: &[TaskId]) -> Vec<Vec<&'a Task>> {
    let mut position: BTreeMap<(ServiceId, Version), usize> = BTreeMap::new();
    let mut groups: Vec<Vec<&Task>> = Vec::new();
    let mut seen = BTreeSet::new();
    for task in pending.iter().filter(|id| seen.insert(**id)).filter_map(|id| cluster.tasks.get(id)) {
        if task.status.state != skep_model::TaskState::Pending {
            continue;
        }
        let at = *position.entry((task.service, task.spec_version)).or_insert(groups.len());
        if at == groups.len() {
            groups.push(Vec::new());
        }
        groups[at].push(task);
    }
    groups
}

fn place_group(group: &[&Task], views: &mut BTreeMap<NodeId, NodeView>, placements: &mut Vec<Placement>) {
    let Some(first) = group.first() else { return };
    let filter = Filter::new(first);
    let mut candidates: Option<Candidates> = None;
    for task in group {
        let chosen = match task.slot {
            Slot::Node(node) => views.get(&node).filter(|view| filter.check(view) == Verdict::Fits).map(|view| view.id),
            Slot::Replica(_) => candidates.get_or_insert_with(|| Candidates::new(&filter, first, views)).pop(),
        };
        match chosen {
            Some(node) => {
                let view = views.get_mut(&node).expect("a candidate is a node of the cluster");
                view.take(task);
                if let Some(candidates) = &mut candidates {
                    candidates.settle(&filter, view);
                }
                placements.push(Placement::Assigned { task: task.id, node });
            }
            None => {
                let reason = match task.slot {
                    Slot::Node(node) => filter.explain(views.get(&node).into_iter()),
                    Slot::Replica(_) => filter.explain(views.values()),
                };
                placements.push(Placement::Unplaced { task: task.id, reason });
            }
        }
    }
}
