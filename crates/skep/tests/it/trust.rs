//! Certificates in a real cluster: a CA that is rotated while a node is down, and a clock that is wrong.

use skep_lab::StopSignal;

use crate::world::World;

fn join(world: &World, node: u8, token: &str) -> skep_lab::Outcome {
    let manager = format!("{}:7377", world.node().address());
    world.skep_on(world.lab().node(node), &["join", "--token", token, &manager])
}

fn until_node(world: &World, name: &str, status: &str) {
    world.until(&format!("{name} is {status}"), || {
        let nodes = world.rows(&["node", "ls"]);
        let is = nodes.iter().any(|node| node["Hostname"] == name && node["Status"] == status);
        if is { Ok(()) } else { Err(format!("{nodes:?}")) }
    });
}

#[test]
fn a_rotation_of_the_ca_waits_for_no_node_that_is_down_and_that_node_comes_back_by_itself() {
    let world = World::of_nodes(3);
    world.ok(&["init"]);
    let old_token = world.ok(&["join-token", "--quiet", "worker"]).trim().to_owned();
    join(&world, 2, &old_token).ok().unwrap();
    until_node(&world, "n2", "Ready");
    let before = world.ok(&["swarm", "ca"]);
    assert!(before.contains("BEGIN CERTIFICATE"), "{before}");
    world.lab().node(2).kill_daemon(StopSignal::Kill).unwrap();

    let rotated = world.skep(&["swarm", "ca", "--rotate"]).ok().unwrap();
    assert_eq!(world.ok(&["swarm", "ca"]), rotated);
    assert_ne!(before, rotated);
    let refused = join(&world, 3, &old_token);
    assert!(refused.code != 0 && refused.stderr.contains("rotated"), "{refused}");
    let token = world.ok(&["join-token", "--quiet", "worker"]);
    join(&world, 3, token.trim()).ok().unwrap();
    until_node(&world, "n3", "Ready");

    // Rotated once more, with everybody there but the one: it misses two.
    world.ok(&["swarm", "ca", "--rotate", "--quiet"]);
    until_node(&world, "n2", "Down");
    world.lab().node(2).start_daemon().unwrap();
    until_node(&world, "n2", "Ready");
    until_node(&world, "n3", "Ready");
}

#[test]
fn a_node_whose_clock_is_wrong_joins_works_and_says_so() {
    let world = World::of_nodes(3);
    world.ok(&["init"]);
    let token = world.ok(&["join-token", "--quiet", "worker"]).trim().to_owned();
    const TEN_YEARS: i64 = 315_360_000;
    for (node, shift, says) in [(2, -TEN_YEARS, "waiting for it to be set"), (3, TEN_YEARS, "ahead of its manager's")] {
        let machine = world.lab().node(node);
        machine.write_config(&format!("clock_shift_seconds = {shift}\n")).unwrap();
        join(&world, node, &token).ok().unwrap();
        until_node(&world, machine.name(), "Ready");
        world.until("it says so", || {
            let info = world.skep_on(machine, &["info"]);
            if info.stderr.contains(says) { Ok(()) } else { Err(info.to_string()) }
        });
    }
}
