//! `image`: the images of this node.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use futures::{Stream, StreamExt, stream};
use skep_api::{ArchiveChunk, ImageSummary, LocalClient, PullImageRequest, PullProgress, RemoveImageRequest};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::Result;
use super::host::Host;
use super::login;
use super::output::filter::{Facet, Filters};
use super::output::listing::{self, ListOptions, Listing, Row, row};
use super::output::{self, reference, size, time};

const FILTERS: &[&str] = &["reference", "dangling"];
const CHUNK_BYTES: usize = 256 << 10;

const LISTING: Listing = Listing {
    columns: &[
        ("Repository", "REPOSITORY"),
        ("Tag", "TAG"),
        ("ID", "IMAGE ID"),
        ("CreatedSince", "CREATED"),
        ("Size", "SIZE"),
    ],
    more: &[("Digest", "DIGEST"), ("CreatedAt", "CREATED AT"), ("Containers", "CONTAINERS")],
    quiet: "ID",
};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List this node's images
    #[command(visible_alias = "list")]
    Ls(ListOptions),
    /// Fetch an image from its registry, with the login of ~/.docker/config.json if there is one
    Pull(PullOptions),
    /// Take over an archive that `docker save` or a builder wrote
    Load(LoadOptions),
    /// Remove images
    #[command(visible_alias = "remove")]
    Rm(RemoveOptions),
}

#[derive(Debug, Args)]
pub struct PullOptions {
    /// Only the image's name
    #[arg(short, long)]
    quiet: bool,
    image: String,
}

