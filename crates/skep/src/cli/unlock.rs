//! Autolock: `unlock` for a manager that waits for its key, `swarm unlock-key`, and `swarm update --autolock`.

use std::time::Duration;

use clap::{ArgAction, Args, ValueEnum};
use skep_api::{AutolockChange, AutolockRequest, AutolockState, ClusterUpdate, UnlockRequest, UpdateRequest};

use super::hidden_input;
use super::host::Host;
use super::output;
use super::{Result, ca};

#[derive(Debug, Args)]
pub struct KeyOptions {
    /// Only the key
    #[arg(short, long)]
    quiet: bool,
    /// Make a new key; managers that are down still need the old one
    #[arg(long)]
    rotate: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct UpdateOptions {
    /// Whether a manager that starts waits for the unlock key
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set)]
    autolock: Option<bool>,
    /// How long nodes' certificates are valid, such as 2160h
    #[arg(long, value_name = "DURATION", value_parser = ca::duration)]
    cert_expiry: Option<Duration>,
    /// Between two heartbeats of a node, such as 500ms; 1s at most
    #[arg(long, value_name = "DURATION", value_parser = ca::duration)]
    dispatcher_heartbeat: Option<Duration>,
    /// How many ended tasks of each slot are kept
    #[arg(long, value_name = "COUNT")]
    task_history_limit: Option<u32>,
    /// Which node takes a task, where a service does not say: spread, or one node filled before the next
    #[arg(long, value_enum)]
    placement: Option<PlacementName>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PlacementName {
    Spread,
    Binpack,
}

pub async fn unlock(host: &Host) -> Result {
    let local = host.local().await?;
    if !local.info(()).await?.locked {
        anyhow::bail!("this node is not locked");
    }
    let key = hidden_input::ask("Unlock key: ")?;
    local.unlock(UnlockRequest { key }).await?;
    output::line("This manager is unlocked and runs again.")?;
    Ok(())
}

pub async fn key(options: KeyOptions, host: &Host) -> Result {
    let change = options.rotate.then_some(AutolockChange::Rotate);
    let AutolockState { unlock_key } = host.control().await?.autolock(AutolockRequest { change }).await?;
    let Some(unlock_key) = unlock_key else {
        anyhow::bail!("autolock is off: there is no unlock key; `skep swarm update --autolock` makes one");
    };
    if options.quiet {
        output::line(unlock_key)?;
        return Ok(());
    }
    if options.rotate {
        output::line("The unlock key was changed. Managers that are down now still need the one from before.\n")?;
    }
    tell(&unlock_key)
}

pub async fn update(options: UpdateOptions, host: &Host) -> Result {
    let UpdateOptions { autolock, cert_expiry, dispatcher_heartbeat, task_history_limit, placement } = options;
    let control = host.control().await?;
    let update = ClusterUpdate {
        task_history_limit,
        heartbeat_period: dispatcher_heartbeat,
        certificate_validity: cert_expiry,
        bin_pack: placement.map(|placement| placement == PlacementName::Binpack),
    };
    if update != ClusterUpdate::default() {
        control.update(UpdateRequest::Cluster(update)).await?;
        output::line("The cluster was updated.")?;
    }
    let Some(autolock) = autolock else { return Ok(()) };
    let change = if autolock { AutolockChange::On } else { AutolockChange::Off };
    match control.autolock(AutolockRequest { change: Some(change) }).await?.unlock_key {
        Some(key) => tell(&key),
        None => Ok(output::line("Autolock is off: managers start without a key.")?),
    }
}

/// The key, and what it is for.
pub fn tell(key: &str) -> Result {
    output::line(format_args!(
        "A manager that starts again waits for this key; give it to `skep unlock` there:\n\n    {key}\n\n\
         Keep it in a password manager: without it a manager that has stopped cannot be started again."
    ))?;
    Ok(())
}
