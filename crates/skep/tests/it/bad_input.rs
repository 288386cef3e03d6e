//! Images, commands, mounts, ports and placements that cannot be: what the user is told, and what happens next.

use std::fs;
use std::net::TcpListener;
use std::process::Command;

use skep_lab::images_folder;

use crate::world::World;

#[test]
fn an_image_that_does_not_exist_is_told_and_no_part_of_it_is_left() {
    let world = World::new();
    let outcome = world.deploy("s", "services: { a: { image: \"${REGISTRY}/nosuch:9\" } }");
    assert_eq!(outcome.code, 1, "{outcome}");
    assert!(outcome.stderr.contains("nosuch:9"), "{outcome}");
    let tasks = world.tasks("s_a");
    let rejected: Vec<_> = tasks.iter().filter(|task| task.state == "Rejected").collect();
    assert!(rejected.iter().any(|task| task.error.contains("nosuch:9")), "{tasks:?}");
    assert!(!world.ok(&["image", "ls"]).contains("nosuch"));
}

#[test]
fn without_a_registry_what_is_here_starts_and_what_is_not_is_retried_until_it_answers() {
    let mut world = World::new();
    let here = "services: { a: { image: \"${REGISTRY}/busybox:1\", command: sleep 1000, stop_grace_period: 1s } }";
    world.up("s", here);
    let pinned = world.tasks("s_a")[0].image.clone();
    assert!(pinned.contains("@sha256:"), "{pinned}");
    world.stop_registry();

    // By digest, by a tag that runs, and not here at all.
    world.up("by_digest", &here.replace("${REGISTRY}/busybox:1", &pinned));
    let again = world.deploy("s", &here.replace("sleep 1000", "sleep 1001"));
    assert!(again.is_ok(), "{again}");
    assert!(again.stderr.contains("keeps the version that it runs"), "{again}");
    world.start("later", "services: { a: { image: \"${REGISTRY}/redis:7\" } }");
    world.until("the task is rejected with the reason, more than once", || {
        let tasks = world.tasks("later_a");
        let rejected = tasks.iter().filter(|task| task.state == "Rejected" && task.error.contains("127.0.0.1:5000"));
        if rejected.count() >= 2 { Ok(()) } else { Err(format!("{tasks:?}")) }
    });
    world.start_registry();
    world.until_running("later_a", 1);
}

#[test]
fn a_layer_whose_bytes_are_not_those_of_its_digest_is_refused_and_nothing_of_it_stays() {
    let mut world = World::new();
    world.stop_registry();
    let storage = world.node().folder().join("damaged");
    let copied = Command::new("cp").arg("-al").arg(images_folder().unwrap()).arg(&storage).status().unwrap();
    assert!(copied.success());
    // The layer is the one big blob that busybox refers to.
    let links = storage.join("docker/registry/v2/repositories/library/busybox/_layers/sha256");
    let blobs = fs::read_dir(links).unwrap().map(|entry| {
        let hex = entry.unwrap().file_name().into_string().unwrap();
        storage.join("docker/registry/v2/blobs/sha256").join(&hex[..2]).join(hex).join("data")
    });
    let layer = blobs.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let mut bytes = fs::read(&layer).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::remove_file(&layer).unwrap();
    fs::write(&layer, bytes).unwrap();
    world.serve(&storage);

    let outcome = world.deploy("s", "services: { a: { <<: *idle } }");
    assert_eq!(outcome.code, 1, "{outcome}");
    assert!(outcome.stderr.contains("sha256:"), "{outcome}");
    assert!(world.tasks("s_a").iter().any(|task| task.state == "Rejected" && task.error.contains("sha256:")));
    assert_eq!(world.ok(&["image", "ls", "-q"]), "");
    let layers = fs::read_dir(world.node().data_dir().join("images/layers")).unwrap();
    assert_eq!(layers.map(|entry| entry.unwrap().path()).collect::<Vec<_>>(), Vec::<std::path::PathBuf>::new());
    // With the right bytes it runs without another word.
    world.stop_registry();
    world.start_registry();
    world.until_running("s_a", 1);
}

#[test]
fn a_machine_that_cannot_hold_memory_limits_says_so_and_runs_without_them() {
    let world = World::bare();
    // A machine with cgroup version 2 alone has no such mount, and no way to take one controller away from one node.
    if !std::path::Path::new("/sys/fs/cgroup/memory").exists() {
        return;
    }
    world.node().run("umount", &["/sys/fs/cgroup/memory"]).unwrap().ok().unwrap();
    let outcome = world.skep(&["init"]);
    assert!(outcome.is_ok(), "{outcome}");
    assert!(outcome.stderr.contains("memory") && outcome.stderr.contains("cgroup_enable=memory"), "{outcome}");
    world.up("s", "services: { a: { <<: *idle, deploy: { resources: { limits: { memory: 64M } } } } }");
}

