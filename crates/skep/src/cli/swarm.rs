//! `swarm`: Docker's noun for what concerns the whole cluster. Some of it has a shorter name as well.

use clap::Subcommand;

use super::host::Host;
use super::{Result, ca, join_token, membership, unlock};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a cluster: `skep init`
    Init(membership::InitOptions),
    /// Make this node a member of a cluster: `skep join`
    Join(membership::JoinOptions),
    /// Make a new join token: `skep join-token`
    JoinToken(join_token::Options),
    /// Leave the cluster: `skep leave`
    Leave(membership::LeaveOptions),
    /// Show the cluster's CA, or rotate it
    Ca(ca::Options),
    /// Unlock this manager: `skep unlock`
    Unlock,
    /// Show the key that locked managers are unlocked with
    UnlockKey(unlock::KeyOptions),
    /// Change the cluster's settings
    Update(unlock::UpdateOptions),
}

pub async fn run(command: Command, host: &Host) -> Result {
    match command {
        Command::Init(options) => membership::init(options, host).await,
        Command::Join(options) => membership::join(options, host).await,
        Command::JoinToken(options) => join_token::run(options, host).await,
        Command::Leave(options) => membership::leave(options, host).await,
        Command::Ca(options) => ca::run(options, host).await,
        Command::Unlock => unlock::unlock(host).await,
        Command::UnlockKey(options) => unlock::key(options, host).await,
        Command::Update(options) => unlock::update(options, host).await,
    }
}
