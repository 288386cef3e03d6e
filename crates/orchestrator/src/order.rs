//! The order in which services start: a task that waits for another service stays new, and no scheduler sees it, until
//! what it waits for has come.
//!
//! A slot waits before its first task of each revision; before a restart only for what says so.

use std::collections::BTreeSet;

use skep_model::{
    Change, Cluster, Dependency, DependencyCondition, Mode, Service, Slot, Stack, Task, TaskState, UpdateState,
};

use crate::fleet::Fleet;
use crate::{global, is_current};

/// Lets go what has waited long enough, and says anew what the others wait for.
pub fn reconcile(fleet: &mut Fleet) {
    let waits = |task: &&std::sync::Arc<Task>| task.is_live() && task.status.state == TaskState::New;
    let waiting: Vec<_> = fleet.slots.values().flat_map(|slot| slot.live()).filter(waits).cloned().collect();
    for task in waiting {
        let (id, at) = (task.id, fleet.now);
        match unmet_before(fleet, task.slot) {
            None => fleet.changes.push(Change::SetTaskPending { task: id, reason: None, at }),
            Some(reason) if task.status.error.as_ref() == Some(&reason) => {}
            Some(reason) => fleet.changes.push(Change::SetTaskWaiting { task: id, reason, at }),
        }
    }
}

/// What the slot's next task has to wait for, in words.
pub fn unmet_before(fleet: &Fleet, slot: Slot) -> Option<String> {
    let service = fleet.service;
    if service.spec.depends_on.is_empty() {
        return None;
    }
    let run = service.job.as_ref().map(|job| job.iteration);
    let of_revision = |task: &Task| task.spec_version == service.spec_version && task.iteration == run;
    let placed = |task: &&std::sync::Arc<Task>| task.node.is_some() && of_revision(task);
    let first = fleet.slots.get(&slot).is_none_or(|slot| slot.tasks.iter().find(placed).is_none());
    let counts = |dependency: &&Dependency| first || dependency.restart;
    let asked = service.spec.depends_on.iter().filter(counts);
    let waits_for: Vec<String> = asked.filter_map(|dependency| unmet(fleet.cluster, service, dependency)).collect();
    let (last, others) = waits_for.split_last()?;
    Some(match others {
        [] => format!("waits for {last}"),
        others => format!("waits for {} and for {last}", others.join(", for ")),
    })
}

/// What is missing of one dependency: `db to be healthy`.
fn unmet(cluster: &Cluster, service: &Service, dependency: &Dependency) -> Option<String> {
    let name = short_name(service, &dependency.service);
    let Some(other) = cluster.service_named(&dependency.service) else {
        return dependency.required.then(|| format!("{name}, which does not exist"));
    };
    let met: BTreeSet<Slot> = cluster
        .tasks_of_service(other.id)
        .filter(|task| counts(other, task) && is_met(dependency.condition, task))
        .map(|task| task.slot)
        .collect();
    if met.len() as u64 >= wanted(cluster, other, dependency.condition) {
        return None;
    }
    let failed =
        cluster.tasks_of_service(other.id).filter(|task| counts(other, task)).max_by_key(|task| task.meta.created_at);
    let failed = failed.filter(|task| matches!(task.status.state, TaskState::Failed | TaskState::Rejected));
    let why = failed.and_then(|task| task.status.error.as_ref()).map(|error| format!(" (it failed: {error})"));
    let what = match dependency.condition {
        DependencyCondition::Started => "to start",
        DependencyCondition::Healthy => "to be healthy",
        DependencyCondition::Completed => "to complete",
    };
    Some(format!("{name} {what}{}", why.unwrap_or_default()))
}

/// Services of one stack know each other by their names in its file.
fn short_name<'n>(service: &Service, other: &'n str) -> &'n str {
    let stack = service.spec.labels.get(Stack::LABEL);
    stack.and_then(|stack| other.strip_prefix(stack.as_str())?.strip_prefix('_')).unwrap_or(other)
}

/// Whether the task is one of those that are asked: made from what its service wants now, or what it goes on with.
fn counts(service: &Service, task: &Task) -> bool {
    if let Some(job) = &service.job {
        return task.iteration == Some(job.iteration);
    }
    let state = service.update_status.as_ref().map(|status| status.state);
    matches!(state, Some(UpdateState::Paused | UpdateState::RollbackPaused)) || is_current(service, task)
}

fn is_met(condition: DependencyCondition, task: &Task) -> bool {
    let state = task.status.state;
    let started = task.status.container.as_ref().is_some_and(|container| container.started_at.is_some());
    match condition {
        DependencyCondition::Started => {
            state == TaskState::Complete || (task.is_live() && (started || state == TaskState::Running))
        }
        DependencyCondition::Healthy => task.is_live() && state == TaskState::Running,
        DependencyCondition::Completed => state == TaskState::Complete,
    }
}

/// Of how many slots the condition must hold.
fn wanted(cluster: &Cluster, service: &Service, condition: DependencyCondition) -> u64 {
    let on_nodes = || cluster.nodes.values().filter(|node| global::takes(node, service)).count() as u64;
    match service.spec.mode {
        Mode::Replicated { replicas } => replicas,
        Mode::Global => on_nodes(),
        // A job that lets few of its tasks run at a time has started with the first.
        Mode::ReplicatedJob { .. } | Mode::GlobalJob if condition == DependencyCondition::Started => 1,
        Mode::ReplicatedJob { total_completions, .. } => total_completions,
        Mode::GlobalJob => on_nodes(),
    }
}
