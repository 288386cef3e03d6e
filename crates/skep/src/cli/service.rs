//! `service`: what runs, how many of it, and how it is.

mod conduct;
mod create;
mod flags;
mod restart;
mod rollback;
mod syntax;
mod update;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::bail;
use clap::{Args, Subcommand};
use skep_api::{ControlClient, Filter, ScaleRequest};
use skep_model::{DesiredState, Kind, Mode, PortSpec, PublishMode, Service, ServiceId, Task, TaskState, Version};

use super::Result;
use super::content;
use super::host::Host;
use super::inspect;
use super::logs;
use super::output::filter::{Facet, Filters};
use super::output::listing::{self, ListOptions, Listing, Row, row};
use super::output::{self, reference, time};
use super::placing;
use super::tasks::{self, natural};
use super::wait::{self, Goal, Progress};

const FILTERS: &[&str] = &["id", "name", "mode", "label", "runtime"];

const LISTING: Listing = Listing {
    columns: &[
        ("ID", "ID"),
        ("Name", "NAME"),
        ("Mode", "MODE"),
        ("Replicas", "REPLICAS"),
        ("Image", "IMAGE"),
        ("Ports", "PORTS"),
    ],
    more: &[],
    quiet: "ID",
};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a service
    Create(Box<create::Options>),
    /// Change a service
    Update(Box<update::Options>),
    /// Give a service its previous spec, or another earlier one
    Rollback(rollback::Options),
    /// List a service's revisions
    History(rollback::HistoryOptions),
    /// Replace all tasks of services
    Restart(restart::Options),
    /// Wait until services are what was asked for
    Wait(restart::WaitOptions),
    /// List services
    #[command(visible_alias = "list")]
    Ls(ListOptions),
    /// List the tasks of one or more services
    Ps(PsOptions),
    /// Show all about one or more services
    Inspect(inspect::ServiceOptions),
    /// Show what the tasks of a service wrote
    Logs(logs::Options),
    /// Change how many tasks run of replicated services
    Scale(ScaleOptions),
    /// Show why its tasks are where they are, and what each node says to one more
    Explain(placing::ExplainOptions),
    /// Spread tasks anew, a few at a time: after a node joined, for instance
    Rebalance(placing::RebalanceOptions),
    /// Remove services
    #[command(visible_alias = "remove")]
    Rm(RemoveOptions),
}

#[derive(Debug, Args)]
pub struct PsOptions {
    #[command(flatten)]
    list: ListOptions,
    #[arg(required = true, value_name = "SERVICE")]
    services: Vec<String>,
}

#[derive(Debug, Args)]
pub struct ScaleOptions {
    /// Do not wait until they run
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    detach: bool,
    /// How long to wait
    #[arg(long, default_value = "10m", value_parser = time::parse_duration)]
    timeout: Duration,
    /// web=3
    #[arg(required = true, value_name = "SERVICE=REPLICAS")]
    services: Vec<String>,
}

#[derive(Debug, Args)]
pub struct RemoveOptions {
    #[arg(required = true, value_name = "SERVICE")]
    services: Vec<String>,
}

pub async fn run(command: Command, host: &Host) -> Result {
    match command {
        Command::Create(options) => create::run(*options, &host.control().await?).await,
        Command::Update(options) => update::run(*options, &host.control().await?).await,
        Command::Rollback(options) => rollback::run(options, &host.control().await?).await,
        Command::History(options) => rollback::history(options, &host.control().await?).await,
        Command::Restart(options) => restart::run(options, &host.control().await?).await,
        Command::Wait(options) => restart::wait(options, &host.control().await?).await,
        Command::Ls(options) => list(&options, Filter::default(), &host.control().await?).await,
        Command::Ps(options) => list_tasks(&options, &host.control().await?).await,
        Command::Inspect(options) => inspect::services(&options, &host.control().await?).await,
        Command::Logs(options) => logs::run_for_service(options, host).await,
        Command::Scale(options) => scale(options, &host.control().await?).await,
        Command::Explain(options) => placing::explain(options, &host.control().await?).await,
        Command::Rebalance(options) => placing::rebalance(options, &host.control().await?).await,
        Command::Rm(options) => content::remove(&host.control().await?, Kind::Service, options.services).await,
    }
}

/// The services that `within` lets through, as Docker lists them.
pub async fn list(options: &ListOptions, within: Filter, control: &ControlClient) -> Result {
    let filters = Filters::parse(&options.filter, FILTERS)?;
    let mut services = control.services(within.clone()).await?;
    let mut tasks: BTreeMap<ServiceId, Vec<Task>> = BTreeMap::new();
    for task in control.tasks(within).await? {
        tasks.entry(task.service).or_default().push(task);
    }
    services.retain(|service| filters.keep(&facets(service)));
    services.sort_by(|a, b| natural(a.name(), b.name()));
    let none = Vec::new();
    let rows = services.iter().map(|service| service_row(service, tasks.get(&service.id).unwrap_or(&none), options));
    LISTING.print(rows.collect(), options)
}

