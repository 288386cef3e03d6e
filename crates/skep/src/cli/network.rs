//! `network`: the cluster's networks.

mod create;
mod prune;

use clap::{Args, Subcommand};
use skep_api::{ControlClient, Filter, RefusalKind, RemoveRequest};
use skep_model::{Kind, Network};

use self::prune::Uses;
use super::Result;
use super::host::Host;
use super::inspect::{self, NetworkOptions};
use super::output::filter::{Facet, Filters};
use super::output::listing::{self, ListOptions, Listing, Row, row};
use super::output::{self, time};
use super::tasks::natural;

const FILTERS: &[&str] = &["id", "name", "driver", "scope", "label", "dangling", "type"];
/// What Docker has on every node; here they stand for the node's own network and for none.
const PREDEFINED: [&str; 3] = ["host", "none", "bridge"];

const LISTING: Listing = Listing {
    columns: &[("ID", "NETWORK ID"), ("Name", "NAME"), ("Driver", "DRIVER"), ("Scope", "SCOPE")],
    more: &[
        ("Internal", "INTERNAL"),
        ("IPv4", "IPV4"),
        ("IPv6", "IPV6"),
        ("Labels", "LABELS"),
        ("CreatedAt", "CREATED AT"),
    ],
    quiet: "ID",
};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List networks
    #[command(visible_alias = "list")]
    Ls(ListOptions),
    /// Show all about one or more networks
    Inspect(NetworkOptions),
    /// Create a network that stacks refer to as external
    Create(Box<create::Options>),
    /// Remove networks that no service uses
    #[command(visible_alias = "remove")]
    Rm(RemoveOptions),
    /// Remove all networks that nothing uses
    Prune(prune::Options),
}

#[derive(Debug, Args)]
pub struct RemoveOptions {
    /// No error for a network that is not there
    #[arg(short, long)]
    force: bool,
    #[arg(required = true, value_name = "NETWORK")]
    names: Vec<String>,
}

pub async fn run(command: Command, host: &Host) -> Result {
    let control = host.control().await?;
    match command {
        Command::Ls(options) => list(&options, &control).await,
        Command::Inspect(options) => inspect::networks(&options, &control).await,
        Command::Create(options) => create::run(*options, &control).await,
        Command::Rm(options) => remove(options, &control).await,
        Command::Prune(options) => prune::run(options, &control).await,
    }
}

async fn list(options: &ListOptions, control: &ControlClient) -> Result {
    let filters = Filters::parse(&options.filter, FILTERS)?;
    let mut networks = control.networks(Filter::default()).await?;
    let uses = Uses::ask(control).await?;
    networks.retain(|network| filters.keep(&facets(network, &uses)));
    networks.sort_by(|a, b| natural(&a.spec.name, &b.spec.name));
    LISTING.print(networks.iter().map(|network| network_row(network, options)).collect(), options)
}

fn facets(network: &Network, uses: &Uses) -> Vec<Facet> {
    let mut facets = vec![
        Facet::prefix("id", network.id.to_string()),
        Facet::contains("name", network.spec.name.clone()),
        Facet::exact("driver", network.spec.driver.clone()),
        Facet::exact("scope", "swarm"),
        Facet::exact("type", "custom"),
        Facet::exact("dangling", (!uses.contain(network)).to_string()),
    ];
    facets.extend(Facet::labels("label", &network.spec.labels));
    facets
}

fn network_row(network: &Network, options: &ListOptions) -> Row {
    row([
        ("ID", listing::id(&network.id.to_string(), options)),
        ("Name", network.spec.name.clone()),
        ("Driver", network.spec.driver.clone()),
        ("Scope", "swarm".to_owned()),
        ("Internal", network.spec.internal.to_string()),
        ("IPv4", "true".to_owned()),
        ("IPv6", network.subnet_v6.is_some().to_string()),
        ("Labels", listing::labels(&network.spec.labels)),
        ("CreatedAt", time::long(network.meta.created_at)),
    ])
}

/// Removes each by name or id and prints it; the first refusal comes last, after all were tried.
async fn remove(options: RemoveOptions, control: &ControlClient) -> Result {
    let mut refused: Vec<anyhow::Error> = Vec::new();
    for wanted in options.names {
        if PREDEFINED.contains(&wanted.as_str()) {
            refused.push(anyhow::anyhow!("{wanted} is a pre-defined network and cannot be removed"));
            continue;
        }
        match control.remove(RemoveRequest { kind: Kind::Network, wanted: wanted.clone(), force: false }).await {
            Ok(_) => output::line(wanted)?,
            Err(refusal) if options.force && refusal.kind == RefusalKind::NotFound => {}
            Err(refusal) => refused.push(refusal.into()),
        }
    }
    let last = refused.pop();
    refused.into_iter().for_each(output::complain);
    last.map_or(Ok(()), Err)
}
