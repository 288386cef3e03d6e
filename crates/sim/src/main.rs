//! `skep-sim`: runs seeds and says how to replay the first that fails.

use std::process::ExitCode;

use clap::Parser;
use skep_sim::{Failure, Sabotage, run_and_explain};

#[derive(Parser)]
#[command(name = "skep-sim", about = "Simulate a cluster's decisions under faults, seed by seed")]
struct Arguments {
    /// How many seeds to run
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first seed; alone, the only one
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
    let (first, count) = match arguments.seed {
        Some(seed) => (seed, if std::env::args().any(|a| a.starts_with("--seeds")) { arguments.seeds } else { 1 }),
        None => (0, arguments.seeds),
    };
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
