//! `stack`: what a compose file becomes.

mod atomic;
mod deploy;
mod history;

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use skep_api::{ControlClient, Filter, RemoveRequest};
use skep_model::{Kind, Stack};

use super::Result;
use super::compose;
use super::host::Host;
use super::output;
use super::output::listing::{ListOptions, Listing, row};
use super::service;
use super::tasks::{self, natural};

const LISTING: Listing = Listing {
    columns: &[("Name", "NAME"), ("Services", "SERVICES")],
    more: &[("Revision", "REVISION")],
    quiet: "Name",
};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Bring a compose file up, or change what runs of it
    #[command(visible_alias = "up")]
    Deploy(deploy::Options),
    /// List stacks
    #[command(visible_alias = "list")]
    Ls(ListOptions),
    /// List the tasks of a stack
    Ps(StackOptions),
    /// List the services of a stack
    Services(StackOptions),
    /// List a stack's revisions: who deployed when, and what changed
    History(StackOptions),
    /// Make a stack's services what they were in an earlier revision; services that were not in it are removed
    Rollback(history::RollbackOptions),
    /// Show a compose file as skep understands it
    Config(ConfigOptions),
    /// Remove stacks; volumes stay
    #[command(visible_aliases = ["remove", "down"])]
    Rm(RemoveOptions),
}

#[derive(Debug, Args)]
pub struct StackOptions {
    #[command(flatten)]
    list: ListOptions,
    stack: String,
}

#[derive(Debug, Args)]
pub struct ConfigOptions {
    #[command(flatten)]
    files: compose::Files,
}

#[derive(Debug, Args)]
pub struct RemoveOptions {
    #[arg(required = true, value_name = "STACK")]
    stacks: Vec<String>,
}

pub async fn run(command: Command, host: &Host) -> Result {
    match command {
        Command::Deploy(options) => deploy::run(options, host).await,
        Command::Ls(options) => list(&options, &host.control().await?).await,
        Command::Ps(options) => {
            let control = host.control().await?;
            let stack = existing(&control, &options.stack).await?;
            let tasks = control.tasks(of_stack(&stack.name)).await?;
            tasks::print(&control, tasks, &options.list).await
        }
        Command::Services(options) => {
            let control = host.control().await?;
            let stack = existing(&control, &options.stack).await?;
            service::list(&options.list, of_stack(&stack.name), &control).await
        }
        Command::History(options) => {
            history::show(&existing(&host.control().await?, &options.stack).await?, &options.list)
        }
        Command::Rollback(options) => history::rollback(options, &host.control().await?).await,
        Command::Config(options) => {
            output::text(&compose::load(&options.files, None)?.to_yaml())?;
            Ok(())
        }
        Command::Rm(options) => remove(options, &host.control().await?).await,
    }
}

/// A stack that is not there is an error, not an empty list.
async fn existing(control: &ControlClient, name: &str) -> Result<Stack> {
    Ok(control.stack(name).await?)
}

fn of_stack(name: &str) -> Filter {
    Filter { stack: Some(name.to_owned()), ..Filter::default() }
}

async fn list(options: &ListOptions, control: &ControlClient) -> Result {
    let mut services: BTreeMap<String, usize> = BTreeMap::new();
    for service in control.services(Filter::default()).await? {
        if let Some(stack) = service.spec.labels.get(Stack::LABEL) {
            *services.entry(stack.clone()).or_default() += 1;
        }
    }
    let mut stacks = control.stacks(Filter::default()).await?;
    stacks.sort_by(|a, b| natural(&a.name, &b.name));
    let rows = stacks.iter().map(|stack| {
        row([
            ("Name", stack.name.clone()),
            ("Services", services.get(&stack.name).copied().unwrap_or(0).to_string()),
            ("Revision", stack.revisions.last().map_or(0, |revision| revision.number).to_string()),
        ])
    });
    LISTING.print(rows.collect(), options)
}

/// The lines come first: removing waits for the tasks to stop.
async fn remove(options: RemoveOptions, control: &ControlClient) -> Result {
    for name in options.stacks {
        let mut announced = Vec::new();
        for (kind, member) in members(control, &name).await? {
            output::line(format_args!("Removing {kind} {member}"))?;
            announced.push(member);
        }
        let removed = control.remove(RemoveRequest { kind: Kind::Stack, wanted: name, force: false }).await?;
        for object in removed.objects.iter().filter(|object| object.kind != Kind::Stack) {
            if !announced.contains(&object.name) {
                output::line(format_args!("Removing {} {}", object.kind, object.name))?;
            }
        }
    }
    Ok(())
}

async fn members(control: &ControlClient, stack: &str) -> Result<Vec<(Kind, String)>> {
    let services = control.services(of_stack(stack)).await?.into_iter().map(|service| service.spec.name.clone());
    let secrets = control.secrets(of_stack(stack)).await?.into_iter().map(|secret| secret.name);
    let configs = control.configs(of_stack(stack)).await?.into_iter().map(|config| config.name);
    let networks = control.networks(of_stack(stack)).await?.into_iter().map(|network| network.spec.name);
    let mut members: Vec<(Kind, String)> = Vec::new();
    for (kind, mut names) in [
        (Kind::Service, services.collect::<Vec<_>>()),
        (Kind::Secret, secrets.collect()),
        (Kind::Config, configs.collect()),
        (Kind::Network, networks.collect()),
    ] {
        names.sort();
        members.extend(names.into_iter().map(|name| (kind, name)));
    }
    Ok(members)
}
