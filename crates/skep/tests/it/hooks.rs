//! Hooks: what runs in a container after its start and before its stop, and what becomes of the task when it fails.

use std::fs;
use std::path::Path;

use crate::world::World;

/// A shell that writes `TERM` into the shared folder when it is told to stop.
fn yaml(folder: &Path, hooks: &str) -> String {
    format!(
        "services:\n  a:\n    <<: *idle\n    stop_grace_period: 60s\n    environment: {{ OF: container }}\n\
         \x20   command: [\"sh\", \"-c\", \"trap 'echo TERM >> /shared/told; exit 0' TERM; while :; do sleep 0.05; done\"]\n\
         \x20   volumes: [\"{}:/shared\"]\n{hooks}",
        folder.display()
    )
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn a_task_runs_once_its_hooks_have_ended_also_when_the_daemon_ended_meanwhile() {
    let world = World::new();
    let folder = world.shared_folder("hooks");
    let hooks = "    post_start:\n\
        \x20     - command: [\"sh\", \"-c\", \"umask 0; echo first >> /shared/told\"]\n\
        \x20     - command: sh -c 'echo begun $$OF $$ADDED $$(id -u) $$(pwd) >> /shared/told; while [ ! -e /shared/go ]; do sleep 0.05; done'\n\
        \x20       user: \"1000\"\n        working_dir: /tmp\n        environment: [\"ADDED=by the hook\"]\n\
        \x20     - { command: [\"sh\", \"-c\", \"! grep -q 00000000a80425fb /proc/self/status\"], privileged: true }\n";
    world.start("s", &yaml(&folder, hooks));
    let told = folder.join("told");
    let begun = "begun container by the hook 1000 /tmp\n";
    world.until("the second hook runs", || match read(&told) {
        text if text == format!("first\n{begun}") => Ok(()),
        text => Err(text),
    });
    let first = world.tasks("s_a")[0].clone();
    assert_eq!(first.state, "Starting");
    world.crash_daemon();
    world.start_daemon();
    world.until("the hook that was cut off runs again, and no other", || match read(&told) {
        text if text == format!("first\n{begun}{begun}") => Ok(()),
        text => Err(text),
    });
    // Itself and the container's own, with the sleep of each: the one that was cut off is gone.
    let shells =
        || world.processes(&first.id).into_iter().filter(|pid| read(Path::new(&format!("/proc/{pid}/comm"))) == "sh\n");
    world.until("one hook runs", || match shells().count() {
        2 => Ok(()),
        count => Err(format!("{count} shells")),
    });
    assert!(world.running("s_a").is_empty());
    fs::write(folder.join("go"), "").unwrap();
    assert_eq!(world.until_running("s_a", 1)[0].id, first.id);
    world.crash_daemon();
    world.start_daemon();
    world.until("the daemon has adopted the task", || match world.ok(&["ps"]) {
        text if text.contains("s_a.1") => Ok(()),
        text => Err(text),
    });
    assert_eq!(world.until_running("s_a", 1)[0].id, first.id);
    assert_eq!(read(&told), format!("first\n{begun}{begun}"), "hooks that have ended are over");
    let inspected = world.ok(&["service", "inspect", "s_a"]);
    assert!(inspected.contains("\"PostStart\"") && inspected.contains("\"WorkingDir\": \"/tmp\""), "{inspected}");
}

#[test]
fn a_hook_that_fails_is_named_and_a_stop_prepares_within_the_grace() {
    let world = World::new();
    let folder = world.shared_folder("hooks");
    let told = folder.join("told");
    let failing = "    deploy: { restart_policy: { condition: none } }\n    post_start:\n\
        \x20     - command: [\"sh\", \"-c\", \"echo early; echo the table is missing >&2; exit 3\"]\n\
        \x20     - command: [\"touch\", \"/shared/never\"]\n";
    let outcome = world.deploy("s", &yaml(&folder, failing));
    assert_eq!(outcome.code, 1, "{outcome}");
    let task = &world.tasks("s_a")[0];
    let reason = "post_start hook `sh -c echo early; echo the table is missing >&2; exit 3` ended with exit code 3: the table is missing";
    assert_eq!((task.state.as_str(), task.error.contains(reason)), ("Failed", true), "{task:?}");
    assert!(!folder.join("never").exists());
    assert_eq!(read(&told), "TERM\n", "it is stopped as any other");
    world.ok(&["stack", "rm", "s"]);

    // In its order, and before the signal; a failure is told and holds nothing up.
    fs::remove_file(&told).unwrap();
    let stopping = "    pre_stop:\n      - command: [\"sh\", \"-c\", \"echo bye >> /shared/told; exit 7\"]\n\
        \x20     - command: [\"sh\", \"-c\", \"echo then >> /shared/told\"]\n";
    world.up("t", &yaml(&folder, stopping));
    let stop = |task: &str| {
        world.ok(&["service", "restart", "t_a"]);
        world.until("the task has stopped", || match world.tasks("t_a").into_iter().find(|it| it.id == task) {
            Some(task) if task.state == "Shutdown" => Ok(task),
            task => Err(format!("{task:?}")),
        })
    };
    let stopped = stop(&world.running("t_a")[0].id);
    assert_eq!(read(&told), "bye\nthen\nTERM\n");
    assert!(stopped.error.contains("pre_stop hook") && stopped.error.contains("exit code 7"), "{stopped:?}");

    // Who ends by itself is asked for nothing.
    fs::remove_file(&told).unwrap();
    let died = world.running("t_a")[0].id.clone();
    let init = world.processes(&died)[0];
    rustix::process::kill_process(rustix::process::Pid::from_raw(init).unwrap(), rustix::process::Signal::KILL)
        .unwrap();
    world.until("the task is replaced", || match world.running("t_a").as_slice() {
        [task] if task.id != died => Ok(()),
        tasks => Err(format!("{tasks:?}")),
    });
    assert_eq!(read(&told), "");

    // A hook may ask for the end itself; then no more is waited for, and nothing has failed.
    world.up("t", &yaml(&folder, "    pre_stop: [{ command: [\"sh\", \"-c\", \"kill 1; sleep 100000\"] }]\n"));
    let stopped = stop(&world.until_running("t_a", 1)[0].id);
    assert_eq!(stopped.error, "", "{stopped:?}");

    // A hook that hangs takes no more than the grace.
    let hanging = yaml(&folder, "    pre_stop: [{ command: [\"sleep\", \"100000\"] }]\n");
    world.up("t", &hanging.replace("stop_grace_period: 60s", "stop_grace_period: 1s"));
    let stopped = stop(&world.until_running("t_a", 1)[0].id);
    assert!(stopped.error.contains("longer than stop_grace_period"), "{stopped:?}");
}
