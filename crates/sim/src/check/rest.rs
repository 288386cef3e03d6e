//! What holds once everything was repaired and the cluster came to rest.

use std::collections::BTreeMap;

use skep_model::{
    Availability, Cluster, DesiredState, Mode, Node, NodeId, NodeState, Service, Slot, Task, TaskId, TaskState,
    UpdateState, VolumePlacement,
};

use super::Violation;
use crate::users::may_rest;
use crate::world::World;

impl World {
    pub fn check_rest(&self) -> Result<(), Violation> {
        let cluster = self.log.state();
        for (m, manager) in self.managers.iter().enumerate() {
            if manager.applied != self.log.committed() {
                return Err(Violation::new("replicas-catch-up", format!("m{m} is at {}", manager.applied)));
            }
        }
        nodes_return(cluster)?;
        if let Some(task) = cluster.tasks.values().find(|task| !cluster.services.contains_key(&task.service)) {
            return Err(Violation::new("no-orphans", format!("task {} of {} is left", task.id, task.name())));
        }
        for service in cluster.services.values() {
            service_at_rest(cluster, service)?;
        }
        self.containers_match()
    }

    /// What runs is what is wanted, no more and no less, on every machine.
    fn containers_match(&self) -> Result<(), Violation> {
        let cluster = self.log.state();
        for (machine, agent) in self.agents.iter().enumerate() {
            if !cluster.nodes.contains_key(&agent.node) {
                continue;
            }
            let wanted = cluster.tasks_of_node(agent.node).filter(|task| task.is_live());
            let wanted: Vec<TaskId> =
                wanted.filter(|task| task.desired == DesiredState::Running).map(|task| task.id).collect();
            let running: Vec<TaskId> = agent.live_containers().map(|(task, _)| task).collect();
            if wanted != running {
                let detail = format!("machine {machine} runs {running:?} and should {wanted:?}");
                return Err(Violation::new("containers-match", detail));
            }
        }
        Ok(())
    }
}

fn nodes_return(cluster: &Cluster) -> Result<(), Violation> {
    match cluster.nodes.values().find(|node| node.status.state != NodeState::Ready && node.description.is_some()) {
        Some(node) => {
            Err(Violation::new("nodes-return", format!("node {} is {:?}", node.hostname(), node.status.state)))
        }
        None => Ok(()),
    }
}

fn service_at_rest(cluster: &Cluster, service: &Service) -> Result<(), Violation> {
    let wrong = |invariant, detail: String| Err(Violation::new(invariant, format!("{}: {detail}", service.name())));
    let update = service.update_status.as_ref().map(|status| status.state);
    let waits = |task: &&std::sync::Arc<Task>| task.is_live() && task.status.state <= TaskState::Pending;
    let waits = cluster.tasks_of_service(service.id).any(|task| waits(&task));
    if matches!(update, Some(UpdateState::Updating | UpdateState::RollbackStarted)) && !waits {
        return wrong("updates-end", format!("its update is still {update:?}"));
    }
    let paused = matches!(update, Some(UpdateState::Paused | UpdateState::RollbackPaused));
    let mut slots: BTreeMap<Slot, Vec<&Task>> = BTreeMap::new();
    for task in cluster.tasks_of_service(service.id) {
        slots.entry(task.slot).or_default().push(task);
    }
    for slot in wanted_slots(cluster, service, &slots) {
        let tasks = slots.get(&slot).cloned().unwrap_or_default();
        let live: Vec<&&Task> = tasks.iter().filter(|task| task.is_live()).collect();
        let rests = (may_rest(service) || paused) && tasks.iter().any(|task| task.status.state.is_terminal());
        match live.as_slice() {
            [] if rests => {}
            [] => return wrong("in-desired-state", format!("slot {slot} is empty of {:?}", states(&tasks))),
            [task] if task.status.state == TaskState::Running => {}
            // Another service is not what it waits for.
            [task] if task.status.state == TaskState::New => {}
            [task] if task.status.state == TaskState::Pending => {
                if let Some(node) = cluster.nodes.values().find(|node| could_take(cluster, node, task)) {
                    let detail = format!("task {} waits and {} could take it", task.id, node.hostname());
                    return wrong("no-pending-schedulable", detail);
                }
            }
            // Two are left where an update that starts first was paused between them.
            [_, _] if paused => {}
            // Its turn comes once the slot before it is done, whose task waits for a place.
            [_, _] if waits && matches!(update, Some(UpdateState::Updating | UpdateState::RollbackStarted)) => {}
            // The replacement cannot be placed: the old one runs on.
            [a, b] if [a, b].iter().any(|task| task.status.state <= TaskState::Pending) => {}
            _ => {
                let detail =
                    format!("slot {slot} has {:?}, spec {}, {update:?}", states(&tasks), service.spec_version.0);
                return wrong("in-desired-state", detail);
            }
        }
    }
    Ok(())
}

