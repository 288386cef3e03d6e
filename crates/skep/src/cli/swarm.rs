//! `swarm`: Docker's noun for what concerns the whole cluster.

use clap::Subcommand;

use super::host::Host;
use super::{Result, ca};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the cluster's CA, or rotate it
    Ca(ca::Options),
}

pub async fn run(command: Command, host: &Host) -> Result {
    match command {
        Command::Ca(options) => ca::run(options, host).await,
    }
}
