//! B3 and B4: a manager dies, and how long the others take to go on without it.

use anyhow::Result;

use super::measure::median;
use super::row::{Goal, Row, Values};
use super::three::{MANAGERS, Three};
use super::tools::Bench;

const REPLICAS: usize = 60;
const QUICK_REPLICAS: usize = 6;

/// B3: SIGKILL of the leader's daemon, until another manager accepts a write.
pub fn next_write(bench: &Bench) -> Result<Vec<Row>> {
    let once = |three: Three| {
        let leader = three.leader()?;
        three.kill_daemon(leader)?;
        three.wait_for_write(Three::beside(leader))
    };
    let anchor = median(bench.runs, || once(Three::swarm(bench)?))?;
    let skep = median(bench.runs, || once(Three::skep(bench)?))?;
    let values = Values { anchor, skep, unit: "s" };
    let work = "leader's daemon killed, until the next write";
    Ok(vec![Row::new("B3", work, swarm(bench)?, values, Goal::AtMost(1.5))])
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Victim {
    Leader,
    Follower,
}

/// B4: a node killed with all that it runs, until its tasks run on the others.
pub fn tasks_elsewhere(bench: &Bench) -> Result<Vec<Row>> {
    let replicas = bench.sized(REPLICAS, QUICK_REPLICAS);
    let once = |three: Three, victim: Victim| {
        three.deploy(replicas)?;
        let leader = three.leader()?;
        let (dead, observer) = match victim {
            Victim::Leader => (leader, Three::beside(leader)),
            Victim::Follower => (Three::beside(leader), leader),
        };
        three.node(dead).kill_everything()?;
        three.wait_for_tasks(observer, replicas, Some(dead))
    };
    [(Victim::Leader, "the leader's"), (Victim::Follower, "a follower's")]
        .into_iter()
        .map(|(victim, whose)| {
            let anchor = median(bench.runs, || once(Three::swarm(bench)?, victim))?;
            let skep = median(bench.runs, || once(Three::skep(bench)?, victim))?;
            let values = Values { anchor, skep, unit: "s" };
            let work = format!("{whose} node killed, until {replicas} tasks run elsewhere");
            Ok(Row::new("B4", work, swarm(bench)?, values, Goal::AtMost(8.0)))
        })
        .collect()
}

fn swarm(bench: &Bench) -> Result<String> {
    Ok(format!("{}: a swarm of {MANAGERS} managers", bench.docker()?.version()?))
}
