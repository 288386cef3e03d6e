//! What a deploy would change: a stack against what the cluster has of it.
//!
//! The manager decides with its own picture of the cluster; this is the same comparison as a value, with
//! the parts that differ by name, for `--dry-run` and for whoever asks first.
//! A stack that was deployed and not changed gives an empty plan: digests that were pinned, `--force`
//! counts and ports that were assigned are the cluster's, not the file's.

mod changes;

use std::collections::BTreeSet;
use std::fmt;

use sha2::{Digest, Sha256};
use skep_model::{Cluster, ContentDigest, Contents, Kind, Labels, NetworkSpec, ServiceSpec, Stack};

pub use changes::service_changes;

use crate::spec::{ContentSpec, StackSpec};

/// Whether what the file no longer names goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prune {
    Yes,
    No,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Create,
    Update,
    Unchanged,
    Remove,
}

/// One object of the stack, and what happens to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanStep {
    pub kind: Kind,
    pub name: String,
    pub action: Action,
    /// The parts that an update changes, in the words of the file.
    pub changes: Vec<&'static str>,
}

/// In the order in which a deploy goes: networks, secrets, configs, services; then what is removed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    pub steps: Vec<PlanStep>,
    /// Why the deploy would be refused; nothing is done then.
    pub refusals: Vec<String>,
}

impl Plan {
    /// Nothing to do, and nothing in the way.
    pub fn is_empty(&self) -> bool {
        self.refusals.is_empty() && self.steps.iter().all(|step| step.action == Action::Unchanged)
    }

    fn step(&mut self, kind: Kind, name: &str, action: Action, changes: Vec<&'static str>) {
        self.steps.push(PlanStep { kind, name: name.to_owned(), action, changes });
    }

    /// An object that is there: updated where a part differs.
    fn compared(&mut self, kind: Kind, name: &str, changes: Vec<&'static str>) {
        let action = if changes.is_empty() { Action::Unchanged } else { Action::Update };
        self.step(kind, name, action, changes);
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for refusal in &self.refusals {
            writeln!(f, "! {refusal}")?;
        }
        for PlanStep { kind, name, action, changes } in &self.steps {
            let sign = match action {
                Action::Create => '+',
                Action::Update => '~',
                Action::Unchanged => '=',
                Action::Remove => '-',
            };
            match changes.is_empty() {
                true => writeln!(f, "{sign} {kind} {name}")?,
                false => writeln!(f, "{sign} {kind} {name} ({})", changes.join(", "))?,
            }
        }
        Ok(())
    }
}

/// Compares `spec` with what `cluster` has.
pub fn diff(cluster: &Cluster, spec: &StackSpec, prune: Prune) -> Plan {
    let mut plan = Plan::default();
    externals(cluster, spec, &mut plan);
    for network in &spec.networks {
        network_step(cluster, spec, network, &mut plan);
    }
    for secret in &spec.secrets {
        let found = cluster.secret_named(&secret.name).map(|found| (&found.labels, &found.contents));
        content_step(Kind::Secret, spec, secret, found, &mut plan);
    }
    for config in &spec.configs {
        let found = cluster.config_named(&config.name).map(|found| (&found.labels, &found.contents));
        content_step(Kind::Config, spec, config, found, &mut plan);
    }
    for service in &spec.services {
        match cluster.service_named(&service.name) {
            None => plan.step(Kind::Service, &service.name, Action::Create, Vec::new()),
            Some(found) => {
                owned(Kind::Service, &service.name, &found.spec.labels, spec, &mut plan);
                let wanted = settled(cluster, spec, service, &found.spec);
                plan.compared(Kind::Service, &service.name, service_changes(&found.spec, &wanted));
            }
        }
    }
    if prune == Prune::Yes {
        removals(cluster, spec, &mut plan);
    }
    plan
}

fn externals(cluster: &Cluster, spec: &StackSpec, plan: &mut Plan) {
    let mut missing = |kind: Kind, name: &String, found: bool| {
        if !found {
            plan.refusals.push(format!(
                "{kind} {name} is declared as external, but could not be found; make it with `skep {kind} create`, or remove external: true"
            ));
        }
    };
    for name in &spec.external.networks {
        missing(Kind::Network, name, cluster.network_named(name).is_some());
    }
    for name in &spec.external.secrets {
        missing(Kind::Secret, name, cluster.secret_named(name).is_some());
    }
    for name in &spec.external.configs {
        missing(Kind::Config, name, cluster.config_named(name).is_some());
    }
}

/// A name that is taken by something that is not the stack's is not the stack's to change.
fn owned(kind: Kind, name: &str, labels: &Labels, spec: &StackSpec, plan: &mut Plan) {
    match labels.get(Stack::LABEL) {
        Some(stack) if *stack == spec.name => {}
        Some(stack) => plan.refusals.push(format!("{kind} {name} belongs to stack {stack}; give it another name")),
        None => plan.refusals.push(format!(
            "{kind} {name} exists and belongs to no stack; give the stack's another name, or declare it external"
        )),
    }
}

