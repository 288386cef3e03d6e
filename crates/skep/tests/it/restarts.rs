//! Replicas, modes and restart policies.

use crate::world::World;

#[test]
fn a_policy_without_restarts_runs_once_whatever_the_outcome() {
    let world = World::new();
    world.up(
        "s",
        "services: { once: { image: \"${REGISTRY}/busybox:1\", command: \"true\", deploy: { restart_policy: { condition: none } } } }",
    );
    let tasks = world.tasks("s_once");
    assert_eq!((tasks.len(), tasks[0].state.as_str()), (1, "Complete"), "{tasks:?}");
    let failing = world
        .deploy("t", "services: { once: { image: \"${REGISTRY}/busybox:1\", command: \"false\", restart: \"no\" } }");
    assert_eq!(failing.code, 1, "{failing}");
    let tasks = world.tasks("t_once");
    assert_eq!((tasks.len(), tasks[0].state.as_str()), (1, "Failed"), "{tasks:?}");
}

#[test]
fn attempts_are_counted_and_then_it_gives_up() {
    let world = World::new();
    let outcome = world.deploy(
        "s",
        "services: { a: { image: \"${REGISTRY}/busybox:1\", command: \"false\", deploy: { restart_policy: { condition: on-failure, max_attempts: 1, delay: 100ms } } } }",
    );
    assert_eq!(outcome.code, 1, "{outcome}");
    let tasks = world.tasks("s_a");
    assert_eq!(tasks.len(), 2, "{tasks:?}");
    assert!(tasks.iter().all(|task| task.state == "Failed"), "{tasks:?}");
}

#[test]
fn a_container_that_ends_well_is_started_again_when_any_end_counts() {
    let world = World::new();
    world.start(
        "s",
        "services: { a: { image: \"${REGISTRY}/busybox:1\", command: \"true\", deploy: { restart_policy: { delay: 100ms } } } }",
    );
    world.until("it completed more than once", || {
        let tasks = world.tasks("s_a");
        let complete = tasks.iter().filter(|task| task.state == "Complete").count();
        if complete >= 2 { Ok(()) } else { Err(format!("{tasks:?}")) }
    });
}

#[test]
fn replicas_are_added_and_taken_away_and_a_global_service_has_one_a_node() {
    let world = World::new();
    world.up(
        "s",
        "services:\n  a: { <<: *idle, deploy: { replicas: 2 } }\n  g: { <<: *idle, deploy: { mode: global } }\n",
    );
    let names = |service: &str| world.running(service).into_iter().map(|task| task.name).collect::<Vec<_>>();
    assert_eq!(names("s_a"), ["s_a.1", "s_a.2"]);
    assert_eq!(names("s_g").len(), 1);
    world.ok(&["service", "scale", "s_a=4"]);
    assert_eq!(names("s_a"), ["s_a.1", "s_a.2", "s_a.3", "s_a.4"]);
    world.ok(&["service", "scale", "s_a=1"]);
    world.until_running("s_a", 1);
    world.until("one container of each is left", || {
        let containers = world.ok(&["ps", "-q"]);
        if containers.lines().count() == 2 { Ok(()) } else { Err(containers) }
    });
    let refused = world.refused(&["service", "scale", "s_g=2"]);
    assert!(refused.contains("s_g") && refused.contains("global"), "{refused}");
    let listed = world.ok(&["service", "ls", "--format", "{{.Name}} {{.Mode}} {{.Replicas}}"]);
    assert_eq!(listed, "s_a replicated 1/1\ns_g global 1/1\n");
    world.ok(&["service", "scale", "s_a=0"]);
    world.until_running("s_a", 0);
}

#[test]
fn a_drained_node_is_left_and_an_active_one_taken_again() {
    let world = World::new();
    world.up("s", "services: { a: { <<: *idle } }");
    let drained = world.skep(&["node", "update", "--availability", "drain", "n1"]);
    assert_eq!(drained.code, 2, "{drained}");
    assert!(drained.stderr.contains("s_a cannot be placed elsewhere: no suitable node"), "{drained}");
    world.until("no container is left", || {
        let containers = world.ok(&["ps", "-q"]);
        if containers.is_empty() { Ok(()) } else { Err(containers) }
    });
    let pending = world.tasks("s_a").into_iter().find(|task| task.state == "Pending");
    assert!(pending.is_some_and(|task| !task.error.is_empty()));
    world.ok(&["node", "update", "--availability", "active", "n1"]);
    world.until_running("s_a", 1);
}
