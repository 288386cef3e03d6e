//! A service that runs at most once: its container does not outlive the cluster's word.

use crate::world::World;

const SINGLE: &str = "services:\n\
    \x20 db:\n\
    \x20   <<: *idle\n\
    \x20   x-skep: { at-most-one: true }\n\
    \x20   stop_grace_period: 1s\n\
    \x20   deploy: { restart_policy: { delay: 0s } }\n\
    \x20 other: { <<: *idle }\n";

#[test]
fn without_a_daemon_its_container_ends_and_the_next_daemon_replaces_it() {
    let world = World::new();
    world.up("s", SINGLE);
    assert!(world.ok(&["service", "inspect", "s_db"]).contains("\"AtMostOne\": true"));
    let (first, other) = (world.running("s_db")[0].id.clone(), world.running("s_other")[0].id.clone());
    let others = world.processes(&other);
    world.crash_daemon();
    world.until("the lease has run out", || match world.processes(&first).as_slice() {
        [] => Ok(()),
        left => Err(format!("{left:?}")),
    });
    assert_eq!(world.processes(&other), others, "others run on");

    world.start_daemon();
    let replaced = || world.running("s_db").iter().any(|task| task.id != first).then_some(()).ok_or_else(String::new);
    world.until("another task runs", replaced);
    let ended = world.ok(&["service", "ps", "--no-trunc", "s_db"]);
    assert!(ended.contains("its lease ran out"), "{ended}");
    assert_eq!(world.running("s_other")[0].id, other);
}
