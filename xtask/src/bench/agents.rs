//! B14: the control plane end to end without containers: three managers and a thousand simulated agents.

use std::fs;

use anyhow::{Context, Result};
use serde::Deserialize;
use skep_lab::{Cluster, Lab};

use super::row::{Goal, Row, Values};
use super::tools::{Bench, read_part};

const MANAGERS: u8 = 3;
/// Agents, services, and tasks of each service.
const SIZES: [[u32; 3]; 3] = [[100, 10, 1000], [300, 30, 1000], [1000, 100, 1000]];
const QUICK_SIZES: [[u32; 3]; 1] = [[5, 2, 20]];
/// A million containers in 266 s: five servers and five thousand hosts.
const NOMAD_PER_SECOND: f64 = 3750.0;
const MEMORY_GOAL_MB: f64 = 250.0;
const PORT: u16 = 7377;

#[derive(Deserialize)]
struct Ran {
    tasks: u32,
    tasks_per_second: f64,
}

pub fn load(bench: &Bench) -> Result<Vec<Row>> {
    let sizes: &[[u32; 3]] = bench.sized(&SIZES, &QUICK_SIZES);
    let mut rows = Vec::new();
    for size in sizes {
        rows.extend(run(bench, size)?);
    }
    Ok(rows)
}

fn run(bench: &Bench, size: &[u32; 3]) -> Result<[Row; 2]> {
    let lab = Lab::builder().nodes(MANAGERS).binary(bench.skep()?).build()?;
    let cluster = Cluster::form(&lab, MANAGERS)?;
    let token = cluster.join_token("worker")?;
    let managers: Vec<String> = lab.nodes().iter().map(|node| format!("{}:{PORT}", node.address())).collect();
    let mut command = lab.outside_command(bench.parts()?.to_str().context("the target folder is not UTF-8")?);
    command.arg("agents").arg(lab.node(1).socket()).arg(managers.join(",")).arg(token);
    command.args(size.iter().map(u32::to_string));
    let ran: Ran = read_part(&mut command)?;
    let mut peak: f64 = 0.0;
    for node in lab.nodes() {
        let daemon = node.daemon()?.with_context(|| format!("the daemon of {} has ended", node.name()))?;
        peak = peak.max(peak_megabytes(daemon.pid)?);
    }
    let [agents, services, _] = size;
    let speed = Values { anchor: NOMAD_PER_SECOND, skep: ran.tasks_per_second, unit: "/s" };
    let memory = Values { anchor: f64::NAN, skep: peak, unit: "MB" };
    let work = format!("{} tasks of {services} services, {agents} agents, until running", ran.tasks);
    Ok([
        Row::new("B14", work, "Nomad C1M, published".to_owned(), speed, Goal::AtLeast(1e4)),
        Row::new(
            "B14",
            "the largest manager at its peak, RSS",
            "none".to_owned(),
            memory,
            Goal::AtMost(MEMORY_GOAL_MB),
        ),
    ])
}

/// `VmHWM` of `/proc/PID/status`: the most that was ever resident.
fn peak_megabytes(pid: i32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("a manager has ended")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kilobytes: f64 = line.split_ascii_whitespace().next().context("no VmHWM")?.parse().context("no VmHWM")?;
    Ok(kilobytes * 1024.0 / 1e6)
}
