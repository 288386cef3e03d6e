//! When machines are lost, and when managers are locked: backup and restore, autolock, versions that do not fit.

use std::fs;
use std::process::Stdio;

use skep_lab::{Node, Outcome, StopSignal};

use crate::unlock::{said, unlock};
use crate::world::{World, binary};

/// A command with a backup's passphrase in its environment.
fn with_passphrase(world: &World, node: &Node, passphrase: &str, args: &[&str]) -> Outcome {
    let mut command = world.command(node, args);
    command.env("SKEP_BACKUP_PASSPHRASE", passphrase).stdin(Stdio::null());
    Outcome::of(&mut command, &format!("{}$ skep {}", node.name(), args.join(" "))).unwrap()
}

#[test]
fn a_backup_brings_the_cluster_back_on_another_machine_with_another_address() {
    let world = World::of_nodes(2);
    let (first, second) = (world.lab().node(1), world.lab().node(2));
    world.ok(&["init"]);
    world.file("token.txt", "hush");
    world.up("s", "services: { a: { <<: *idle, secrets: [token] } }\nsecrets: { token: { file: ./token.txt } }\n");
    let file = first.folder().join("cluster.backup").to_str().unwrap().to_owned();
    let none = with_passphrase(&world, first, "", &["cluster", "backup", &file]);
    assert!(none.code == 1 && none.stderr.contains("needs a passphrase"), "{none}");
    with_passphrase(&world, first, "open sesame", &["cluster", "backup", &file]).ok().unwrap();
    let again = with_passphrase(&world, first, "open sesame", &["cluster", "backup", &file]);
    assert!(again.code == 1 && again.stderr.contains("already"), "{again}");
    let id = world.ok(&["info", "--format", "{{.Swarm.Cluster.ID}}"]);
    world.ok(&["leave", "--force"]);

    let wrong = with_passphrase(&world, second, "open barley", &["cluster", "restore", &file]);
    assert!(wrong.code == 1 && wrong.stderr.contains("passphrase"), "{wrong}");
    let restored = with_passphrase(&world, second, "open sesame", &["cluster", "restore", &file]).ok().unwrap();
    assert!(restored.contains("n1") && restored.contains(&format!("{}:7377", second.address())), "{restored}");
    let there = |args: &[&str]| world.skep_on(second, args).ok().unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(there(&["info", "--format", "{{.Swarm.Cluster.ID}}"]), id);
    let secret = world.until("the service runs on the new node, with its secret", || {
        let outcome = world.skep_on(second, &["exec", "s_a.1", "cat", "/run/secrets/token"]);
        if outcome.is_ok() { Ok(outcome.stdout.clone()) } else { Err(outcome.to_string()) }
    });
    assert_eq!(secret, "hush");
    let nodes = there(&["node", "ls", "--format", "{{.Hostname}} {{.Status}}"]);
    assert!(nodes.contains("n1 Down") && nodes.contains("n2 Ready"), "{nodes}");

    // What it printed lets a machine join.
    let token = restored.split_whitespace().find(|word| word.starts_with("SKEP-1-")).expect("a token is printed");
    let manager = format!("{}:7377", second.address());
    world.skep_on(first, &["join", "--token", token, &manager]).ok().unwrap();
    let member = with_passphrase(&world, second, "open sesame", &["cluster", "restore", &file]);
    assert!(member.code == 1 && member.stderr.contains("already part of a cluster"), "{member}");
}

