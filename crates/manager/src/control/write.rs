//! Changing the cluster: each request becomes one proposal, checked as a whole before it is made.

use std::sync::Arc;
use std::time::Duration;

use skep_api::{
    Caller, ConfigUpdate, CreateRequest, DeployAction, DeployMode, DeployRequest, Deployed, DeployedObject,
    JoinTokenText, NodeUpdate, Prune, Refusal, RefusalKind, RemoveRequest, Removed, RemovedObject,
    RotateJoinTokenRequest, ScaleRequest, SecretUpdate, ServiceUpdate, UpdateRequest, Written,
};
use skep_identity::{ClusterCa, JoinToken};
use skep_model::{Change, Cluster, ClusterConfig, JoinTokenHashes, Kind, Mode, NetworkSpec, Role, ServiceSpec};
use skep_store::{ProposeError, Store};

use super::{ControlService, not_found, unsupported};
use crate::admission::{self, NewContent};
use crate::clock::wall_clock;
use crate::deploy::{self, Action, StackRequest};
use crate::refusal::not_written;
use crate::resolve::{ImageResolver, pin_image};

/// How long the networks of a removed stack are waited for: their tasks must have stopped.
const NETWORKS_WAIT: Duration = Duration::from_secs(120);

impl<R: ImageResolver> ControlService<R> {
    pub(super) async fn create_object(&self, request: CreateRequest) -> Result<Written, Refusal> {
        let (cluster, at) = (self.cluster(), wall_clock());
        let mut warnings = Vec::new();
        // Before the ids are locked: a registry may take its time.
        let request = match request {
            CreateRequest::Service(spec) => {
                CreateRequest::Service(Box::new(self.pinned(&cluster, *spec, &mut warnings).await))
            }
            other => other,
        };
        let mut ids = self.ids.lock().await;
        let (id, change) = match request {
            CreateRequest::Service(spec) | CreateRequest::ServiceAsGiven(spec) => {
                let service = admission::service(&cluster, *spec, at, &mut ids)?;
                (service.id.to_string(), Change::CreateService { service: Box::new(service) })
            }
            CreateRequest::Network(spec) => {
                drop(ids);
                return self.create_network(spec).await;
            }
            CreateRequest::Secret(new) => {
                let secret = admission::secret(&cluster, content(new), at, &mut ids)?;
                (secret.id.to_string(), Change::CreateSecret { secret: Box::new(secret) })
            }
            CreateRequest::Config(new) => {
                let config = admission::config(&cluster, content(new), at, &mut ids)?;
                (config.id.to_string(), Change::CreateConfig { config: Box::new(config) })
            }
        };
        drop(ids);
        self.written(id, change, warnings).await
    }

    /// Its range may be given to another network meanwhile: then the next free one is taken.
    async fn create_network(&self, spec: NetworkSpec) -> Result<Written, Refusal> {
        loop {
            let cluster = self.cluster();
            let network = admission::network(&cluster, spec.clone(), wall_clock(), &mut *self.ids.lock().await)?;
            let id = network.id.to_string();
            match self.store.propose(vec![Change::CreateNetwork { network: Box::new(network) }]).await {
                Ok(committed) => {
                    return Ok(Written { id, version: skep_model::Version(committed.revision), warnings: Vec::new() });
                }
                // Each round sees progress of others, and what is the request's own fault is refused at its beginning.
                Err(ProposeError::Rejected(rejection)) if self.cluster().version != cluster.version => {
                    tracing::debug!(%rejection, "a new network was overtaken");
                }
                Err(error) => return Err(not_written(error)),
            }
        }
    }

