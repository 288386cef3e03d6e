//! `cargo xtask sim`: runs the simulation's seeds.

use anyhow::Result;
use clap::Args;

use crate::shell;
use crate::workspace::{Workspace, cargo};

#[derive(Args)]
pub struct Options {
    /// How many seeds to run
    #[arg(long)]
    seeds: Option<u64>,
    /// The first seed; without `--seeds` the only one, and told in detail
    #[arg(long)]
    seed: Option<u64>,
    /// Break the code on purpose, to see that it is noticed; an unknown name lists them all
    #[arg(long)]
    sabotage: Option<String>,
    /// Optimise: slower to build, several times faster to run
    #[arg(long)]
    release: bool,
}

pub fn run(options: &Options) -> Result<()> {
    let workspace = Workspace::load()?;
    let mut command = cargo();
    command.current_dir(&workspace.workspace_root).args(["run", "--quiet", "-p", "skep-sim"]);
    if options.release {
        command.arg("--release");
    }
    command.arg("--");
    let numbers = [("--seeds", options.seeds), ("--seed", options.seed)];
    for (flag, number) in numbers.into_iter().filter_map(|(flag, number)| Some((flag, number?))) {
        command.arg(flag).arg(number.to_string());
    }
    if let Some(sabotage) = &options.sabotage {
        command.args(["--sabotage", sabotage]);
    }
    shell::run(&mut command)
}
