//! Two states of the cluster, and what happened between them. Pure.
//!
//! Attributes are Docker's where it has them: `name`, and of what changed `replicas.old`, `replicas.new` and so on.

use std::fmt::Display;

use imbl::ordmap::DiffItem;
use skep_api::{Event, EventAction};
use skep_model::{
    Availability, Cluster, Config, Contents, Kind, Labels, Mode, Network, Node, NodeState, Role, Secret, Service,
    Stack, Task, Timestamp, UpdateState,
};

pub fn between(old: &Cluster, new: &Cluster, at: Timestamp) -> Vec<Event> {
    let mut events = Vec::new();
    let mut tell = |kind, seen: Option<Seen>| {
        events.extend(seen.map(|seen| Event {
            at,
            kind,
            action: seen.action,
            id: seen.id,
            attributes: seen.attributes,
        }));
    };
    old.networks.diff(&new.networks).for_each(|item| tell(Kind::Network, seen(item, network, |_, _| None)));
    old.secrets.diff(&new.secrets).for_each(|item| tell(Kind::Secret, seen(item, secret, secret_changes)));
    old.configs.diff(&new.configs).for_each(|item| tell(Kind::Config, seen(item, config, config_changes)));
    old.stacks.diff(&new.stacks).for_each(|item| tell(Kind::Stack, seen(item, stack, stack_changes)));
    old.services.diff(&new.services).for_each(|item| tell(Kind::Service, seen(item, service, service_changes)));
    old.nodes.diff(&new.nodes).for_each(|item| tell(Kind::Node, seen(item, node, node_changes)));
    old.tasks.diff(&new.tasks).for_each(|item| tell(Kind::Task, seen(item, task, task_changes)));
    events
}

struct Seen {
    action: EventAction,
    id: String,
    attributes: Labels,
}

/// `identify` names an object; `changes` says what a user can see of an update, or that it is none of theirs.
fn seen<K, T, P: std::ops::Deref<Target = T>>(
    item: DiffItem<'_, '_, K, P>,
    identify: impl Fn(&T) -> (String, Labels),
    changes: impl Fn(&T, &T) -> Option<Labels>,
) -> Option<Seen> {
    let (action, (id, mut attributes), more) = match item {
        DiffItem::Add(_, new) => (EventAction::Create, identify(new), Labels::new()),
        DiffItem::Update { old: (_, old), new: (_, new) } => (EventAction::Update, identify(new), changes(old, new)?),
        DiffItem::Remove(_, old) => (EventAction::Remove, identify(old), Labels::new()),
    };
    attributes.extend(more);
    Some(Seen { action, id, attributes })
}

/// What changed, each with its old and its new value.
#[derive(Default)]
struct Changes(Labels);

impl Changes {
    fn part<T: PartialEq + Display>(&mut self, name: &str, old: T, new: T) {
        if old != new {
            self.0.insert(format!("{name}.old"), old.to_string());
            self.0.insert(format!("{name}.new"), new.to_string());
        }
    }
}

fn named<T: Display>(id: T, name: &str) -> (String, Labels) {
    (id.to_string(), Labels::from([("name".to_owned(), name.to_owned())]))
}

fn network(network: &Network) -> (String, Labels) {
    named(network.id, &network.spec.name)
}

fn secret(secret: &Secret) -> (String, Labels) {
    named(secret.id, &secret.name)
}

fn config(config: &Config) -> (String, Labels) {
    named(config.id, &config.name)
}

fn stack(stack: &Stack) -> (String, Labels) {
    named(stack.id, &stack.name)
}

fn service(service: &Service) -> (String, Labels) {
    named(service.id, service.name())
}

fn node(node: &Node) -> (String, Labels) {
    named(node.id, node.hostname())
}

fn task(task: &Task) -> (String, Labels) {
    let (id, mut attributes) = named(task.id, &task.name());
    attributes.insert("service".to_owned(), task.service_name.clone());
    if let Some(node) = task.node {
        attributes.insert("node".to_owned(), node.to_string());
    }
    (id, attributes)
}

