//! The constraint enforcer: tasks whose node is no longer what they were placed for.
//!
//! A label is taken away, a machine comes back with less memory, a GPU is gone: the scheduler would not put the task
//! there now, so it is moved as from a drained node.
//! Only nodes that take tasks are looked at: a paused one keeps what it has.

use std::collections::{BTreeMap, BTreeSet};

use skep_model::{
    Availability, Cluster, GenericResource, Node, NodeId, NodeResources, NodeState, Service, Task, TaskId,
};

/// Tasks that no longer fit beside the others of their node, and what is lacking.
pub type Evicted = BTreeMap<TaskId, String>;

/// The tasks that a node has too little for: of those that reserve, the youngest go.
pub fn evicted(cluster: &Cluster) -> Evicted {
    let reserves = |service: &std::sync::Arc<Service>| {
        let resources = &service.spec.task.resources;
        resources.reservations != Default::default() || !resources.generic.is_empty()
    };
    if !cluster.services.values().any(reserves) {
        return Evicted::new();
    }
    let mut reserved: BTreeMap<NodeId, NodeResources> = BTreeMap::new();
    let mut special: BTreeSet<NodeId> = BTreeSet::new();
    for task in cluster.tasks.values().filter(|task| task.is_live()) {
        let Some(node) = task.node else { continue };
        let resources = &task.spec.resources;
        if resources.reservations != Default::default() {
            add(reserved.entry(node).or_default(), task);
        }
        if !resources.generic.is_empty() {
            special.insert(node);
        }
    }
    let too_much = |node: &&NodeId| {
        let have = cluster.nodes.get(*node).and_then(|node| node.description.as_ref());
        have.is_some_and(|have| !within(&reserved[*node], &have.resources))
    };
    let nodes: BTreeSet<NodeId> = reserved.keys().filter(too_much).copied().chain(special).collect();
    let nodes = nodes.into_iter().filter_map(|node| cluster.nodes.get(&node)).filter(|node| takes_tasks(node));
    nodes.flat_map(|node| evicted_from(cluster, node)).collect()
}

/// Which constraint of a task its node does not satisfy any more.
///
/// One of an older spec may also stay for what its service asks now: the updater will replace it in its turn.
pub fn broken_constraint(service: &Service, task: &Task, node: &Node) -> Option<String> {
    let own = &task.spec.placement.constraints;
    if !takes_tasks(node) || node.satisfies(own) || node.satisfies(&service.spec.task.placement.constraints) {
        return None;
    }
    let broken = own.iter().find(|constraint| !node.satisfies(std::slice::from_ref(constraint)))?;
    Some(format!("its node {} no longer satisfies {broken}", node.hostname()))
}

fn takes_tasks(node: &Node) -> bool {
    node.status.state == NodeState::Ready && node.spec.availability == Availability::Active
}

fn evicted_from(cluster: &Cluster, node: &Node) -> Evicted {
    let Some(have) = &node.description else { return Evicted::new() };
    let mut tasks: Vec<_> = cluster.tasks_of_node(node.id).filter(|task| task.is_live()).collect();
    tasks.sort_by_key(|task| (task.meta.created_at, task.id));
    let mut kept = NodeResources::default();
    let mut generic = have.generic.clone();
    let mut evicted = Evicted::new();
    for task in tasks {
        let mut with = kept;
        add(&mut with, task);
        let lacking = match within(&with, &have.resources) {
            true => lacking_generic(&mut generic, task),
            false if with.memory > have.resources.memory => Some("memory".to_owned()),
            false => Some("processors".to_owned()),
        };
        match lacking {
            None => kept = with,
            Some(what) => {
                let name = node.hostname();
                evicted
                    .insert(task.id, format!("its node {name} no longer has enough {what} for what its tasks reserve"));
            }
        }
    }
    evicted
}

/// Takes what the task was given from `free`; the kind that is not there any more.
fn lacking_generic(free: &mut [GenericResource], task: &Task) -> Option<String> {
    for given in &task.generic {
        let has = |free: &&mut GenericResource| {
            let named = given.ids.iter().all(|id| free.ids.contains(id));
            free.kind == given.kind && free.amount >= given.amount && named
        };
        let Some(free) = free.iter_mut().find(has) else { return Some(given.kind.clone()) };
        free.amount -= given.amount;
    }
    None
}

fn add(sum: &mut NodeResources, task: &Task) {
    let reserved = task.spec.resources.reservations;
    sum.nano_cpus.0 += reserved.nano_cpus.unwrap_or_default().0;
    sum.memory.0 += reserved.memory.unwrap_or_default().0;
}

fn within(sum: &NodeResources, have: &NodeResources) -> bool {
    sum.nano_cpus <= have.nano_cpus && sum.memory <= have.memory
}
