//! Figures, not tests: run with `--run-ignored only -- measure --no-capture` and SKEP_TEST_KEEPER naming the real keeper.

use std::fs;
use std::time::{Duration, Instant};

use skep_runtime::plan::{Network, Seccomp};
use skep_runtime::{ExecPlan, Signal, State};

use crate::node::{Node, wait_exited};

fn kilobytes(pid: i32, field: &str) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("smaps");
    let line = rollup.lines().find(|line| line.starts_with(field)).expect("the field");
    line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
}

fn show(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |share: usize| times[(times.len() - 1) * share / 100].as_micros();
    println!("{what}: min {} µs, p50 {} µs, p95 {} µs", at(0), at(50), at(95));
}

#[test]
#[ignore = "a benchmark"]
fn measure() {
    let node = Node::new();
    let mut keeper_pss = Vec::new();
    let plans: Vec<_> = (0..30).map(|n| node.plan_of(&format!("c{n}"), &["sleep", "1000"])).collect();
    let containers: Vec<_> = plans.iter().map(|plan| node.start(plan)).collect();
    let keeper_group = node.cgroups().open(&node.config.cgroup_parent, "keeper").expect("cgroup");
    for pid in keeper_group.procs().expect("pids") {
        keeper_pss.push((
            pid == node.keeper.pid(),
            kilobytes(pid, "Pss:"),
            kilobytes(pid, "Private_Dirty:"),
            kilobytes(pid, "Rss:"),
        ));
    }
    let wardens: Vec<_> = keeper_pss.iter().filter(|(keeper, ..)| !keeper).collect();
    let mean =
        |pick: fn(&(bool, u64, u64, u64)) -> u64| wardens.iter().map(|w| pick(w)).sum::<u64>() / wardens.len() as u64;
    println!(
        "{} wardens: PSS {} kB, private dirty {} kB, RSS {} kB each",
        wardens.len(),
        mean(|w| w.1),
        mean(|w| w.2),
        mean(|w| w.3)
    );
    let keeper = keeper_pss.iter().find(|(keeper, ..)| *keeper).expect("the keeper");
    println!("keeper: PSS {} kB, private dirty {} kB, RSS {} kB", keeper.1, keeper.2, keeper.3);
    println!("cgroup's memory: {:?}", keeper_group.stats());

    let exec = ExecPlan::new(["/bin/true"]);
    show(
        "exec true",
        (0..300)
            .map(|_| {
                let begin = Instant::now();
                let session = containers[0].exec(&exec).expect("exec");
                session.exit.wait().expect("code");
                begin.elapsed()
            })
            .collect(),
    );
    for (plan, container) in plans.iter().zip(&containers) {
        container.signal(Signal::KILL).expect("kill");
        node.finish(plan, container);
    }

    run_to_exit(&node, "own network namespace", &Network::New);
    run_to_exit(&node, "network namespace given", &Network::Host);

    let begin = Instant::now();
    let plans: Vec<_> = (0..50).map(|n| node.plan_of(&format!("p{n}"), &["sleep", "1000"])).collect();
    let prepared = begin.elapsed();
    std::thread::scope(|scope| {
        for plan in &plans {
            scope.spawn(|| node.start(plan));
        }
    });
    println!("50 started at once: {} ms (plans {} ms)", (begin.elapsed() - prepared).as_millis(), prepared.as_millis());
    for plan in &plans {
        let container = node.open(&plan.id);
        assert!(matches!(container.state().expect("state"), State::Running { .. }));
        container.signal(Signal::KILL).expect("kill");
        wait_exited(&container);
        container.release().expect("release");
    }
}

/// Static `true` with Docker's filter, from the plan to its exit.
fn run_to_exit(node: &Node, what: &str, network: &Network) {
    let (mut whole, mut create, mut start) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..200 {
        let mut plan = node.plan_of(&format!("t{n}-{}", *network == Network::New), &["/bin/true"]);
        plan.seccomp = Seccomp::docker_default(plan.capabilities).expect("it compiles");
        plan.network = network.clone();
        let begin = Instant::now();
        node.keeper.create(&plan).expect("create");
        create.push(begin.elapsed());
        let container = node.open(&plan.id);
        let events = container.subscribe().expect("subscribe");
        let gate = Instant::now();
        container.start().expect("start");
        start.push(gate.elapsed());
        events.wait_event().expect("exit");
        whole.push(begin.elapsed());
        container.release().expect("release");
    }
    println!("{what}:");
    show("  create", create);
    show("  start", start);
    show("  create, start, exit of true", whole);
}