#[test]
fn a_locked_manager_waits_for_its_key_while_its_containers_run_on() {
    let world = World::new();
    world.up("s", "services: { a: { <<: *idle } }");
    let task = world.running("s_a")[0].clone();
    let off = world.refused(&["swarm", "unlock-key"]);
    assert!(off.contains("autolock is off"), "{off}");
    world.ok(&["swarm", "update", "--autolock"]);
    let key = world.ok(&["swarm", "unlock-key", "-q"]).trim().to_owned();
    let identity = world.node().data_dir().join("identity");
    let until_locked = |since: Option<Vec<u8>>| {
        world.until("the keys are locked", || {
            // The id of the key that it was locked with; the same key locks anew when the node's certificate changes.
            let locked = fs::read(identity.join("locked")).ok().map(|bytes| bytes[18..26].to_vec());
            let clear = identity.join("raft.key").exists() || identity.join("key.pem").exists();
            if locked.is_some() && locked != since && !clear {
                Ok(locked)
            } else {
                Err(format!("in the clear: {clear}"))
            }
        })
    };
    let first = until_locked(None);

    let before = world.processes(&task.id);
    assert!(!before.is_empty());
    world.crash_daemon();
    world.start_daemon();
    for args in [&["service", "ls"][..], &["ps"], &["init"], &["volume", "ls"], &["leave"], &["cluster", "recover"]] {
        let told = world.refused(args);
        assert!(told.contains("locked") && told.contains("skep unlock"), "{args:?}: {told}");
    }
    assert!(world.skep(&["info"]).is_ok());
    assert_eq!(world.processes(&task.id), before, "what runs runs on");
    let malformed = unlock(&world, world.node(), "SKEPKEY-1-abc");
    assert!(!malformed.status.success() && said(&malformed).contains("cut off"), "{}", said(&malformed));
    let last = if key.ends_with('0') { '1' } else { '0' };
    let wrong = unlock(&world, world.node(), &format!("{}{last}", &key[..key.len() - 1]));
    assert!(!wrong.status.success() && said(&wrong).contains("does not unlock this manager"), "{}", said(&wrong));
    let unlocked = unlock(&world, world.node(), &key);
    assert!(unlocked.status.success(), "{}", said(&unlocked));
    assert_eq!(world.until_running("s_a", 1)[0].id, task.id, "the same task runs");
    assert_eq!(world.processes(&task.id), before);
    let not_locked = unlock(&world, world.node(), &key);
    assert!(said(&not_locked).contains("not locked"), "{}", said(&not_locked));

    let rotated = world.ok(&["swarm", "unlock-key", "-q", "--rotate"]).trim().to_owned();
    assert_ne!(rotated, key);
    until_locked(first);
    world.crash_daemon();
    world.start_daemon();
    let old = unlock(&world, world.node(), &key);
    assert!(!old.status.success() && said(&old).contains("from before"), "{}", said(&old));
    assert!(unlock(&world, world.node(), &rotated).status.success());
    world.ok(&["swarm", "update", "--autolock=false"]);
    world.until("the keys are in the clear", || match identity.join("locked").exists() {
        true => Err("still locked".to_owned()),
        false => Ok(()),
    });
    world.crash_daemon();
    world.start_daemon();
    world.until_running("s_a", 1);
}

#[test]
fn a_locked_manager_can_leave_without_its_key() {
    let world = World::bare();
    let made = world.ok(&["init", "--autolock"]);
    assert!(made.contains("SKEPKEY-1-"), "{made}");
    world.up("s", "services: { a: { <<: *idle } }");
    let task = world.running("s_a")[0].clone();
    let locked = world.node().data_dir().join("identity/locked");
    world.until("the keys are locked", || if locked.exists() { Ok(()) } else { Err("in the clear".to_owned()) });
    world.node().kill_daemon(StopSignal::Term).unwrap();
    world.start_daemon();
    world.ok(&["leave", "--force"]);
    assert_eq!(world.processes(&task.id), [0; 0]);
    assert!(!locked.exists());
}

#[test]
fn a_cluster_that_works_is_not_recovered_and_an_older_manager_does_not_start() {
    let world = World::new();
    for args in [&["cluster", "recover", "--yes"][..], &["init", "--force-new-cluster"]] {
        let refused = world.refused(args);
        assert!(refused.contains("only manager"), "{args:?}: {refused}");
    }
    // With force it is done all the same: what was there is there again, under a new Raft id.
    world.up("s", "services: { a: { <<: *idle } }");
    let task = world.running("s_a")[0].clone();
    let done = world.ok(&["cluster", "recover", "--yes", "--force"]);
    let kept = done.split_whitespace().find(|word| word.contains("raft-before-recovery-")).expect("it says where");
    assert!(std::path::Path::new(kept.trim_end_matches('.')).is_dir(), "{done}");
    assert_eq!(world.until_running("s_a", 1)[0].id, task.id);
    world.up("t", "services: { b: { <<: *idle } }");

    // Only a debug build pretends to be an older version.
    if !binary().ends_with("release/skep") {
        world.node().kill_daemon(StopSignal::Term).unwrap();
        let mut older = world.command(world.node(), &["daemon"]);
        older.env("SKEP_LEVEL", "0").stdin(Stdio::null());
        let refused = Outcome::of(&mut older, "skep daemon, of an older version").unwrap();
        assert_eq!(refused.code, 1, "{refused}");
        let told = &refused.stderr;
        assert!(told.contains("too old to be a manager of this cluster") && told.contains("or newer"), "{told}");
        world.start_daemon();
        world.until_running("t_b", 1);
    }
}
