//! `volume`: the named folders of this node.

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::json;
use skep_api::{LocalClient, RemoveVolumeRequest, VolumeSummary};

use super::Result;
use super::host::Host;
use super::inspect::InspectOptions;
use super::output::filter::{Facet, Filters};
use super::output::listing::{self, ListOptions, Listing, Row, row};
use super::output::{self, json, time};
use super::tasks::natural;

const FILTERS: &[&str] = &["name", "driver", "label", "dangling"];

const LISTING: Listing = Listing {
    columns: &[("Driver", "DRIVER"), ("Name", "VOLUME NAME")],
    more: &[
        ("Mountpoint", "MOUNTPOINT"),
        ("Labels", "LABELS"),
        ("Options", "OPTIONS"),
        ("Scope", "SCOPE"),
        ("Links", "LINKS"),
        ("CreatedAt", "CREATED AT"),
    ],
    quiet: "Name",
};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List this node's volumes
    #[command(visible_alias = "list")]
    Ls(ListOptions),
    /// Show all about one or more of them
    Inspect(InspectOptions),
    /// Remove volumes and all that is in them; what is mounted there is left alone
    #[command(visible_alias = "remove")]
    Rm(RemoveOptions),
}

#[derive(Debug, Args)]
pub struct RemoveOptions {
    /// No error for a volume that is not there
    #[arg(short, long)]
    force: bool,
    #[arg(required = true, value_name = "VOLUME")]
    names: Vec<String>,
}

pub async fn run(command: Command, host: &Host) -> Result {
    let local = host.local().await?;
    match command {
        Command::Ls(options) => list(&options, &local).await,
        Command::Inspect(options) => inspect(&options, &local).await,
        Command::Rm(options) => remove(options, &local).await,
    }
}

async fn list(options: &ListOptions, local: &LocalClient) -> Result {
    let filters = Filters::parse(&options.filter, FILTERS)?;
    let mut volumes = local.list_volumes(()).await?.volumes;
    volumes.retain(|volume| filters.keep(&facets(volume)));
    volumes.sort_by(|a, b| natural(&a.name, &b.name));
    LISTING.print(volumes.iter().map(volume_row).collect(), options)
}

async fn inspect(options: &InspectOptions, local: &LocalClient) -> Result {
    let volumes = local.list_volumes(()).await?.volumes;
    let mut objects = Vec::new();
    for name in &options.names {
        let found = volumes.iter().find(|volume| volume.name == *name);
        let volume =
            found.with_context(|| format!("volume {name} is not on this node; `skep volume ls` lists what is"))?;
        objects.push(json!({
            "CreatedAt": time::rfc3339(volume.created_at),
            "Driver": volume.driver,
            "Labels": volume.labels,
            "Mountpoint": volume.mountpoint,
            "Name": volume.name,
            "Options": volume.options,
            "Scope": "local",
        }));
    }
    json::print(objects, options.format.as_deref())
}

fn facets(volume: &VolumeSummary) -> Vec<Facet> {
    let mut facets = vec![
        Facet::contains("name", volume.name.clone()),
        Facet::exact("driver", volume.driver.clone()),
        Facet::exact("dangling", (volume.containers == 0).to_string()),
    ];
    facets.extend(Facet::labels("label", &volume.labels));
    facets
}

fn volume_row(volume: &VolumeSummary) -> Row {
    row([
        ("Driver", volume.driver.clone()),
        ("Name", volume.name.clone()),
        ("Mountpoint", volume.mountpoint.clone()),
        ("Labels", listing::labels(&volume.labels)),
        ("Options", listing::labels(&volume.options)),
        ("Scope", "local".to_owned()),
        ("Links", volume.containers.to_string()),
        ("CreatedAt", time::long(volume.created_at)),
    ])
}

async fn remove(options: RemoveOptions, local: &LocalClient) -> Result {
    let mut refused = Vec::new();
    for name in options.names {
        match local.remove_volume(RemoveVolumeRequest { name: name.clone(), force: options.force }).await {
            Ok(()) => output::line(name)?,
            Err(refusal) => refused.push(refusal),
        }
    }
    let last = refused.pop();
    refused.into_iter().for_each(output::complain);
    last.map_or(Ok(()), |refusal| Err(refusal.into()))
}
