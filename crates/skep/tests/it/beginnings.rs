//! Beginning and joining: addresses that cannot be, ports in use, joins that wait, and nodes that come and go.

use std::net::TcpListener;
use std::thread;

use serde_json::Value;
use skep_lab::{Outcome, StopSignal};

use crate::world::World;

fn join(world: &World, number: u8, more: &[&str]) -> Outcome {
    let token = world.ok(&["join-token", "--quiet", "worker"]);
    let manager = format!("{}:7377", world.lab().node(1).address());
    world.skep_on(world.lab().node(number), &[&["join", "--token", token.trim()], more, &[&manager]].concat())
}

fn until_ready(world: &World, count: usize) {
    world.until(&format!("{count} nodes are ready"), || {
        let nodes = world.rows(&["node", "ls"]);
        let ready = nodes.iter().filter(|node| node["Status"] == "Ready").count();
        if ready == count { Ok(()) } else { Err(format!("{nodes:?}")) }
    });
}

#[test]
fn what_cannot_be_listened_on_or_advertised_is_refused_and_leaves_nothing() {
    let world = World::bare();
    for (flag, text, words) in [
        ("--advertise-addr", "0.0.0.0", "other nodes can reach this one at"),
        ("--advertise-addr", "224.0.0.1:7377", "other nodes can reach this one at"),
        ("--advertise-addr", "198.51.100.256", "no address to advertise"),
        ("--listen-addr", "nowhere:99", "no address to listen on"),
        ("--listen-addr", "198.51.100.77:7377", "198.51.100.77:7377"),
    ] {
        let told = world.refused(&["init", flag, text]);
        assert!(told.contains(words) && told.contains(text), "{flag} {text}: {told}");
        assert_eq!(world.named("skep daemon"), [0; 0], "{flag} {text} leaves no daemon");
    }
    let listener = world.node().in_netns(|| TcpListener::bind("0.0.0.0:7377").unwrap()).unwrap();
    let told = world.refused(&["init"]);
    assert!(told.contains("7377") && told.contains("in use"), "{told}");
    drop(listener);
    world.ok(&["init"]);
}

#[test]
fn nodes_join_drained_again_and_again_and_after_a_join_that_was_cut_short() {
    let world = World::of_nodes(3);
    world.ok(&["init", "--default-addr-pool", "10.99.0.0/16", "--default-addr-pool-mask-length", "24"]);

    // The pool is where all addresses come from.
    world.up(
        "s",
        "services: { all: { <<: *idle, deploy: { mode: global } }, two: { <<: *idle, deploy: { replicas: 2 } } }",
    );
    let network: Value = serde_json::from_str(&world.ok(&["network", "inspect", "s_default"])).unwrap();
    assert_eq!(network[0]["IPAM"]["Config"][0]["Subnet"], "10.99.0.0/24", "{network}");
    let own = world.sh("s_two.1", "ip -4 -o addr show scope global | awk '{print $4}'");
    assert!(own.starts_with("10.99.0."), "{own}");
    assert!(world.ok(&["node", "inspect", "n1"]).contains("10.99.240.1"), "the node's own is of the pool's end");

    join(&world, 2, &["--availability", "drain"]).ok().unwrap();
    until_ready(&world, 2);
    world.ok(&["service", "scale", "s_two=4"]);
    let on_second = |world: &World| {
        ["s_all", "s_two"].map(|name| world.running(name)).concat().into_iter().filter(|task| task.node == "n2").count()
    };
    assert_eq!(on_second(&world), 0, "a node that joins drained gets nothing");
    world.ok(&["node", "update", "--availability", "active", "n2"]);
    world.until("it has its task of the global service", || match on_second(&world) {
        1 => Ok(()),
        other => Err(other.to_string()),
    });

    // Nobody answers: the node's daemon dies while it waits, another begins, and there is nothing to leave.
    world.lab().unplug(1).unwrap();
    thread::scope(|scope| {
        let waits = scope.spawn(|| join(&world, 3, &[]));
        world.until("the join has begun", || match world.lab().node(3).daemon() {
            Ok(Some(_)) => Ok(()),
            other => Err(format!("{other:?}")),
        });
        world.lab().node(3).kill_daemon(StopSignal::Kill).unwrap();
        let cut = waits.join().unwrap();
        assert_ne!(cut.code, 0, "{cut}");
    });
    world.lab().node(3).start_daemon().unwrap();
    let left = world.skep_on(world.lab().node(3), &["leave"]);
    assert!(left.code != 0 && left.stderr.contains("not"), "{left}");
    world.lab().plug(1).unwrap();

    for _ in 0..4 {
        join(&world, 3, &[]).ok().unwrap();
        until_ready(&world, 3);
        world.skep_on(world.lab().node(3), &["leave"]).ok().unwrap();
        world.until("the node is down", || {
            let nodes = world.rows(&["node", "ls"]);
            let down = nodes.iter().find(|node| node["Hostname"] == "n3" && node["Status"] == "Down");
            down.map(|node| drop(world.ok(&["node", "rm", node["ID"].as_str().unwrap()]))).ok_or(format!("{nodes:?}"))
        });
    }
    join(&world, 3, &[]).ok().unwrap();
    until_ready(&world, 3);
    assert_eq!(world.rows(&["node", "ls"]).len(), 3);
    world.until_running("s_all", 3);
}
