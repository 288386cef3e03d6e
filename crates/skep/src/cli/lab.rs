//! `lab`: nodes on one machine, each in namespaces, cgroups and folders of its own, to try things out.

use std::os::unix::process::CommandExt;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use skep_lab::{Lab, Lifetime};

use super::Result;
use super::output;
use super::output::table;

const NAME: &str = "lab";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a lab, with a daemon in each of its nodes
    Up(UpOptions),
    /// Take a lab down, with all that runs in it
    Down(DownOptions),
    /// List labs and their nodes
    Ls,
    /// Run a command, or a shell, in a node
    Enter(EnterOptions),
}

#[derive(Debug, Args)]
pub struct UpOptions {
    /// How many nodes
    #[arg(short, long, default_value_t = 1)]
    nodes: u8,
    /// Without daemons: `skep init` in a node starts its own
    #[arg(long)]
    bare: bool,
    #[arg(default_value = NAME)]
    name: String,
}

#[derive(Debug, Args)]
pub struct DownOptions {
    #[arg(default_value = NAME)]
    name: String,
}

#[derive(Debug, Args)]
pub struct EnterOptions {
    /// The lab
    #[arg(long, default_value = NAME)]
    lab: String,
    /// Its node: 1 or n1
    #[arg(default_value = "1")]
    node: String,
    /// What to run; a shell by default
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

pub fn run(command: Command) -> Result {
    match command {
        Command::Up(options) => up(&options),
        Command::Down(options) => {
            skep_lab::down(&options.name)?;
            output::line(format_args!("{} is down", options.name))?;
            Ok(())
        }
        Command::Ls => list(),
        Command::Enter(options) => enter(&options),
    }
}

fn up(options: &UpOptions) -> Result {
    let program = std::env::current_exe().context("failed to find this program's own file")?;
    // Owned until all of it runs: a failure takes down what was made.
    let lab =
        Lab::builder().name(&options.name).nodes(options.nodes).lifetime(Lifetime::Owned).binary(program).build()?;
    if !options.bare {
        for node in lab.nodes() {
            node.start_daemon()?;
        }
    }
    for node in lab.nodes() {
        output::line(format_args!("{}  {}  {}", node.name(), node.address(), node.folder().display()))?;
    }
    lab.keep()?;
    let at = if options.name == NAME { String::new() } else { format!(" --lab {}", options.name) };
    output::text(&format!(
        "Enter a node:  skep lab enter{at} n1\n\
         There first:   skep init\n\
         End it:        skep lab down {}\n",
        options.name
    ))?;
    Ok(())
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

fn enter(options: &EnterOptions) -> Result {
    let lab = Lab::attach(&options.lab)?;
    let wanted = options.node.trim_start_matches('n');
    let found = lab.nodes().iter().find(|node| node.number().to_string() == wanted);
    let Some(node) = found else {
        let names = lab.nodes().iter().map(|node| node.name()).collect::<Vec<_>>().join(", ");
        bail!("lab {} has no node `{}`; it has {names}", options.lab, options.node);
    };
    let (program, arguments) = match options.command.split_first() {
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
