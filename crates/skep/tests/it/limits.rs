//! Limits of memory, cpu and processes: they are in the container's cgroup, and they hold.

use std::fs;
use std::path::{Path, PathBuf};

use crate::world::World;

const LIMITED: &str = "services:\n  a:\n    <<: *idle\n\
    \x20   deploy: { resources: { limits: { memory: 64M, cpus: \"0.25\", pids: 20 } } }\n";

/// The value of a task's limit, under its name in cgroup version 1 or 2.
fn limit(world: &World, task: &str, v1: (&str, &str), v2: &str) -> String {
    let found = |root: PathBuf, file: &str| folder_named(&root, task).map(|folder| folder.join(file));
    let parent = world.node().cgroup_parent().trim_start_matches('/');
    let old = Path::new("/sys/fs/cgroup").join(v1.0).join(parent);
    let path = match old.is_dir() {
        true => found(old, v1.1),
        false => found(Path::new("/sys/fs/cgroup").join(parent), v2),
    };
    fs::read_to_string(path.expect("the container has a cgroup")).unwrap().trim().to_owned()
}

fn folder_named(root: &Path, name: &str) -> Option<PathBuf> {
    let folders = fs::read_dir(root).ok()?.flatten().map(|entry| entry.path()).filter(|path| path.is_dir());
    folders.into_iter().find_map(|path| if path.ends_with(name) { Some(path) } else { folder_named(&path, name) })
}

#[test]
fn limits_are_those_of_the_containers_cgroup() {
    let world = World::new();
    world.up("s", LIMITED);
    let task = world.running("s_a")[0].id.clone();
    assert_eq!(limit(&world, &task, ("memory", "memory.limit_in_bytes"), "memory.max"), (64 << 20).to_string());
    assert_eq!(limit(&world, &task, ("pids", "pids.max"), "pids.max"), "20");
    let cpu = limit(&world, &task, ("cpu", "cpu.cfs_quota_us"), "cpu.max");
    assert!(["25000", "25000 100000"].contains(&cpu.as_str()), "{cpu}");
}

#[test]
fn more_processes_than_allowed_cannot_be_started() {
    let world = World::new();
    world.up("s", LIMITED);
    let outcome = world.exec("s_a.1", &["sh", "-c", "for i in $(seq 40); do sleep 5 & done; wait"]);
    assert!(outcome.stderr.contains("can't fork"), "{outcome}");
}

#[test]
fn a_busy_container_is_throttled_to_its_share() {
    let world = World::new();
    world.up("s", LIMITED);
    let task = world.running("s_a")[0].id.clone();
    let used = || -> u64 {
        let stat = limit(&world, &task, ("cpu", "cpu.stat"), "cpu.stat");
        let line = stat.lines().find_map(|line| line.strip_prefix("nr_throttled "));
        line.unwrap_or_else(|| panic!("{stat}")).parse().unwrap()
    };
    let before = used();
    world.exec("s_a.1", &["timeout", "1", "sh", "-c", "while :; do :; done"]);
    assert!(used() > before);
}

#[test]
fn a_container_beyond_its_memory_is_killed_told_so_and_restarted() {
    let world = World::new();
    let outcome = world.deploy(
        "s",
        "services:\n  a:\n    image: ${REGISTRY}/busybox:1\n\
         \x20   command: [\"dd\", \"if=/dev/zero\", \"of=/dev/null\", \"bs=300M\"]\n\
         \x20   deploy: { resources: { limits: { memory: 16M } }, restart_policy: { delay: 100ms } }\n",
    );
    assert_eq!(outcome.code, 1, "{outcome}");
    assert!(outcome.stderr.contains("OOM killed"), "{outcome}");
    let tasks = world.tasks("s_a");
    let killed = tasks.iter().filter(|task| task.error.contains("OOM killed") && task.error.contains("(137)"));
    assert!(killed.count() >= 2, "restarted by policy: {tasks:?}");
}
