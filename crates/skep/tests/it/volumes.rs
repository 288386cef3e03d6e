//! Volumes with options: mounted when the first task uses them, unmounted when none does, and never removed with what
//! is mounted there.

use std::fs;

use crate::world::World;

fn yaml(volume: &str) -> String {
    format!(
        "services:\n  a: {{ <<: *idle, volumes: [\"data:/data\"], deploy: {{ restart_policy: {{ condition: none }} }} }}\n\
         volumes: {{ data: {volume} }}\n"
    )
}

#[test]
fn a_volume_is_mounted_while_a_task_uses_it_also_over_a_new_daemon() {
    let world = World::new();
    let memory =
        yaml("{ driver: local, driver_opts: { type: tmpfs, device: tmpfs, o: \"size=1m,mode=1770,noexec\" } }");
    world.up("s", &memory);
    let mounted = world.sh("s_a.1", "grep ' /data ' /proc/mounts; stat -c %a /data; echo here > /data/file");
    assert!(mounted.starts_with("tmpfs /data tmpfs rw") && mounted.contains("size=1024k"), "{mounted}");
    assert!(mounted.contains("noexec") && mounted.ends_with("1770"), "{mounted}");
    let folder = world.node().data_dir().join("volumes/s_data/_data");
    // As the node itself sees it.
    let listed = || world.node().run("ls", &["-A", folder.to_str().unwrap()]).unwrap().stdout;
    assert_eq!(listed(), "file\n");
    // A second task meets the first one in it, and a daemon that comes anew mounts nothing a second time.
    world.ok(&["service", "scale", "s_a=2"]);
    assert_eq!(world.sh("s_a.2", "cat /data/file"), "here");
    world.crash_daemon();
    world.start_daemon();
    world.ok(&["service", "scale", "s_a=1"]);
    world.until("one task is left", || match world.ok(&["ps", "-q"]) {
        text if text.lines().count() == 1 => Ok(()),
        text => Err(text),
    });
    assert_eq!(world.sh("s_a.1", "cat /data/file"), "here");
    world.ok(&["service", "scale", "s_a=3"]);
    assert_eq!(world.sh("s_a.3", "cat /data/file"), "here", "the same memory still");
    let inspected = world.ok(&["volume", "inspect", "s_data"]);
    assert!(inspected.contains("\"o\": \"size=1m,mode=1770,noexec\""), "{inspected}");
    let refused = world.refused(&["volume", "rm", "s_data"]);
    assert!(refused.contains("in use"), "{refused}");

    // Other options are not what the volume is.
    let other = world.deploy("s", &memory.replace("size=1m", "size=2m"));
    assert_eq!(other.code, 1, "{other}");
    let said = world.tasks("s_a").into_iter().map(|task| task.error).collect::<String>();
    assert!(said.contains("made with other options") && said.contains("skep volume rm s_data"), "{said}");
    world.ok(&["stack", "rm", "s"]);
    world.until("nothing is mounted any more", || match listed() {
        files if files.is_empty() => Ok(()),
        files => Err(files),
    });
    world.ok(&["volume", "rm", "s_data"]);
}

#[test]
fn a_bound_folder_outlives_its_volume_and_what_the_kernel_refuses_is_told() {
    let world = World::new();
    let folder = world.shared_folder("kept");
    fs::write(folder.join("precious"), "1").unwrap();
    fs::create_dir(folder.join("part")).unwrap();
    let bound = yaml(&format!("{{ driver_opts: {{ type: none, o: bind, device: {} }} }}", folder.display()));
    let part = bound.replace(
        "\"data:/data\"",
        "{ type: volume, source: data, target: /data, volume: { subpath: part, nocopy: true } }",
    );
    world.up("s", &part);
    world.sh("s_a.1", "echo new > /data/file");
    assert_eq!(fs::read_to_string(folder.join("part/file")).unwrap(), "new\n");
    let refused = world.refused(&["volume", "rm", "s_data"]);
    assert!(refused.contains("in use"), "{refused}");
    world.ok(&["stack", "rm", "s"]);
    world.until("the volume can be removed", || {
        let outcome = world.skep(&["volume", "rm", "s_data"]);
        if outcome.is_ok() { Ok(()) } else { Err(outcome.to_string()) }
    });
    assert_eq!(fs::read_to_string(folder.join("precious")).unwrap(), "1");
    assert!(!world.node().data_dir().join("volumes/s_data").exists());

    // The call that was made, and the kernel's word for it.
    let cases = [
        (
            "n",
            "{ type: nfs, device: \":/export\", o: \"addr=localhost,rw,soft\" }",
            "mount -t nfs -o addr=localhost,rw,soft :/export",
        ),
        ("p", "{ type: tmpfs, device: tmpfs, o: \"sise=1m\" }", "Unknown parameter 'sise'"),
        ("q", "{ type: none, device: /nowhere, o: bind }", "`/nowhere` is not there"),
        ("r", "{ type: nofs, device: none }", "this kernel has no file system `nofs`"),
    ];
    for (stack, options, expected) in cases {
        let outcome = world.deploy(stack, &yaml(&format!("{{ driver_opts: {options} }}")));
        assert_eq!(outcome.code, 1, "{outcome}");
        let task = &world.tasks(&format!("{stack}_a"))[0];
        assert_eq!(task.state, "Rejected", "{task:?}");
        assert!(task.error.contains(expected), "{task:?}");
        world.ok(&["stack", "rm", stack]);
    }
    let wrong = world.deploy("w", &yaml("{ driver_opts: { type: nfs, device: \":/export\", o: rw } }"));
    assert!(wrong.stderr.contains("nfs needs its server"), "{wrong}");
}
