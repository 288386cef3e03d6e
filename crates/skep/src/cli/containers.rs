//! `ps`: the containers of this node.

use clap::Args;
use skep_api::{ContainerSummary, ListContainersRequest};
use skep_model::TaskState;

use super::Result;
use super::host::Host;
use super::output::filter::{Facet, Filters};
use super::output::listing::{self, ListOptions, Listing, Row, row};
use super::output::{reference, time};
use super::tasks;

const COMMAND_WIDTH: usize = 20;
const FILTERS: &[&str] = &["id", "name", "status", "ancestor", "service", "task", "health"];

const LISTING: Listing = Listing {
    columns: &[
        ("ID", "CONTAINER ID"),
        ("Image", "IMAGE"),
        ("Command", "COMMAND"),
        ("RunningFor", "CREATED"),
        ("Status", "STATUS"),
        ("Ports", "PORTS"),
        ("Names", "NAMES"),
    ],
    more: &[("CreatedAt", "CREATED AT"), ("State", "STATE"), ("Task", "TASK")],
    quiet: "ID",
};

#[derive(Debug, Args)]
pub struct Options {
    /// Also those that have ended
    #[arg(short, long)]
    all: bool,
    #[command(flatten)]
    list: ListOptions,
}

pub async fn run(options: Options, host: &Host) -> Result {
    let filters = Filters::parse(&options.list.filter, FILTERS)?;
    let local = host.local().await?;
    let mut containers = local.list_containers(ListContainersRequest { all: options.all }).await?.containers;
    containers.retain(|container| filters.keep(&facets(container)));
    containers.sort_by_key(|container| std::cmp::Reverse((container.created_at, container.id.clone())));
    let rows = containers.iter().map(|container| container_row(container, &options.list)).collect();
    LISTING.print(rows, &options.list)
}

fn facets(container: &ContainerSummary) -> Vec<Facet> {
    let mut facets = vec![
        Facet::prefix("id", container.id.clone()),
        Facet::contains("name", container.name.clone()),
        Facet::exact("status", state(container)),
        Facet::exact("ancestor", reference::familiar(&container.image)),
        Facet::exact("service", container.service.to_string()),
        Facet::exact("service", service_name(&container.name)),
        Facet::prefix("task", container.task.to_string()),
    ];
    facets.extend(container.healthy.map(|healthy| Facet::exact("health", health(healthy))));
    facets
}

/// `service` of `service.slot.task`.
fn service_name(name: &str) -> String {
    let mut parts = name.rsplitn(3, '.');
    parts.nth(2).unwrap_or(name).to_owned()
}

fn container_row(container: &ContainerSummary, options: &ListOptions) -> Row {
    let command = match options.no_trunc {
        true => container.command.clone(),
        false => listing::ellipsis(&container.command, COMMAND_WIDTH),
    };
    row([
        ("ID", listing::id(&container.id, options)),
        ("Image", if options.no_trunc { container.image.clone() } else { reference::familiar(&container.image) }),
        ("Command", format!("\"{command}\"")),
        ("CreatedAt", time::long(container.created_at)),
        ("RunningFor", time::ago(container.created_at, time::now())),
        ("State", state(container).to_owned()),
        ("Status", status(container)),
        ("Ports", tasks::ports(&container.ports)),
        ("Names", container.name.clone()),
        ("Task", container.task.to_string()),
    ])
}

/// Docker's word.
fn state(container: &ContainerSummary) -> &'static str {
    match container.state {
        TaskState::Running => "running",
        state if state.is_terminal() => "exited",
        _ => "created",
    }
}

fn health(healthy: bool) -> &'static str {
    if healthy { "healthy" } else { "unhealthy" }
}

/// `Up 5 seconds (healthy)`, `Exited (137) 2 minutes ago`, `Created`
fn status(container: &ContainerSummary) -> String {
    let now = time::now();
    match state(container) {
        "running" => {
            let started = container.status.started_at.unwrap_or(container.created_at);
            let health = container.healthy.map(|healthy| format!(" ({})", health(healthy))).unwrap_or_default();
            format!("Up {}{health}", time::rough(now.since(started)))
        }
        "exited" => {
            let code = container.status.exit_code.map_or("unknown".to_owned(), |code| code.to_string());
            let memory = if container.status.oom_killed { ", out of memory" } else { "" };
            format!("Exited ({code}{memory})")
        }
        _ => "Created".to_owned(),
    }
}