    pub(super) async fn update_object(&self, request: UpdateRequest) -> Result<Written, Refusal> {
        let (cluster, at) = (self.cluster(), wall_clock());
        let mut warnings = Vec::new();
        let (id, change) = match request {
            UpdateRequest::Service(update) => {
                let ServiceUpdate { id, expected, mut spec, as_given } = *update;
                let service = cluster.services.get(&id).ok_or_else(|| missing(Kind::Service, &id))?;
                let auth = &mut spec.task.container.registry_auth;
                *auth = auth.take().or_else(|| service.spec.task.container.registry_auth.clone());
                let spec = if as_given { spec } else { self.pinned(&cluster, spec, &mut warnings).await };
                let change = match admission::service_update(&cluster, service, spec, at)? {
                    Change::UpdateService { service, spec, at, .. } => {
                        Change::UpdateService { service, expected, spec, at }
                    }
                    other => other,
                };
                (id.to_string(), change)
            }
            UpdateRequest::Node(NodeUpdate { id, expected, spec }) => {
                let node = cluster.nodes.get(&id).ok_or_else(|| missing(Kind::Node, &id))?;
                warnings.extend(admission::role_change(&cluster, node, spec.role)?);
                warnings.extend(super::placing::left_behind(&cluster, node, &spec));
                (id.to_string(), Change::UpdateNodeSpec { node: id, expected, spec, at })
            }
            UpdateRequest::Cluster(update) => admission::cluster_update(&cluster, update)?,
            UpdateRequest::Secret(SecretUpdate { id, expected, labels, data }) => {
                let data = data.map(|data| data.to_vec());
                // New bytes of a template are a template.
                let kind = cluster.secrets.get(&id).map(|it| it.contents.current.kind()).unwrap_or_default();
                let data = data.map(|data| (data, kind));
                (id.to_string(), admission::secret_update(&cluster, id, expected, labels, data, at)?)
            }
            UpdateRequest::Config(ConfigUpdate { id, expected, labels, data }) => {
                let data = data.map(|data| data.to_vec());
                // New bytes of a template are a template.
                let kind = cluster.configs.get(&id).map(|it| it.contents.current.kind()).unwrap_or_default();
                let data = data.map(|data| (data, kind));
                (id.to_string(), admission::config_update(&cluster, id, expected, labels, data, at)?)
            }
        };
        self.written(id, change, warnings).await
    }

    /// Only the number changes, whatever else is written to the service meanwhile: the leader does so all
    /// through an update.
    pub(super) async fn scale_service(&self, request: ScaleRequest) -> Result<Written, Refusal> {
        loop {
            let cluster = self.cluster();
            let (id, change) = scaling(&cluster, &request)?;
            match self.store.propose(vec![change]).await {
                Ok(committed) => {
                    let version = skep_model::Version(committed.revision);
                    return Ok(Written { id, version, warnings: Vec::new() });
                }
                // Each round sees progress of others.
                Err(ProposeError::Rejected(rejection)) if self.cluster().version != cluster.version => {
                    tracing::debug!(%rejection, "a change of scale was overtaken");
                }
                Err(error) => return Err(not_written(error)),
            }
        }
    }

    async fn written(&self, id: String, change: Change, warnings: Vec<String>) -> Result<Written, Refusal> {
        let committed = self.propose(vec![change]).await?;
        Ok(Written { id, version: skep_model::Version(committed.revision), warnings })
    }

    pub(super) async fn remove_object(&self, request: RemoveRequest) -> Result<Removed, Refusal> {
        let cluster = self.cluster();
        let RemoveRequest { kind, wanted, force } = request;
        let (id, name, change) = match kind {
            Kind::Stack => return self.remove_stack(&cluster, wanted).await,
            Kind::Service => {
                let service = cluster.find_service(&wanted).map_err(not_found)?;
                (service.id.to_string(), service.name().to_owned(), Change::RemoveService { service: service.id })
            }
            Kind::Network => {
                let network = cluster.find_network(&wanted).map_err(not_found)?;
                (network.id.to_string(), network.spec.name.clone(), Change::RemoveNetwork { network: network.id })
            }
            Kind::Secret => {
                let secret = cluster.find_secret(&wanted).map_err(not_found)?;
                (secret.id.to_string(), secret.name.clone(), Change::RemoveSecret { secret: secret.id })
            }
            Kind::Config => {
                let config = cluster.find_config(&wanted).map_err(not_found)?;
                (config.id.to_string(), config.name.clone(), Change::RemoveConfig { config: config.id })
            }
            Kind::Node => {
                let node = cluster.find_node(&wanted).map_err(not_found)?;
                let changes = admission::node_removal(&cluster, node, &wanted, force, wall_clock())?;
                let removed = RemovedObject { kind, id: node.id.to_string(), name: node.hostname().to_owned() };
                self.propose(changes).await?;
                return Ok(Removed { objects: vec![removed] });
            }
            Kind::Task | Kind::Cluster => return Err(unsupported(&format!("removing a {kind}"))),
        };
        self.propose(vec![change]).await?;
        Ok(Removed { objects: vec![RemovedObject { kind, id, name }] })
    }

