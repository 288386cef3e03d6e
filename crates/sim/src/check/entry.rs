//! What holds after every entry of the log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use skep_model::{
    Availability, Change, Cluster, Node, NodeId, NodeState, PortProtocol, Service, ServiceId, Slot, Task, UpdateOrder,
    Version,
};

use super::{Checker, Violation};
use crate::log::{Log, Plan};

/// Tasks of a slot that live, and ended ones beyond the cluster's limit: a bound on what is kept.
const HISTORY_SLACK: usize = 8;

impl Checker {
    pub fn entry(&mut self, log: &Log, index: u64, healed: bool) -> Result<(), Violation> {
        let entry = &log.entries[index as usize - 1];
        if healed {
            self.changes_at_rest += entry.changes.len() as u64;
        }
        let before = &log.states[index as usize - 1];
        let after = log.state_at(index);
        terms(log, index)?;
        if entry.result.is_err() {
            return Ok(());
        }
        versions(before, &entry.changes, index)?;
        let broken = after.check();
        if let Some(violation) = broken.first() {
            return Err(Violation::new("cluster-check", violation.to_string()));
        }
        forward(before, after)?;
        slots(after)?;
        if let Plan::Leader { base, .. } = entry.plan {
            placements(log.state_at(base), before, after, &entry.changes)?;
        }
        Ok(())
    }
}

/// Terms never fall, and what a leader decided is written in its own term.
fn terms(log: &Log, index: u64) -> Result<(), Violation> {
    let entry = &log.entries[index as usize - 1];
    let last = log.entries[..index as usize - 1].last().map_or(0, |before| before.term);
    let decided = match entry.plan {
        Plan::Leader { term, .. } => term,
        Plan::Any => entry.term,
    };
    if entry.term < last || decided != entry.term {
        let detail = format!("entry {index} of term {} decided in {decided} after one of {last}", entry.term);
        return Err(Violation::new("one-leader-writes", detail));
    }
    Ok(())
}

