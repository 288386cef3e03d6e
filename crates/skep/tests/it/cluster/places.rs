//! Where tasks run and why: drains that wait, labels that go, nodes that join, data that stays, and the words for it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::Value;
use skep_lab::http_get;

use super::{Cluster, join};
use crate::draining::WEB;
use crate::world::World;

fn nodes_of(world: &World, service: &str) -> Vec<String> {
    let mut nodes: Vec<String> = world.running(service).into_iter().map(|task| task.node).collect();
    nodes.sort();
    nodes
}

#[test]
fn a_drain_waits_leaves_enough_serving_and_no_request_fails() {
    let cluster = Cluster::new(1, 2);
    let world = &cluster.world;
    world.up(
        "s",
        &format!(
            "{WEB}services:\n  web:\n    <<: *web\n    x-skep: {{ min-available: 3 }}\n    deploy: {{ replicas: 4, \
             placement: {{ constraints: [\"node.role == worker\"] }} }}\n"
        ),
    );
    assert_eq!(nodes_of(world, "s_web"), ["n2", "n2", "n3", "n3"]);
    let address = SocketAddr::new(cluster.node(1).address().into(), 8080);
    let over = AtomicBool::new(false);
    let (answers, least) = thread::scope(|scope| {
        let client = scope.spawn(|| {
            let mut answers = Vec::new();
            while !over.load(Ordering::Relaxed) {
                answers.push(world.lab().outside(|| http_get(address, "/")).unwrap());
            }
            answers
        });
        let watcher = scope.spawn(|| {
            let mut least = usize::MAX;
            while !over.load(Ordering::Relaxed) {
                least = least.min(world.running("s_web").len());
            }
            least
        });
        let told = world.ok(&["node", "update", "--availability", "drain", "n2"]);
        over.store(true, Ordering::Relaxed);
        assert!(told.contains("min-available 3") && told.contains("2/2 running elsewhere"), "{told}");
        (client.join().expect("no panic"), watcher.join().expect("no panic"))
    });
    // It has waited: nothing is to be waited for now.
    assert_eq!(nodes_of(world, "s_web"), ["n3"; 4]);
    assert!(least >= 3, "{least} of 4 were wanted");
    let failed: Vec<String> =
        answers.iter().filter_map(|it| it.as_ref().err()).map(|error| format!("{error:#}")).collect();
    assert_eq!(failed, [""; 0], "of {} requests", answers.len());
    assert!(answers.len() > 5, "{} requests", answers.len());
    let stopped = world.tasks("s_web").into_iter().find(|task| task.node == "n2").unwrap();
    assert!(stopped.error.contains("its node n2 is drained"), "{stopped:?}");
}

#[test]
fn what_finds_no_place_is_told_node_by_node_with_what_would_mend_it() {
    let cluster = Cluster::new(1, 1);
    let world = &cluster.world;
    let wants = |label: &str| {
        format!(
            "services: {{ a: {{ <<: *idle, deploy: {{ placement: {{ constraints: [\"node.labels.disk == {label}\"] }} }} }} }}"
        )
    };
    let refused = world.deploy("s", &wants("ssd"));
    assert_eq!(refused.code, 2, "{refused}");
    for words in [
        "no suitable node (scheduling constraints not satisfied on 2 nodes)",
        "n1: node.labels.disk == ssd: it has no node.labels.disk",
        "skep node update --label-add disk=ssd NODE",
    ] {
        assert!(refused.stderr.contains(words), "{words}: {refused}");
    }
    let explained = world.ok(&["service", "explain", "s_a"]);
    assert!(explained.contains("no: constraints") && explained.contains("To mend it:"), "{explained}");
    world.ok(&["node", "update", "--label-add", "disk=ssd", "n2"]);
    world.until_running("s_a", 1);
    let explained: Value =
        serde_json::from_str(&world.ok(&["service", "explain", "--format", "json", "s_a.1"])).unwrap();
    assert_eq!(explained["Tasks"][0]["Why"], "node.labels.disk == ssd", "{explained}");
    let verdict = |name: &str| {
        let nodes = explained["Nodes"].as_array().unwrap();
        nodes.iter().find(|node| node["Hostname"] == name).unwrap_or_else(|| panic!("{explained}"))["Fits"].clone()
    };
    assert_eq!((verdict("n1"), verdict("n2")), (false.into(), true.into()));
    // The label moves, and the task with it.
    world.ok(&["node", "update", "--label-add", "disk=ssd", "n1"]);
    world.ok(&["node", "update", "--label-rm", "disk", "n2"]);
    world.until("the task runs on n1", || match world.running("s_a").as_slice() {
        [task] if task.node == "n1" => Ok(()),
        tasks => Err(format!("{tasks:?}")),
    });
    let stopped = world.tasks("s_a").into_iter().find(|task| task.node == "n2").unwrap();
    assert!(stopped.error.contains("n2 no longer satisfies node.labels.disk == ssd"), "{stopped:?}");
}

