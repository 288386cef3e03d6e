//! `join-token`: tokens cannot be read back, so asking for one makes a new one.

use clap::{Args, ValueEnum};
use skep_api::RotateJoinTokenRequest;
use skep_model::Role;

use super::Result;
use super::host::Host;
use super::membership::reachable_at;
use super::output;

#[derive(Debug, Args)]
pub struct Options {
    /// What nodes with the token become
    #[arg(value_enum)]
    role: RoleName,
    /// As in Docker; a token is made anew either way, because only a digest of it is kept
    #[arg(long)]
    rotate: bool,
    /// Only the token
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum RoleName {
    Worker,
    Manager,
}

pub async fn run(options: Options, host: &Host) -> Result {
    let (role, name) = match options.role {
        RoleName::Worker => (Role::Worker, "worker"),
        RoleName::Manager => (Role::Manager, "manager"),
    };
    let connection = host.connect().await?;
    let token =
        skep_api::ControlClient::new(connection.clone()).rotate_join_token(RotateJoinTokenRequest { role }).await?;
    if options.quiet {
        output::line(token.token)?;
        return Ok(());
    }
    let info = skep_api::LocalClient::new(connection).info(()).await?;
    output::line(format_args!(
        "To add a {name}, run on it:\n\n    skep join --token {} {}\n",
        token.token,
        reachable_at(&info)
    ))?;
    output::line(format_args!(
        "Earlier {name} tokens are worthless from now on: a token is never stored, so that it cannot be read back."
    ))?;
    Ok(())
}
