//! B13: the scheduler alone, on one core, in three sizes.

use std::process::Command;

use anyhow::Result;
use serde::Deserialize;

use super::row::{Goal, Row, Values};
use super::tools::{Bench, read_part};

/// Nodes, services, and tasks of each service.
const SIZES: [[u32; 3]; 3] = [[1_000, 1_000, 10], [5_000, 5_000, 10], [10_000, 10_000, 10]];
const QUICK_SIZES: [[u32; 3]; 3] = [[20, 20, 5], [50, 50, 5], [100, 100, 5]];
/// End to end, with an API server and etcd in one process: the continuous benchmarks of Kubernetes itself.
const KUBE_SCHEDULER_PER_SECOND: f64 = 800.0;

#[derive(Deserialize)]
struct Placed {
    tasks: u32,
    placements_per_second: f64,
}

/// B13: placements a second; the goal is of the largest size.
pub fn placements(bench: &Bench) -> Result<Vec<Row>> {
    bench.sized(SIZES, QUICK_SIZES).iter().map(|size| row(bench, size)).collect()
}

fn row(bench: &Bench, size: &[u32; 3]) -> Result<Row> {
    let mut command = Command::new(bench.parts()?);
    command.arg("placing").args(size.iter().map(u32::to_string));
    let placed: Placed = read_part(&mut command)?;
    let [nodes, services, _] = size;
    let work = format!("placing {} tasks of {services} services on {nodes} nodes", placed.tasks);
    let values = Values { anchor: KUBE_SCHEDULER_PER_SECOND, skep: placed.placements_per_second, unit: "/s" };
    Ok(Row::new("B13", work, "kube-scheduler, published".to_owned(), values, Goal::AtLeast(1e6)))
}
