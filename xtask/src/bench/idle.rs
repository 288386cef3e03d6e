//! IDLE: what a cluster costs in which nothing happens: processor and disk of three managers with 60 tasks.

use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::row::{Goal, Row, Values};
use super::three::{MANAGERS, Three};
use super::tools::Bench;

const REPLICAS: usize = 60;
const QUICK_REPLICAS: usize = 3;
/// What a deploy leaves to do is done by then.
const SETTLE: Duration = Duration::from_secs(20);
const MINUTE: Duration = Duration::from_secs(60);
/// `sysconf(_SC_CLK_TCK)` is 100 on every Linux that Rust's standard library runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// What the daemons of one cluster used in a minute.
struct Used {
    /// Of the node that used most, in percent of one core.
    cpu: f64,
    /// Given to the disk by all nodes together.
    bytes: f64,
}

#[derive(Clone, Copy, Default)]
struct Counters {
    ticks: f64,
    bytes: f64,
}

pub fn idle(bench: &Bench) -> Result<Vec<Row>> {
    let used = |three: Three| -> Result<Used> {
        three.deploy(bench.sized(REPLICAS, QUICK_REPLICAS))?;
        thread::sleep(bench.sized(SETTLE, Duration::from_secs(1)));
        watch(&three, bench.sized(MINUTE, Duration::from_secs(2)))
    };
    let anchor = used(Three::swarm(bench)?)?;
    let skep = used(Three::skep(bench)?)?;
    let name = format!("{}: a swarm of {MANAGERS} managers", bench.docker()?.version()?);
    let cpu = Values { anchor: anchor.cpu, skep: skep.cpu, unit: "%" };
    let bytes = Values { anchor: anchor.bytes, skep: skep.bytes, unit: "B" };
    Ok(vec![
        Row::new("IDLE", "an idle minute, of one core, busiest node", name.clone(), cpu, Goal::AtMost(1.0)),
        Row::new("IDLE", "an idle minute, written by 3 nodes", name, bytes, Goal::AtMost(0.0)),
    ])
}

fn watch(three: &Three, time: Duration) -> Result<Used> {
    let read = || -> Result<Vec<BTreeMap<i32, Counters>>> {
        (1..=MANAGERS)
            .map(|number| {
                let pids = three.costs(number)?.into_iter().map(|cost| cost.pid);
                Ok(pids.filter_map(|pid| Some((pid, counters(pid)?))).collect())
            })
            .collect()
    };
    let before = read()?;
    thread::sleep(time);
    let after = read()?;
    let mut used = Used { cpu: 0.0, bytes: 0.0 };
    for (before, after) in before.iter().zip(&after) {
        let mut ticks = 0.0;
        for (pid, now) in after {
            // A process that began meanwhile is all this minute's.
            let then = before.get(pid).copied().unwrap_or_default();
            ticks += now.ticks - then.ticks;
            used.bytes += now.bytes - then.bytes;
        }
        used.cpu = used.cpu.max(ticks / TICKS_PER_SECOND / time.as_secs_f64() * 100.0);
    }
    Ok(used)
}

/// Fields 14 and 15 of `/proc/PID/stat` (utime, stime), and `write_bytes` of `/proc/PID/io`: see proc(5).
fn counters(pid: i32) -> Option<Counters> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name may hold blanks and brackets: fields count from the last bracket.
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace().skip(11);
    let (user, system): (f64, f64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    let io = fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    let bytes = io.lines().find_map(|line| line.strip_prefix("write_bytes: "))?.parse().ok()?;
    Some(Counters { ticks: user + system, bytes })
}
