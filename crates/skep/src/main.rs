//! The skep binary: daemon, command line, lab, and the re-exec entries.

mod cli;
mod daemon;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run(std::env::args_os())
}
