//! `network`: the cluster's networks.

use std::net::Ipv4Addr;

use clap::{Args, Subcommand};
use ipnet::IpNet;
use skep_api::{ControlClient, CreateRequest, Filter};
use skep_model::{Kind, Network, NetworkSpec};

use super::Result;
use super::content;
use super::host::Host;
use super::inspect::{self, NetworkOptions};
use super::node::label;
use super::output::filter::{Facet, Filters};
use super::output::listing::{self, ListOptions, Listing, Row, row};
use super::output::{self, time};
use super::tasks::natural;

const FILTERS: &[&str] = &["id", "name", "driver", "scope", "label"];

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
    Create(CreateOptions),
    /// Remove networks that no service uses
    #[command(visible_alias = "remove")]
    Rm(RemoveOptions),
}

#[derive(Debug, Args)]
pub struct CreateOptions {
    /// overlay is the only one
    #[arg(short, long, default_value = "overlay", value_parser = ["overlay"])]
    driver: String,
    /// The range of its addresses, one of the cluster's pool by default; one more may be of IPv6
    #[arg(long, value_name = "CIDR")]
    subnet: Vec<IpNet>,
    /// The IPv4 address of its way out; the first of the range by default
    #[arg(long, value_name = "ADDRESS")]
    gateway: Option<Ipv4Addr>,
    /// IPv6 addresses for its containers too; so it is where an IPv6 --subnet is given
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    ipv6: Option<bool>,
    /// No way out of it
    #[arg(long)]
    internal: bool,
    /// Containers outside services may attach
    #[arg(long)]
    attachable: bool,
    /// A label: name=value; may be given several times
    #[arg(long = "label", value_name = "LABEL", value_parser = label)]
    labels: Vec<(String, String)>,
    /// A driver option: name=value; may be given several times
    #[arg(short, long = "opt", value_name = "OPTION", value_parser = label)]
    options: Vec<(String, String)>,
    name: String,
}

#[derive(Debug, Args)]
pub struct RemoveOptions {
    #[arg(required = true, value_name = "NETWORK")]
    names: Vec<String>,
}

pub async fn run(command: Command, host: &Host) -> Result {
    let control = host.control().await?;
    match command {
        Command::Ls(options) => list(&options, &control).await,
        Command::Inspect(options) => inspect::networks(&options, &control).await,
        Command::Create(options) => create(options, &control).await,
        Command::Rm(options) => content::remove(&control, Kind::Network, options.names).await,
    }
}

async fn list(options: &ListOptions, control: &ControlClient) -> Result {
    let filters = Filters::parse(&options.filter, FILTERS)?;
    let mut networks = control.networks(Filter::default()).await?;
    networks.retain(|network| filters.keep(&facets(network)));
    networks.sort_by(|a, b| natural(&a.spec.name, &b.spec.name));
    LISTING.print(networks.iter().map(|network| network_row(network, options)).collect(), options)
}

fn facets(network: &Network) -> Vec<Facet> {
    let mut facets = vec![
        Facet::prefix("id", network.id.to_string()),
        Facet::contains("name", network.spec.name.clone()),
        Facet::exact("driver", network.spec.driver.clone()),
        Facet::exact("scope", "swarm"),
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

async fn create(options: CreateOptions, control: &ControlClient) -> Result {
    let (mut subnet, mut subnet_v6) = (None, None);
    for range in options.subnet {
        let is_second = match range {
            IpNet::V4(range) => subnet.replace(range).is_some(),
            IpNet::V6(range) => subnet_v6.replace(range).is_some(),
        };
        if is_second {
            anyhow::bail!("--subnet {range}: a network has one subnet of each family, and this is the second");
        }
    }
    let spec = NetworkSpec {
        name: options.name,
        labels: options.labels.into_iter().collect(),
        driver: options.driver,
        driver_options: options.options.into_iter().collect(),
        internal: options.internal,
        attachable: options.attachable,
        subnet,
        gateway: options.gateway,
        ipv6: options.ipv6,
        subnet_v6,
    };
    let written = control.create(CreateRequest::Network(spec)).await?;
    written.warnings.iter().for_each(|warning| output::complain(format_args!("warning: {warning}")));
    output::line(written.id)?;
    Ok(())
}
