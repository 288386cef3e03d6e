//! Health checks: what is not healthy does not run, and what ceases to be is replaced.

use std::fs;

use crate::world::World;

#[test]
fn a_task_runs_only_once_it_is_healthy_and_is_replaced_when_it_is_not_any_more() {
    let world = World::new();
    let folder = world.shared_folder("health");
    let yaml = format!(
        "services:\n  a:\n    <<: *idle\n    volumes: [\"{}:/health\"]\n\
         \x20   healthcheck: {{ test: [\"CMD-SHELL\", \"cat /health/ok || (echo no file; false)\"], interval: 200ms, retries: 3, start_period: 300s, start_interval: 100ms }}\n",
        folder.display()
    );
    world.start("s", &yaml);
    let first = world.until("the task waits for its health", || match world.tasks("s_a").as_slice() {
        [task] if task.state == "Starting" => Ok(task.clone()),
        tasks => Err(format!("{tasks:?}")),
    });
    // It stays so while it is not: exec works, and nothing counts it as running.
    world.sh("s_a.1", "true");
    assert!(world.running("s_a").is_empty());
    fs::write(folder.join("ok"), "").unwrap();
    assert_eq!(world.until_running("s_a", 1)[0].id, first.id);
    let containers = world.ok(&["ps"]);
    assert!(containers.contains("(healthy)"), "{containers}");

    fs::remove_file(folder.join("ok")).unwrap();
    world.until("the unhealthy task failed", || {
        let tasks = world.tasks("s_a");
        let failed = |task: &crate::world::Task| task.id == first.id && task.error.contains("unhealthy");
        if tasks.iter().any(failed) { Ok(()) } else { Err(format!("{tasks:?}")) }
    });
    fs::write(folder.join("ok"), "").unwrap();
    assert_ne!(world.until_running("s_a", 1)[0].id, first.id);
}

#[test]
fn a_check_that_hangs_is_a_check_that_failed() {
    let world = World::new();
    let outcome = world.deploy(
        "s",
        "services: { a: { <<: *idle, healthcheck: { test: [\"CMD\", \"sleep\", \"1000\"], interval: 100ms, timeout: 300ms, retries: 2 } } }",
    );
    assert_eq!(outcome.code, 1, "{outcome}");
    assert!(outcome.stderr.contains("unhealthy"), "{outcome}");
}
