//! Admission: what a user asks for is checked against the cluster before anything is written.
//!
//! Pure: the cluster and the request in, changes or a refusal out.
//! Specs come out as they will be stored: with the digests of the secrets and configs that they use.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use skep_model::{
    Change, Cluster, Config, ConfigId, ContentDigest, ContentKind, Contents, Feature, IdSource, Kind, Labels, Meta,
    Network, NetworkSpec, Secret, SecretId, Service, ServiceSpec, Timestamp, Version, validate_content_name,
};
use skep_orchestrator::allocator;

pub use crate::admission_cluster::cluster_update;
pub use crate::admission_node::{even_number, node_removal, role_change};

/// A secret's and a config's limits, in bytes.
pub const SECRET_BYTES_MAX: usize = 500 << 10;
pub const CONFIG_BYTES_MAX: usize = 1000 << 10;

/// Why a request is refused; the words are for the user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    Conflict(String),
}

/// Named bytes that a user brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewContent {
    pub name: String,
    pub labels: Labels,
    pub data: Vec<u8>,
    pub kind: ContentKind,
}

pub fn digest_of(data: &[u8], kind: ContentKind) -> ContentDigest {
    ContentDigest::new(Sha256::digest(data).iter().map(|byte| format!("{byte:02x}")).collect(), kind)
}

pub fn network(cluster: &Cluster, spec: NetworkSpec, at: Timestamp, ids: &mut IdSource) -> Result<Network, Refusal> {
    spec.validate().map_err(|invalid| Refusal::Invalid(invalid.to_string()))?;
    if let Some(new) = spec.needs_drivers().filter(|_| !cluster.has(Feature::Drivers)) {
        return Err(Refusal::Conflict(format!(
            "network {}: {new} is known to newer managers only: update skep on every manager first (`skep node ls` shows \
             their versions)",
            spec.name
        )));
    }
    if cluster.network_named(&spec.name).is_some() {
        return Err(Refusal::Conflict(format!("network {} already exists", spec.name)));
    }
    let (subnet, gateway) = allocator::subnet_for(cluster, &spec).map_err(|refusal| Refusal::Conflict(refusal.0))?;
    let subnet_v6 = allocator::subnet_v6_for(cluster, &spec, subnet).map_err(|refusal| Refusal::Conflict(refusal.0))?;
    let spec = NetworkSpec { driver: spec.driver().word().to_owned(), ..spec };
    let id = ids.next_id();
    Ok(Network { id, meta: Meta::new(at), spec, subnet, gateway, blocks: Default::default(), subnet_v6 })
}

pub fn secret(cluster: &Cluster, new: NewContent, at: Timestamp, ids: &mut IdSource) -> Result<Secret, Refusal> {
    check_content(cluster, Kind::Secret, &new, SECRET_BYTES_MAX)?;
    if cluster.secret_named(&new.name).is_some() {
        return Err(Refusal::Conflict(format!("secret {} already exists", new.name)));
    }
    let contents = Contents::new(digest_of(&new.data, new.kind), Arc::from(new.data), at);
    Ok(Secret { id: ids.next_id(), meta: Meta::new(at), name: new.name, labels: new.labels, contents })
}

pub fn config(cluster: &Cluster, new: NewContent, at: Timestamp, ids: &mut IdSource) -> Result<Config, Refusal> {
    check_content(cluster, Kind::Config, &new, CONFIG_BYTES_MAX)?;
    if cluster.config_named(&new.name).is_some() {
        return Err(Refusal::Conflict(format!("config {} already exists", new.name)));
    }
    let contents = Contents::new(digest_of(&new.data, new.kind), Arc::from(new.data), at);
    Ok(Config { id: ids.next_id(), meta: Meta::new(at), name: new.name, labels: new.labels, contents })
}

/// Replaces a secret's labels, and its bytes where some are given.
pub fn secret_update(
    cluster: &Cluster,
    id: SecretId,
    expected: Version,
    labels: Labels,
    data: Option<(Vec<u8>, ContentKind)>,
    at: Timestamp,
) -> Result<Change, Refusal> {
    let secret = cluster.secrets.get(&id).ok_or_else(|| Refusal::NotFound(format!("secret {id} not found")))?;
    let (digest, data) = match data {
        Some((data, kind)) => {
            let new = NewContent { name: secret.name.clone(), labels: Labels::new(), data, kind };
            check_content(cluster, Kind::Secret, &new, SECRET_BYTES_MAX)?;
            (digest_of(&new.data, kind), Arc::from(new.data))
        }
        None => {
            let current = secret.contents.current().map(|revision| Arc::clone(&revision.data));
            (secret.contents.current.clone(), current.unwrap_or_default())
        }
    };
    Ok(Change::UpdateSecret { secret: id, expected, labels, digest, data, at })
}

