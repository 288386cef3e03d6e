//! Going back: `service rollback`, and the revisions that it can go to.

use clap::Args;
use skep_api::{ControlClient, RollbackServiceRequest};
use skep_model::{Mode, Service, Version};
use skep_stack::service_changes;

use super::conduct::{self, Conduct};
use crate::cli::Result;
use crate::cli::output::listing::{ListOptions, Listing, Row, row};
use crate::cli::output::{self, time};

#[derive(Debug, Args)]
pub struct Options {
    /// A revision that `service history` shows; without it the previous one
    #[arg(long, value_name = "REVISION")]
    to: Option<u64>,
    /// Do not wait until the service runs
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    detach: bool,
    /// How long to wait
    #[arg(long, default_value = "10m", value_parser = time::parse_duration)]
    timeout: std::time::Duration,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
    service: String,
}

#[derive(Debug, Args)]
pub struct HistoryOptions {
    #[command(flatten)]
    list: ListOptions,
    service: String,
}

const HISTORY: Listing = Listing {
    columns: &[("Revision", "REVISION"), ("CreatedAt", "CREATED"), ("Image", "IMAGE"), ("Changes", "CHANGES")],
    more: &[("Current", "CURRENT")],
    quiet: "Revision",
};

pub async fn run(options: Options, control: &ControlClient) -> Result {
    let Options { to, detach, timeout, quiet, service } = options;
    let conduct = Conduct { detach, timeout, quiet, no_resolve_image: false, with_registry_auth: false };
    roll_back(&service, to.map(Version), &conduct, control).await
}

/// The whole earlier spec comes back, the number of tasks with it, as in Swarm.
pub async fn roll_back(wanted: &str, to: Option<Version>, conduct: &Conduct, control: &ControlClient) -> Result {
    let before = control.service(wanted).await?;
    let request = RollbackServiceRequest { service: before.id.to_string(), to };
    let written = control.rollback_service(request).await?;
    output::line(wanted)?;
    if let (Some(was), Some(is)) = (replicas(&before), replicas(&control.service(&written.id).await?))
        && was != is
    {
        output::complain(format_args!("service {} goes back to {is} replicas, it had {was}", before.name()));
    }
    match conduct.detach {
        true => Ok(()),
        false => {
            let names = [before.name().to_owned()].into();
            conduct::settle(control, names, written.version, conduct.timeout, conduct.quiet).await
        }
    }
}

fn replicas(service: &Service) -> Option<u64> {
    match service.spec.mode {
        Mode::Replicated { replicas } => Some(replicas),
        Mode::ReplicatedJob { total_completions, .. } => Some(total_completions),
        Mode::Global | Mode::GlobalJob => None,
    }
}

pub async fn history(options: HistoryOptions, control: &ControlClient) -> Result {
    let service = control.service(&options.service).await?;
    HISTORY.print(revisions(&service, &options.list), &options.list)
}

/// Newest first. A revision was made when the one before it was replaced.
fn revisions(service: &Service, options: &ListOptions) -> Vec<Row> {
    let past = service.revisions.iter();
    let past = past.map(|old| (old.spec_version, &old.spec, Some(old.replaced_at), old.unfinished));
    let all: Vec<_> = past.chain([(service.spec_version, &service.spec, None, false)]).collect();
    let mut rows = Vec::new();
    for (index, (version, spec, _, unfinished)) in all.iter().enumerate() {
        let before = index.checked_sub(1).map(|before| &all[before]);
        let (created, mut changes) = match before {
            Some((_, old, replaced_at, _)) => (*replaced_at, service_changes(old, spec).join(", ")),
            // Earlier ones may have been forgotten: then nobody knows what made this one.
            None if service.revisions.len() < Service::REVISIONS_KEPT => {
                (Some(service.meta.created_at), "created".to_owned())
            }
            None => (None, String::new()),
        };
        if *unfinished {
            changes.push_str(" (never completed)");
        }
        let image = &spec.task.container.image;
        rows.push(row([
            ("Revision", version.0.to_string()),
            ("CreatedAt", created.map(|at| time::ago(at, time::now())).unwrap_or_default()),
            ("Image", if options.no_trunc { image.clone() } else { output::reference::familiar(image) }),
            ("Changes", changes),
            ("Current", (index + 1 == all.len()).to_string()),
        ]));
    }
    rows.reverse();
    rows
}