#[derive(Debug, Args)]
pub struct LoadOptions {
    /// The archive; standard input by default
    #[arg(short, long, value_name = "FILE")]
    input: Option<std::path::PathBuf>,
    /// Only names
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Debug, Args)]
pub struct RemoveOptions {
    /// Also when it has other names
    #[arg(short, long)]
    force: bool,
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

pub async fn run(command: Command, host: &Host) -> Result {
    let local = host.local().await?;
    match command {
        Command::Ls(options) => list(&options, &local).await,
        Command::Pull(options) => pull(options, &local).await,
        Command::Load(options) => load(options, &local).await,
        Command::Rm(options) => remove(options, &local).await,
    }
}

async fn list(options: &ListOptions, local: &LocalClient) -> Result {
    let filters = Filters::parse(&options.filter, FILTERS)?;
    let mut images = local.list_images(()).await?.images;
    images.sort_by_key(|image| (std::cmp::Reverse(image.created_at), image.names.clone()));
    let rows = images.iter().flat_map(|image| image_rows(image, &filters, options));
    LISTING.print(rows.collect(), options)
}

/// A row for each name.
fn image_rows(image: &ImageSummary, filters: &Filters, options: &ListOptions) -> Vec<Row> {
    let dangling = Facet::exact("dangling", image.names.is_empty().to_string());
    if image.names.is_empty() {
        return match filters.keep(&[dangling]) {
            true => vec![image_row(image, "<none>".to_owned(), "<none>".to_owned(), options)],
            false => Vec::new(),
        };
    }
    let mut rows = Vec::new();
    for name in &image.names {
        let (repository, tag) = reference::repository_and_tag(name);
        let facets = [
            Facet::exact("reference", format!("{repository}:{tag}")),
            Facet::exact("reference", repository.clone()),
            Facet::exact("dangling", image.names.is_empty().to_string()),
        ];
        if filters.keep(&facets) {
            rows.push(image_row(image, repository, tag, options));
        }
    }
    rows
}

fn image_row(image: &ImageSummary, repository: String, tag: String, options: &ListOptions) -> Row {
    row([
        ("Repository", repository),
        ("Tag", tag),
        ("ID", listing::id(&image.id, options)),
        ("Digest", image.digest.clone().unwrap_or_else(|| "<none>".to_owned())),
        ("CreatedAt", time::long(image.created_at)),
        ("CreatedSince", time::ago(image.created_at, time::now())),
        ("Size", size::decimal(image.size)),
        ("Containers", image.containers.to_string()),
    ])
}

async fn pull(options: PullOptions, local: &LocalClient) -> Result {
    // A login that cannot be read matters only if the image is not public: the registry will say so.
    let registry_auth = login::registry_auth(&options.image).unwrap_or_else(|error| {
        output::complain(format_args!("warning: {error:#}"));
        None
    });
    let request = PullImageRequest { reference: options.image.clone(), registry_auth };
    let mut progress = local.pull_image(request).await?;
    let mut layers = Layers::default();
    let mut digest = None;
    while let Some(message) = progress.next().await {
        match message? {
            PullProgress::Layer(layer) if !options.quiet => {
                let total = layer.total.map(|total| format!("/{}", size::decimal(total))).unwrap_or_default();
                let amount = format!("{}{total}", size::decimal(layer.current));
                layers.show(&listing::id(&layer.layer, &ListOptions::default()), &layer.action, &amount)?;
            }
            PullProgress::Status(line) if !options.quiet => output::line(line)?,
            PullProgress::Layer(_) | PullProgress::Status(_) => {}
            PullProgress::Done(done) => digest = Some(done),
        }
    }
    let digest = digest.context("the pull ended without a result")?;
    if !options.quiet {
        output::line(format_args!("Digest: {digest}"))?;
    }
    output::line(options.image)?;
    Ok(())
}

/// Layers on their way: redrawn on a terminal, elsewhere a line for each step.
#[derive(Debug, Default)]
struct Layers {
    lines: BTreeMap<usize, (String, String)>,
    order: Vec<String>,
}

impl Layers {
    fn show(&mut self, layer: &str, action: &str, amount: &str) -> Result {
        let known = self.order.iter().position(|shown| shown == layer);
        let index = known.unwrap_or_else(|| {
            self.order.push(layer.to_owned());
            self.order.len() - 1
        });
        let before = self.lines.insert(index, (action.to_owned(), amount.to_owned()));
        if !io::stdout().is_terminal() {
            if before.is_none_or(|(before, _)| before != action) {
                output::line(format_args!("{layer}: {action}"))?;
            }
            return Ok(());
        }
        if known.is_none() {
            output::line("")?;
        }
        let up = self.order.len() - index;
        let amount = if action == "done" { "" } else { amount };
        output::text(&format!("\x1b[{up}A\r\x1b[2K{layer}: {action} {amount}\x1b[{up}B\r"))?;
        Ok(())
    }
}

async fn load(options: LoadOptions, local: &LocalClient) -> Result {
    let input: Box<dyn AsyncRead + Send + Unpin> = match &options.input {
        Some(path) => {
            let file = tokio::fs::File::open(path).await;
            Box::new(file.with_context(|| format!("failed to open `{}`", path.display()))?)
        }
        None if io::stdin().is_terminal() => {
            anyhow::bail!("an archive is read from standard input, which is a terminal; name a file with --input")
        }
        None => Box::new(tokio::io::stdin()),
    };
    let failure = Arc::new(Mutex::new(None));
    let loaded = local.load_image(chunks(input, Arc::clone(&failure))).await;
    // An archive that could not be read to its end is refused as cut short; this is why.
    if let Some(error) = failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
        return Err(anyhow::Error::from(error).context("failed to read the archive"));
    }
    for name in loaded?.names {
        match options.quiet {
            true => output::line(name)?,
            false => output::line(format_args!("Loaded image: {name}"))?,
        }
    }
    Ok(())
}

type Failure = Arc<Mutex<Option<io::Error>>>;

fn chunks(input: Box<dyn AsyncRead + Send + Unpin>, failure: Failure) -> impl Stream<Item = ArchiveChunk> + Send {
    stream::unfold((input, failure), |(mut input, failure)| async move {
        let mut data = vec![0; CHUNK_BYTES];
        match input.read(&mut data).await {
            Ok(0) => None,
            Ok(read) => {
                data.truncate(read);
                Some((ArchiveChunk { data: data.into() }, (input, failure)))
            }
            Err(error) => {
                *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                None
            }
        }
    })
}

async fn remove(options: RemoveOptions, local: &LocalClient) -> Result {
    let mut refused = Vec::new();
    for wanted in options.images {
        match local.remove_image(RemoveImageRequest { wanted, force: options.force }).await {
            Ok(removed) => {
                for name in removed.untagged {
                    output::line(format_args!("Untagged: {name}"))?;
                }
                for digest in removed.deleted {
                    output::line(format_args!("Deleted: {digest}"))?;
                }
            }
            Err(refusal) => refused.push(refusal),
        }
    }
    let last = refused.pop();
    refused.into_iter().for_each(output::complain);
    last.map_or(Ok(()), |refusal| Err(refusal.into()))
}