fn facets(service: &Service) -> Vec<Facet> {
    let mut facets = vec![
        Facet::prefix("id", service.id.to_string()),
        Facet::prefix("name", service.name()),
        Facet::exact("mode", mode(service)),
        Facet::exact("runtime", "container"),
    ];
    facets.extend(Facet::labels("label", &service.spec.labels));
    facets
}

fn mode(service: &Service) -> &'static str {
    service.spec.mode.word()
}

/// Ports of the routing mesh; those of single tasks are shown with the tasks.
fn service_row(service: &Service, tasks: &[Task], options: &ListOptions) -> Row {
    let image = &service.spec.task.container.image;
    let meshed = service.endpoint.ports.iter().filter(|port| port.mode == PublishMode::Ingress);
    let meshed: Vec<PortSpec> = meshed.cloned().collect();
    row([
        ("ID", listing::id(&service.id.to_string(), options)),
        ("Name", service.name().to_owned()),
        ("Mode", mode(service).to_owned()),
        ("Replicas", replicas(service, tasks)),
        ("Image", if options.no_trunc { image.clone() } else { reference::familiar(image) }),
        ("Ports", tasks::ports(&meshed)),
    ])
}

/// `1/2`, `3/2 (max 5 per node)`
fn replicas(service: &Service, tasks: &[Task]) -> String {
    let running = tasks.iter().filter(|task| task.status.state == TaskState::Running).count();
    let live = tasks.iter().filter(|task| task.desired <= DesiredState::Running).count() as u64;
    let wanted = match service.spec.mode {
        Mode::Replicated { replicas } => replicas,
        Mode::Global => live,
        Mode::ReplicatedJob { max_concurrent: 0, total_completions } => total_completions,
        Mode::ReplicatedJob { max_concurrent, total_completions } => max_concurrent.min(total_completions),
        Mode::GlobalJob => live,
    };
    if let Some(job) = &service.job {
        // Of a slot whose node was lost for a while two may have ended well.
        let of_run = tasks.iter().filter(|task| task.iteration == Some(job.iteration));
        let completed = of_run.filter(|task| task.status.state == TaskState::Complete).map(|task| task.slot);
        let completed = completed.collect::<BTreeSet<_>>().len();
        let total = match service.spec.mode {
            Mode::ReplicatedJob { total_completions, .. } => total_completions,
            Mode::Replicated { .. } | Mode::Global | Mode::GlobalJob => live,
        };
        return format!("{running}/{wanted} ({completed}/{total} completed)");
    }
    match service.spec.task.placement.max_replicas_per_node {
        0 => format!("{running}/{wanted}"),
        most => format!("{running}/{wanted} (max {most} per node)"),
    }
}

async fn list_tasks(options: &PsOptions, control: &ControlClient) -> Result {
    let mut found = Vec::new();
    for wanted in &options.services {
        let service = control.service(wanted).await?;
        found.extend(control.tasks(Filter { service: Some(service.id.to_string()), ..Filter::default() }).await?);
    }
    tasks::print(control, found, &options.list).await
}

/// Everything is read before the first is changed; the wait is for all of them.
async fn scale(options: ScaleOptions, control: &ControlClient) -> Result {
    let mut wanted = Vec::new();
    for argument in &options.services {
        let Some((name, replicas)) = argument.split_once('=') else {
            bail!("`{argument}` does not say how many; write it as SERVICE=REPLICAS");
        };
        let Ok(replicas) = replicas.parse::<u64>() else {
            bail!("`{replicas}` is not a number of replicas, in `{argument}`");
        };
        wanted.push((control.service(name).await?, replicas));
    }
    let mut since = Version::default();
    let mut names = BTreeSet::new();
    for (service, replicas) in wanted {
        let written = control.scale(ScaleRequest { service: service.id.to_string(), replicas }).await?;
        since = since.max(written.version);
        output::line(format_args!("{} scaled to {replicas}", service.name()))?;
        names.insert(service.name().to_owned());
    }
    if options.detach {
        return Ok(());
    }
    let watch_with = format!("skep service ps {}", names.iter().map(String::as_str).collect::<Vec<_>>().join(" "));
    let goal = Goal { services: names, stack: None, since, timeout: options.timeout, watch_with };
    wait::until_settled(control, &goal, Progress::Shown).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::wait::fixture::{service, task};
    use std::sync::Arc;

    #[test]
    fn replicas_count_what_runs_against_what_is_wanted() {
        let mut web = service("web", 2);
        let tasks = [task("web", 1, TaskState::Running), task("web", 2, TaskState::Starting)];
        assert_eq!(replicas(&web, &tasks), "1/2");
        Arc::make_mut(&mut web.spec).task.placement.max_replicas_per_node = 5;
        assert_eq!(replicas(&web, &tasks), "1/2 (max 5 per node)");
        Arc::make_mut(&mut web.spec).mode = Mode::Global;
        assert_eq!(replicas(&web, &tasks[..1]), "1/1 (max 5 per node)");
    }
}
