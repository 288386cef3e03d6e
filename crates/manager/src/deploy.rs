//! Deploying a stack: what its file asks for against what the cluster has, as one list of changes.
//!
//! Pure, and all or nothing: everything is checked against a picture that already has the earlier parts of
//! the deploy, and one proposal carries the whole.

use std::sync::Arc;

use skep_model::{
    Change, Cluster, IdSource, Kind, Labels, Meta, NetworkSpec, ServiceSpec, Stack, StackRevision, Timestamp,
};

use crate::admission::{self, NewContent, Refusal};

/// A stack as its file asks for it.
#[derive(Debug, Clone)]
pub struct StackRequest {
    pub name: String,
    pub services: Vec<ServiceSpec>,
    pub networks: Vec<NetworkSpec>,
    pub secrets: Vec<NewContent>,
    pub configs: Vec<NewContent>,
    /// Remove services of the stack that the file no longer names.
    pub prune: bool,
    pub author: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Created,
    Updated,
    Unchanged,
    Removed,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployed {
    pub kind: Kind,
    pub id: String,
    pub name: String,
    pub action: Action,
}

/// The changes of a deploy in the order in which they must be applied, and what they do in words.
#[derive(Debug, Default)]
pub struct Plan {
    pub changes: Vec<Change>,
    pub objects: Vec<Deployed>,
    pub revision: u64,
    /// What a user should know, though it was done.
    pub warnings: Vec<String>,
}

/// The deploy under way: the picture grows with every change that is decided.
struct Draft<'a> {
    picture: Cluster,
    plan: Plan,
    at: Timestamp,
    ids: &'a mut IdSource,
}

pub fn plan(cluster: &Cluster, request: StackRequest, at: Timestamp, ids: &mut IdSource) -> Result<Plan, Refusal> {
    let mut draft = Draft { picture: cluster.clone(), plan: Plan::default(), at, ids };
    let StackRequest { name, services, networks, secrets, configs, prune, author } = request;
    skep_model::validate_service_name(&name).map_err(|problem| Refusal::Invalid(format!("stack: {problem}")))?;
    for spec in networks {
        draft.network(spec)?;
    }
    for new in secrets {
        draft.secret(new)?;
    }
    for new in configs {
        draft.config(new)?;
    }
    let mut kept = Vec::new();
    for spec in services {
        kept.push(spec.name.to_lowercase());
        draft.service(spec)?;
    }
    if prune {
        draft.prune(&name, &kept)?;
    }
    draft.record(name, author, &kept)?;
    Ok(draft.plan)
}

/// Everything that carries the stack's label, services first so that nothing is in use when it is removed.
pub fn removal(cluster: &Cluster, name: &str) -> Result<Plan, Refusal> {
    let mut plan = Plan::default();
    let mut remove = |kind, id: String, name: &str, change| {
        plan.objects.push(Deployed { kind, id, name: name.to_owned(), action: Action::Removed });
        plan.changes.push(change);
    };
    let of_stack = |labels: &Labels| labels.get(Stack::LABEL).is_some_and(|stack| stack == name);
    for service in cluster.services.values().filter(|service| of_stack(&service.spec.labels)) {
        remove(Kind::Service, service.id.to_string(), service.name(), Change::RemoveService { service: service.id });
    }
    for secret in cluster.secrets.values().filter(|secret| of_stack(&secret.labels)) {
        remove(Kind::Secret, secret.id.to_string(), &secret.name, Change::RemoveSecret { secret: secret.id });
    }
    for config in cluster.configs.values().filter(|config| of_stack(&config.labels)) {
        remove(Kind::Config, config.id.to_string(), &config.name, Change::RemoveConfig { config: config.id });
    }
    if cluster.stacks.contains_key(name) {
        plan.changes.push(Change::RemoveStack { name: name.to_owned() });
    }
    if plan.changes.is_empty() && networks_of(cluster, name).next().is_none() {
        return Err(Refusal::NotFound(format!("nothing found in stack: {name}; `skep stack ls` lists what is there")));
    }
    Ok(plan)
}

/// The networks of a stack: they can go once no task is attached to them any more.
pub fn networks_of<'a>(cluster: &'a Cluster, name: &'a str) -> impl Iterator<Item = &'a Arc<skep_model::Network>> {
    cluster
        .networks
        .values()
        .filter(move |network| network.spec.labels.get(Stack::LABEL).is_some_and(|stack| stack == name))
}

