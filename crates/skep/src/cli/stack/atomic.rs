//! `stack deploy --atomic`: a deploy that fails is undone, all of it.
//!
//! The command does this, not the cluster: one that is killed while it waits undoes nothing.

use std::time::Duration;

use skep_api::{ControlClient, Filter, RefusalKind, RemoveRequest};
use skep_model::{Kind, Service, ServiceSpec, StackRevision};

use super::history;
use crate::cli::Result;
use crate::cli::failure::{Exit, INTERRUPTED, ROLLED_BACK};
use crate::cli::output;

/// What a stack is before a deploy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    Nothing,
    Revision(u64),
}

pub async fn before(control: &ControlClient, stack: &str) -> Result<Before> {
    let filter = Filter { stack: Some(stack.to_owned()), ..Filter::default() };
    let services = control.services(filter).await?;
    match control.stack(stack).await {
        Ok(stack) => Ok(revision_of(&stack.revisions, &services).map_or(Before::Nothing, Before::Revision)),
        Err(refusal) if refusal.kind == RefusalKind::NotFound => match services.is_empty() {
            true => Ok(Before::Nothing),
            false => anyhow::bail!(
                "stack {stack} has services and no revision that --atomic could go back to; deploy it once without"
            ),
        },
        Err(refusal) => Err(refusal.into()),
    }
}

/// The newest revision that the services are as in: after a deploy that failed and was rolled back by itself this is
/// not the newest of all. That one where somebody has changed a service since.
fn revision_of(revisions: &[StackRevision], services: &[Service]) -> Option<u64> {
    let runs = |spec: &ServiceSpec| services.iter().any(|service| *service.spec == *spec);
    let is_now = |it: &&StackRevision| it.services.len() == services.len() && it.services.iter().all(runs);
    revisions.iter().rev().find(is_now).or(revisions.last()).map(|revision| revision.number)
}

/// Undoes a deploy that failed as `error` says. Who interrupts the command, or loses the cluster, has not failed yet.
pub async fn undo(
    control: &ControlClient,
    stack: &str,
    before: Before,
    error: anyhow::Error,
    timeout: Duration,
    quiet: bool,
) -> anyhow::Error {
    let failed = error.downcast_ref::<Exit>().filter(|exit| exit.code != INTERRUPTED);
    let Some(failed) = failed else { return error };
    if let Some(message) = &failed.message {
        output::complain(message);
    }
    match back(control, stack, before, timeout, quiet).await {
        Ok(what) => Exit::saying(ROLLED_BACK, format!("stack {stack} was not deployed; {what}")),
        Err(error) => error.context(format!("stack {stack} was not deployed, and could not be rolled back")),
    }
}

async fn back(control: &ControlClient, stack: &str, before: Before, timeout: Duration, quiet: bool) -> Result<String> {
    match before {
        Before::Revision(number) => {
            output::complain(format_args!("going back to revision {number}"));
            let deployed = history::back(control, stack, Some(number), quiet).await?;
            history::settle(control, stack, &deployed, timeout, quiet).await?;
            Ok(format!("it is as in revision {number}"))
        }
        Before::Nothing => {
            output::complain("there was no stack before: it is removed");
            control.remove(RemoveRequest { kind: Kind::Stack, wanted: stack.to_owned(), force: false }).await?;
            Ok("nothing of it is left but named volumes".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::time;
    use crate::cli::wait::fixture::service;

    #[test]
    fn what_runs_is_gone_back_to_and_not_what_failed_before() {
        let image = |image: &str| {
            let mut service = service("demo_web", 1);
            let mut spec = (*service.spec).clone();
            spec.task.container.image = image.to_owned();
            service.spec = spec.into();
            service
        };
        let revision = |number, service: &Service| StackRevision {
            number,
            created_at: time::now(),
            author: "root".to_owned(),
            services: vec![(*service.spec).clone()],
        };
        let (good, bad, by_hand) = (image("web:1"), image("web:nope"), image("web:3"));
        let revisions = [revision(1, &good), revision(2, &bad)];
        assert_eq!(revision_of(&revisions, &[good]), Some(1));
        assert_eq!(revision_of(&revisions, &[bad]), Some(2));
        assert_eq!(revision_of(&revisions, &[by_hand]), Some(2));
        assert_eq!(revision_of(&[], &[]), None);
    }
}