    async fn remove_stack(&self, cluster: &Cluster, name: String) -> Result<Removed, Refusal> {
        let plan = deploy::removal(cluster, &name)?;
        let mut objects: Vec<RemovedObject> =
            plan.objects.into_iter().map(|o| RemovedObject { kind: o.kind, id: o.id, name: o.name }).collect();
        if !plan.changes.is_empty() {
            self.propose(plan.changes).await?;
        }
        // A task of its own: a user who does not wait must not leave networks behind.
        let networks = tokio::spawn(remove_networks(self.store.clone(), name));
        let removed = networks.await.map_err(|error| Refusal::internal(&error))??;
        objects.extend(removed);
        Ok(Removed { objects })
    }

    pub(super) async fn deploy(&self, caller: Caller, request: DeployRequest) -> Result<Deployed, Refusal> {
        let DeployRequest { name, services, networks, secrets, configs, prune, mode } = request;
        let cluster = self.cluster();
        // All at once: a registry that does not answer costs its time once.
        let asked = services.into_iter().map(|spec| async {
            let mut warnings = Vec::new();
            (self.pinned(&cluster, spec, &mut warnings).await, warnings)
        });
        let (pinned, warnings): (Vec<_>, Vec<_>) = futures::future::join_all(asked).await.into_iter().unzip();
        let warnings = warnings.concat();
        let request = StackRequest {
            name,
            services: pinned,
            networks,
            secrets: secrets.into_iter().map(content).collect(),
            configs: configs.into_iter().map(content).collect(),
            prune: prune == Prune::Yes,
            author: author(caller),
        };
        loop {
            let cluster = self.cluster();
            let plan = deploy::plan(&cluster, request.clone(), wall_clock(), &mut *self.ids.lock().await)?;
            let objects = plan.objects.into_iter().map(deployed).collect();
            let warnings = [warnings.as_slice(), &plan.warnings].concat();
            if mode == DeployMode::Plan {
                return Ok(Deployed { revision: 0, version: cluster.version, objects, warnings });
            }
            if plan.changes.is_empty() {
                return Ok(Deployed { revision: plan.revision, version: cluster.version, objects, warnings });
            }
            match self.store.propose(plan.changes).await {
                Ok(committed) => {
                    let version = skep_model::Version(committed.revision);
                    return Ok(Deployed { revision: plan.revision, version, objects, warnings });
                }
                // Somebody wrote in between: plan again on the newer state. Each round sees progress of others,
                // and a refusal that is the request's own fault comes from `plan`.
                Err(ProposeError::Rejected(rejection)) => {
                    tracing::debug!(%rejection, "a deploy was overtaken");
                    tokio::task::yield_now().await;
                }
                Err(error) => return Err(not_written(error)),
            }
        }
    }

    pub(super) async fn rotate_token(&self, request: RotateJoinTokenRequest) -> Result<JoinTokenText, Refusal> {
        let config = self.cluster().config.clone();
        let config =
            config.ok_or_else(|| Refusal::new(RefusalKind::Unavailable, "the cluster is not initialised yet"))?;
        let ca = ClusterCa::from_pem(config.id, &config.ca_certificate, &config.ca_key)
            .map_err(|error| Refusal::internal(&error))?;
        let token = JoinToken::generate(ca.digest()).map_err(|error| Refusal::internal(&error))?;
        let hash = token.secret_hash().to_string();
        let join_tokens = match request.role {
            Role::Worker => JoinTokenHashes { worker: hash, ..config.join_tokens.clone() },
            Role::Manager => JoinTokenHashes { manager: hash, ..config.join_tokens.clone() },
        };
        let expected = Some(config.meta.version);
        let config = Box::new(ClusterConfig { join_tokens, ..(*config).clone() });
        self.propose(vec![Change::SetClusterConfig { config, expected }]).await?;
        Ok(JoinTokenText { token: token.to_string() })
    }

    /// The spec with its image pinned to a digest, where the registry or the running service knows it.
    async fn pinned(&self, cluster: &Cluster, mut spec: ServiceSpec, warnings: &mut Vec<String>) -> ServiceSpec {
        let running = cluster.service_named(&spec.name).map(|service| service.spec.task.container.image.clone());
        if let Some(warning) = pin_image(&self.resolver, &mut spec.task, running.as_deref()).await {
            warnings.push(warning);
        }
        spec
    }
}

