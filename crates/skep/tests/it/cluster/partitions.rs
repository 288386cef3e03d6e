//! Managers that do not hear each other, and what is left without a quorum.

use skep_lab::{Direction, StopSignal};

use super::{Cluster, configs, rows, write};

#[test]
fn a_leader_that_is_cut_off_acknowledges_nothing_and_the_rest_goes_on() {
    let cluster = Cluster::new(3, 0);
    let leader = cluster.leader();
    let others: Vec<u8> = (1..=3).filter(|number| *number != leader).collect();
    write(&cluster, leader, "before").ok().unwrap();
    cluster.world.lab().partition(&[leader], &others, Direction::Both).unwrap();
    cluster.until_led_by_another(others[0], leader);
    write(&cluster, others[1], "by-the-majority").ok().unwrap();
    let refused = write(&cluster, leader, "by-the-minority");
    assert!(!refused.is_ok(), "{refused}");
    // It still answers, and says what its answer is worth.
    let read = cluster.on(leader, &["config", "ls", "--format", "{{.Name}}"]);
    assert!(read.is_ok() && read.stdout.contains("before") && !read.stdout.contains("by-the-majority"), "{read}");
    assert!(read.stderr.contains("warning:"), "{read}");
    cluster.world.lab().heal().unwrap();
    cluster.world.ask(leader);
    cluster.until_whole(3);
    for number in 1..=3 {
        let names = configs(&cluster, number).unwrap();
        assert!(names.contains(&"by-the-majority".to_owned()), "n{number}: {names:?}");
        assert!(!names.contains(&"by-the-minority".to_owned()), "n{number}: {names:?}");
    }
}

#[test]
fn a_manager_that_hears_and_is_not_heard_or_the_reverse_unseats_nobody_for_good() {
    let cluster = Cluster::new(3, 0);
    for (number, direction) in [(1, Direction::OneWay), (2, Direction::OneWay)] {
        let leader = cluster.leader();
        let follower = cluster.other_manager(leader);
        let rest: Vec<u8> = (1..=3).filter(|other| *other != follower).collect();
        match number {
            1 => cluster.world.lab().partition(&[follower], &rest, direction).unwrap(),
            _ => cluster.world.lab().partition(&rest, &[follower], direction).unwrap(),
        }
        // The two that hear each other have a quorum, whoever of them leads.
        for round in 0..3 {
            cluster.world.until("a write goes through", || {
                match write(&cluster, leader, &format!("w{number}-{round}")) {
                    outcome if outcome.is_ok() || outcome.stderr.contains("already exists") => Ok(()),
                    outcome => Err(outcome.to_string()),
                }
            });
        }
        cluster.world.lab().heal().unwrap();
        cluster.until_whole(3);
        cluster.world.until("the follower has caught up", || {
            let names = configs(&cluster, follower)?;
            if names.contains(&format!("w{number}-2")) { Ok(()) } else { Err(format!("{names:?}")) }
        });
    }
}

#[test]
fn without_a_quorum_reads_answer_and_writes_name_who_is_missing() {
    let cluster = Cluster::new(3, 1);
    cluster.world.up("s", "services: { a: { <<: *idle, deploy: { mode: global } } }");
    write(&cluster, 1, "before").ok().unwrap();
    for number in [2, 3] {
        cluster.node(number).kill_daemon(StopSignal::Kill).unwrap();
    }
    let read = cluster.on(1, &["config", "ls", "--format", "{{.Name}}"]);
    assert!(read.is_ok() && read.stdout.contains("before"), "{read}");
    cluster.world.until("the read says who is missing", || {
        let read = cluster.on(1, &["node", "ls"]);
        let named = ["n2", "n3"].iter().all(|name| read.stderr.contains(name));
        if read.is_ok() && named { Ok(()) } else { Err(read.to_string()) }
    });
    let refused = write(&cluster, 1, "without");
    assert_eq!(refused.code, 4, "no quorum has an exit code of its own: {refused}");
    for address in ["198.51.100.2:7377", "198.51.100.3:7377"] {
        assert!(refused.stderr.contains(address), "{refused}");
    }
    cluster.node(2).start_daemon().unwrap();
    cluster.world.until("a write goes through", || match write(&cluster, 1, "with-two") {
        outcome if outcome.is_ok() || outcome.stderr.contains("already exists") => Ok(()),
        outcome => Err(outcome.to_string()),
    });
    cluster.node(3).start_daemon().unwrap();
    cluster.until_whole(4);
    assert_eq!(rows(&cluster.world, cluster.node(3), &["config", "ls"]).unwrap().len(), 2);
}

#[test]
fn after_a_power_cut_of_all_nodes_they_come_back_in_any_order() {
    let cluster = Cluster::new(3, 1);
    cluster.world.up("s", "services: { a: { <<: *idle, deploy: { mode: global } } }");
    write(&cluster, 1, "before").ok().unwrap();
    for number in 1..=4 {
        cluster.node(number).kill_everything().unwrap();
    }
    for number in [4, 3, 1, 2] {
        cluster.node(number).start_daemon().unwrap();
    }
    cluster.until_whole(4);
    assert_eq!(configs(&cluster, 2).unwrap(), ["before"]);
    cluster.world.until_running("s_a", 4);
    write(&cluster, 4 - 1, "after").ok().unwrap();
}
