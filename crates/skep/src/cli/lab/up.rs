//! `lab up`: a lab that stays, with daemons in its nodes, and with managers one cluster of them.

use anyhow::{Context as _, bail};
use clap::Args;
use skep_lab::{Cluster, Lab, Lifetime, Reach};

use super::NAME;
use crate::cli::{Result, output};

#[derive(Debug, Args)]
pub struct Options {
    /// How many nodes: n1, n2, …
    #[arg(short, long, default_value_t = 1)]
    nodes: u8,
    /// How many of them are managers of a cluster that the others join; 0 leaves each node alone
    #[arg(short, long, default_value_t = 0)]
    managers: u8,
    /// Without daemons: `skep init` in a node starts its own
    #[arg(long, conflicts_with = "managers")]
    bare: bool,
    #[arg(default_value = NAME)]
    name: String,
}

pub fn run(options: &Options) -> Result {
    let Options { nodes, managers, bare, name } = options;
    if managers > nodes {
        bail!("{managers} managers need as many nodes; add --nodes {managers}");
    }
    let program = std::env::current_exe().context("failed to find this program's own file")?;
    // Owned until all of it runs: a failure takes down what was made.
    let lab = Lab::builder().name(name).nodes(*nodes).lifetime(Lifetime::Owned).reach(Reach::Machine);
    let lab = lab.binary(program).build()?;
    if *managers > 0 {
        Cluster::form(&lab, *managers)?;
    } else if !bare {
        lab.nodes().iter().try_for_each(|node| node.start_daemon().map(drop))?;
    }
    for node in lab.nodes() {
        output::line(format_args!("{}  {}  {}", node.name(), node.address(), node.folder().display()))?;
    }
    if lab.info().gateway.is_none() {
        output::complain(
            "warning: another lab is connected to this machine; this one is reached by `skep lab exec` only",
        );
    }
    lab.keep()?;
    output::text(&next(name, *managers))?;
    Ok(())
}

fn next(name: &str, managers: u8) -> String {
    let at = if name == NAME { String::new() } else { format!(" --lab {name}") };
    let first = match managers {
        0 => format!("Enter a node:  skep lab enter{at} n1\nThere first:   skep init\n"),
        _ => format!(
            "Talk to n1:    eval \"$(skep lab env{at} n1)\"; skep node ls\nEnter a node:  skep lab enter{at} n1\n"
        ),
    };
    format!("{first}How it is:     skep lab status{at}\nEnd it:        skep lab down {name}\n")
}
