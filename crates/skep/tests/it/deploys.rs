//! Commands that meet: two deploys, a removal and a deploy, a deploy that its user leaves.

use std::thread;

use rustix::process::{Pid, Signal, kill_process};

use crate::world::World;

fn stack_of(count: usize, sleep: u32) -> String {
    let service = |n: usize| format!("  a{n}: {{ <<: *idle, command: [\"sleep\", \"{sleep}\"] }}\n");
    format!("services:\n{}", (1..=count).map(service).collect::<String>())
}

/// Every service runs what it should, once, and what nobody wants is gone.
fn whole(world: &World, stack: &str, count: usize) {
    world.until("every service of the stack runs one task", || {
        let services = world.rows(&["stack", "services", stack]);
        let full = services.iter().filter(|service| service["Replicas"] == "1/1").count();
        if services.len() == count && full == count { Ok(()) } else { Err(format!("{services:?}")) }
    });
    world.until("as many containers are there as tasks are wanted", || {
        let containers = world.ok(&["ps", "-q"]);
        if containers.lines().count() == count { Ok(()) } else { Err(containers) }
    });
}

#[test]
fn two_deploys_of_one_stack_at_once_leave_one_of_the_two() {
    let world = World::new();
    let files = [10001, 10002].map(|sleep| world.compose(&format!("f{sleep}"), &stack_of(3, sleep)));
    let outcomes = thread::scope(|scope| {
        let deploys = files.each_ref().map(|file| scope.spawn(|| world.skep(&["stack", "deploy", "-c", file, "s"])));
        deploys.map(|deploy| deploy.join().unwrap())
    });
    // One may be told that the other was faster; neither may fail for another reason.
    assert!(outcomes.iter().any(|outcome| outcome.is_ok()), "{} {}", outcomes[0], outcomes[1]);
    whole(&world, "s", 3);
    world.ok(&["stack", "deploy", "-c", &files[0], "s"]);
    whole(&world, "s", 3);
    for service in ["s_a1", "s_a2", "s_a3"] {
        assert_eq!(world.sh(&format!("{service}.1"), "tr '\\0' ' ' < /proc/1/cmdline"), "sleep 10001");
    }
}

#[test]
fn a_removal_and_a_deploy_at_once_leave_all_or_nothing_and_the_next_deploy_works() {
    let world = World::new();
    let file = world.compose("s", &stack_of(3, 10000));
    world.ok(&["stack", "deploy", "-c", &file, "s"]);
    thread::scope(|scope| {
        let removal = scope.spawn(|| world.skep(&["stack", "rm", "s"]));
        let deploy = scope.spawn(|| world.skep(&["stack", "deploy", "-c", &file, "s"]));
        (removal.join().unwrap(), deploy.join().unwrap())
    });
    world.ok(&["stack", "deploy", "-c", &file, "s"]);
    whole(&world, "s", 3);
    world.ok(&["stack", "rm", "s"]);
    world.until("nothing is left", || {
        let left = world.ok(&["ps", "-a", "-q"]);
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
    assert_eq!(world.ok(&["service", "ls", "-q"]), "");
}

#[test]
fn an_interrupted_deploy_goes_on_and_says_how_to_watch_it() {
    let world = World::new();
    let slow = "services: { a: { <<: *idle, healthcheck: { test: [\"CMD\", \"test\", \"-e\", \"/go\"], interval: 200ms, retries: 1000 } } }";
    let file = world.compose("s", slow);
    let mut command = world.node().command(world.node().binary().unwrap());
    command.args(["stack", "deploy", "-c", &file, "s"]).env("REGISTRY", world.images());
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let child = command.spawn().unwrap();
    world.until("the task starts", || {
        let tasks = world.skep(&["stack", "ps", "s", "--format", "{{.CurrentState}}"]);
        if tasks.stdout.starts_with("Starting") { Ok(()) } else { Err(tasks.to_string()) }
    });
    kill_process(Pid::from_raw(child.id().cast_signed()).unwrap(), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{told}");
    assert!(told.contains("goes on") && told.contains("skep stack ps s"), "{told}");
    world.sh("s_a.1", "touch /go");
    world.until_running("s_a", 1);
}

#[test]
fn a_deploy_replaces_what_changed_and_leaves_the_rest_running() {
    let world = World::new();
    world.up("s", "services:\n  a: { <<: *idle }\n  b: { <<: *idle }\n");
    let (a, b) = (world.running("s_a"), world.running("s_b"));
    world.up("s", "services:\n  a: { <<: *idle }\n  b: { <<: *idle, environment: { NEW: 1 } }\n");
    assert_eq!(world.running("s_a")[0].id, a[0].id, "what is the same stays");
    assert_ne!(world.running("s_b")[0].id, b[0].id);
    assert_eq!(world.sh("s_b.1", "echo $NEW"), "1");
    world.up("s", "services:\n  a: { <<: *idle }\n");
    assert_eq!(world.running("s_b").len(), 1, "what the file does not name stays without --prune");
    let file = world.compose("s", "services:\n  a: { <<: *idle }\n");
    world.ok(&["stack", "deploy", "--prune", "-c", &file, "s"]);
    assert_eq!(world.ok(&["service", "ls", "--format", "{{.Name}}"]), "s_a\n");
}

#[test]
fn stacks_that_are_deployed_at_once_get_networks_of_their_own_and_one_of_them_a_port() {
    const STACKS: usize = 6;
    let world = World::new();
    let outcomes = thread::scope(|scope| {
        let deploy = |number: usize| {
            let (world, stack) = (&world, format!("s{number}"));
            scope.spawn(move || world.deploy(&stack, "services: { a: { <<: *idle, ports: [\"8080:80\"] } }"))
        };
        let deploys: Vec<_> = (0..STACKS).map(deploy).collect();
        deploys.into_iter().map(|deploy| deploy.join().unwrap()).collect::<Vec<_>>()
    });
    let (made, refused): (Vec<_>, Vec<_>) = outcomes.iter().partition(|outcome| outcome.is_ok());
    assert_eq!(made.len(), 1, "{outcomes:#?}");
    for outcome in refused {
        assert!(outcome.stderr.contains("port '8080' is already in use by service"), "{outcome}");
    }
    // Without the port all of them come up, each on a network of its own.
    thread::scope(|scope| {
        for number in 0..STACKS {
            let world = &world;
            scope.spawn(move || world.up(&format!("s{number}"), "services: { a: { <<: *idle } }"));
        }
        for number in 0..STACKS {
            let (world, name) = (&world, format!("made{number}"));
            scope.spawn(move || world.ok(&["network", "create", &name]));
        }
    });
    let names = world.ok(&["network", "ls", "--format", "{{.Name}}"]);
    let ours = names.lines().filter(|name| name.ends_with("_default") || name.starts_with("made"));
    let range = |name: &str| {
        let text = world.ok(&["network", "inspect", name]);
        let shown: serde_json::Value = serde_json::from_str(&text).unwrap();
        shown[0]["IPAM"]["Config"][0]["Subnet"].as_str().unwrap_or_else(|| panic!("{text}")).to_owned()
    };
    let mut ranges: Vec<String> = ours.map(range).collect();
    let count = ranges.len();
    ranges.sort();
    ranges.dedup();
    assert_eq!((count, ranges.len()), (STACKS * 2, STACKS * 2), "{ranges:?}");
}
