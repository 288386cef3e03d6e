//! Going back: to an earlier spec of a service, to an earlier revision of a stack.
//!
//! Pure, and whole or not at all: what an earlier spec needs must still be there, to the byte. A rollback is a change
//! like any other and leaves a revision, so that the next one leads back.

use std::sync::Arc;

use skep_model::{
    Change, Cluster, IdSource, Kind, Service, ServiceRevision, ServiceSpec, Stack, StackRevision, Timestamp,
    UpdateState, UpdateStatus, Version,
};

use crate::admission::{self, Refusal};
use crate::deploy::{self, Plan, StackRequest};

/// The changes that give a service the spec of an earlier revision; without `to`, of the newest.
pub fn service(
    cluster: &Cluster,
    service: &Service,
    to: Option<Version>,
    at: Timestamp,
) -> Result<Vec<Change>, Refusal> {
    let revision = match to {
        Some(to) => revision_of(service, to)?,
        None => previous(service)?,
    };
    contents_are_kept(cluster, &revision.spec)?;
    let change = admission::service_update(cluster, service, (*revision.spec).clone(), at)?;
    let begins = begins(cluster, &change, at);
    Ok([change].into_iter().chain(begins).collect())
}

/// What was before: after an update that failed and was rolled back, there is nothing that one would want back.
fn previous(service: &Service) -> Result<&ServiceRevision, Refusal> {
    let name = service.name();
    let status = service.update_status.as_ref();
    let failed = status.is_some_and(|status| match status.state {
        UpdateState::RollbackStarted | UpdateState::RollbackPaused | UpdateState::RollbackCompleted => {
            !status.asked_for()
        }
        UpdateState::Updating | UpdateState::Paused | UpdateState::Completed => false,
    });
    match service.revisions.last() {
        Some(_) if failed => Err(Refusal::Conflict(format!(
            "service {name} does not have a previous spec: its last update failed and was rolled back by itself; `skep service history {name}` lists what --to takes"
        ))),
        Some(revision) => Ok(revision),
        None => Err(Refusal::Conflict(format!("service {name} does not have a previous spec"))),
    }
}

fn revision_of(service: &Service, wanted: Version) -> Result<&ServiceRevision, Refusal> {
    let name = service.name();
    if wanted == service.spec_version {
        return Err(Refusal::Conflict(format!("service {name} is at revision {} already", wanted.0)));
    }
    service.revisions.iter().find(|revision| revision.spec_version == wanted).ok_or_else(|| {
        Refusal::NotFound(format!(
            "service {name} has no revision {}; `skep service history {name}` lists those that are kept",
            wanted.0
        ))
    })
}

/// The plan that makes a stack's services those of a kept revision, and no others.
pub fn stack(
    cluster: &Cluster,
    stack: &Stack,
    to: Option<u64>,
    author: String,
    at: Timestamp,
    ids: &mut IdSource,
) -> Result<Plan, Refusal> {
    let revision = stack_revision(stack, to)?;
    for spec in &revision.services {
        contents_are_kept(cluster, spec)?;
    }
    let request = StackRequest {
        name: stack.name.clone(),
        services: revision.services.clone(),
        networks: Vec::new(),
        secrets: Vec::new(),
        configs: Vec::new(),
        prune: true,
        author,
    };
    let mut plan = deploy::plan(cluster, request, at, ids)?;
    let begins: Vec<Change> = plan.changes.iter().filter_map(|change| begins(cluster, change, at)).collect();
    plan.changes.extend(begins);
    Ok(plan)
}

/// Tasks are replaced by the rules of a rollback; a service that only gets another number of them replaces none, and a
/// job runs again.
fn begins(cluster: &Cluster, change: &Change, at: Timestamp) -> Option<Change> {
    let Change::UpdateService { service, spec, .. } = change else { return None };
    let known = cluster.services.get(service)?;
    let only_scaled = ServiceSpec { mode: spec.mode, ..(*known.spec).clone() } == **spec;
    (!only_scaled && !spec.mode.is_job())
        .then(|| Change::SetUpdateStatus { service: *service, status: Some(begun(at)) })
}

fn stack_revision(stack: &Stack, to: Option<u64>) -> Result<&StackRevision, Refusal> {
    let name = &stack.name;
    let Some(wanted) = to else {
        let before = stack.revisions.len().checked_sub(2).and_then(|index| stack.revisions.get(index));
        return before.ok_or_else(|| Refusal::Conflict(format!("stack {name} does not have a previous revision")));
    };
    stack.revisions.iter().find(|revision| revision.number == wanted).ok_or_else(|| {
        Refusal::NotFound(format!(
            "stack {name} has no revision {wanted}; `skep stack history {name}` lists those that are kept"
        ))
    })
}

fn begun(at: Timestamp) -> UpdateStatus {
    UpdateStatus {
        state: UpdateState::RollbackStarted,
        started_at: at,
        completed_at: None,
        message: UpdateStatus::ASKED_FOR.to_owned(),
        progress: None,
    }
}

/// A spec pins what it was run with. Other bytes under the same name would be no way back.
fn contents_are_kept(cluster: &Cluster, spec: &ServiceSpec) -> Result<(), Refusal> {
    let gone = |kind: Kind, name: &str, there: bool| {
        let what = if there { "is no longer kept as it was then" } else { "was removed" };
        Err(Refusal::Conflict(format!(
            "service {}: the {kind} {name} that it ran with {what}; nothing was changed: create or update it, and deploy anew",
            spec.name
        )))
    };
    for reference in &spec.task.container.secrets {
        let secret = cluster.secret_named(&reference.secret).map(Arc::as_ref);
        let kept = |digest| secret.is_some_and(|secret| secret.contents.get(digest).is_some());
        if !reference.digest.as_ref().map_or(secret.is_some(), kept) {
            return gone(Kind::Secret, &reference.secret, secret.is_some());
        }
    }
    for reference in &spec.task.container.configs {
        let config = cluster.config_named(&reference.config).map(Arc::as_ref);
        let kept = |digest| config.is_some_and(|config| config.contents.get(digest).is_some());
        if !reference.digest.as_ref().map_or(config.is_some(), kept) {
            return gone(Kind::Config, &reference.config, config.is_some());
        }
    }
    Ok(())
}
