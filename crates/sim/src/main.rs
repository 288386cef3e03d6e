//! `skep-sim`: runs seeds and says how to replay the first that fails.

use std::process::ExitCode;

use clap::Parser;
use skep_sim::{Failure, Sabotage, run_and_explain};

#[derive(Parser)]
#[command(name = "skep-sim", about = "Simulate a cluster's decisions under faults, seed by seed")]
struct Arguments {
    /// How many seeds to run: 100, or the one that is given
    #[arg(long)]
    seeds: Option<u64>,
    /// The first seed
    #[arg(long)]
    seed: Option<u64>,
    /// Break the code under test on purpose
    #[arg(long, value_enum)]
    sabotage: Option<Sabotage>,
    /// Go on after a seed that fails, and say at the end how many did
    #[arg(long)]
    keep_going: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let first = arguments.seed.unwrap_or(0);
    let count = arguments.seeds.unwrap_or(if arguments.seed.is_some() { 1 } else { 100 });
    let mut failed = 0;
    for seed in first..first + count {
        match run_and_explain(seed, arguments.sabotage) {
            Ok(summary) if count == 1 => println!("seed {seed}: {summary:?}"),
            Ok(_) => {}
            Err(failure) => {
                failed += 1;
                tell(&failure, arguments.sabotage, arguments.keep_going);
                if !arguments.keep_going {
                    return ExitCode::FAILURE;
                }
            }
        }
    }
    println!("{count} seeds from {first}: {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn tell(failure: &Failure, sabotage: Option<Sabotage>, briefly: bool) {
    let Failure { seed, violation, trace } = failure;
    if !briefly {
        trace.iter().for_each(|line| println!("{line}"));
    }
    let with = sabotage.map(|sabotage| format!(" --sabotage {}", sabotage.name())).unwrap_or_default();
    println!("seed {seed} broke {}: {}", violation.invariant, violation.detail);
    println!("replay: cargo xtask sim --seed {seed}{with}");
}