/// Removes a stack's networks as soon as no task is attached to them any more; what services of others use stays.
async fn remove_networks(store: Store, stack: String) -> Result<Vec<RemovedObject>, Refusal> {
    let deadline = tokio::time::Instant::now() + NETWORKS_WAIT;
    let mut watch = store.watch();
    let mut removed = Vec::new();
    loop {
        let cluster = watch.borrow_and_update().clone();
        let networks: Vec<_> = deploy::networks_of(&cluster, &stack).cloned().collect();
        // Of a stack that was deployed anew meanwhile nothing is to go any more.
        if networks.is_empty() || cluster.stacks.contains_key(&stack) {
            return Ok(removed);
        }
        let users: Vec<_> = networks.iter().filter_map(|network| network_user(&cluster, network)).collect();
        if users.len() == networks.len() {
            let message = format!("the services are gone, but {}; remove them first", users.join(", "));
            return Err(Refusal::new(RefusalKind::Conflict, message));
        }
        for network in &networks {
            let change = Change::RemoveNetwork { network: network.id };
            let mut picture = (*cluster).clone();
            if picture.apply(&change, cluster.version.0 + 1).is_ok() && store.propose(vec![change]).await.is_ok() {
                removed.push(RemovedObject {
                    kind: Kind::Network,
                    id: network.id.to_string(),
                    name: network.spec.name.clone(),
                });
            }
        }
        let names = || networks.iter().map(|network| network.spec.name.as_str()).collect::<Vec<_>>().join(", ");
        match tokio::time::timeout_at(deadline, watch.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(Refusal::new(RefusalKind::Unavailable, "this manager is stopping")),
            Err(_) => {
                let message = format!(
                    "the services are gone, but these networks still have tasks attached: {}; run the command again later",
                    names()
                );
                return Err(Refusal::new(RefusalKind::TimedOut, message));
            }
        }
    }
}

/// `network a is in use by service b`, where a service uses it.
fn network_user(cluster: &Cluster, network: &skep_model::Network) -> Option<String> {
    let name = &network.spec.name;
    let uses = |attachment: &skep_model::NetworkAttachment| attachment.network.eq_ignore_ascii_case(name);
    let user = cluster.services.values().find(|service| service.spec.task.networks.iter().any(uses))?;
    Some(format!("network {name} is in use by service {}", user.name()))
}

fn scaling(cluster: &Cluster, request: &ScaleRequest) -> Result<(String, Change), Refusal> {
    let service = cluster.find_service(&request.service).map_err(not_found)?;
    let mode = match service.spec.mode {
        Mode::Replicated { .. } => Mode::Replicated { replicas: request.replicas },
        // As Docker scales a job: so many completions, as many of them at a time.
        Mode::ReplicatedJob { .. } => {
            Mode::ReplicatedJob { max_concurrent: request.replicas, total_completions: request.replicas }
        }
        Mode::Global | Mode::GlobalJob => {
            let name = service.name();
            let message = format!("service {name} is global: it runs once on each node and cannot be scaled");
            return Err(Refusal::new(RefusalKind::Invalid, message));
        }
    };
    let spec = ServiceSpec { mode, ..(*service.spec).clone() };
    let expected = service.meta.version;
    let change = Change::UpdateService { service: service.id, expected, spec: Arc::new(spec), at: wall_clock() };
    Ok((service.id.to_string(), change))
}

fn content(new: skep_api::NewContent) -> NewContent {
    NewContent { name: new.name, labels: new.labels, data: new.data.to_vec(), kind: new.template }
}

pub(super) fn deployed(object: deploy::Deployed) -> DeployedObject {
    let action = match object.action {
        Action::Created => DeployAction::Created,
        Action::Updated => DeployAction::Updated,
        Action::Unchanged => DeployAction::Unchanged,
        Action::Removed => DeployAction::Removed,
    };
    DeployedObject { kind: object.kind, id: object.id, name: object.name, action }
}

fn missing(kind: Kind, id: &dyn std::fmt::Display) -> Refusal {
    Refusal::new(RefusalKind::NotFound, format!("{kind} {id} not found"))
}

pub(super) fn author(caller: Caller) -> String {
    match caller {
        Caller::Local { uid: 0, .. } => "root".to_owned(),
        Caller::Local { uid, .. } => format!("uid {uid}"),
        Caller::Member { identity, .. } | Caller::Lapsed { identity, .. } => format!("node {}", identity.node_id),
        Caller::Anonymous { .. } => "unknown".to_owned(),
    }
}
