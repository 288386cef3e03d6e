//! `service restart` and `service wait`: all tasks anew, by the rules of updates; and waiting alone.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::Args;
use skep_api::ControlClient;
use skep_model::{Service, Version};

use super::conduct;
use crate::cli::Result;
use crate::cli::output::{self, time};

#[derive(Debug, Args)]
pub struct Options {
    /// Do not wait until they run
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    detach: bool,
    /// How long to wait
    #[arg(long, default_value = "10m", value_parser = time::parse_duration)]
    timeout: Duration,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
    #[arg(required = true, value_name = "SERVICE")]
    services: Vec<String>,
}

#[derive(Debug, Args)]
pub struct WaitOptions {
    /// How long to wait
    #[arg(long, default_value = "10m", value_parser = time::parse_duration)]
    timeout: Duration,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
    #[arg(required = true, value_name = "SERVICE")]
    services: Vec<String>,
}

/// Each is found before the first is touched.
pub async fn run(options: Options, control: &ControlClient) -> Result {
    let found = find(&options.services, control).await?;
    let mut since = Version::default();
    let mut names = BTreeSet::new();
    for (wanted, service) in options.services.iter().zip(found) {
        let again = |service: &Service| {
            let mut spec = (*service.spec).clone();
            spec.task.force_update += 1;
            Ok(spec)
        };
        // The image is what it was: no registry is asked.
        let (service, written) = conduct::edit(control, &service.id.to_string(), true, again).await?;
        since = since.max(written.version);
        output::line(wanted)?;
        names.insert(service.name().to_owned());
    }
    match options.detach {
        true => Ok(()),
        false => conduct::settle(control, names, since, options.timeout, options.quiet).await,
    }
}

pub async fn wait(options: WaitOptions, control: &ControlClient) -> Result {
    let services = find(&options.services, control).await?;
    let names = services.iter().map(|service| service.name().to_owned()).collect();
    // Since the beginning: an update that was rolled back before the wait is still one that failed.
    conduct::settle(control, names, Version::default(), options.timeout, options.quiet).await
}

async fn find(wanted: &[String], control: &ControlClient) -> Result<Vec<Service>> {
    let mut found = Vec::new();
    for wanted in wanted {
        found.push(control.service(wanted).await?);
    }
    Ok(found)
}