#[test]
fn a_node_that_joins_gets_its_share_when_it_is_asked_for() {
    let cluster = Cluster::in_world(World::of_nodes(3), 1, 1, &[]);
    let world = &cluster.world;
    world.up(
        "s",
        "services:\n\
         \x20 still: { <<: *idle, deploy: { replicas: 3 } }\n\
         \x20 joins: { <<: *idle, x-skep: { rebalance: on-join }, deploy: { replicas: 3, update_config: { order: start-first } } }\n",
    );
    join(world, 3, "worker").ok().unwrap();
    world.until("the new node has a task of the service that said so", || match nodes_of(world, "s_joins") {
        nodes if nodes == ["n1", "n2", "n3"] => Ok(()),
        nodes => Err(format!("{nodes:?}")),
    });
    assert!(!nodes_of(world, "s_still").contains(&"n3".to_owned()));
    let told = world.ok(&["service", "rebalance", "s_still"]);
    assert_eq!(nodes_of(world, "s_still"), ["n1", "n2", "n3"], "{told}");
    // Even already: nothing moves.
    let before: Vec<String> = world.running("s_still").into_iter().map(|task| task.id).collect();
    world.ok(&["service", "rebalance"]);
    let after: Vec<String> = world.running("s_still").into_iter().map(|task| task.id).collect();
    assert_eq!(before, after);
}

#[test]
fn a_task_stays_where_its_volume_is_until_its_node_is_drained() {
    let cluster = Cluster::new(1, 2);
    let world = &cluster.world;
    let deploy = |version: u32| {
        world.up(
            "s",
            &format!(
                "services:\n  db: {{ <<: *idle, environment: {{ VERSION: \"{version}\" }}, volumes: [\"data:/data\"] }}\n\
                 volumes: {{ data: {{}} }}\n"
            ),
        );
    };
    deploy(1);
    let home = world.running("s_db")[0].node.clone();
    world.sh("s_db.1", "echo kept > /data/file");
    // Elsewhere there is less to do.
    world.up(
        "busy",
        &format!(
            "services: {{ a: {{ <<: *idle, deploy: {{ replicas: 4, placement: {{ constraints: [\"node.hostname == {home}\"] }} }} }} }}"
        ),
    );
    for version in [2, 3] {
        deploy(version);
        assert_eq!(nodes_of(world, "s_db"), [home.as_str()], "version {version}");
        assert_eq!(world.sh("s_db.1", "cat /data/file"), "kept");
    }
    let explained = world.ok(&["service", "explain", "s_db"]);
    assert!(explained.contains(&format!("stays on {home}: its volume s_data is there")), "{explained}");
    let drained = world.skep(&["node", "update", "--availability", "drain", &home]);
    assert!(drained.is_ok() || drained.code == 2, "{drained}");
    assert!(drained.stderr.contains(&format!("s_db.1 leaves its data on {home} (volume s_data)")), "{drained}");
    let moved = world.running("s_db")[0].node.clone();
    assert_ne!(moved, home);
}

#[test]
fn generic_resources_are_given_by_name_and_told_to_the_container() {
    let world = World::of_nodes(2);
    world.lab().node(2).write_config("generic_resources = [\"gpu=UUID1\", \"gpu=UUID2\", \"apple=3\"]\n").unwrap();
    let cluster = Cluster::in_world(world, 1, 1, &[]);
    let world = &cluster.world;
    let service = |replicas: u8| {
        format!(
            "services:\n  a:\n    <<: *idle\n    deploy:\n      replicas: {replicas}\n      resources: {{ reservations: {{ generic_resources: [\n        \
             {{ discrete_resource_spec: {{ kind: gpu, value: 1 }} }}, {{ discrete_resource_spec: {{ kind: apple, value: 1 }} }}] }} }}\n"
        )
    };
    world.up("s", &service(2));
    assert_eq!(nodes_of(world, "s_a"), ["n2", "n2"]);
    let mut told: Vec<String> =
        ["s_a.1", "s_a.2"].map(|task| world.sh(task, "echo $DOCKER_RESOURCE_GPU $DOCKER_RESOURCE_APPLE")).into();
    told.sort();
    assert_eq!(told, ["UUID1 1", "UUID2 1"]);
    let refused = world.deploy("s", &service(3));
    assert_eq!(refused.code, 2, "{refused}");
    assert!(refused.stderr.contains("n2: 0 gpu free, 1 reserved by each task"), "{refused}");
    let inspected = world.ok(&["node", "inspect", "n2"]);
    assert!(inspected.contains("NamedResourceSpec") && inspected.contains("UUID2"), "{inspected}");
}

#[test]
fn a_cluster_may_pack_and_a_service_may_be_with_another_or_apart() {
    let cluster = Cluster::new(1, 2);
    let world = &cluster.world;
    world.ok(&["swarm", "update", "--placement", "binpack"]);
    world.up(
        "s",
        "services:\n\
         \x20 packed: { <<: *idle, deploy: { replicas: 3 } }\n\
         \x20 spread: { <<: *idle, x-skep: { placement: spread }, deploy: { replicas: 3 } }\n",
    );
    let packed = nodes_of(world, "s_packed");
    assert!(packed.iter().all(|node| *node == packed[0]), "{packed:?}");
    assert_eq!(nodes_of(world, "s_spread"), ["n1", "n2", "n3"]);
    world.up(
        "t",
        "services:\n\
         \x20 db: { <<: *idle }\n\
         \x20 app: { <<: *idle, x-skep: { affinity: [db], placement: spread }, deploy: { replicas: 2 } }\n\
         \x20 far: { <<: *idle, x-skep: { anti-affinity: [db] }, deploy: { replicas: 2 } }\n",
    );
    let db = nodes_of(world, "t_db")[0].clone();
    assert_eq!(nodes_of(world, "t_app"), [db.as_str(); 2]);
    assert!(!nodes_of(world, "t_far").contains(&db), "{db}");
}