/// A compare-and-set that was accepted named the version that it replaced.
fn versions(before: &Cluster, changes: &[Change], index: u64) -> Result<(), Violation> {
    let mut picture = before.clone();
    for change in changes {
        let pair = match change {
            Change::UpdateService { service, expected, .. } => {
                picture.services.get(service).map(|service| (*expected, service.meta.version))
            }
            Change::UpdateNodeSpec { node, expected, .. } => {
                picture.nodes.get(node).map(|node| (*expected, node.meta.version))
            }
            _ => None,
        };
        if let Some((expected, actual)) = pair.filter(|(expected, actual): &(Version, Version)| expected != actual) {
            let detail = format!("entry {index} was made for version {} and replaced {}", expected.0, actual.0);
            return Err(Violation::new("compare-and-set", detail));
        }
        if picture.apply(change, index).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// States only go forward, and a task stays on its node.
fn forward(before: &Cluster, after: &Cluster) -> Result<(), Violation> {
    for (id, old) in &before.tasks {
        let Some(new) = after.tasks.get(id).filter(|new| !Arc::ptr_eq(old, new)) else { continue };
        let (was, is) = (old.status.state, new.status.state);
        let back = is < was || new.desired < old.desired || (was.is_terminal() && is != was);
        if back {
            let detail = format!("task {id} went from {} to {}", was.word(), is.word());
            return Err(Violation::new("task-forward", detail));
        }
        if old.node.is_some() && new.node != old.node {
            return Err(Violation::new(
                "node-set-once",
                format!("task {id} moved from {:?} to {:?}", old.node, new.node),
            ));
        }
    }
    Ok(())
}

/// One task fills a slot, two where an update starts first, and beside it one may be prepared; history is bounded.
fn slots(after: &Cluster) -> Result<(), Violation> {
    let mut filled: BTreeMap<(ServiceId, Slot), (usize, usize)> = BTreeMap::new();
    for task in after.tasks.values() {
        let (live, all) = filled.entry((task.service, task.slot)).or_default();
        *live += usize::from(task.is_live() && task.desired == skep_model::DesiredState::Running);
        // What is still to stop is no history yet: a node that comes and goes may have to tell the end of many.
        *all += usize::from(task.status.state.is_terminal() || task.is_live());
    }
    let limit = after.config.as_ref().map_or(5, |config| config.spec.task_history_limit as usize);
    for ((service, slot), (live, all)) in filled {
        let Some(service) = after.services.get(&service) else { continue };
        let most = if starts_first(service) { 2 } else { 1 };
        if live > most {
            let tasks = after.tasks_of_service(service.id).filter(|task| task.slot == slot && task.is_live());
            let tasks: Vec<_> = tasks.map(|t| (t.id, t.desired, t.status.state, t.spec_version.0)).collect();
            let detail = format!("slot {slot} of {} has {live} live tasks: {tasks:?}", service.name());
            return Err(Violation::new("one-task-a-slot", detail));
        }
        if all > limit + HISTORY_SLACK {
            let tasks = after.tasks_of_service(service.id).filter(|task| task.slot == slot);
            let tasks: Vec<_> = tasks.map(|t| (t.id, t.desired, t.status.state, t.node)).collect();
            let detail = format!("slot {slot} of {} keeps {all} tasks: {tasks:?}", service.name());
            return Err(Violation::new("history-bounded", detail));
        }
    }
    Ok(())
}

fn starts_first(service: &Service) -> bool {
    let specs = service.revisions.iter().map(|revision| &revision.spec).chain([&service.spec]);
    specs.into_iter().any(|spec| [spec.update.order, spec.rollback.order].contains(&UpdateOrder::StartFirst))
}

/// Tasks are only put where they may be, as the leader saw it, and where there is room, as it is.
fn placements(seen: &Cluster, before: &Cluster, after: &Cluster, changes: &[Change]) -> Result<(), Violation> {
    let assigned: BTreeSet<NodeId> = changes
        .iter()
        .filter_map(|change| match change {
            Change::AssignTask { node, .. } => Some(*node),
            _ => None,
        })
        .collect();
    if assigned.is_empty() {
        return Ok(());
    }
    for change in changes {
        let Change::AssignTask { task, node, .. } = change else { continue };
        let (Some(task), Some(node)) = (after.tasks.get(task), seen.nodes.get(node)) else { continue };
        fits(node, task)?;
    }
    for node in assigned.iter().filter_map(|node| before.nodes.get(node)) {
        room(after, node)?;
    }
    Ok(())
}

fn fits(node: &Node, task: &Task) -> Result<(), Violation> {
    let ready = node.status.state == NodeState::Ready && node.spec.availability == Availability::Active;
    let own = !matches!(task.slot, Slot::Node(wanted) if wanted != node.id);
    if ready && own && node.satisfies(&task.spec.placement.constraints) {
        return Ok(());
    }
    let detail = format!("task {} of {} was put on node {}", task.id, task.name(), node.hostname());
    Err(Violation::new("placement-allowed", detail))
}

fn room(after: &Cluster, node: &Node) -> Result<(), Violation> {
    let wrong = |what: &str| {
        let detail = format!("{what} of node {} is over-committed", node.hostname());
        Err(Violation::new("no-overcommitment", detail))
    };
    let tasks: Vec<_> = after.tasks_of_node(node.id).filter(|task| task.occupies_node()).collect();
    let reserved = |task: &&Arc<Task>| task.spec.resources.reservations;
    let cpus: u64 = tasks.iter().filter_map(|task| reserved(task).nano_cpus).map(|cpus| cpus.0).sum();
    let memory: u64 = tasks.iter().filter_map(|task| reserved(task).memory).map(|memory| memory.0).sum();
    let has = node.description.as_ref().map(|description| description.resources).unwrap_or_default();
    if cpus > has.nano_cpus.0 || memory > has.memory.0 {
        return wrong("capacity");
    }
    let mut ports: BTreeSet<(PortProtocol, u16)> = BTreeSet::new();
    let claimed = tasks.iter().flat_map(|task| task.host_ports.iter()).filter(|port| port.published != 0);
    for port in claimed {
        if !ports.insert((port.protocol, port.published)) {
            return wrong("a host port");
        }
    }
    let mut of_service: BTreeMap<ServiceId, u64> = BTreeMap::new();
    for task in &tasks {
        *of_service.entry(task.service).or_default() += 1;
    }
    Ok(())
}
