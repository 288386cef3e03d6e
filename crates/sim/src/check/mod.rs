//! The invariants: checked after every entry, every decision, every set of assignments, and at rest.

mod entry;
mod rest;

use std::collections::BTreeSet;

use skep_api::{Assignment, encode_cluster};
use skep_manager::AssignmentSet;
use skep_model::{
    Availability, Change, Cluster, DesiredState, Feature, Mode, NodeId, NodeState, Service, Task, TaskState,
    UpdateState,
};

use crate::log::Log;
use crate::manager::Manager;

/// A broken invariant: which, and how it showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub invariant: &'static str,
    pub detail: String,
}

impl Violation {
    pub fn new(invariant: &'static str, detail: String) -> Self {
        Self { invariant, detail }
    }
}

#[derive(Debug, Default)]
pub struct Checker {
    pub decisions: u64,
    compared: u64,
    /// Changes written since everything was repaired.
    pub changes_at_rest: u64,
}

impl Checker {
    /// A replica is the value that the log makes at its index, to the byte.
    pub fn replica(&mut self, log: &Log, m: usize, manager: &Manager) -> Result<(), Violation> {
        self.compared += 1;
        let right = log.state_at(manager.applied);
        let equal = match self.compared % 64 {
            0 => encode_cluster(&manager.cluster) == encode_cluster(right),
            _ => manager.cluster == *right,
        };
        match equal {
            true => Ok(()),
            false => Err(Violation::new("replicas-equal", format!("m{m} differs at index {}", manager.applied))),
        }
    }

    /// What runs as it should, where it should, is left alone: whoever decides, and however long it leads.
    pub fn decision(&mut self, cluster: &Cluster, changes: &[Change]) -> Result<(), Violation> {
        for change in changes {
            let Change::SetTaskDesired { task, desired, .. } = change else { continue };
            let Some(task) = cluster.tasks.get(task).filter(|_| *desired >= DesiredState::Shutdown) else { continue };
            if is_right(cluster, task) {
                let detail = format!("task {} of {} runs as it should and is to stop", task.id, task.name());
                return Err(Violation::new("no-needless-stop", detail));
            }
        }
        Ok(())
    }

    /// A node gets its own tasks and what those need, nothing of others.
    pub fn assignments(&mut self, cluster: &Cluster, node: NodeId, set: &AssignmentSet) -> Result<(), Violation> {
        let wrong = |detail: String| Err(Violation::new("need-to-know", detail));
        let mut needed = BTreeSet::new();
        for task in cluster.tasks_of_node(node).filter(|task| !task.status.state.is_terminal()) {
            needed.extend(task.spec.container.secrets.iter().filter_map(|secret| secret.digest.clone()));
        }
        let mut tasks = 0;
        let mut peers = BTreeSet::new();
        for assignment in set.values() {
            match assignment {
                Assignment::Task(task) if task.node != Some(node) => {
                    return wrong(format!("node {node} gets task {} of {:?}", task.id, task.node));
                }
                Assignment::Task(_) => tasks += 1,
                Assignment::Secret(secret) if !needed.contains(&secret.digest) => {
                    return wrong(format!("node {node} gets secret {} without a task that uses it", secret.name));
                }
                Assignment::Peer(peer) => drop(peers.insert(peer.node)),
                Assignment::Secret(_)
                | Assignment::Config(_)
                | Assignment::Network(_)
                | Assignment::Endpoint(_)
                | Assignment::Place(_) => {}
            }
        }
        let placed = |other: &&std::sync::Arc<skep_model::Node>| other.tunnel.is_some();
        let others = cluster.nodes.values().filter(placed).map(|other| other.id).filter(|other| *other != node);
        let told_level = |node: &skep_model::Node| node.description.as_ref().map_or(0, |description| description.level);
        // One that has not said yet what it understands is told of nobody.
        let knows = |node: &std::sync::Arc<skep_model::Node>| told_level(node) >= Feature::Tunnel.level();
        let known = cluster.nodes.get(&node).is_some_and(|node| node.tunnel.is_some() && knows(node));
        if known && peers != others.collect() {
            return wrong(format!("node {node} meets {peers:?} in the tunnel, which are not all the others"));
        }
        let meant = cluster.tasks_of_node(node).count();
        if tasks == meant { Ok(()) } else { wrong(format!("node {node} gets {tasks} of its {meant} tasks")) }
    }
}

/// Runs, is of the present spec, alone in a wanted slot, on a node that takes tasks, and nothing is under way.
fn is_right(cluster: &Cluster, task: &Task) -> bool {
    let Some(service) = cluster.services.get(&task.service) else { return false };
    let node = task.node.and_then(|node| cluster.nodes.get(&node));
    let alone = cluster.tasks_of_service(service.id).filter(|other| other.slot == task.slot && other.is_live()).count();
    let updating = service
        .update_status
        .as_ref()
        .is_some_and(|status| !matches!(status.state, UpdateState::Completed | UpdateState::RollbackCompleted));
    task.is_live()
        && task.status.state == TaskState::Running
        && task.spec_version == service.spec_version
        && alone == 1
        && !updating
        && !has_surplus(cluster, service)
        // Spreading a service anew stops what runs as it should.
        && service.rebalancing_since.is_none()
        && !service.spec.scheduling.rebalance_on_join
        && node.is_some_and(|node| {
            node.status.state == NodeState::Ready
                && node.spec.availability != Availability::Drain
                && node.satisfies(&service.spec.task.placement.constraints)
        })
}

fn has_surplus(cluster: &Cluster, service: &Service) -> bool {
    let Mode::Replicated { replicas } = service.spec.mode else { return false };
    let tasks = cluster.tasks_of_service(service.id).filter(|task| task.desired < DesiredState::Remove);
    tasks.map(|task| task.slot).collect::<BTreeSet<_>>().len() as u64 > replicas
}
