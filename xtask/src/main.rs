//! What one does with this repository: `cargo xtask demo`, `test`, `bench`, `sim`, `tidy`, `images`, `codegen`.
//!
//! Development only: it may use the machine's own tools (apt, skopeo, tar), which the product does not.

mod bench;
#[cfg(feature = "codegen")]
mod codegen;
mod demo;
mod docker;
mod images;
mod packages;
mod previous;
mod shell;
mod sim;
mod test;
mod tidy;
mod vm;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Build, try, test and measure skep")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build skep, start a node, deploy a stack, look at it
    Demo(demo::Options),
    /// Run a command, or a shell, in a node of the kept demo
    Enter(demo::EnterOptions),
    /// End the kept demo
    Down,
    /// Check everything that a change must pass
    Test(test::Options),
    /// Measure rows of the budgets, each beside its anchor
    Bench(bench::Options),
    /// Simulate a cluster's decisions under faults, seed by seed
    Sim(sim::Options),
    /// Check the rules that the compiler does not know
    Tidy,
    /// Make the images that demo and tests run, from Debian's packages
    Images,
    /// Take down what killed tests left
    Sweep,
    /// Generate the wire's Rust from proto/: `cargo codegen`
    #[cfg(feature = "codegen")]
    Codegen,
}

fn main() -> ExitCode {
    match run(Arguments::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    match task {
        Task::Demo(options) => demo::run(&options),
        Task::Enter(options) => demo::enter(&options),
        Task::Down => skep_lab::down(demo::LAB),
        Task::Test(options) => test::run(&options),
        Task::Bench(options) => bench::run(&options),
        Task::Sim(options) => sim::run(&options),
        Task::Tidy => tidy::run(),
        Task::Images => images::make().map(|folder| println!("images: {}", folder.display())),
        Task::Sweep => skep_lab::sweep().map(|labs| println!("labs taken down: {labs}")),
        #[cfg(feature = "codegen")]
        Task::Codegen => codegen::run(),
    }
}
