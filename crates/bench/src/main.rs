//! Measures parts of skep alone, and prints what it measured as JSON: the programs that `cargo xtask bench` runs.
//!
//! Development only.

mod placing;

use std::process::ExitCode;

use anyhow::{Context, Result, bail};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("skep-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let number = |word: &str| word.parse::<usize>().with_context(|| format!("`{word}` is not a number"));
    match words.as_slice() {
        ["placing", nodes, services, replicas] => placing::run(number(nodes)?, number(services)?, number(replicas)?),
        _ => bail!("usage: skep-bench placing NODES SERVICES REPLICAS"),
    }
}
