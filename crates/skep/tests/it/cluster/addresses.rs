//! Machines that get other addresses.

use skep_lab::StopSignal;

use super::{Cluster, configs, write};

/// Node `number` is at `198.51.100.(100 + number)` from now on, and its daemon starts anew.
fn move_node(cluster: &Cluster, number: u8) {
    let node = cluster.node(number);
    node.kill_daemon(StopSignal::Kill).unwrap();
    let (old, new) = (format!("198.51.100.{number}/24"), format!("{}/24", moved(number)));
    for args in [
        ["address", "del", &old, "dev", "eth0"].as_slice(),
        &["address", "add", &new, "dev", "eth0"],
        &["route", "replace", "default", "via", "198.51.100.254"],
    ] {
        node.run("ip", args).unwrap().ok().unwrap();
    }
    node.start_daemon().unwrap();
}

fn moved(number: u8) -> String {
    format!("198.51.100.{}", 100 + number)
}

fn until_listed_at(cluster: &Cluster, numbers: &[u8]) {
    cluster.world.until("the managers are listed at their new addresses", || {
        let rows = super::rows(&cluster.world, cluster.world.node(), &["node", "ls"])?;
        let infos = cluster.on(cluster.world.node().number(), &["info"]);
        let listed = numbers.iter().all(|number| infos.stdout.contains(&format!("{}:7377", moved(*number))));
        if listed { Ok(()) } else { Err(format!("{rows:?} {infos}")) }
    });
}

#[test]
fn a_manager_that_moved_is_found_again_with_no_hands() {
    let cluster = Cluster::new(3, 0);
    let leader = cluster.leader();
    let follower = cluster.other_manager(leader);
    cluster.world.ask(leader);
    move_node(&cluster, follower);
    cluster.until_whole(3);
    write(&cluster, follower, "from-there").ok().unwrap();
    assert_eq!(configs(&cluster, leader).unwrap(), ["from-there"]);
    until_listed_at(&cluster, &[follower]);
}

#[test]
fn a_cluster_whose_addresses_all_changed_is_put_together_without_a_token() {
    let cluster = Cluster::new(3, 1);
    write(&cluster, 1, "before").ok().unwrap();
    for number in 1..=4 {
        move_node(&cluster, number);
    }
    let first = format!("{}:7377", moved(1));
    for number in 2..=4 {
        cluster.on(number, &["join", "--reconnect", &first]).ok().unwrap();
    }
    cluster.until_whole(4);
    for number in 1..=3 {
        cluster.world.until("everybody has what was there", || match configs(&cluster, number)? {
            names if names == ["before"] => Ok(()),
            names => Err(format!("n{number}: {names:?}")),
        });
    }
    until_listed_at(&cluster, &[1, 2, 3]);
    let stranger = cluster.on(2, &["join", "--reconnect", "198.51.100.254:7377"]);
    assert!(!stranger.is_ok() && stranger.stderr.contains("198.51.100.254"), "{stranger}");
}
