//! Becoming and ceasing to be a manager.

use super::{Cluster, configs, join, rows, write};
use crate::world::World;

#[test]
fn managers_join_and_each_answers_and_writes() {
    let cluster = Cluster::new(3, 1);
    for number in 1..=3 {
        write(&cluster, number, &format!("from-n{number}")).ok().unwrap();
    }
    for number in 1..=3 {
        assert_eq!(configs(&cluster, number).unwrap(), ["from-n1", "from-n2", "from-n3"], "n{number}");
    }
    // Logs and exec go to the agent wherever its session is.
    cluster.world.up(
        "s",
        "services: { a: { <<: *idle, command: [\"sh\", \"-c\", \"echo hello; exec sleep 100000\"], deploy: { mode: global } } }",
    );
    for number in 1..=3 {
        let logs = cluster.on(number, &["service", "logs", "s_a"]).ok().unwrap();
        assert_eq!(logs.matches("hello").count(), 4, "n{number}: {logs}");
    }
    for task in cluster.world.running("s_a") {
        for number in 1..=3 {
            let outcome = cluster.on(number, &["exec", &task.id, "hostname"]);
            assert!(outcome.is_ok(), "n{number}: {outcome}");
        }
    }
}

#[test]
fn a_worker_is_promoted_and_demoted_and_its_containers_do_not_notice() {
    let cluster = Cluster::new(1, 2);
    cluster.world.up("s", "services: { a: { <<: *idle, deploy: { mode: global } } }");
    let ids = || {
        let mut ids: Vec<_> = cluster.world.running("s_a").into_iter().map(|task| task.id).collect();
        ids.sort();
        ids
    };
    let before = ids();
    let promoted = cluster.on(1, &["node", "promote", "n2", "n3"]);
    assert!(promoted.is_ok(), "{promoted}");
    assert!(promoted.stderr.contains("odd number"), "two managers are warned about: {promoted}");
    cluster.world.until("each of the three answers", || {
        (1..=3).try_for_each(|number| rows(&cluster.world, cluster.node(number), &["node", "ls"]).map(drop))
    });
    write(&cluster, 3, "from-n3").ok().unwrap();
    // The one that leads goes, too.
    cluster.world.ask(2);
    let demoted = cluster.on(2, &["node", "demote", "n1"]);
    assert!(demoted.is_ok(), "{demoted}");
    cluster.world.until("n1 is a worker", || match cluster.on(1, &["service", "ls"]) {
        refused if refused.stderr.contains("not a manager") => Ok(()),
        other => Err(other.to_string()),
    });
    cluster.until_whole(3);
    write(&cluster, 2, "after").ok().unwrap();
    assert_eq!(ids(), before);
    let last = cluster.on(2, &["node", "demote", "n3"]);
    assert!(last.is_ok(), "{last}");
    let refused = cluster.on(2, &["node", "demote", "n2"]);
    assert!(!refused.is_ok() && refused.stderr.contains("last manager"), "{refused}");
    assert_eq!(ids(), before);
}

#[test]
fn a_manager_that_leaves_is_out_and_can_join_anew() {
    let cluster = Cluster::new(3, 0);
    let left = cluster.on(3, &["leave"]);
    assert!(left.is_ok(), "{left}");
    let row = |status: &str| {
        let rows = rows(&cluster.world, cluster.node(1), &["node", "ls"])?;
        let found = rows.iter().find(|row| row["Hostname"] == "n3" && row["Status"] == status).cloned();
        found.ok_or_else(|| format!("{rows:?}"))
    };
    let gone = cluster.world.until("n3 is down", || row("Down"));
    assert_eq!(gone["ManagerStatus"], "", "{gone}");
    cluster.on(1, &["node", "rm", "n3"]).ok().unwrap();
    // Two are left, and both are needed: nothing of the third is waited for.
    write(&cluster, 2, "with-two").ok().unwrap();
    join(&cluster.world, 3, "manager").ok().unwrap();
    cluster.until_whole(3);
    assert_eq!(configs(&cluster, 3).unwrap(), ["with-two"]);
}

#[test]
fn a_removed_nodes_certificate_is_worth_nothing() {
    let cluster = Cluster::new(1, 1);
    let world: &World = &cluster.world;
    cluster.on(1, &["node", "rm", "--force", "n2"]).ok().unwrap();
    world.until("n2 has no session any more", || {
        let info = cluster.on(2, &["info"]);
        let log = std::fs::read_to_string(cluster.node(2).daemon_log()).unwrap_or_default()
            + &std::fs::read_to_string(cluster.node(2).data_dir().join("daemon.log")).unwrap_or_default();
        match log.contains("no longer") {
            true => Ok(()),
            false => Err(format!("{info}")),
        }
    });
    assert_eq!(world.rows(&["node", "ls"]).len(), 1);
    cluster.on(2, &["leave", "--force"]).ok().unwrap();
    join(world, 2, "worker").ok().unwrap();
    cluster.until_whole(2);
}
