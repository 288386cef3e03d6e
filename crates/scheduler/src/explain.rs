//! Why a task may go where it goes, and nowhere else: each node's verdict, with numbers.
//!
//! The verdicts are those of the filters that place tasks, asked once for each node; nothing is decided here.

use std::sync::Arc;

use skep_model::{
    Availability, Cluster, Constraint, ConstraintOp, Node, NodeId, NodeState, Platform, PlatformSpec, PortSpec,
    PublishMode, Service, ServiceId, Task, TaskSpec, Timestamp, Version,
};

use crate::filter::{Filter, Verdict};
use crate::fleet::{Fleet, NodeView};
use crate::{hints, home};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    pub nodes: Vec<NodeVerdict>,
    /// What would make more nodes fit; nothing where one does.
    pub hints: Vec<String>,
}

/// What one node says to one task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeVerdict {
    pub node: NodeId,
    pub hostname: String,
    /// The first filter that refuses it.
    pub refused_by: Option<&'static str>,
    /// In words, with numbers.
    pub why: String,
    /// Tasks of the service that are there, and all tasks.
    pub service_tasks: u64,
    pub tasks: u64,
}

/// What is asked of the nodes, by whom.
struct Subject<'a> {
    service: ServiceId,
    version: Version,
    spec: &'a TaskSpec,
    ports: Vec<PortSpec>,
    home: Option<NodeId>,
}

/// What each node says to one more task of the service.
pub fn explain_service(cluster: &Cluster, service: &Service, now: Timestamp) -> Explanation {
    let ports = host_ports(service);
    let (id, version, spec) = (service.id, service.spec_version, &service.spec.task);
    explain(cluster, &Subject { service: id, version, spec, ports, home: None }, now)
}

/// What each node says to this task, as though it were nowhere yet.
pub fn explain_task(cluster: &Cluster, task: &Task, now: Timestamp) -> Explanation {
    let mut without = cluster.clone();
    without.tasks.remove(&task.id);
    let ports = task.host_ports.clone();
    let (service, version) = (task.service, task.spec_version);
    explain(&without, &Subject { service, version, spec: &task.spec, ports, home: task.home }, now)
}

pub fn host_ports(service: &Service) -> Vec<PortSpec> {
    service.spec.endpoint.ports.iter().filter(|port| port.mode == PublishMode::Host).cloned().collect()
}

/// What put a task where it is, as far as its own spec tells.
pub fn grounds(cluster: &Cluster, task: &Task) -> String {
    let Some(node) = task.node.and_then(|node| cluster.nodes.get(&node)) else { return String::new() };
    if task.home == Some(node.id) && home::matters(&task.spec) {
        return format!("stays on {}: its {} is there", node.hostname(), home::words(&task.spec));
    }
    if matches!(task.slot, skep_model::Slot::Node(_)) {
        return "one task on each node that fits".to_owned();
    }
    let placement = &task.spec.placement;
    let constraints = placement.constraints.iter().map(ToString::to_string);
    let spread = placement.preferences.iter().map(|preference| format!("spread over {}", preference.spread));
    let with = placement.affinity.iter().map(|name| format!("with {name}"));
    let without = placement.anti_affinity.iter().map(|name| format!("without {name}"));
    constraints.chain(spread).chain(with).chain(without).collect::<Vec<_>>().join(", ")
}

fn explain(cluster: &Cluster, subject: &Subject, now: Timestamp) -> Explanation {
    let mut fleet = Fleet::new(cluster, std::iter::once(subject.service), now);
    let filter = Filter { company: fleet.company(subject.service), ..Filter::of(subject.spec, &subject.ports) };
    fleet.begin(subject.service, subject.version, &filter);
    let home = subject.home.and_then(|home| cluster.nodes.get(&home));
    let home = home.filter(|home| home::holds(home, filter.placement));
    let nodes: Vec<NodeVerdict> =
        (0..fleet.views.len()).map(|at| verdict(&fleet, at, &filter, subject, home)).collect();
    let fits = nodes.iter().any(|node| node.refused_by.is_none());
    let hints = match (fits, home) {
        (true, _) => Vec::new(),
        (false, Some(home)) => hints::of_home(home, subject.spec),
        (false, None) => hints::of(&filter, &fleet.views),
    };
    Explanation { nodes, hints }
}

fn verdict(fleet: &Fleet, at: usize, filter: &Filter, subject: &Subject, home: Option<&Arc<Node>>) -> NodeVerdict {
    let view = &fleet.views[at];
    let verdict = filter.check(view);
    let elsewhere = home.filter(|home| home.id != view.node.id);
    let (refused_by, why) = match (elsewhere, verdict) {
        (Some(home), _) => {
            (Some("volume"), format!("the {} of the task is on {}", home::words(subject.spec), home.hostname()))
        }
        (None, Verdict::Fits) => (None, remarks(view)),
        (None, Verdict::Company) => (verdict.word(), fleet.company_words(subject.service, at)),
        (None, _) => (verdict.word(), refusal(filter, view)),
    };
    NodeVerdict {
        node: view.node.id,
        hostname: view.node.hostname().to_owned(),
        refused_by,
        why,
        service_tasks: view.standing.tasks.into(),
        tasks: view.tasks.into(),
    }
}