fn content_number(contents: &Contents) -> u64 {
    contents.current().map_or(0, |revision| revision.number)
}

fn secret_changes(old: &Secret, new: &Secret) -> Option<Labels> {
    let mut changes = Changes::default();
    changes.part("revision", content_number(&old.contents), content_number(&new.contents));
    Some(changes.0)
}

fn config_changes(old: &Config, new: &Config) -> Option<Labels> {
    let mut changes = Changes::default();
    changes.part("revision", content_number(&old.contents), content_number(&new.contents));
    Some(changes.0)
}

fn stack_changes(old: &Stack, new: &Stack) -> Option<Labels> {
    let mut changes = Changes::default();
    changes.part("revision", old.next_revision() - 1, new.next_revision() - 1);
    Some(changes.0)
}

/// A service's endpoint is the managers' own affair.
fn service_changes(old: &Service, new: &Service) -> Option<Labels> {
    let mut changes = Changes::default();
    let (was, is) = (update_state(old), update_state(new));
    if old.spec == new.spec && was == is {
        return None;
    }
    if let (Some(was), Some(is)) = (replicas(old), replicas(new)) {
        changes.part("replicas", was, is);
    }
    let image = |service: &Service| service.spec.task.container.image.clone();
    changes.part("image", image(old), image(new));
    changes.part("updatestate", was, is);
    Some(changes.0)
}

fn replicas(service: &Service) -> Option<u64> {
    match service.spec.mode {
        Mode::Replicated { replicas } => Some(replicas),
        Mode::ReplicatedJob { total_completions, .. } => Some(total_completions),
        Mode::Global | Mode::GlobalJob => None,
    }
}

fn update_state(service: &Service) -> &'static str {
    match service.update_status.as_ref().map(|status| status.state) {
        None => "",
        Some(UpdateState::Updating) => "updating",
        Some(UpdateState::Paused) => "paused",
        Some(UpdateState::Completed) => "completed",
        Some(UpdateState::RollbackStarted) => "rollback_started",
        Some(UpdateState::RollbackPaused) => "rollback_paused",
        Some(UpdateState::RollbackCompleted) => "rollback_completed",
    }
}

/// What a node says of itself at each start is no event, unless its state changes with it.
fn node_changes(old: &Node, new: &Node) -> Option<Labels> {
    let mut changes = Changes::default();
    changes.part("state", state(old), state(new));
    changes.part("availability", availability(old), availability(new));
    changes.part("role", role(old), role(new));
    (!changes.0.is_empty() || old.spec != new.spec).then_some(changes.0)
}

fn state(node: &Node) -> &'static str {
    match node.status.state {
        NodeState::Unknown => "unknown",
        NodeState::Down => "down",
        NodeState::Ready => "ready",
        NodeState::Disconnected => "disconnected",
    }
}

fn availability(node: &Node) -> &'static str {
    match node.spec.availability {
        Availability::Active => "active",
        Availability::Pause => "pause",
        Availability::Drain => "drain",
    }
}

fn role(node: &Node) -> &'static str {
    match node.spec.role {
        Role::Worker => "worker",
        Role::Manager => "manager",
    }
}

fn task_changes(old: &Task, new: &Task) -> Option<Labels> {
    let mut changes = Changes::default();
    changes.part("state", old.status.state.word(), new.status.state.word());
    changes.part("desired", old.desired.word(), new.desired.word());
    if changes.0.is_empty() && old.status.error == new.status.error {
        return None;
    }
    if let Some(error) = &new.status.error {
        changes.0.insert("error".to_owned(), error.clone());
    }
    if let Some(code) = new.status.container.as_ref().and_then(|container| container.exit_code) {
        changes.0.insert("exitCode".to_owned(), code.to_string());
    }
    Some(changes.0)
}
