//! The way back: of a service to an earlier spec, of a stack to an earlier revision; restarts and waits.

use crate::world::World;

const FILE: &str = "services:\n  a: { <<: *idle, environment: { V: 1 } }\n  b: { <<: *idle, environment: { V: 1 } }\n";

fn value(world: &World, task: &str) -> String {
    world.sh(task, "echo $V")
}

fn update(world: &World, flags: &[&str]) {
    world
        .ok(&[&["service", "update", "-q", "--update-monitor", "1s", "--rollback-monitor", "1s"], flags, &["web"]]
            .concat());
}

fn web() -> World {
    let world = World::new();
    let image = format!("{}/busybox:1", world.images());
    world.ok(&[
        "service",
        "create",
        "-q",
        "--name",
        "web",
        "-e",
        "V=1",
        "--stop-grace-period",
        "1s",
        &image,
        "sleep",
        "100000",
    ]);
    world
}

fn status(world: &World) -> String {
    world
        .ok(&["service", "inspect", "--format", "{{.UpdateStatus.State}}: {{.UpdateStatus.Message}}", "web"])
        .trim()
        .to_owned()
}

#[test]
fn a_service_goes_back_to_its_previous_spec_and_forward_again() {
    let world = web();
    let refused = world.refused(&["service", "rollback", "web"]);
    assert!(refused.contains("service web does not have a previous spec"), "{refused}");
    update(&world, &["--env-add", "V=2"]);
    assert_eq!(value(&world, "web.1"), "2");
    assert_eq!(world.ok(&["service", "rollback", "-q", "web"]), "web\n");
    assert_eq!(value(&world, "web.1"), "1");
    assert_eq!(status(&world), "rollback_completed: manually requested rollback completed");
    world.ok(&["service", "update", "-q", "--rollback", "web"]);
    assert_eq!(value(&world, "web.1"), "2");
}

#[test]
fn a_repeated_rollback_leads_back_and_any_kept_revision_can_be_chosen() {
    let world = web();
    for number in 2..=4 {
        update(&world, &["--env-add", &format!("V={number}")]);
    }
    world.ok(&["service", "update", "-q", "--rollback", "web"]);
    assert_eq!(value(&world, "web.1"), "3");
    world.ok(&["service", "update", "-q", "--rollback", "web"]);
    assert_eq!(value(&world, "web.1"), "4", "twice is where it was");
    let rows = world.rows(&["service", "history", "web"]);
    let first = rows.last().unwrap();
    assert_eq!((first["Changes"].as_str(), rows[0]["Current"].as_str()), (Some("created"), Some("true")), "{rows:?}");
    assert!(rows[0]["Changes"].as_str().unwrap().contains("environment"), "{rows:?}");
    world.ok(&["service", "rollback", "-q", "--to", first["Revision"].as_str().unwrap(), "web"]);
    assert_eq!(value(&world, "web.1"), "1");
    let refused = world.refused(&["service", "rollback", "--to", "1", "web"]);
    assert!(refused.contains("has no revision 1"), "{refused}");
    let pretty = world.ok(&["service", "inspect", "--pretty", "web"]);
    assert!(pretty.contains("UpdateStatus:") && pretty.contains("rollback_completed"), "{pretty}");
}

#[test]
fn a_rollback_brings_the_number_of_tasks_back_and_says_so() {
    let world = web();
    update(&world, &["--env-add", "V=2"]);
    world.ok(&["service", "scale", "web=3"]);
    let outcome = world.skep(&["service", "rollback", "-q", "web"]);
    assert!(outcome.is_ok() && outcome.stderr.contains("goes back to 1 replicas, it had 3"), "{outcome}");
    world.until_running("web", 1);
}