#[test]
fn a_command_that_cannot_run_fails_with_dockers_codes_and_the_runtimes_words() {
    let world = World::new();
    for (name, wrong, code, words) in [
        ("missing", "command: [\"no-such-program\"]", "(127)", "no-such-program"),
        ("folder", "command: [\"/etc\"]", "(126)", "/etc"),
        ("user", "command: [\"true\"]\n    user: nobody-here", "nobody-here", "nobody-here"),
    ] {
        let yaml = format!("services:\n  a:\n    image: ${{REGISTRY}}/busybox:1\n    {wrong}\n");
        let outcome = world.deploy(name, &yaml);
        assert_eq!(outcome.code, 1, "{outcome}");
        let tasks = world.tasks(&format!("{name}_a"));
        let told = tasks.iter().any(|task| task.error.contains(words));
        assert!(told && outcome.stderr.contains(words), "{outcome} {tasks:?}");
        if name != "user" {
            assert!(tasks.iter().any(|task| task.error.contains(code)), "{tasks:?}");
        }
        world.ok(&["stack", "rm", name]);
    }
}

#[test]
fn a_bind_mount_without_its_source_is_told_with_the_path() {
    let world = World::new();
    let outcome = world.deploy(
        "s",
        "services:\n  a:\n    <<: *idle\n    volumes: [{ type: bind, source: /no/such/folder, target: /data }]\n",
    );
    assert_eq!(outcome.code, 1, "{outcome}");
    assert!(outcome.stderr.contains("/no/such/folder"), "{outcome}");
    assert!(world.tasks("s_a").iter().any(|task| task.error.contains("/no/such/folder")));
}

#[test]
fn a_published_port_of_another_program_is_refused_with_the_program() {
    let world = World::new();
    let listener = world.node().in_netns(|| TcpListener::bind("0.0.0.0:8080").unwrap()).unwrap();
    let own_name = std::fs::read_to_string("/proc/self/comm").unwrap();
    let yaml = "services: { a: { <<: *idle, ports: [\"8080:80\"] } }";
    let outcome = world.deploy("s", yaml);
    assert_eq!(outcome.code, 1, "{outcome}");
    assert!(outcome.stderr.contains("8080") && outcome.stderr.contains(own_name.trim()), "{outcome}");
    drop(listener);
    world.until_running("s_a", 1);
}

#[test]
fn two_services_that_publish_one_port_are_refused_before_anything_is_created() {
    let world = World::new();
    world.up("s", "services: { a: { <<: *idle, ports: [\"8080:80\"] } }");
    let outcome = world.deploy("t", "services: { b: { <<: *idle, ports: [\"8080:81\"] } }");
    assert_eq!(outcome.code, 1, "{outcome}");
    assert!(outcome.stderr.contains("8080") && outcome.stderr.contains("s_a"), "{outcome}");
    assert_eq!(world.ok(&["service", "ls", "--format", "{{.Name}}"]), "s_a\n");
}

#[test]
fn a_container_that_exits_at_once_backs_off_keeps_little_history_and_is_told() {
    let world = World::new();
    let outcome = world.deploy(
        "s",
        "services:\n  a:\n    image: ${REGISTRY}/busybox:1\n    command: [\"sh\", \"-c\", \"echo last words >&2; exit 3\"]\n\
         \x20   deploy: { restart_policy: { delay: 0s } }\n",
    );
    assert_eq!(outcome.code, 1, "{outcome}");
    assert!(outcome.stderr.contains("s_a") && outcome.stderr.contains("last words"), "{outcome}");
    assert!(outcome.stderr.contains("(3)"), "{outcome}");
    // Swarm's five past tasks and the one that is wanted: it never grows beyond.
    for _ in 0..20 {
        let tasks = world.tasks("s_a");
        assert!(tasks.len() <= 6, "{} tasks are kept: {tasks:?}", tasks.len());
        assert!(tasks.iter().any(|task| task.state == "Failed" && task.error.contains("(3)")), "{tasks:?}");
    }
}

#[test]
fn what_no_node_can_take_ends_with_2_and_the_reason() {
    let world = World::new();
    let outcome = world.deploy(
        "s",
        "services: { a: { <<: *idle, deploy: { placement: { constraints: [\"node.labels.disk == ssd\"] } } } }",
    );
    assert_eq!(outcome.code, 2, "{outcome}");
    assert!(outcome.stderr.contains("constraint"), "{outcome}");
    let task = &world.tasks("s_a")[0];
    assert_eq!(task.state, "Pending");
    assert!(task.error.contains("constraint"), "{task:?}");

    let outcome =
        world.deploy("t", "services: { a: { <<: *idle, deploy: { resources: { reservations: { memory: 4096G } } } } }");
    assert_eq!(outcome.code, 2, "{outcome}");
    assert!(outcome.stderr.contains("resources"), "{outcome}");

    // The label makes room without a new deploy.
    world.ok(&["node", "update", "--label-add", "disk=ssd", "n1"]);
    world.until_running("s_a", 1);
}
