//! Managers whose keys are locked.

use skep_lab::StopSignal;

use super::{Cluster, configs, write};
use crate::unlock::{said, unlock};

#[test]
fn locked_managers_come_back_one_by_one_and_the_cluster_with_the_second() {
    let cluster = Cluster::new(3, 0);
    let world = &cluster.world;
    write(&cluster, 1, "before").ok().unwrap();
    world.ok(&["swarm", "update", "--autolock"]);
    let key = world.ok(&["swarm", "unlock-key", "-q"]).trim().to_owned();
    for number in 1..=3 {
        let identity = cluster.node(number).data_dir().join("identity");
        world.until(&format!("the keys of n{number} are locked"), || {
            let clear = identity.join("raft.key").exists() || identity.join("key.pem").exists();
            if identity.join("locked").exists() && !clear { Ok(()) } else { Err(format!("in the clear: {clear}")) }
        });
    }
    // One of them locked, the others go on.
    cluster.node(3).kill_daemon(StopSignal::Kill).unwrap();
    cluster.node(3).start_daemon().unwrap();
    write(&cluster, 2, "while-one-is-locked").ok().unwrap();
    let told = cluster.on(3, &["config", "ls"]);
    assert!(!told.is_ok() && told.stderr.contains("skep unlock"), "{told}");

    for number in 1..=3 {
        cluster.node(number).kill_daemon(StopSignal::Kill).unwrap();
        cluster.node(number).start_daemon().unwrap();
    }
    for number in [3, 1] {
        let unlocked = unlock(world, cluster.node(number), &key);
        assert!(unlocked.status.success(), "n{number}: {}", said(&unlocked));
    }
    world.until("two of three write", || match write(&cluster, 1, "with-two") {
        outcome if outcome.is_ok() || outcome.stderr.contains("already exists") => Ok(()),
        outcome => Err(outcome.to_string()),
    });
    let unlocked = unlock(world, cluster.node(2), &key);
    assert!(unlocked.status.success(), "{}", said(&unlocked));
    cluster.until_whole(3);
    for number in 1..=3 {
        assert_eq!(configs(&cluster, number).unwrap(), ["before", "while-one-is-locked", "with-two"], "n{number}");
    }
}
