//! `cargo xtask bench`: rows of the budgets, skep and its anchor on the same work in one run, medians of several.
//!
//! The anchors are Debian's own packages, unpacked under the target folder and started by hand in a lab node, so that they
//! never are services of this machine. Where an anchor cannot run here, its published figure stands in its place.
//! A benchmark is not a test: it measures, and says whether the goal is met.

mod agents;
mod disk;
mod docker;
mod endpoint;
mod failover;
mod idle;
mod measure;
mod names;
mod placing;
mod raft;
mod requests;
mod rollout;
mod row;
mod rows;
mod subject;
mod three;
mod tools;

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;

use crate::packages;
use crate::workspace::Workspace;
use row::Row;
use tools::Bench;

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
    /// Small sizes and builds without optimizations: whether the rows work, not what they say
    #[arg(long)]
    quick: bool,
}

pub fn run(options: &Options) -> Result<()> {
    packages::need_root()?;
    let chosen = choose(&options.names)?;
    let bench = Bench::new(Workspace::load()?, options);
    if !options.json {
        row::print_head();
    }
    let mut failures = Vec::new();
    for (id, measure) in chosen {
        match measure(&bench) {
            Ok(rows) if options.json => rows.iter().for_each(|row| println!("{}", row.to_json())),
            Ok(rows) => rows.iter().for_each(Row::print),
            // The other rows are still worth their time.
            Err(error) => failures.push(format!("{id}: {error:#}")),
        }
    }
    skep_lab::sweep()?;
    if failures.is_empty() { Ok(()) } else { bail!("not measured:\n{}", failures.join("\n")) }
}

type Measure = fn(&Bench) -> Result<Vec<Row>>;

const ALL: &[(&str, Measure)] = &[
    ("B1", rollout::deploy),
    ("B2", rollout::update),
    ("B3", failover::next_write),
    ("B4", failover::tasks_elsewhere),
    ("B5", rows::idle_memory),
    ("B6", rows::memory_per_container),
    ("B9", rows::start_fifty),
    ("B11", raft::writes),
    ("B12", disk::lone_entry),
    ("B13", placing::placements),
    ("B14", agents::load),
    ("B15", requests::published),
    ("B16", endpoint::change),
    ("B17", requests::update_under_load),
    ("B20", rows::binary_size),
    ("DNS", names::questions),
    ("IDLE", idle::idle),
];

fn choose(names: &[String]) -> Result<Vec<(&'static str, Measure)>> {
    for name in names {
        if !ALL.iter().any(|(id, _)| id.eq_ignore_ascii_case(name)) {
            let known: Vec<&str> = ALL.iter().map(|(id, _)| *id).collect();
            bail!("there is no row `{name}`; there are {}", known.join(", "));
        }
    }
    let wanted = |id: &str| names.is_empty() || names.iter().any(|name| id.eq_ignore_ascii_case(name));
    Ok(ALL.iter().filter(|(id, _)| wanted(id)).copied().collect())
}
