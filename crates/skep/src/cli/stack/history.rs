//! `stack history` and `stack rollback`: the deploys that are kept, and the way back to one.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::Args;
use skep_api::{ControlClient, Deployed, RollbackStackRequest};
use skep_model::{ServiceSpec, Stack, StackRevision};
use skep_stack::service_changes;

use super::deploy::lines;
use crate::cli::Result;
use crate::cli::output::listing::{ListOptions, Listing, Row, row};
use crate::cli::output::{self, time};
use crate::cli::wait::{self, Goal, Progress};

const HISTORY: Listing = Listing {
    columns: &[("Revision", "REVISION"), ("CreatedAt", "CREATED"), ("Author", "BY"), ("Changes", "CHANGES")],
    more: &[],
    quiet: "Revision",
};

/// How many parts of a service's change are said before the rest is counted.
const PARTS: usize = 3;

#[derive(Debug, Args)]
pub struct RollbackOptions {
    /// A revision that `stack history` shows; without it the one before the newest
    #[arg(long, value_name = "REVISION")]
    to: Option<u64>,
    /// Do not wait until the services run
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    detach: bool,
    /// How long to wait
    #[arg(long, default_value = "10m", value_parser = time::parse_duration)]
    timeout: Duration,
    /// Only what went wrong
    #[arg(short, long)]
    quiet: bool,
    stack: String,
}

pub fn show(stack: &Stack, options: &ListOptions) -> Result {
    HISTORY.print(rows(stack, options), options)
}

/// Newest first; each says what differs from the one before.
fn rows(stack: &Stack, options: &ListOptions) -> Vec<Row> {
    let before = |index: usize| index.checked_sub(1).map(|before| &stack.revisions[before]);
    let rows = stack.revisions.iter().enumerate().map(|(index, revision)| {
        let changes = changes(&stack.name, before(index), revision, options);
        row([
            ("Revision", revision.number.to_string()),
            ("CreatedAt", time::ago(revision.created_at, time::now())),
            ("Author", revision.author.clone()),
            ("Changes", changes),
        ])
    });
    let mut rows: Vec<Row> = rows.collect();
    rows.reverse();
    rows
}

/// `web: image, environment; +worker; -old`, by the services' names within the stack.
fn changes(stack: &str, before: Option<&StackRevision>, revision: &StackRevision, options: &ListOptions) -> String {
    let short = |spec: &ServiceSpec| spec.name.strip_prefix(&format!("{stack}_")).unwrap_or(&spec.name).to_owned();
    let Some(before) = before else {
        return match revision.number {
            1 => format!("first deploy: {}", revision.services.iter().map(short).collect::<Vec<_>>().join(", ")),
            _ => String::new(),
        };
    };
    let find = |services: &[ServiceSpec], name: &str| services.iter().find(|spec| spec.name == name).cloned();
    let mut said = Vec::new();
    for spec in &revision.services {
        let Some(old) = find(&before.services, &spec.name) else {
            said.push(format!("+{}", short(spec)));
            continue;
        };
        let parts = service_changes(&old, spec);
        match parts.len() {
            0 => {}
            most if most > PARTS && !options.no_trunc => {
                said.push(format!("{}: {} and {} more", short(spec), parts[..PARTS].join(", "), most - PARTS));
            }
            _ => said.push(format!("{}: {}", short(spec), parts.join(", "))),
        }
    }
    let gone = before.services.iter().filter(|old| find(&revision.services, &old.name).is_none());
    said.extend(gone.map(|old| format!("-{}", short(old))));
    match said.is_empty() {
        true => "services as before".to_owned(),
        false => said.join("; "),
    }
}

pub async fn rollback(options: RollbackOptions, control: &ControlClient) -> Result {
    let RollbackOptions { to, detach, timeout, quiet, stack } = options;
    let deployed = back(control, &stack, to, quiet).await?;
    match detach {
        true => Ok(()),
        false => settle(control, &stack, &deployed, timeout, quiet).await,
    }
}

/// Asks for an earlier revision, and says what comes of it.
pub async fn back(control: &ControlClient, stack: &str, to: Option<u64>, quiet: bool) -> Result<Deployed> {
    let deployed = control.rollback_stack(RollbackStackRequest { stack: stack.to_owned(), to }).await?;
    if !quiet {
        output::text(&lines(&deployed, false))?;
    }
    Ok(deployed)
}

/// Waits for all services that the stack has now.
pub async fn settle(
    control: &ControlClient,
    stack: &str,
    deployed: &Deployed,
    timeout: Duration,
    quiet: bool,
) -> Result {
    let newest = control.stack(stack).await?.revisions.pop();
    let services: BTreeSet<String> = newest.into_iter().flat_map(|it| it.services).map(|spec| spec.name).collect();
    let goal = Goal {
        services,
        stack: Some(stack.to_owned()),
        since: deployed.version,
        timeout,
        watch_with: format!("skep stack ps {stack}"),
    };
    wait::until_settled(control, &goal, if quiet { Progress::Silent } else { Progress::Shown }).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::wait::fixture;
    use skep_model::{Meta, StackId, Timestamp};

    fn service(name: &str, image: &str, env: &str) -> ServiceSpec {
        let mut spec = (*fixture::service(name, 1).spec).clone();
        spec.task.container.image = image.to_owned();
        spec.task.container.env = vec![env.to_owned()];
        spec
    }

    #[test]
    fn a_revision_says_what_it_changed() {
        let revision =
            |number, services| StackRevision { number, created_at: time::now(), author: "root".to_owned(), services };
        let web = service("demo_web", "web:1", "A=1");
        let stack = Stack {
            id: StackId::from_u128(1),
            meta: Meta::new(Timestamp(0)),
            name: "demo".to_owned(),
            revisions: vec![
                revision(1, vec![web.clone(), service("demo_db", "db:1", "A=1")]),
                revision(2, vec![service("demo_web", "web:2", "A=2"), service("demo_db", "db:1", "A=1")]),
                revision(3, vec![web.clone(), service("demo_job", "job:1", "A=1")]),
                revision(4, vec![web, service("demo_job", "job:1", "A=1")]),
            ],
        };
        let rows = rows(&stack, &ListOptions::default());
        let said: Vec<_> = rows.iter().map(|row| format!("{} {}", row["Revision"], row["Changes"])).collect();
        assert_eq!(
            said,
            [
                r#""4" "services as before""#,
                r#""3" "web: image, environment; +job; -db""#,
                r#""2" "web: image, environment""#,
                r#""1" "first deploy: web, db""#,
            ]
        );
    }
}
