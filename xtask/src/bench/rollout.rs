//! B1 and B2: sixty tasks on three managers, until they run, and until each has been replaced, one after the other.

use anyhow::Result;

use super::measure::median;
use super::row::{Goal, Row, Values};
use super::three::{MANAGERS, Three};
use super::tools::Bench;

const REPLICAS: usize = 60;
const QUICK_REPLICAS: usize = 6;

/// B1: one service, the image present, from the command to the last task that runs.
pub fn deploy(bench: &Bench) -> Result<Vec<Row>> {
    let replicas = bench.sized(REPLICAS, QUICK_REPLICAS);
    let once = |three: Three| three.create(replicas);
    let anchor = median(bench.runs, || once(Three::swarm(bench)?))?;
    let skep = median(bench.runs, || once(Three::skep(bench)?))?;
    let work = format!("a service of {replicas} tasks, until all run");
    Ok(vec![Row::new("B1", work, swarm(bench)?, Values { anchor, skep, unit: "s" }, Goal::AtMost(0.7))])
}

/// B2: a rolling update, one task at a time, each watched for 100 ms.
pub fn update(bench: &Bench) -> Result<Vec<Row>> {
    let replicas = bench.sized(REPLICAS, QUICK_REPLICAS);
    let once = |three: Three| {
        three.create(replicas)?;
        three.update()
    };
    let anchor = median(bench.runs, || once(Three::swarm(bench)?))?;
    let skep = median(bench.runs, || once(Three::skep(bench)?))?;
    let work = format!("{replicas} tasks replaced one by one, monitor 100 ms");
    Ok(vec![Row::new("B2", work, swarm(bench)?, Values { anchor, skep, unit: "s" }, Goal::AtMost(10.0))])
}

fn swarm(bench: &Bench) -> Result<String> {
    Ok(format!("{}: a swarm of {MANAGERS} managers", bench.docker()?.version()?))
}
