//! What runs once, by the clock, or after something else.

use crate::world::World;

#[test]
fn a_job_runs_to_its_completions_and_again_for_a_new_file() {
    let world = World::new();
    let yaml = |word: &str| {
        format!(
            "services: {{ j: {{ image: \"${{REGISTRY}}/busybox:1\", command: [\"echo\", \"{word}\"], \
             deploy: {{ mode: replicated-job, replicas: 3 }} }} }}"
        )
    };
    let told = world.up("s", &yaml("one"));
    assert!(told.contains("3/3 completed"), "{told}");
    assert!(world.ok(&["service", "ls"]).contains("0/3 (3/3 completed)"));
    let tasks = world.tasks("s_j");
    assert!(
        tasks.iter().all(|task| (task.state.as_str(), task.desired.as_str()) == ("Complete", "Complete")),
        "{tasks:?}"
    );
    world.up("s", &yaml("one"));
    assert_eq!(world.tasks("s_j").len(), 3, "the same file runs nothing again");
    world.up("s", &yaml("two"));
    assert_eq!(world.tasks("s_j").len(), 6);
    let log = world.ok(&["service", "logs", "s_j"]);
    assert_eq!((log.matches("| one").count(), log.matches("| two").count()), (3, 3), "{log}");
}

#[test]
fn a_job_that_fails_for_good_fails_its_deploy() {
    let world = World::new();
    let outcome = world.deploy(
        "s",
        "services: { j: { image: \"${REGISTRY}/busybox:1\", command: [\"sh\", \"-c\", \"echo last words; exit 7\"], \
         deploy: { mode: replicated-job, restart_policy: { condition: none } } } }",
    );
    assert_eq!(outcome.code, 1, "{outcome}");
    assert!(outcome.stderr.contains("last words"), "{outcome}");
}

#[test]
fn a_schedule_runs_its_job_again_and_again() {
    let world = World::new();
    let told = world.up(
        "s",
        "services: { tick: { image: \"${REGISTRY}/busybox:1\", command: [\"echo\", \"tick\"], \
         x-skep: { schedule: \"*/2 * * * * *\" } } }",
    );
    assert!(told.contains("runs by its schedule"), "{told}");
    world.until("it ran three times", || {
        let done = world.tasks("s_tick").iter().filter(|task| task.state == "Complete").count();
        if done >= 3 { Ok(()) } else { Err(format!("{:?}", world.tasks("s_tick"))) }
    });
    let inspected = world.ok(&["service", "inspect", "s_tick"]);
    assert!(
        inspected.contains("\"Cron\": \"*/2 * * * * *\"") && inspected.contains("\"Message\": \"run "),
        "{inspected}"
    );
}

#[test]
fn services_start_in_their_order() {
    let world = World::new();
    let folder = world.shared_folder("order");
    let yaml = format!(
        "services:\n\
         \x20 a-web: {{ <<: *idle, depends_on: {{ db: {{ condition: service_healthy }}, migrate: {{ condition: service_completed_successfully }} }} }}\n\
         \x20 db:\n    <<: *idle\n    volumes: [\"{0}:/order\"]\n    healthcheck: {{ test: [\"CMD\", \"test\", \"-e\", \"/order/ok\"], interval: 200ms, retries: 1000 }}\n\
         \x20 migrate: {{ image: \"${{REGISTRY}}/busybox:1\", command: \"true\", depends_on: [db], deploy: {{ mode: replicated-job }} }}\n",
        folder.display()
    );
    world.start("s", &yaml);
    world.until("web says what it waits for", || {
        let tasks = world.tasks("s_a-web");
        let waits = |task: &crate::world::Task| task.state == "Pending" && task.error.contains("db to be healthy");
        if tasks.iter().any(waits) { Ok(()) } else { Err(format!("{tasks:?}")) }
    });
    // The migration needs the database started only.
    world.until("the migration is done", || match world.tasks("s_migrate").as_slice() {
        [task] if task.state == "Complete" => Ok(()),
        tasks => Err(format!("{tasks:?}")),
    });
    assert!(world.running("s_a-web").is_empty());
    std::fs::write(folder.join("ok"), "").unwrap();
    world.until_running("s_a-web", 1);
    world.up("s", &yaml);
}
