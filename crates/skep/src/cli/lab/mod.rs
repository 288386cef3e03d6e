//! `lab`: nodes on one machine, each in namespaces, cgroups and folders of its own, to try things out and to break them.
//!
//! Each command finds the lab by its record, does one thing and ends; nothing of a lab lives in this program but the slow
//! links, which `lab wire` is.

mod faults;
mod status;
mod up;

use std::os::unix::process::CommandExt;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use skep_lab::{Lab, Node, StopSignal};

use super::Result;
use super::output;
use super::output::table;

const NAME: &str = "lab";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a lab: nodes with a daemon each, and with --managers one cluster of them
    Up(up::Options),
    /// Take a lab down, with all that runs in it
    Down(NameOptions),
    /// List labs and their nodes
    Ls,
    /// Show what each node is and how it is
    Status(status::Options),
    /// Print what points `skep` on this machine at a node: eval "$(skep lab env n1)"
    Env(NodeOptions),
    /// Run a command, or a shell, in a node
    Enter(EnterOptions),
    /// Run a command in a node
    Exec(ExecOptions),
    /// Cut a node's power: all that runs in it ends at once
    Kill(NodeOptions),
    /// Stop a node's daemon in order; its containers run on
    Stop(NodeOptions),
    /// Start a node's daemon again
    Start(NodeOptions),
    /// Stop a node's daemon where it stands, as if the machine hung
    Pause(NodeOptions),
    /// Let a paused daemon go on
    Resume(NodeOptions),
    /// Cut nodes from others, silently: n1,n2 n3, or 'n1,n2 | n3'
    Partition(faults::PartitionOptions),
    /// Make a node's link slow and lossy, both ways
    Slow(faults::SlowOptions),
    /// End all partitions and make all links quick
    Heal(LabOptions),
    /// The slow links of a lab, started by `slow`
    #[command(hide = true)]
    Wire(NameOptions),
}

#[derive(Debug, Args)]
pub struct NameOptions {
    #[arg(default_value = NAME)]
    name: String,
}

#[derive(Debug, Args)]
pub struct LabOptions {
    /// The lab
    #[arg(long, value_name = "NAME", default_value = NAME)]
    lab: String,
}

#[derive(Debug, Args)]
pub struct NodeOptions {
    #[command(flatten)]
    lab: LabOptions,
    /// The node: 1 or n1
    node: String,
}

#[derive(Debug, Args)]
pub struct EnterOptions {
    #[command(flatten)]
    lab: LabOptions,
    /// The node: 1 or n1
    #[arg(default_value = "1")]
    node: String,
    /// What to run; a shell by default
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

#[derive(Debug, Args)]
pub struct ExecOptions {
    #[command(flatten)]
    lab: LabOptions,
    /// The node: 1 or n1
    node: String,
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

pub fn run(command: Command) -> Result {
    match command {
        Command::Up(options) => up::run(&options),
        Command::Down(options) => {
            skep_lab::down(&options.name)?;
            output::line(format_args!("{} is down", options.name))?;
            Ok(())
        }
        Command::Ls => list(),
        Command::Status(options) => status::run(&options),
        Command::Env(options) => in_node(&options, |node| {
            output::line(format_args!("export SKEP_HOST=unix://{}", node.socket().display()))?;
            Ok(())
        }),
        Command::Enter(EnterOptions { lab, node, command }) => enter(&lab, &node, &command),
        Command::Exec(ExecOptions { lab, node, command }) => enter(&lab, &node, &command),
        Command::Kill(options) => in_node(&options, |node| told(node, node.kill_everything())),
        Command::Stop(options) => in_node(&options, |node| told(node, node.kill_daemon(StopSignal::Term))),
        Command::Start(options) => in_node(&options, |node| told(node, start(node))),
        Command::Pause(options) => in_node(&options, |node| told(node, node.pause())),
        Command::Resume(options) => in_node(&options, |node| told(node, node.resume())),
        Command::Partition(options) => faults::partition(&options),
        Command::Slow(options) => faults::slow(&options),
        Command::Heal(options) => options.attach()?.heal(),
        Command::Wire(options) => skep_lab::run_wire(&options.name),
    }
}

impl LabOptions {
    fn attach(&self) -> Result<Lab> {
        Lab::attach(&self.lab)
    }
}

fn in_node(options: &NodeOptions, work: impl FnOnce(&Node) -> Result) -> Result {
    let lab = options.lab.attach()?;
    work(find(&lab, &options.node)?)
}

/// Names the node that something was done with, as other commands do.
fn told(node: &Node, done: Result) -> Result {
    done?;
    output::line(node.name())?;
    Ok(())
}

fn start(node: &Node) -> Result {
    match node.daemon()? {
        Some(daemon) if daemon.is_paused() => bail!("the daemon of {0} is paused; `skep lab resume {0}`", node.name()),
        Some(_) => bail!("the daemon of {} runs already", node.name()),
        None => node.start_daemon().map(drop),
    }
}

fn list() -> Result {
    let mut rows = vec![["LAB", "NODE", "ADDRESS", "FOLDER"].map(str::to_owned).to_vec()];
    for lab in skep_lab::list()? {
        for node in &lab.nodes {
            let folder = lab.folder.join(&node.name);
            rows.push(vec![
                lab.name.clone(),
                node.name.clone(),
                node.address.to_string(),
                folder.display().to_string(),
            ]);
        }
    }
    output::text(&table::render(&rows))?;
    Ok(())
}

/// The node that is called `wanted`: `1` or `n1`.
fn find<'a>(lab: &'a Lab, wanted: &str) -> Result<&'a Node> {
    let number = wanted.strip_prefix('n').unwrap_or(wanted);
    let found = lab.nodes().iter().find(|node| node.number().to_string() == number);
    found.with_context(|| {
        let names = lab.nodes().iter().map(Node::name).collect::<Vec<_>>().join(", ");
        format!("lab {} has no node `{wanted}`; it has {names}", lab.name())
    })
}

fn enter(lab: &LabOptions, node: &str, command: &[String]) -> Result {
    let lab = lab.attach()?;
    let node = find(&lab, node)?;
    let (program, arguments) = match command.split_first() {
        Some((program, arguments)) => (program.as_str(), arguments),
        None => ("sh", [].as_slice()),
    };
    let mut command = node.command(program);
    command.args(arguments).env("PS1", format!("{}# ", node.name())).env("PATH", path_with_this_program()?);
    // The terminal, signals and the exit code are the command's own from here on.
    Err(command.exec()).with_context(|| format!("failed to run `{program}`"))
}

/// So that `skep` in the node is this one.
fn path_with_this_program() -> Result<std::ffi::OsString> {
    let program = std::env::current_exe().context("failed to find this program's own file")?;
    let own = program.parent().map(std::path::Path::to_path_buf).into_iter();
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths(own.chain(std::env::split_paths(&path))).context("a folder of PATH holds a colon")
}
