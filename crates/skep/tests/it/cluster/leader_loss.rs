//! The leader is killed, stopped and started again, under writes: what was acknowledged stays.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use skep_lab::StopSignal;

use super::{Cluster, configs, write};

/// How many times the leader is lost; many more with `--soak`.
fn rounds() -> u32 {
    if std::env::var_os("SKEP_SOAK").is_some() { 50 } else { 3 }
}

/// How a leader is lost.
#[derive(Clone, Copy)]
enum Loss {
    Killed,
    Paused,
}

/// Writes over every manager while `disturb` runs; names of those that were acknowledged.
fn write_while(cluster: &Cluster, tag: &str, disturb: impl FnOnce()) -> BTreeSet<String> {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let writers: Vec<_> = (1..=cluster.managers)
            .map(|number| {
                let over = &over;
                scope.spawn(move || {
                    let mut acknowledged = BTreeSet::new();
                    let mut count = 0;
                    while !over.load(Ordering::Relaxed) {
                        let name = format!("{tag}-n{number}-{count}");
                        if write(cluster, number, &name).is_ok() {
                            acknowledged.insert(name);
                        }
                        count += 1;
                    }
                    acknowledged
                })
            })
            .collect();
        disturb();
        over.store(true, Ordering::Relaxed);
        writers.into_iter().flat_map(|writer| writer.join().expect("a writer does not panic")).collect()
    })
}

fn lose_leaders(managers: u8) {
    let cluster = Cluster::new(managers, 1);
    cluster.world.up("s", "services: { a: { <<: *idle, deploy: { replicas: 2 } } }");
    let tasks = |asked: u8| {
        cluster.world.ask(asked);
        let mut ids: Vec<_> = cluster.world.until_running("s_a", 2).into_iter().map(|task| task.id).collect();
        ids.sort();
        ids
    };
    let mut acknowledged = BTreeSet::new();
    for round in 0..rounds() {
        let loss = if round % 2 == 0 { Loss::Killed } else { Loss::Paused };
        let leader = cluster.leader();
        let other = cluster.other_manager(leader);
        acknowledged.append(&mut write_while(&cluster, &format!("r{round}"), || {
            cluster.world.ask(other);
            let node = cluster.node(leader);
            match loss {
                Loss::Killed => {
                    node.kill_daemon(StopSignal::Kill).unwrap();
                    cluster.until_led_by_another(other, leader);
                    node.start_daemon().unwrap();
                }
                Loss::Paused => {
                    node.pause().unwrap();
                    cluster.until_led_by_another(other, leader);
                    node.resume().unwrap();
                }
            }
        }));
        cluster.until_whole(usize::from(managers) + 1);
    }
    for number in 1..=managers {
        let found: BTreeSet<String> = configs(&cluster, number).unwrap().into_iter().collect();
        let lost: Vec<_> = acknowledged.difference(&found).collect();
        assert!(lost.is_empty(), "n{number} has not, of {} acknowledged writes: {lost:?}", acknowledged.len());
    }
    assert!(acknowledged.len() > 3, "writes went through: {}", acknowledged.len());
    tasks(cluster.leader());
}

#[test]
fn three_managers_keep_what_they_acknowledged_whoever_leads() {
    lose_leaders(3);
}

#[test]
fn five_managers_keep_what_they_acknowledged_whoever_leads() {
    lose_leaders(5);
}

#[test]
fn another_leader_restarts_no_task_and_moves_none() {
    let cluster = Cluster::new(3, 0);
    cluster.world.up("s", "services: { a: { <<: *idle, deploy: { replicas: 6 } } }");
    let leader = cluster.leader();
    let other = cluster.other_manager(leader);
    let picture = |asked: u8| {
        cluster.world.ask(asked);
        let mut tasks: Vec<_> = cluster.world.tasks("s_a").into_iter().map(|task| (task.id, task.node)).collect();
        tasks.sort();
        tasks
    };
    let before = picture(other);
    // In order: it hands over, and its own tasks run on without it.
    cluster.node(leader).kill_daemon(StopSignal::Term).unwrap();
    cluster.until_led_by_another(other, leader);
    write(&cluster, other, "after").ok().unwrap();
    assert_eq!(picture(other), before);
    cluster.node(leader).start_daemon().unwrap();
    cluster.until_whole(3);
    assert_eq!(picture(other), before);
}