/// Replaces a config's labels, and its bytes where some are given.
pub fn config_update(
    cluster: &Cluster,
    id: ConfigId,
    expected: Version,
    labels: Labels,
    data: Option<(Vec<u8>, ContentKind)>,
    at: Timestamp,
) -> Result<Change, Refusal> {
    let config = cluster.configs.get(&id).ok_or_else(|| Refusal::NotFound(format!("config {id} not found")))?;
    let (digest, data) = match data {
        Some((data, kind)) => {
            let new = NewContent { name: config.name.clone(), labels: Labels::new(), data, kind };
            check_content(cluster, Kind::Config, &new, CONFIG_BYTES_MAX)?;
            (digest_of(&new.data, kind), Arc::from(new.data))
        }
        None => {
            let current = config.contents.current().map(|revision| Arc::clone(&revision.data));
            (config.contents.current.clone(), current.unwrap_or_default())
        }
    };
    Ok(Change::UpdateConfig { config: id, expected, labels, digest, data, at })
}

fn check_content(cluster: &Cluster, kind: Kind, new: &NewContent, most: usize) -> Result<(), Refusal> {
    validate_content_name(&new.name).map_err(|problem| Refusal::Invalid(format!("{kind}: {problem}")))?;
    if new.data.is_empty() || new.data.len() > most {
        let (name, size) = (&new.name, new.data.len());
        return Err(Refusal::Invalid(format!("{kind} {name} has {size} bytes; it must have 1 to {most}")));
    }
    if new.kind == ContentKind::Template && !cluster.has(Feature::Templates) {
        return Err(Refusal::Conflict(format!(
            "{kind} {}: templates are known to newer managers only: update skep on every manager first (`skep node ls` \
             shows their versions)",
            new.name
        )));
    }
    Ok(())
}

/// A new service, ready to be created.
pub fn service(cluster: &Cluster, spec: ServiceSpec, at: Timestamp, ids: &mut IdSource) -> Result<Service, Refusal> {
    let spec = service_spec(cluster, spec)?;
    if cluster.service_named(&spec.name).is_some() {
        return Err(Refusal::Conflict(format!("service {} already exists", spec.name)));
    }
    let service = Service::new(ids.next_id(), spec, at);
    check_ports(cluster, &service)?;
    crate::admission_network::check(cluster, &service)?;
    Ok(service)
}

/// The change that gives a service a new spec.
pub fn service_update(
    cluster: &Cluster,
    service: &Service,
    spec: ServiceSpec,
    at: Timestamp,
) -> Result<Change, Refusal> {
    let spec = service_spec(cluster, spec)?;
    if !spec.name.eq_ignore_ascii_case(service.name()) {
        return Err(Refusal::Invalid("renaming services is not supported".to_owned()));
    }
    let same_mode = std::mem::discriminant(&spec.mode) == std::mem::discriminant(&service.spec.mode);
    if !same_mode {
        let name = &spec.name;
        return Err(Refusal::Invalid(format!(
            "service {name}: service mode change is not allowed; remove the service first"
        )));
    }
    let updated = Service { spec: Arc::new(spec), ..service.clone() };
    check_ports(cluster, &updated)?;
    crate::admission_network::check(cluster, &updated)?;
    Ok(Change::UpdateService { service: service.id, expected: service.meta.version, spec: updated.spec, at })
}

fn check_ports(cluster: &Cluster, service: &Service) -> Result<(), Refusal> {
    match allocator::port_conflict(cluster, service) {
        Some(conflict) => Err(Refusal::Conflict(format!("service {}: {conflict}", service.name()))),
        None => Ok(()),
    }
}

/// Checks a spec and pins the contents that it refers to.
fn service_spec(cluster: &Cluster, mut spec: ServiceSpec) -> Result<ServiceSpec, Refusal> {
    spec.validate().map_err(|invalid| Refusal::Invalid(invalid.to_string()))?;
    let name = spec.name.clone();
    let mut new = spec.needs();
    new.retain(|(feature, _)| !cluster.has(*feature));
    if !new.is_empty() {
        let new: Vec<_> = new.into_iter().map(|(_, name)| name).collect();
        return Err(Refusal::Conflict(format!(
            "service {name}: {} is known to newer managers only: update skep on every manager first (`skep node ls` shows \
             their versions)",
            new.join(", ")
        )));
    }
    crate::admission_order::check(cluster, &spec)?;
    let missing = |kind: &str, wanted: &str| {
        Refusal::NotFound(format!(
            "service {name}: {kind} {wanted} not found; create it first with `skep {kind} create {wanted}`"
        ))
    };
    for attachment in &spec.task.networks {
        cluster.network_named(&attachment.network).ok_or_else(|| missing("network", &attachment.network))?;
    }
    for reference in &mut spec.task.container.secrets {
        let secret = cluster.secret_named(&reference.secret).ok_or_else(|| missing("secret", &reference.secret))?;
        let kept = reference.digest.as_ref().is_some_and(|digest| secret.contents.get(digest).is_some());
        if !kept {
            reference.digest = Some(secret.contents.current.clone());
        }
    }
    for reference in &mut spec.task.container.configs {
        let config = cluster.config_named(&reference.config).ok_or_else(|| missing("config", &reference.config))?;
        let kept = reference.digest.as_ref().is_some_and(|digest| config.contents.get(digest).is_some());
        if !kept {
            reference.digest = Some(config.contents.current.clone());
        }
    }
    Ok(spec)
}
