//! Most managers are lost for good, and the one that is left goes on alone.

use super::{Cluster, configs, rows, write};

#[test]
fn the_manager_that_is_left_goes_on_alone_with_everything_and_with_its_workers() {
    let cluster = Cluster::new(3, 1);
    let world = &cluster.world;
    world.up("s", "services: { a: { <<: *idle, deploy: { placement: { constraints: [\"node.hostname == n4\"] } } } }");
    let task = world.running("s_a")[0].clone();
    assert!(write(&cluster, 1, "before").is_ok());
    let refused = world.refused(&["cluster", "recover", "--yes"]);
    assert!(refused.contains("3 of 3 managers answer"), "{refused}");

    for lost in [2, 3] {
        cluster.node(lost).kill_everything().unwrap();
    }
    let unasked = world.refused(&["cluster", "recover"]);
    assert!(unasked.contains("n2") && unasked.contains("n3") && unasked.contains("nothing was changed"), "{unasked}");
    let done = world.ok(&["cluster", "recover", "--yes"]);
    assert!(done.contains("raft-before-recovery-") && done.contains("n2") && done.contains("n3"), "{done}");
    world.until("a write is acknowledged", || {
        let written = write(&cluster, 1, "after");
        if written.is_ok() { Ok(()) } else { Err(written.to_string()) }
    });
    assert_eq!(configs(&cluster, 1).unwrap(), ["after", "before"]);
    world.until("the worker is back with the same task, and the lost are no managers", || {
        let nodes = rows(world, world.node(), &["node", "ls"])?;
        let seen: Vec<String> = nodes
            .iter()
            .map(|node| {
                let word = |key: &str| node[key].as_str().unwrap_or_default();
                format!("{} {} {}", word("Hostname"), word("Status"), word("ManagerStatus"))
            })
            .collect();
        let expected = ["n1 Ready Leader", "n2 Down ", "n3 Down ", "n4 Ready "];
        let running = world.running("s_a");
        match expected.iter().all(|line| seen.iter().any(|row| row == line)) && running.len() == 1 {
            true if running[0].id == task.id => Ok(()),
            _ => Err(format!("{seen:?} {running:?}")),
        }
    });
    // What it is now is on its disk.
    world.crash_daemon();
    world.start_daemon();
    world.up("t", "services: { b: { <<: *idle } }");
}