fn states(tasks: &[&Task]) -> Vec<(TaskId, DesiredState, TaskState, u64)> {
    tasks.iter().map(|task| (task.id, task.desired, task.status.state, task.spec_version.0)).collect()
}

fn wanted_slots(cluster: &Cluster, service: &Service, slots: &BTreeMap<Slot, Vec<&Task>>) -> Vec<Slot> {
    match service.spec.mode {
        Mode::Replicated { replicas } => {
            let held = slots.iter().filter(|(_, tasks)| tasks.iter().any(|task| task.desired < DesiredState::Remove));
            let mut held: Vec<Slot> = held.map(|(slot, _)| *slot).collect();
            // A missing slot shows as one without tasks.
            let missing = (replicas as usize).saturating_sub(held.len());
            held.extend((0..missing as u64).map(|number| Slot::Replica(u64::MAX - number)));
            held
        }
        // What of a job is left to do waits, or was given up: nothing has to run.
        Mode::ReplicatedJob { .. } | Mode::GlobalJob => Vec::new(),
        Mode::Global => {
            let fits = |node: &&std::sync::Arc<Node>| {
                node.spec.availability == Availability::Active
                    && node.status.state == NodeState::Ready
                    && node.satisfies(&service.spec.task.placement.constraints)
            };
            cluster.nodes.values().filter(fits).map(|node| Slot::Node(node.id)).collect()
        }
    }
}

/// Whether a node has room for a task: counted anew, not by the scheduler.
fn could_take(cluster: &Cluster, node: &Node, task: &Task) -> bool {
    let on_node: Vec<_> = cluster.tasks_of_node(node.id).filter(|task| task.occupies_node()).collect();
    let reserved = |task: &Task| task.spec.resources.reservations;
    let cpus: u64 = on_node.iter().filter_map(|task| reserved(task).nano_cpus).map(|cpus| cpus.0).sum();
    let memory: u64 = on_node.iter().filter_map(|task| reserved(task).memory).map(|memory| memory.0).sum();
    let has = node.description.as_ref().map(|description| description.resources).unwrap_or_default();
    let ports: Vec<_> = on_node.iter().flat_map(|task| task.host_ports.iter()).map(|port| port.published).collect();
    let most = task.spec.placement.max_replicas_per_node;
    let of_service = on_node.iter().filter(|other| other.service == task.service).count() as u64;
    node.status.state == NodeState::Ready
        && node.spec.availability == Availability::Active
        && node.satisfies(&task.spec.placement.constraints)
        && !matches!(task.slot, Slot::Node(wanted) if wanted != node.id)
        && cpus + reserved(task).nano_cpus.unwrap_or_default().0 <= has.nano_cpus.0
        && memory + reserved(task).memory.unwrap_or_default().0 <= has.memory.0
        && !task.host_ports.iter().any(|port| port.published != 0 && ports.contains(&port.published))
        && (most == 0 || of_service < most)
        && waits_for(cluster, task).is_none_or(|home| home == node.id)
}

/// The node that has a task's data, for as long as it is waited for.
fn waits_for(cluster: &Cluster, task: &Task) -> Option<NodeId> {
    let home = cluster.nodes.get(&task.home?)?;
    let gone = home.status.state == NodeState::Down
        || home.spec.availability == Availability::Drain
        || !home.satisfies(&task.spec.placement.constraints);
    let waits = match task.spec.placement.volumes {
        None => !gone,
        Some(VolumePlacement::Stay) => true,
        Some(VolumePlacement::Free) => false,
    };
    waits.then_some(home.id)
}
