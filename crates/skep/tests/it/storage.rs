//! Bind mounts, volumes, secrets and configs.

use std::fs;

use crate::world::World;

/// In no program of any image.
const TOKEN: &str = "correct-horse-battery-staple";

#[test]
fn a_bind_mount_is_the_folder_itself_and_read_only_where_it_says_so() {
    let world = World::new();
    let folder = world.shared_folder("bound");
    fs::write(folder.join("from-outside"), "hello").unwrap();
    // One relative to the compose file, one absolute.
    let yaml =
        format!("services:\n  a:\n    <<: *idle\n    volumes: [\"./bound:/rw\", \"{}:/ro:ro\"]\n", folder.display());
    world.up("s", &yaml);
    assert_eq!(world.sh("s_a.1", "cat /rw/from-outside && echo back > /rw/from-inside"), "hello");
    assert_eq!(fs::read_to_string(folder.join("from-inside")).unwrap(), "back\n");
    let refused = world.exec("s_a.1", &["touch", "/ro/file"]);
    assert!(refused.stderr.contains("Read-only file system"), "{refused}");
}

#[test]
fn a_named_volume_starts_with_the_images_files_and_outlives_its_service() {
    let world = World::new();
    let yaml = "services:\n  a:\n    image: ${REGISTRY}/nginx:1\n    command: [\"sleep\", \"100000\"]\n    stop_grace_period: 1s\n\
                \x20   volumes: [\"pages:/usr/share/nginx/html\"]\nvolumes: { pages: { labels: { kept: \"yes\" } } }\n";
    world.up("s", yaml);
    assert!(world.sh("s_a.1", "cat /usr/share/nginx/html/index.html").contains("Welcome"));
    world.sh("s_a.1", "echo mine > /usr/share/nginx/html/mine");
    // A new container of the same service, then a new service.
    world.up("s", &yaml.replace("100000", "100001"));
    assert_eq!(world.sh("s_a.1", "cat /usr/share/nginx/html/mine"), "mine");
    let in_use = world.refused(&["volume", "rm", "s_pages"]);
    assert!(in_use.contains("in use"), "{in_use}");
    world.ok(&["stack", "rm", "s"]);
    world.up("s", yaml);
    assert_eq!(world.sh("s_a.1", "cat /usr/share/nginx/html/mine"), "mine");
    world.ok(&["stack", "rm", "s"]);
    assert_eq!(world.ok(&["volume", "ls", "-q"]), "s_pages\n");
    world.until("the volume can be removed", || {
        let outcome = world.skep(&["volume", "rm", "s_pages"]);
        if outcome.is_ok() { Ok(()) } else { Err(outcome.to_string()) }
    });
    assert_eq!(world.ok(&["volume", "ls", "-q"]), "");
}

#[test]
fn a_secret_lies_in_memory_with_its_mode_and_owner() {
    let world = World::new();
    world.file("token.txt", TOKEN);
    world.up(
        "s",
        "services:\n  a:\n    <<: *idle\n    secrets:\n\
         \x20     - token\n\
         \x20     - { source: token, target: renamed, uid: \"1000\", gid: \"1001\", mode: 0400 }\n\
         \x20     - { source: token, target: /elsewhere/token }\n\
         secrets: { token: { file: ./token.txt } }\n",
    );
    assert_eq!(world.sh("s_a.1", "cat /run/secrets/token /run/secrets/renamed /elsewhere/token"), TOKEN.repeat(3));
    let stat = "stat -c '%a %u %g' /run/secrets/token /run/secrets/renamed";
    assert_eq!(world.sh("s_a.1", stat), "444 0 0\n400 1000 1001");
    let mounts = world.sh("s_a.1", "grep -E ' /run/secrets| /elsewhere' /proc/mounts");
    assert!(mounts.lines().count() >= 1 && mounts.lines().all(|line| line.starts_with("tmpfs ")), "{mounts}");
    // Not even the daemon's disk has it in clear.
    let found = std::process::Command::new("grep")
        .args(["-r", "-l", "-a", TOKEN])
        .arg(world.node().data_dir())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
    assert!(!world.ok(&["secret", "inspect", "s_token"]).contains(TOKEN));
}

