//! `stack deploy --atomic`: a deploy that fails is undone, all of it.
//!
//! The command does this, not the cluster: one that is killed while it waits undoes nothing.

use std::time::Duration;

use skep_api::{ControlClient, Filter, RefusalKind, RemoveRequest};
use skep_model::Kind;

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
    match control.stack(stack).await {
        Ok(stack) => Ok(stack.revisions.last().map_or(Before::Nothing, |last| Before::Revision(last.number))),
        Err(refusal) if refusal.kind == RefusalKind::NotFound => {
            let filter = Filter { stack: Some(stack.to_owned()), ..Filter::default() };
            match control.services(filter).await?.is_empty() {
                true => Ok(Before::Nothing),
                false => anyhow::bail!(
                    "stack {stack} has services and no revision that --atomic could go back to; deploy it once without"
                ),
            }
        }
        Err(refusal) => Err(refusal.into()),
    }
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
