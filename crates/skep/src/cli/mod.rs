//! The command line: one file per noun, each from its arguments to what it prints.
//!
//! Commands talk to a daemon by `skep_api`'s clients over its socket and hold no state of their own.
//! What they print on standard output is for programs too; what went wrong goes to standard error, as one line
//! `skep: what is wrong; what mends it`, with an exit code of [`failure`].

pub mod ca;
mod cluster;
mod compose;
mod containers;
mod content;
mod daemon;
mod doctor;
mod events;
mod exec;
mod failure;
mod firewall;
mod help;
mod hidden_input;
mod host;
mod image;
mod info;
mod inspect;
mod join_token;
mod lab;
mod login;
mod logs;
mod membership;
mod network;
mod node;
mod output;
mod placing;
mod role;
mod service;
mod stack;
mod start;
mod swarm;
mod tasks;
mod terminal;
mod unlock;
mod volume;
mod wait;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use host::{Host, HostOptions};

type Result<T = (), E = anyhow::Error> = std::result::Result<T, E>;

#[derive(Debug, Parser)]
#[command(name = "skep", bin_name = "skep", version, override_help = help::TEXT)]
struct Cli {
    #[command(flatten)]
    host: HostOptions,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the daemon if none runs, and make this node the first of a new cluster
    Init(membership::InitOptions),
    /// Make this node a member of a cluster
    Join(membership::JoinOptions),
    /// Leave the cluster and remove what skep put on this machine; named volumes stay
    Leave(membership::LeaveOptions),
    /// Make a new join token; the old one is worthless from then on
    JoinToken(join_token::Options),
    /// Unlock this manager, which waits for the cluster's unlock key
    Unlock,
    /// Back up, restore or recover the cluster
    #[command(subcommand)]
    Cluster(cluster::Command),
    /// Run the daemon in the foreground
    Daemon(daemon::Options),
    /// The net helper, started by the daemon
    #[command(hide = true)]
    Net,
    /// Manage stacks
    #[command(subcommand)]
    Stack(stack::Command),
    /// Manage services
    #[command(subcommand)]
    Service(service::Command),
    /// Manage secrets
    #[command(subcommand)]
    Secret(content::Command),
    /// Manage configs
    #[command(subcommand)]
    Config(content::Command),
    /// Manage networks
    #[command(subcommand)]
    Network(network::Command),
    /// Manage this node's volumes
    #[command(subcommand)]
    Volume(volume::Command),
    /// Manage this node's images
    #[command(subcommand)]
    Image(image::Command),
    /// List the containers of this node
    Ps(containers::Options),
    /// Show what a task or a service wrote
    Logs(logs::Options),
    /// Show what happens to the objects of the cluster
    Events(events::Options),
    /// Run a command in a running task
    Exec(exec::Options),
    /// Manage nodes
    #[command(subcommand)]
    Node(node::Command),
    /// Manage the cluster as a whole
    #[command(subcommand)]
    Swarm(swarm::Command),
    /// Show this node and its cluster
    Info(info::Options),
    /// Examine the nodes and the network between them, and say what to mend
    Doctor(doctor::Options),
    /// Show the versions of this program and of the daemon
    Version(info::VersionOptions),
    /// Nodes to try things out, on this machine
    #[command(subcommand)]
    Lab(lab::Command),
}

/// Parses, runs, and says how it ended.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    match dispatch(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure::report(&error),
    }
}

fn usage(error: &clap::Error) -> ExitCode {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        // `skep`, `skep stack`: a question, not a mistake. A reader that is gone needs no answer.
        let _ = output::text(&error.to_string());
        return ExitCode::SUCCESS;
    }
    // Nobody is left to tell if this fails.
    let _ = error.print();
    match error.use_stderr() {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    }
}

fn dispatch(cli: Cli) -> Result {
    match cli.command {
        Command::Daemon(options) => daemon::run(options, &cli.host),
        Command::Net => daemon::net(&cli.host),
        Command::Lab(command) => lab::run(command),
        command => {
            let host = Host::resolve(&cli.host)?;
            let runtime = runtime()?;
            let result = runtime.block_on(client(command, &host));
            // A read of the terminal cannot be called off; it must not keep the command from ending.
            runtime.shutdown_background();
            result
        }
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("failed to start the async runtime")
}

async fn client(command: Command, host: &Host) -> Result {
    match command {
        Command::Init(options) => membership::init(options, host).await,
        Command::Join(options) => membership::join(options, host).await,
        Command::Leave(options) => membership::leave(options, host).await,
        Command::JoinToken(options) => join_token::run(options, host).await,
        Command::Unlock => unlock::unlock(host).await,
        Command::Cluster(command) => cluster::run(command, host).await,
        Command::Stack(command) => stack::run(command, host).await,
        Command::Service(command) => service::run(command, host).await,
        Command::Secret(command) => content::run(content::Noun::Secret, command, host).await,
        Command::Config(command) => content::run(content::Noun::Config, command, host).await,
        Command::Network(command) => network::run(command, host).await,
        Command::Volume(command) => volume::run(command, host).await,
        Command::Image(command) => image::run(command, host).await,
        Command::Ps(options) => containers::run(options, host).await,
        Command::Logs(options) => logs::run(options, host).await,
        Command::Events(options) => events::run(options, host).await,
        Command::Exec(options) => exec::run(options, host).await,
        Command::Node(command) => node::run(command, host).await,
        Command::Swarm(command) => swarm::run(command, host).await,
        Command::Info(options) => info::run(options, host).await,
        Command::Doctor(options) => doctor::run(options, host).await,
        Command::Version(options) => info::version(options, host).await,
        Command::Daemon(_) | Command::Net | Command::Lab(_) => unreachable!("dispatch runs them without a client"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_commands_are_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_fits_one_screen_and_names_every_command() {
        assert!(help::TEXT.lines().count() <= 40);
        assert!(help::TEXT.lines().all(|line| line.chars().count() <= 100));
        for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            assert!(help::TEXT.contains(command.get_name()), "{}", command.get_name());
        }
    }

    #[test]
    fn dockers_order_of_arguments_is_read() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' '));
        for line in [
            "skep stack deploy -c a.yml -c - --prune counter",
            "skep stack deploy --compose-file a.yml counter --detach",
            "skep exec -it -u root web.1 sh -c ls",
            "skep service scale web=3 api=2",
            "skep service logs -f --tail 10 web",
            "skep --run-dir /x service ls -q",
            "skep service ls --run-dir /x",
            "skep node update --availability drain --label-add a=b n1",
            "skep secret create -l a=b name -",
            "skep service create --name web -p 8080:80 nginx:1 nginx -g x",
            "skep service update --image nginx:2 -d web",
            "skep service update web --env-add A=1 --force",
            "skep service update --rollback -q web",
            "skep service rollback --to 12 web",
            "skep stack rollback demo --to 3",
            "skep events --since 10m --filter type=service --format json",
            "skep swarm update --autolock",
            "skep swarm update --autolock=false",
            "skep swarm unlock-key -q --rotate",
            "skep cluster backup --passphrase-file p f",
        ] {
            assert!(parse(line).is_ok(), "{line}: {}", parse(line).unwrap_err());
        }
        assert!(parse("skep stack deploy counter").is_err());
        let own =
            parse("skep --config /x --host unix:///y service create --config conf --host a:1.2.3.4 nginx").unwrap();
        assert_eq!(own.host.overrides().config.as_deref(), Some(std::path::Path::new("/x")));
    }
}
