//! `cargo xtask bench`: rows of the budgets, skep and its anchor on the same work in one run, medians of several.
//!
//! The anchor is Debian's own Docker, unpacked under the target folder and started by hand in a lab node, so that it never is
//! a service of this machine. A benchmark is not a test: it measures, and says whether the goal is met.

mod docker;
mod measure;
mod row;
mod rows;
mod subject;

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;

use crate::workspace::{Profile, Workspace};
use crate::{images, packages};
use row::Row;
use rows::Bench;

#[derive(Args)]
pub struct Options {
    /// The rows to measure, such as B5; all when there are none
    names: Vec<String>,
    /// Print one JSON object a row
    #[arg(long)]
    json: bool,
    /// How often each side runs; the median counts
    #[arg(long, default_value_t = 3)]
    runs: u32,
    /// Measure this `skep` instead of building one with optimizations
    #[arg(long)]
    binary: Option<PathBuf>,
}

pub fn run(options: &Options) -> Result<()> {
    packages::need_root()?;
    let chosen = choose(&options.names)?;
    let workspace = Workspace::load()?;
    let skep = match &options.binary {
        Some(binary) => binary.clone(),
        None => workspace.build_skep(Profile::Release)?,
    };
    let docker = crate::docker::unpack(&workspace.target_directory)?;
    let bench = Bench { images: images::make()?, docker, skep, runs: options.runs.max(1) };
    if !options.json {
        row::print_head();
    }
    let mut failures = Vec::new();
    for (id, measure) in chosen {
        match measure(&bench) {
            Ok(row) if options.json => println!("{}", row.to_json()),
            Ok(row) => row.print(),
            // The other rows are still worth their time.
            Err(error) => failures.push(format!("{id}: {error:#}")),
        }
    }
    skep_lab::sweep()?;
    if failures.is_empty() { Ok(()) } else { bail!("not measured:\n{}", failures.join("\n")) }
}

type Measure = fn(&Bench) -> Result<Row>;

fn choose(names: &[String]) -> Result<Vec<(&'static str, Measure)>> {
    let all: [(&'static str, Measure); 4] = [
        ("B5", rows::idle_memory),
        ("B6", rows::memory_per_container),
        ("B9", rows::start_fifty),
        ("B20", rows::binary_size),
    ];
    for name in names {
        if !all.iter().any(|(id, _)| id.eq_ignore_ascii_case(name)) {
            let known: Vec<&str> = all.iter().map(|(id, _)| *id).collect();
            bail!("there is no row `{name}`; there are {}", known.join(", "));
        }
    }
    let wanted = |id: &str| names.is_empty() || names.iter().any(|name| id.eq_ignore_ascii_case(name));
    Ok(all.into_iter().filter(|(id, _)| wanted(id)).collect())
}
