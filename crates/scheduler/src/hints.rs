//! What would let a task be placed: one sentence for each filter that refuses nodes, the most likely remedy first.

use std::collections::BTreeSet;

use skep_model::{Availability, Constraint, ConstraintOp, Node, NodeState, TaskSpec};

use crate::explain::{bytes, cpus, own_platforms, wanted};
use crate::filter::{Filter, Verdict};
use crate::fleet::NodeView;
use crate::home;

/// What would make one of these nodes fit; none of them does.
pub fn of(filter: &Filter, views: &[NodeView]) -> Vec<String> {
    let mut hints = Vec::new();
    let refused = |verdict: Verdict| views.iter().filter(move |view| filter.check(view) == verdict).collect::<Vec<_>>();
    resources(filter, &refused(Verdict::Resources), &mut hints);
    if !refused(Verdict::Constraints).is_empty() {
        let constraints = filter.placement.constraints.iter();
        hints.extend(constraints.filter_map(|constraint| constraint_hint(constraint, views)));
    }
    let foreign = refused(Verdict::Platform);
    if !foreign.is_empty() {
        let own: BTreeSet<String> = foreign.iter().map(|view| own_platforms(view.node)).collect();
        let own = own.into_iter().collect::<Vec<_>>().join(" and ");
        let image = wanted(&filter.placement.platforms);
        hints.push(format!(
            "use an image that exists for {own} (this one is for {image}), or install binfmt handlers (qemu-user-static) on a node"
        ));
    }
    if !refused(Verdict::Level).is_empty() {
        hints.push("update skep on the nodes that are too old for it (`skep node ls` shows their versions)".to_owned());
    }
    if !refused(Verdict::HostPort).is_empty() {
        hints.push(
            "publish the port with mode: ingress, or run at most as many tasks as there are nodes with the port free"
                .to_owned(),
        );
    }
    if !refused(Verdict::MaxReplicas).is_empty() {
        hints.push("raise deploy.placement.max_replicas_per_node, lower deploy.replicas, or add a node".to_owned());
    }
    if !refused(Verdict::Company).is_empty() {
        hints.push(
            "start the services of x-skep.affinity first, or loosen x-skep.affinity and anti-affinity".to_owned(),
        );
    }
    hints.extend(refused(Verdict::NotReady).into_iter().filter_map(|view| readiness(view.node)));
    if views.is_empty() {
        hints.push("the cluster has no nodes".to_owned());
    }
    hints
}

/// What would let a task run where its data is.
pub fn of_home(home: &Node, spec: &TaskSpec) -> Vec<String> {
    let mut hints: Vec<String> = readiness(home).into_iter().collect();
    let (name, what) = (home.hostname(), home::words(spec));
    hints.push(format!("make room for it on {name}, or let it leave its {what} behind with x-skep: {{volume: free}}"));
    hints
}

fn resources(filter: &Filter, views: &[&NodeView], hints: &mut Vec<String>) {
    let most = |of: fn(&NodeView) -> u64| views.iter().map(|view| (of(view), view.node.hostname())).max();
    if let Some((free, name)) = most(|view| view.free_memory.0).filter(|(free, _)| *free < filter.memory.0) {
        let free = bytes(free);
        hints.push(format!(
            "reserve at most {free} (deploy.resources.reservations.memory), the most that is free, on {name}; or add a node"
        ));
    }
    if let Some((free, name)) = most(|view| view.free_cpus.0).filter(|(free, _)| *free < filter.cpus.0) {
        let free = cpus(free);
        hints.push(format!(
            "reserve at most {free} CPUs (deploy.resources.reservations.cpus), the most that are free, on {name}; or add a node"
        ));
    }
    for request in filter.generic {
        if views.iter().all(|view| view.free_generic(&request.kind) < request.amount) && !views.is_empty() {
            let kind = &request.kind;
            hints.push(format!(
                "free or add some {kind}: nodes say what they have in their config.toml, as generic_resources = [\"{kind}=1\"]"
            ));
        }
    }
}

/// Said only of a constraint that no node satisfies.
fn constraint_hint(constraint: &Constraint, views: &[NodeView]) -> Option<String> {
    if views.iter().any(|view| view.node.satisfies(std::slice::from_ref(constraint))) {
        return None;
    }
    let Constraint { key, op, value } = constraint;
    Some(match (key.strip_prefix("node.labels."), op) {
        (Some(label), ConstraintOp::Equal) => {
            format!("no node satisfies {constraint}; label one: skep node update --label-add {label}={value} NODE")
        }
        (Some(_), ConstraintOp::NotEqual) | (None, _) => {
            format!("no node satisfies {constraint}; change the constraint")
        }
    })
}

fn readiness(node: &Node) -> Option<String> {
    let name = node.hostname();
    match (node.status.state, node.spec.availability) {
        (NodeState::Down | NodeState::Disconnected, _) => Some(format!("bring {name} back: it is not reachable")),
        (_, Availability::Drain | Availability::Pause) => {
            Some(format!("let {name} take tasks again: skep node update --availability active {name}"))
        }
        (NodeState::Unknown | NodeState::Ready, Availability::Active) => None,
    }
}
