//! Measures parts of skep alone, and prints what it measured as JSON: the programs that `cargo xtask bench` runs.
//!
//! Development only.

mod content;
mod device;
mod entry;
mod placing;

use std::path::Path;
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::{Context, Result, bail};

const USAGE: &str = "usage:
  skep-bench placing NODES SERVICES REPLICAS
  skep-bench entry FOLDER ENTRIES IDLE_SECONDS
  skep-bench file FOLDER growing|zeroed ENTRIES";

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
    match words.as_slice() {
        ["placing", nodes, services, replicas] => placing::run(number(nodes)?, number(services)?, number(replicas)?),
        ["entry", folder, entries, idle] => {
            let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
            runtime.block_on(entry::store(Path::new(folder), number(entries)?, number(idle)?))
        }
        ["file", folder, layout, entries] => entry::file(Path::new(folder), layout, number(entries)?),
        _ => bail!("{USAGE}"),
    }
}

fn number<T: FromStr>(word: &str) -> Result<T> {
    word.parse().ok().with_context(|| format!("`{word}` is not a number that fits here"))
}
