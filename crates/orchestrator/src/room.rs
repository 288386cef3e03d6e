//! Whether a new task can be placed only once the old one of its slot has gone.
//!
//! A stop-first update prepares the new task while the old one serves. Where that holds what the new one needs (a port
//! of the node, its memory, the only place that is allowed), it has to go first; where it does not, stopping it would
//! help nobody, and it goes on serving.

use skep_model::{Availability, Cluster, Node, NodeState, PortProtocol, PublishMode, ServiceSpec, Slot, Task};

/// Whether `old`'s node has no room for `new` beside it, and has once it is gone.
pub fn stopping_makes_room(cluster: &Cluster, new: &Task, old: &Task) -> bool {
    let keeps = |network: &skep_model::NetworkAttachment| network.is_fixed();
    if new.spec.networks.iter().any(keeps) && crate::addresses::still_held(cluster, new).is_some() {
        return crate::addresses::still_held(cluster, old).is_none();
    }
    let Some(node) = old.node.and_then(|node| cluster.nodes.get(&node)) else { return false };
    may_take(node, new) && !fits(cluster, node, new, None) && fits(cluster, node, new, Some(old))
}

/// Whether two tasks of a service never compete for a place.
pub fn claims_nothing(spec: &ServiceSpec) -> bool {
    let reserved = spec.task.resources.reservations;
    let ports = spec.endpoint.ports.iter().any(|port| port.mode == PublishMode::Host && port.published != 0);
    spec.task.resources.generic.is_empty()
        && reserved.nano_cpus.is_none()
        && reserved.memory.is_none()
        && spec.task.placement.max_replicas_per_node == 0
        && !ports
        && !spec.task.networks.iter().any(|network| network.is_fixed())
}

fn may_take(node: &Node, task: &Task) -> bool {
    let platforms = &task.spec.placement.platforms;
    let runs = |wanted: &skep_model::PlatformSpec| {
        let equal = |have: &str, want: &str| want.is_empty() || have == want;
        let platforms = node.description.iter().flat_map(|description| &description.platforms);
        platforms.into_iter().any(|has| equal(&has.os, &wanted.os) && equal(&has.architecture, &wanted.architecture))
    };
    node.status.state == NodeState::Ready
        && node.spec.availability == Availability::Active
        && node.satisfies(&task.spec.placement.constraints)
        && !matches!(task.slot, Slot::Node(wanted) if wanted != node.id)
        && (platforms.is_empty() || platforms.iter().any(runs))
}

/// Whether the node has what the task takes, were `gone` not there.
fn fits(cluster: &Cluster, node: &Node, task: &Task, gone: Option<&Task>) -> bool {
    let here = cluster.tasks_of_node(node.id).filter(|other| other.occupies_node());
    let others: Vec<&Task> =
        here.map(|other| &**other).filter(|other| gone.is_none_or(|gone| gone.id != other.id)).collect();
    let has = node.description.as_ref().map(|description| description.resources).unwrap_or_default();
    let cpus = |task: &Task| task.spec.resources.reservations.nano_cpus.unwrap_or_default().0;
    let memory = |task: &Task| task.spec.resources.reservations.memory.unwrap_or_default().0;
    let left = |has: u64, of: fn(&Task) -> u64| others.iter().fold(has, |left, other| left.saturating_sub(of(other)));
    let generic = |task: &Task, kind: &str| -> u64 {
        let asked = task.spec.resources.generic.iter().filter(|asked| asked.kind == kind);
        asked.map(|asked| asked.amount).sum()
    };
    let things = task.spec.resources.generic.iter().all(|wanted| {
        let own = node.description.iter().flat_map(|description| &description.generic);
        let has = own.filter(|own| own.kind == wanted.kind).map(|own| own.amount).sum::<u64>();
        others.iter().fold(has, |left, other| left.saturating_sub(generic(other, &wanted.kind))) >= wanted.amount
    });
    let most = task.spec.placement.max_replicas_per_node;
    let of_service = others.iter().filter(|other| other.service == task.service).count() as u64;
    things
        && left(has.nano_cpus.0, cpus) >= cpus(task)
        && left(has.memory.0, memory) >= memory(task)
        && !others.iter().any(|other| claimed(other).any(|port| claimed(task).any(|wanted| wanted == port)))
        && (most == 0 || of_service < most)
}

fn claimed(task: &Task) -> impl Iterator<Item = (PortProtocol, u16)> {
    task.host_ports.iter().filter(|port| port.published != 0).map(|port| (port.protocol, port.published))
}