/// What is to be said of a node that fits.
fn remarks(view: &NodeView) -> String {
    let mut remarks = Vec::new();
    if view.standing.emulates {
        remarks.push("tried last: it would emulate the image's processor".to_owned());
    }
    if view.standing.failures > 0 {
        remarks.push(format!("tried last: {} tasks of the service failed there lately", view.standing.failures));
    }
    remarks.join("; ")
}

/// Why the filters refuse a node, in numbers; empty when they do not.
pub fn refusal(filter: &Filter, view: &NodeView) -> String {
    match filter.check(view) {
        Verdict::Fits => String::new(),
        Verdict::NotReady => not_ready(view.node).to_owned(),
        Verdict::Resources => resources(filter, view),
        Verdict::Constraints => {
            let refused = filter.placement.constraints.iter();
            let refused = refused.filter(|constraint| !view.node.satisfies(std::slice::from_ref(constraint)));
            refused.map(|constraint| unsatisfied(view.node, constraint)).collect::<Vec<_>>().join(", ")
        }
        Verdict::Platform => {
            format!("it runs {}, the image is for {}", own_platforms(view.node), wanted(&filter.placement.platforms))
        }
        Verdict::Level => {
            format!("its skep has feature level {}, the task needs {}", view.node.level(), filter.level)
        }
        Verdict::HostPort => {
            let taken = filter.ports.iter().filter(|port| view.host_ports.contains(port));
            let taken: Vec<String> = taken.map(|(protocol, port)| format!("{port}/{}", protocol.word())).collect();
            format!("port {} is taken there", taken.join(", "))
        }
        Verdict::MaxReplicas => {
            let most = filter.placement.max_replicas_per_node;
            format!("it has {} of the service, and {most} is the most for a node", count(view.standing.tasks.into()))
        }
        Verdict::Company => "other services' tasks do not allow it".to_owned(),
    }
}

fn not_ready(node: &Node) -> &'static str {
    match (node.status.state, node.spec.availability) {
        (NodeState::Down, _) => "it is down",
        (NodeState::Unknown, _) => "nothing was heard of it yet",
        (NodeState::Disconnected, _) => "it is disconnected",
        (NodeState::Ready, Availability::Drain) => "it is drained",
        (NodeState::Ready, Availability::Pause) => "it is paused",
        (NodeState::Ready, Availability::Active) => "it takes tasks",
    }
}

fn resources(filter: &Filter, view: &NodeView) -> String {
    let mut lacking = Vec::new();
    if view.free_memory < filter.memory {
        let (free, wanted) = (bytes(view.free_memory.0), bytes(filter.memory.0));
        lacking.push(format!("{free} of memory free, {wanted} reserved by each task"));
    }
    if view.free_cpus < filter.cpus {
        let (free, wanted) = (cpus(view.free_cpus.0), cpus(filter.cpus.0));
        lacking.push(format!("{free} CPUs free, {wanted} reserved by each task"));
    }
    for wanted in filter.generic {
        let free = view.free_generic(&wanted.kind);
        if free < wanted.amount {
            lacking.push(format!("{free} {} free, {} reserved by each task", wanted.kind, wanted.amount));
        }
    }
    lacking.join("; ")
}

fn unsatisfied(node: &Node, constraint: &Constraint) -> String {
    let has = match constraint.key.as_str() {
        "node.ip" => Some(node.status.address.clone()),
        key => node.constraint_value(key).map(|value| value.into_owned()),
    };
    match (has, constraint.op) {
        (Some(has), _) => format!("{constraint}: it has {has}"),
        (None, ConstraintOp::Equal) => format!("{constraint}: it has no {}", constraint.key),
        (None, ConstraintOp::NotEqual) => constraint.to_string(),
    }
}

pub fn own_platforms(node: &Node) -> String {
    let own = node.description.as_ref().map_or(&[][..], |description| &description.platforms);
    match own.first() {
        Some(Platform { os, architecture, variant }) => platform(os, architecture, variant),
        None => "nothing that is known yet".to_owned(),
    }
}

pub fn wanted(platforms: &[PlatformSpec]) -> String {
    let all = platforms.iter().map(|it| platform(&it.os, &it.architecture, &it.variant));
    all.collect::<Vec<_>>().join(", ")
}

fn platform(os: &str, architecture: &str, variant: &str) -> String {
    [os, architecture, variant].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
}

pub fn count(tasks: u64) -> String {
    if tasks == 1 { "1 task".to_owned() } else { format!("{tasks} tasks") }
}

/// As Docker writes memory: `1.5GiB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match UNITS.into_iter().find(|(size, _)| bytes >= *size) {
        // Down, never up: what is said to be free is.
        Some((size, unit)) => format!("{}{unit}", (bytes as f64 / size as f64 * 10.0).floor() / 10.0),
        None => format!("{bytes}B"),
    }
}

pub fn cpus(nano: u64) -> String {
    format!("{}", (nano as f64 / 1e7).floor() / 100.0)
}
