//! Updates that fail, on real containers: who serves meanwhile, and how it ends.

use crate::world::World;

fn state(world: &World, service: &str) -> String {
    let text = world.ok(&["service", "inspect", service]);
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    value[0]["UpdateStatus"]["State"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn an_image_that_is_not_there_pauses_the_update_and_the_old_tasks_serve() {
    let world = World::new();
    world.up("s", "services: { a: { <<: *idle, deploy: { replicas: 2 } } }");
    let before: Vec<String> = world.running("s_a").iter().map(|task| task.id.clone()).collect();
    let missing = "services: { a: { <<: *idle, image: \"${REGISTRY}/nosuch:9\", deploy: { replicas: 2 } } }";
    let outcome = world.deploy("s", missing);
    assert_eq!(outcome.code, 1, "{outcome}");
    assert!(outcome.stderr.contains("was not updated: update paused"), "{outcome}");
    let after: Vec<String> = world.running("s_a").iter().map(|task| task.id.clone()).collect();
    assert_eq!(before, after, "what served goes on serving");
    assert_eq!(state(&world, "s_a"), "paused");
    world.up("s", "services: { a: { <<: *idle, environment: { MENDED: 1 }, deploy: { replicas: 2 } } }");
    assert_eq!(world.sh("s_a.1", "echo $MENDED"), "1");
    assert_eq!(state(&world, "s_a"), "completed");
}

#[test]
fn an_update_that_is_never_healthy_is_rolled_back() {
    let world = World::new();
    let yaml = |file: &str| {
        format!(
            "services:\n  a:\n    <<: *idle\n    healthcheck: {{ test: [\"CMD\", \"test\", \"-e\", \"{file}\"], \
             interval: 200ms, retries: 3 }}\n    deploy: {{ replicas: 2, update_config: {{ failure_action: rollback, \
             monitor: 1s }}, rollback_config: {{ monitor: 1s }} }}\n"
        )
    };
    world.up("s", &yaml("/bin/sh"));
    let untouched = world.running("s_a");
    let outcome = world.deploy("s", &yaml("/nowhere"));
    assert_eq!(outcome.code, 3, "{outcome}");
    assert!(outcome.stderr.contains("rolled back"), "{outcome}");
    let left = world.until_running("s_a", 2);
    let kept = untouched.iter().filter(|before| left.iter().any(|now| now.id == before.id)).count();
    assert_eq!(kept, 1, "the slot whose turn never came was not touched");
    assert_eq!(state(&world, "s_a"), "rollback_completed");
}

#[test]
fn a_host_port_is_freed_before_the_next_task_takes_it() {
    let world = World::new();
    let yaml = |value: u8| {
        format!(
            "services: {{ a: {{ <<: *idle, environment: {{ V: {value} }}, \
             ports: [{{ target: 80, published: 8099, mode: host }}] }} }}"
        )
    };
    world.up("s", &yaml(1));
    world.up("s", &yaml(2));
    assert_eq!(world.sh("s_a.1", "echo $V"), "2");
}
