//! Autolock: `unlock` for a manager that waits for its key, `swarm unlock-key`, and `swarm update --autolock`.

use clap::{ArgAction, Args};
use skep_api::{AutolockChange, AutolockRequest, AutolockState, UnlockRequest};

use super::Result;
use super::hidden_input;
use super::host::Host;
use super::output;

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
pub struct UpdateOptions {
    /// Whether a manager that starts waits for the unlock key
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set)]
    autolock: bool,
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
    let change = if options.autolock { AutolockChange::On } else { AutolockChange::Off };
    let state = host.control().await?.autolock(AutolockRequest { change: Some(change) }).await?;
    match state.unlock_key {
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
