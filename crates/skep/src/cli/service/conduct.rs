//! How a command that changes services behaves: whether it waits, what it sends along, what it shows.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use skep_api::{ControlClient, CreateRequest, Filter, Refusal, RefusalKind, ServiceUpdate, UpdateRequest, Written};
use skep_image::Reference;
use skep_model::{NetworkSpec, Service, ServiceSpec, Version};

use super::flags::lists::DEFAULT_NETWORK;
use crate::cli::Result;
use crate::cli::output::time;
use crate::cli::wait::{self, Goal, Progress};

/// A change that is made again on what others have written meanwhile; each round sees progress of theirs.
const ROUNDS: usize = 50;

#[derive(Debug, Clone, PartialEq, Args)]
pub struct Conduct {
    /// Do not wait until the service runs
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub detach: bool,
    /// How long to wait
    #[arg(long, default_value = "10m", value_parser = time::parse_duration)]
    pub timeout: Duration,
    /// Show no progress
    #[arg(short, long)]
    pub quiet: bool,
    /// Take the image as it is written: do not ask its registry for the digest
    #[arg(long)]
    pub no_resolve_image: bool,
    /// Send along your login for the image's registry
    #[arg(long)]
    pub with_registry_auth: bool,
}

impl Conduct {
    /// Waits, unless told not to, until all are what was asked for at `since`.
    pub async fn settle(&self, control: &ControlClient, services: BTreeSet<String>, since: Version) -> Result {
        match self.detach {
            true => Ok(()),
            false => settle(control, services, since, self.timeout, self.quiet).await,
        }
    }
}

pub async fn settle(
    control: &ControlClient,
    services: BTreeSet<String>,
    since: Version,
    timeout: Duration,
    quiet: bool,
) -> Result {
    let names: Vec<&str> = services.iter().map(String::as_str).collect();
    let watch_with = format!("skep service ps {}", names.join(" "));
    let goal = Goal { services, stack: None, since, timeout, watch_with };
    wait::until_settled(control, &goal, if quiet { Progress::Silent } else { Progress::Shown }).await
}

/// The image with Docker's default tag, if it is one at all.
pub fn image(text: &str) -> Result<String> {
    text.parse::<Reference>().with_context(|| format!("`{text}` is not the name of an image"))?;
    Ok(skep_stack::with_tag(text.to_owned()))
}

/// Reads a service, edits its spec and writes it. When somebody else wrote in between, that is kept: the edit is made
/// again on theirs.
pub async fn edit(
    control: &ControlClient,
    wanted: &str,
    as_given: bool,
    edit: impl Fn(&Service) -> Result<ServiceSpec>,
) -> Result<(Service, Written)> {
    let mut round = 0;
    loop {
        let service = control.service(wanted).await?;
        let mut spec = edit(&service)?;
        settle_networks(&mut spec, control).await?;
        let update = ServiceUpdate { id: service.id, expected: service.meta.version, spec, as_given };
        match control.update(UpdateRequest::Service(Box::new(update))).await {
            Ok(written) => return Ok((service, written)),
            Err(refusal) if refusal.kind == RefusalKind::OutOfSequence && round < ROUNDS => round += 1,
            Err(refusal) => return Err(refusal.into()),
        }
    }
}

/// Networks by their names, where they were given by id; the first service that names none makes the one of those.
pub async fn settle_networks(spec: &mut ServiceSpec, control: &ControlClient) -> Result {
    let known = control.networks(Filter::default()).await?;
    let named = |name: &str| known.iter().find(|network| network.spec.name.eq_ignore_ascii_case(name));
    let mut wants_default = false;
    for attachment in &mut spec.task.networks {
        match named(&attachment.network) {
            Some(_) => {}
            None if attachment.network == DEFAULT_NETWORK => wants_default = true,
            None => {
                let meant = known.iter().find(|network| network.id.to_string() == attachment.network);
                // What is neither is refused by the manager, in its words.
                attachment.network = meant.map_or(attachment.network.clone(), |network| network.spec.name.clone());
            }
        }
    }
    if !wants_default {
        return Ok(());
    }
    let spec = NetworkSpec { name: DEFAULT_NETWORK.to_owned(), driver: "overlay".to_owned(), ..NetworkSpec::default() };
    match control.create(CreateRequest::Network(spec)).await {
        Ok(_) => Ok(()),
        // Somebody was faster.
        Err(_) if has_default(control).await? => Ok(()),
        Err(refusal) => Err(refusal.into()),
    }
}

async fn has_default(control: &ControlClient) -> Result<bool, Refusal> {
    let networks = control.networks(Filter::default()).await?;
    Ok(networks.iter().any(|network| network.spec.name.eq_ignore_ascii_case(DEFAULT_NETWORK)))
}