#[test]
fn a_failed_update_that_was_rolled_back_leaves_nothing_to_go_back_to() {
    let world = web();
    let failing = ["--args", "false", "--restart-delay", "100ms", "--update-failure-action", "rollback"];
    let line = [&["service", "update", "-q", "--update-monitor", "1s"], &failing[..], &["web"]].concat();
    let outcome = world.skep(&line);
    assert_eq!(outcome.code, 3, "{outcome}");
    assert!(outcome.stderr.contains("was rolled back"), "{outcome}");
    assert_eq!(value(&world, "web.1"), "1");
    let refused = world.refused(&["service", "rollback", "web"]);
    assert!(refused.contains("does not have a previous spec"), "{refused}");
    world.until("the rollback is done", || {
        let status = status(&world);
        if status.starts_with("rollback_completed") { Ok(()) } else { Err(status) }
    });
    assert_eq!(world.skep(&["service", "wait", "-q", "web"]).code, 3, "who waits later is told too");
    update(&world, &["--env-add", "V=5"]);
    assert!(world.skep(&["service", "wait", "-q", "web"]).is_ok());
}

#[test]
fn a_paused_update_is_rolled_back_by_hand() {
    let world = web();
    let image = format!("{}/nosuch:9", world.images());
    let outcome = world.skep(&["service", "update", "-q", "--image", &image, "web"]);
    assert_eq!(outcome.code, 1, "{outcome}");
    assert!(outcome.stderr.contains("nosuch"), "the cause is said: {outcome}");
    world.until("the update pauses", || {
        let status = status(&world);
        if status.starts_with("paused: update paused due to failure") { Ok(()) } else { Err(status) }
    });
    world.ok(&["service", "rollback", "-q", "web"]);
    assert_eq!(value(&world, "web.1"), "1");
}

#[test]
fn the_way_back_is_closed_when_a_secret_is_no_longer_what_it_was() {
    let world = World::new();
    let image = format!("{}/busybox:1", world.images());
    let content = world.file("content", "one");
    world.ok(&["secret", "create", "one", content.to_str().unwrap()]);
    world.ok(&["service", "create", "-q", "--name", "web", "--secret", "one", &image, "sleep", "99999"]);
    update(&world, &["--secret-rm", "one"]);
    world.ok(&["secret", "rm", "one"]);
    let refused = world.refused(&["service", "rollback", "web"]);
    assert!(refused.contains("the secret one that it ran with was removed; nothing was changed"), "{refused}");
}

#[test]
fn restart_replaces_every_task_and_changes_nothing_else() {
    let world = web();
    world.ok(&["service", "scale", "web=2"]);
    let before: Vec<String> = world.running("web").into_iter().map(|task| task.id).collect();
    assert_eq!(world.ok(&["service", "restart", "-q", "web"]), "web\n");
    let after = world.until_running("web", 2);
    assert!(after.iter().all(|task| !before.contains(&task.id)), "{after:?}");
    assert_eq!(value(&world, "web.1"), "1");
    assert!(world.refused(&["service", "restart", "web", "nobody"]).contains("nobody"));
    assert_eq!(world.running("web").len(), 2);
}

#[test]
fn wait_ends_as_the_service_does() {
    let world = web();
    world.ok(&["service", "wait", "web"]);
    world.ok(&["service", "update", "-d", "--constraint-add", "node.labels.x==y", "web"]);
    let outcome = world.skep(&["service", "wait", "-q", "web"]);
    assert_eq!(outcome.code, 2, "{outcome}");
    world.ok(&[
        "service",
        "update",
        "-d",
        "--constraint-rm",
        "node.labels.x==y",
        "--health-cmd",
        "false",
        "--health-interval",
        "1s",
        "--health-retries",
        "99",
        "web",
    ]);
    assert_eq!(world.skep(&["service", "wait", "-q", "--timeout", "2s", "web"]).code, 124);
    assert!(world.refused(&["service", "wait", "nobody"]).contains("nobody"));
}