fn network_step(cluster: &Cluster, spec: &StackSpec, wanted: &NetworkSpec, plan: &mut Plan) {
    let Some(found) = cluster.network_named(&wanted.name) else {
        return plan.step(Kind::Network, &wanted.name, Action::Create, Vec::new());
    };
    owned(Kind::Network, &wanted.name, &found.spec.labels, spec, plan);
    plan.refusals.extend(found.differs_from(wanted));
    plan.compared(Kind::Network, &wanted.name, Vec::new());
}

fn content_step(
    kind: Kind,
    spec: &StackSpec,
    wanted: &ContentSpec,
    found: Option<(&Labels, &Contents)>,
    plan: &mut Plan,
) {
    let Some((labels, contents)) = found else {
        return plan.step(kind, &wanted.name, Action::Create, Vec::new());
    };
    owned(kind, &wanted.name, labels, spec, plan);
    let mut changes = Vec::new();
    if contents.current != digest_of(wanted) {
        changes.push("content");
    }
    if *labels != wanted.labels {
        changes.push("labels");
    }
    plan.compared(kind, &wanted.name, changes);
}

fn digest_of(content: &ContentSpec) -> ContentDigest {
    ContentDigest::new(Sha256::digest(&content.data).iter().map(|byte| format!("{byte:02x}")).collect(), content.kind)
}

/// The wanted spec as the manager would write it over the one that it has.
fn settled(cluster: &Cluster, stack: &StackSpec, wanted: &ServiceSpec, found: &ServiceSpec) -> ServiceSpec {
    let mut wanted = wanted.clone();
    let task = &mut wanted.task;
    task.force_update = found.task.force_update;
    let same_image = found.task.container.image.split_once('@').is_some_and(|(name, _)| name == task.container.image);
    if same_image {
        task.container.image.clone_from(&found.task.container.image);
    }
    if task.placement.platforms.is_empty() && task.container.image == found.task.container.image {
        task.placement.platforms.clone_from(&found.task.placement.platforms);
    }
    if task.container.registry_auth.is_none() {
        task.container.registry_auth.clone_from(&found.task.container.registry_auth);
    }
    let brought = |all: &[ContentSpec], name: &str| {
        all.iter().find(|content| content.name.eq_ignore_ascii_case(name)).map(digest_of)
    };
    for reference in &mut task.container.secrets {
        let kept = || cluster.secret_named(&reference.secret).map(|secret| secret.contents.current.clone());
        reference.digest = brought(&stack.secrets, &reference.secret).or_else(kept);
    }
    for reference in &mut task.container.configs {
        let kept = || cluster.config_named(&reference.config).map(|config| config.contents.current.clone());
        reference.digest = brought(&stack.configs, &reference.config).or_else(kept);
    }
    wanted
}

/// What carries the stack's label and is not in its files any more; services first, then what they used.
fn removals(cluster: &Cluster, spec: &StackSpec, plan: &mut Plan) {
    let ours = |labels: &Labels| labels.get(Stack::LABEL).is_some_and(|stack| *stack == spec.name);
    let gone = |kept: BTreeSet<String>, all: Vec<(&str, &Labels)>| -> Vec<String> {
        let all = all.into_iter().filter(|(name, labels)| ours(labels) && !kept.contains(&name.to_lowercase()));
        let mut names: Vec<String> = all.map(|(name, _)| name.to_owned()).collect();
        names.sort();
        names
    };
    fn lower<'n>(names: impl Iterator<Item = &'n String>) -> BTreeSet<String> {
        names.map(|name| name.to_lowercase()).collect()
    }
    let services = cluster.services.values().map(|service| (service.name(), &service.spec.labels)).collect();
    let secrets = cluster.secrets.values().map(|secret| (secret.name.as_str(), &secret.labels)).collect();
    let configs = cluster.configs.values().map(|config| (config.name.as_str(), &config.labels)).collect();
    let networks =
        cluster.networks.values().map(|network| (network.spec.name.as_str(), &network.spec.labels)).collect();
    let groups = [
        (Kind::Service, gone(lower(spec.services.iter().map(|service| &service.name)), services)),
        (Kind::Secret, gone(lower(spec.secrets.iter().map(|secret| &secret.name)), secrets)),
        (Kind::Config, gone(lower(spec.configs.iter().map(|config| &config.name)), configs)),
        (Kind::Network, gone(lower(spec.networks.iter().map(|network| &network.name)), networks)),
    ];
    for (kind, names) in groups {
        for name in names {
            plan.step(kind, &name, Action::Remove, Vec::new());
        }
    }
}