#[test]
fn a_changed_secret_or_config_is_a_change_of_the_service() {
    let world = World::new();
    let yaml = "services:\n  a: { <<: *idle, secrets: [token], configs: [{ source: page, target: /page, mode: 0440 }] }\n\
                secrets: { token: { file: ./token.txt } }\nconfigs: { page: { file: ./page.txt } }\n";
    world.file("token.txt", "one");
    world.file("page.txt", "first");
    world.up("s", yaml);
    let before = world.running("s_a")[0].id.clone();
    assert_eq!(world.sh("s_a.1", "cat /run/secrets/token /page; stat -c %a /page"), "onefirst440");
    world.up("s", yaml);
    assert_eq!(world.running("s_a")[0].id, before, "nothing changed, nothing moves");
    world.file("token.txt", "two");
    world.up("s", yaml);
    assert_eq!(world.sh("s_a.1", "cat /run/secrets/token /page"), "twofirst");
    world.file("page.txt", "second");
    world.up("s", yaml);
    assert_eq!(world.sh("s_a.1", "cat /run/secrets/token /page"), "twosecond");
}

#[test]
fn a_container_that_says_how_it_is_told_gets_new_contents_and_lives_on() {
    let world = World::new();
    let yaml = "services:\n  a:\n    <<: *idle\n    secrets: [token]\n    configs: [{ source: page, target: /page }]\n\
                \x20   command: [\"sh\", \"-c\", \"trap 'cat /run/secrets/token /page >> /told' HUP; while :; do sleep 0.1; done\"]\n\
                \x20   x-skep: { on-change: SIGHUP }\n\
                secrets: { token: { file: ./token.txt } }\nconfigs: { page: { file: ./page.txt } }\n";
    let write = |token, page| (world.file("token.txt", token), world.file("page.txt", page));
    let until_told = |told: &str| {
        world.until("the container has been told", || match world.exec("s_a.1", &["cat", "/told"]).stdout {
            text if text == told => Ok(()),
            text => Err(text),
        });
    };
    write("one", "first");
    world.up("s", yaml);
    let before = world.tasks("s_a");
    // Shorter and longer: nothing of the old one is left.
    write("2", "the second");
    world.up("s", yaml);
    until_told("2the second");
    let ids = |tasks: &[crate::world::Task]| tasks.iter().map(|task| task.id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&world.tasks("s_a")), ids(&before));
    // A deploy of the same tells nobody.
    world.up("s", yaml);
    write("three", "the second");
    world.up("s", yaml);
    until_told("2the secondthreethe second");
    // What is not a signal is refused where it stands.
    let refused = world.deploy("s", &yaml.replace("SIGHUP", "SIGNAL"));
    assert!(refused.stderr.contains("on-change `SIGNAL` is no signal"), "{refused}");
}

#[test]
fn secrets_and_configs_are_made_by_hand_and_not_removed_while_used() {
    let world = World::new();
    let mut command = world.command(world.node(), &["secret", "create", "token", "-"]);
    let input = fs::File::open(world.file("token", "from standard input")).unwrap();
    assert!(command.stdin(input).status().unwrap().success());
    world.ok(&["config", "create", "-l", "a=b", "page", world.file("page", "text").to_str().unwrap()]);
    world.up(
        "s",
        "services: { a: { <<: *idle, secrets: [token], configs: [page] } }\n\
         secrets: { token: { external: true } }\nconfigs: { page: { external: true } }\n",
    );
    assert_eq!(world.sh("s_a.1", "cat /run/secrets/token /page"), "from standard inputtext");
    for noun in ["secret", "config"] {
        let name = if noun == "secret" { "token" } else { "page" };
        let refused = world.refused(&[noun, "rm", name]);
        assert!(refused.contains("s_a"), "who uses it: {refused}");
        assert!(world.ok(&[noun, "ls"]).contains(name));
    }
    world.ok(&["stack", "rm", "s"]);
    for (noun, name) in [("secret", "token"), ("config", "page")] {
        world.ok(&[noun, "rm", name]);
        assert_eq!(world.ok(&[noun, "ls", "-q"]), "");
    }
    let twice = world.ok(&["secret", "create", "token", world.file("t", "x").to_str().unwrap()]);
    assert_eq!(twice.trim().len(), 25, "the id: {twice}");
    let refused = world.refused(&["secret", "create", "token", world.file("t", "x").to_str().unwrap()]);
    assert!(refused.contains("already exists"), "{refused}");
}
