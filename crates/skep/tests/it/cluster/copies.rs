//! Two machines with one identity, as a cloned SD card makes them.

use skep_lab::{Direction, Node, StopSignal};

use super::Cluster;
use crate::world::World;

#[test]
fn a_copy_of_a_node_is_refused_by_every_manager_and_runs_nothing() {
    let cluster = Cluster::in_world(World::of_nodes(5), 3, 1, &[]);
    let (world, lab) = (&cluster.world, cluster.world.lab());
    world.up("s", "services: { a: { <<: *idle, deploy: { placement: { constraints: [node.hostname==n4] } } } }");
    let task = world.running("s_a")[0].clone();
    let copy = cluster.node(5);
    clone_disk(cluster.node(4), copy);
    for manager in 1..=3 {
        let others: Vec<u8> = (1..=3).filter(|other| *other != manager).collect();
        lab.partition(&[5], &others, Direction::Both).unwrap();
        copy.start_daemon().unwrap();
        world.until(&format!("n{manager} refuses the copy"), || match cluster.on(5, &["info"]) {
            info if info.stderr.contains("in use by another machine") => {
                assert!(info.stderr.contains("skep leave --force"), "{info}");
                Ok(())
            }
            info => Err(info.to_string()),
        });
        assert_eq!(cluster.on(5, &["ps", "--quiet"]).stdout, "", "what the copied disk remembers runs elsewhere");
        copy.kill_daemon(StopSignal::Term).unwrap();
        lab.heal().unwrap();
    }
    cluster.until_whole(4);
    let now = &world.until_running("s_a", 1)[0];
    assert_eq!((&now.id, &now.node), (&task.id, &task.node), "the node that was there first goes on");
    // What it was told to do.
    copy.start_daemon().unwrap();
    cluster.on(5, &["leave", "--force"]).ok().unwrap();
    super::join(world, 5, "worker").ok().unwrap();
    cluster.until_whole(5);
}

fn clone_disk(from: &Node, to: &Node) {
    std::fs::create_dir_all(to.data_dir()).unwrap();
    let (from, to) = (from.data_dir().join("."), to.data_dir());
    let copied = std::process::Command::new("cp").arg("-a").args([from, to]).status().unwrap();
    assert!(copied.success());
}