#[test]
fn a_stack_remembers_its_deploys_and_goes_back_to_any() {
    let world = World::new();
    world.up("s", FILE);
    world.up("s", &FILE.replace("a: { <<: *idle, environment: { V: 1 }", "a: { <<: *idle, environment: { V: 2 }"));
    world.up("s", &format!("{}  c: {{ <<: *idle }}\n", FILE.replace("V: 1", "V: 3")));
    let rows = world.rows(&["stack", "history", "s"]);
    let said: Vec<String> = rows
        .iter()
        .map(|row| format!("{}: {}", row["Revision"].as_str().unwrap(), row["Changes"].as_str().unwrap()))
        .collect();
    assert_eq!(said, ["3: a: environment; b: environment; +c", "2: a: environment", "1: first deploy: a, b"]);
    assert_eq!(rows[0]["Author"], "root");
    let text = world.ok(&["stack", "rollback", "s"]);
    assert!(text.contains("Updating service s_a") && text.contains("Removing service s_c"), "{text}");
    assert_eq!((value(&world, "s_a.1"), value(&world, "s_b.1")), ("2".to_owned(), "1".to_owned()));
    world.ok(&["stack", "rollback", "--to", "3", "s"]);
    assert_eq!((value(&world, "s_a.1"), value(&world, "s_b.1")), ("3".to_owned(), "3".to_owned()));
    world.until_running("s_c", 1);
    assert_eq!(world.rows(&["stack", "history", "s"]).len(), 5, "a rollback is a revision of its own");
    let refused = world.refused(&["stack", "rollback", "--to", "9", "s"]);
    assert!(refused.contains("stack s has no revision 9"), "{refused}");
}

#[test]
fn an_atomic_deploy_that_fails_leaves_everything_as_it_was() {
    let world = World::new();
    world.up("s", FILE);
    let (a, b) = (world.running("s_a"), world.running("s_b"));
    let bad =
        FILE.replace("V: 1", "V: 2").replace("b: { <<: *idle,", "b: { <<: *idle, image: \"${REGISTRY}/nosuch:9\",");
    let file = world.compose("s", &format!("{bad}  c: {{ <<: *idle }}\n"));
    let outcome = world.skep(&["stack", "deploy", "--atomic", "-c", &file, "s"]);
    assert_eq!(outcome.code, 3, "{outcome}");
    assert!(outcome.stderr.contains("nosuch"), "the cause is said: {outcome}");
    assert!(outcome.stderr.contains("stack s was not deployed; it is as in revision 1"), "{outcome}");
    assert_eq!((value(&world, "s_a.1"), value(&world, "s_b.1")), ("1".to_owned(), "1".to_owned()));
    assert_eq!(world.ok(&["service", "ls", "--format", "{{.Name}}"]), "s_a\ns_b\n");
    assert_eq!((world.until_running("s_a", 1).len(), world.until_running("s_b", 1).len()), (a.len(), b.len()));
    // The newest revision is the one that failed. It ran only until it was undone, and is no way back.
    let again =
        world.skep(&["stack", "deploy", "--atomic", "-c", &world.compose("s", &bad.replace("V: 2", "V: 3")), "s"]);
    assert_eq!(again.code, 3, "{again}");
    assert_eq!((value(&world, "s_a.1"), value(&world, "s_b.1")), ("1".to_owned(), "1".to_owned()));
    world.ok(&["stack", "deploy", "--atomic", "-c", &world.compose("s", &FILE.replace("V: 1", "V: 4")), "s"]);
    assert_eq!(value(&world, "s_a.1"), "4", "one that works stays");
}

#[test]
fn a_first_atomic_deploy_that_fails_leaves_nothing() {
    let world = World::new();
    let bad = FILE.replace("b: { <<: *idle,", "b: { <<: *idle, image: \"${REGISTRY}/nosuch:9\",");
    let file = world.compose("s", &bad);
    let outcome = world.skep(&["stack", "deploy", "--atomic", "-c", &file, "s"]);
    assert_eq!(outcome.code, 3, "{outcome}");
    assert!(outcome.stderr.contains("there was no stack before"), "{outcome}");
    assert_eq!(world.ok(&["service", "ls", "-q"]), "");
    assert_eq!(world.ok(&["stack", "ls", "-q"]), "");
}
