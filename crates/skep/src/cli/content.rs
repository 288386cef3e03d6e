//! `secret` and `config`: the same verbs on named bytes, whose content only configs show.

use std::io::Read;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use skep_api::{ControlClient, CreateRequest, Filter, NewContent, RemoveRequest};
use skep_model::{ContentKind, Kind, Labels, Meta};

use super::Result;
use super::host::Host;
use super::inspect::{self, InspectOptions};
use super::node::label;
use super::output::filter::{Facet, Filters};
use super::output::listing::{self, ListOptions, Listing, Row, row};
use super::output::{self, time};
use super::tasks::natural;

/// As Docker has it; a config may have twice that.
const SECRET_BYTES_MAX: usize = 500 << 10;
const CONFIG_BYTES_MAX: usize = 1000 << 10;
const FILTERS: &[&str] = &["id", "name", "label"];

const SECRETS: Listing = Listing {
    columns: &[
        ("ID", "ID"),
        ("Name", "NAME"),
        ("Driver", "DRIVER"),
        ("CreatedAt", "CREATED"),
        ("UpdatedAt", "UPDATED"),
    ],
    more: &[("Labels", "LABELS")],
    quiet: "ID",
};
const CONFIGS: Listing = Listing {
    columns: &[("ID", "ID"), ("Name", "NAME"), ("CreatedAt", "CREATED"), ("UpdatedAt", "UPDATED")],
    more: &[("Labels", "LABELS")],
    quiet: "ID",
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noun {
    Secret,
    Config,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create one from a file, or from standard input with -
    Create(CreateOptions),
    /// List them
    #[command(visible_alias = "list")]
    Ls(ListOptions),
    /// Show all about one or more; a secret's content is never shown
    Inspect(InspectOptions),
    /// Remove one or more that no service uses
    #[command(visible_alias = "remove")]
    Rm(RemoveOptions),
}

#[derive(Debug, Args)]
pub struct CreateOptions {
    /// A label: name=value; may be given several times
    #[arg(short, long = "label", value_name = "LABEL", value_parser = label)]
    labels: Vec<(String, String)>,
    #[arg(short, long, hide = true)]
    driver: Option<String>,
    /// The content is a template, rendered for each task: golang
    #[arg(long, value_name = "DRIVER")]
    template_driver: Option<String>,
    name: String,
    /// A file, or - for standard input
    file: String,
}

#[derive(Debug, Args)]
pub struct RemoveOptions {
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

pub async fn run(noun: Noun, command: Command, host: &Host) -> Result {
    let control = host.control().await?;
    match command {
        Command::Create(options) => create(noun, options, &control).await,
        Command::Ls(options) => list(noun, &options, &control).await,
        Command::Inspect(options) => inspect::contents(noun, &options, &control).await,
        Command::Rm(options) => remove(&control, noun.kind(), options.names).await,
    }
}

impl Noun {
    fn kind(self) -> Kind {
        match self {
            Noun::Secret => Kind::Secret,
            Noun::Config => Kind::Config,
        }
    }
}

async fn create(noun: Noun, options: CreateOptions, control: &ControlClient) -> Result {
    if options.driver.is_some() {
        bail!(
            "--driver: {}s kept elsewhere are not supported by this version of skep; give the content itself",
            noun.kind()
        );
    }
    let template = match options.template_driver.as_deref() {
        None => ContentKind::Plain,
        Some("golang") => ContentKind::Template,
        Some(other) => bail!("--template-driver `{other}` is not known; golang is"),
    };
    let data = read(&options.file)?;
    let most = match noun {
        Noun::Secret => SECRET_BYTES_MAX,
        Noun::Config => CONFIG_BYTES_MAX,
    };
    if data.is_empty() || data.len() > most {
        bail!("`{}` has {} bytes; a {} has 1 to {most}", options.file, data.len(), noun.kind());
    }
    let labels = options.labels.into_iter().collect();
    let new = NewContent { name: options.name, labels, data: data.into(), template };
    let request = match noun {
        Noun::Secret => CreateRequest::Secret(new),
        Noun::Config => CreateRequest::Config(new),
    };
    output::line(control.create(request).await?.id)?;
    Ok(())
}

fn read(file: &str) -> Result<Vec<u8>> {
    if file != "-" {
        return std::fs::read(file).with_context(|| format!("failed to read `{file}`"));
    }
    let mut data = Vec::new();
    std::io::stdin().read_to_end(&mut data).context("failed to read standard input")?;
    Ok(data)
}

/// Removes each by name or id and prints it; the first refusal comes last, after all were tried.
pub async fn remove(control: &ControlClient, kind: Kind, names: Vec<String>) -> Result {
    let mut refused = Vec::new();
    for wanted in names {
        match control.remove(RemoveRequest { kind, wanted: wanted.clone(), force: false }).await {
            Ok(_) => output::line(wanted)?,
            Err(refusal) => refused.push(refusal),
        }
    }
    let last = refused.pop();
    refused.into_iter().for_each(output::complain);
    last.map_or(Ok(()), |refusal| Err(refusal.into()))
}

/// What a listing shows of either.
struct Entry {
    id: String,
    name: String,
    labels: Labels,
    meta: Meta,
}

async fn list(noun: Noun, options: &ListOptions, control: &ControlClient) -> Result {
    let filters = Filters::parse(&options.filter, FILTERS)?;
    let all = Filter::default();
    let mut entries: Vec<Entry> = match noun {
        Noun::Secret => {
            let entry =
                |s: skep_model::Secret| Entry { id: s.id.to_string(), name: s.name, labels: s.labels, meta: s.meta };
            control.secrets(all).await?.into_iter().map(entry).collect()
        }
        Noun::Config => {
            let entry =
                |c: skep_model::Config| Entry { id: c.id.to_string(), name: c.name, labels: c.labels, meta: c.meta };
            control.configs(all).await?.into_iter().map(entry).collect()
        }
    };
    entries.retain(|entry| filters.keep(&facets(entry)));
    entries.sort_by(|a, b| natural(&a.name, &b.name));
    let listing = match noun {
        Noun::Secret => SECRETS,
        Noun::Config => CONFIGS,
    };
    listing.print(entries.iter().map(entry_row).collect(), options)
}

fn facets(entry: &Entry) -> Vec<Facet> {
    let mut facets = vec![Facet::prefix("id", entry.id.clone()), Facet::prefix("name", entry.name.clone())];
    facets.extend(Facet::labels("label", &entry.labels));
    facets
}

/// Ids are whole, as in Docker.
fn entry_row(entry: &Entry) -> Row {
    let now = time::now();
    row([
        ("ID", entry.id.clone()),
        ("Name", entry.name.clone()),
        ("Driver", String::new()),
        ("CreatedAt", time::ago(entry.meta.created_at, now)),
        ("UpdatedAt", time::ago(entry.meta.updated_at, now)),
        ("Labels", listing::labels(&entry.labels)),
    ])
}