impl Draft<'_> {
    fn push(&mut self, change: Change, kind: Kind, id: String, name: String, action: Action) -> Result<(), Refusal> {
        let version = self.picture.version.0 + 1;
        self.picture.apply(&change, version).map_err(|rejection| Refusal::Conflict(rejection.to_string()))?;
        self.plan.changes.push(change);
        self.plan.objects.push(Deployed { kind, id, name, action });
        Ok(())
    }

    fn unchanged(&mut self, kind: Kind, id: String, name: String) {
        self.plan.objects.push(Deployed { kind, id, name, action: Action::Unchanged });
    }

    /// A network that is there is left as it is, as Docker does; one that differs is refused with the way out.
    fn network(&mut self, spec: NetworkSpec) -> Result<(), Refusal> {
        let Some(existing) = self.picture.network_named(&spec.name).cloned() else {
            let network = admission::network(&self.picture, spec, self.at, self.ids)?;
            let (id, name) = (network.id.to_string(), network.spec.name.clone());
            return self.push(
                Change::CreateNetwork { network: Box::new(network) },
                Kind::Network,
                id,
                name,
                Action::Created,
            );
        };
        if let Some(problem) = existing.differs_from(&spec) {
            return Err(Refusal::Conflict(problem));
        }
        self.plan.warnings.extend(lacks_ipv6(&existing, &spec));
        self.unchanged(Kind::Network, existing.id.to_string(), spec.name);
        Ok(())
    }

    fn secret(&mut self, new: NewContent) -> Result<(), Refusal> {
        let Some(existing) = self.picture.secret_named(&new.name).cloned() else {
            let secret = admission::secret(&self.picture, new, self.at, self.ids)?;
            let (id, name) = (secret.id.to_string(), secret.name.clone());
            return self.push(
                Change::CreateSecret { secret: Box::new(secret) },
                Kind::Secret,
                id,
                name,
                Action::Created,
            );
        };
        let (id, name) = (existing.id.to_string(), existing.name.clone());
        if existing.contents.current == admission::digest_of(&new.data, new.kind) && existing.labels == new.labels {
            self.unchanged(Kind::Secret, id, name);
            return Ok(());
        }
        let expected = existing.meta.version;
        let change = admission::secret_update(
            &self.picture,
            existing.id,
            expected,
            new.labels,
            Some((new.data, new.kind)),
            self.at,
        )?;
        self.push(change, Kind::Secret, id, name, Action::Updated)
    }

    fn config(&mut self, new: NewContent) -> Result<(), Refusal> {
        let Some(existing) = self.picture.config_named(&new.name).cloned() else {
            let config = admission::config(&self.picture, new, self.at, self.ids)?;
            let (id, name) = (config.id.to_string(), config.name.clone());
            return self.push(
                Change::CreateConfig { config: Box::new(config) },
                Kind::Config,
                id,
                name,
                Action::Created,
            );
        };
        let (id, name) = (existing.id.to_string(), existing.name.clone());
        if existing.contents.current == admission::digest_of(&new.data, new.kind) && existing.labels == new.labels {
            self.unchanged(Kind::Config, id, name);
            return Ok(());
        }
        let expected = existing.meta.version;
        let change = admission::config_update(
            &self.picture,
            existing.id,
            expected,
            new.labels,
            Some((new.data, new.kind)),
            self.at,
        )?;
        self.push(change, Kind::Config, id, name, Action::Updated)
    }

    fn service(&mut self, spec: ServiceSpec) -> Result<(), Refusal> {
        let Some(existing) = self.picture.service_named(&spec.name).cloned() else {
            let service = admission::service(&self.picture, spec, self.at, self.ids)?;
            let (id, name) = (service.id.to_string(), service.name().to_owned());
            return self.push(
                Change::CreateService { service: Box::new(service) },
                Kind::Service,
                id,
                name,
                Action::Created,
            );
        };
        // `--force` updates are the service's history, not the file's.
        let mut spec = spec;
        spec.task.force_update = existing.spec.task.force_update;
        let change = admission::service_update(&self.picture, &existing, spec, self.at)?;
        let (id, name) = (existing.id.to_string(), existing.name().to_owned());
        let same = matches!(&change, Change::UpdateService { spec, .. } if *spec == existing.spec);
        if same {
            self.unchanged(Kind::Service, id, name);
            return Ok(());
        }
        self.push(change, Kind::Service, id, name, Action::Updated)
    }

    fn prune(&mut self, stack: &str, kept: &[String]) -> Result<(), Refusal> {
        let services = self.picture.services.clone();
        let of_stack =
            |service: &skep_model::Service| service.spec.labels.get(Stack::LABEL).is_some_and(|name| name == stack);
        for service in services.values().filter(|service| of_stack(service)) {
            if !kept.contains(&service.name().to_lowercase()) {
                let change = Change::RemoveService { service: service.id };
                self.push(change, Kind::Service, service.id.to_string(), service.name().to_owned(), Action::Removed)?;
            }
        }
        Ok(())
    }

    /// Adds a revision to the stack's history, unless nothing changed.
    fn record(&mut self, name: String, author: String, kept: &[String]) -> Result<(), Refusal> {
        let known = self.picture.stacks.get(&name).cloned();
        let nothing_changed = self.plan.changes.is_empty();
        if let (Some(stack), true) = (&known, nothing_changed) {
            self.plan.revision = stack.next_revision() - 1;
            return Ok(());
        }
        let mut stack = match known {
            Some(stack) => (*stack).clone(),
            None => Stack { id: self.ids.next_id(), meta: Meta::new(self.at), name, revisions: Vec::new() },
        };
        let services = kept.iter().filter_map(|service| self.picture.service_named(service));
        let services = services.map(|service| (*service.spec).clone()).collect();
        self.plan.revision = stack.next_revision();
        stack.push(StackRevision { number: self.plan.revision, created_at: self.at, author, services });
        stack.meta.updated_at = self.at;
        self.plan.changes.push(Change::PutStack { stack: Box::new(stack) });
        Ok(())
    }
}

/// A network from before there was IPv6 is taken as it is, and its containers have none.
fn lacks_ipv6(existing: &skep_model::Network, wanted: &NetworkSpec) -> Option<String> {
    let is_asked_for = wanted.ipv6.unwrap_or(wanted.subnet_v6.is_some());
    let name = &wanted.name;
    (is_asked_for && existing.subnet_v6.is_none()).then(|| {
        format!(
            "network {name} exists with IPv4 alone, and a network cannot be changed: its containers get no IPv6 addresses; \
             remove the stack and deploy it again, or give the network another name"
        )
    })
}
