//! Certificates in a real cluster: a CA that is rotated while a node is down, and a clock that is wrong.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use skep_lab::StopSignal;

use crate::load::End;
use crate::world::World;

fn join(world: &World, node: u8, token: &str) -> skep_lab::Outcome {
    let manager = format!("{}:7377", world.node().address());
    world.skep_on(world.lab().node(node), &["join", "--token", token, &manager])
}

fn until_node(world: &World, name: &str, status: &str) {
    world.until(&format!("{name} is {status}"), || {
        let nodes = world.rows(&["node", "ls"]);
        let is = nodes.iter().any(|node| node["Hostname"] == name && node["Status"] == status);
        if is { Ok(()) } else { Err(format!("{nodes:?}")) }
    });
}

#[test]
fn a_rotation_of_the_ca_waits_for_no_node_that_is_down_and_that_node_comes_back_by_itself() {
    let world = World::of_nodes(3);
    world.ok(&["init"]);
    let old_token = world.ok(&["join-token", "--quiet", "worker"]).trim().to_owned();
    join(&world, 2, &old_token).ok().unwrap();
    until_node(&world, "n2", "Ready");
    let before = world.ok(&["swarm", "ca"]);
    assert!(before.contains("BEGIN CERTIFICATE"), "{before}");
    world.lab().node(2).kill_daemon(StopSignal::Kill).unwrap();

    let rotated = world.skep(&["swarm", "ca", "--rotate"]).ok().unwrap();
    assert_eq!(world.ok(&["swarm", "ca"]), rotated);
    assert_ne!(before, rotated);
    let refused = join(&world, 3, &old_token);
    assert!(refused.code != 0 && refused.stderr.contains("rotated"), "{refused}");
    let token = world.ok(&["join-token", "--quiet", "worker"]);
    join(&world, 3, token.trim()).ok().unwrap();
    until_node(&world, "n3", "Ready");

    // Rotated once more, with everybody there but the one: it misses two.
    world.ok(&["swarm", "ca", "--rotate", "--quiet"]);
    until_node(&world, "n2", "Down");
    world.lab().node(2).start_daemon().unwrap();
    until_node(&world, "n2", "Ready");
    until_node(&world, "n3", "Ready");
}

#[test]
fn a_node_whose_clock_is_wrong_joins_works_and_says_so() {
    let world = World::of_nodes(3);
    world.ok(&["init"]);
    let token = world.ok(&["join-token", "--quiet", "worker"]).trim().to_owned();
    const TEN_YEARS: i64 = 315_360_000;
    for (node, shift, says) in [(2, -TEN_YEARS, "waiting for it to be set"), (3, TEN_YEARS, "ahead of its manager's")] {
        let machine = world.lab().node(node);
        machine.write_config(&format!("clock_shift_seconds = {shift}\n")).unwrap();
        join(&world, node, &token).ok().unwrap();
        until_node(&world, machine.name(), "Ready");
        world.until("it says so", || {
            let info = world.skep_on(machine, &["info"]);
            if info.stderr.contains(says) { Ok(()) } else { Err(info.to_string()) }
        });
    }
}

/// A root and its key as the machine's openssl makes them: the paths of both.
fn root(world: &World, name: &str, kind: &[&str], more: &[&str]) -> [String; 2] {
    let [certificate, key] = ["crt", "key"].map(|end| world.file(&format!("{name}.{end}"), "").display().to_string());
    let subject = format!("/O=Example Ltd/CN={name}");
    let start = ["req", "-x509", "-nodes", "-subj", &subject, "-keyout", &key, "-out", &certificate];
    let made = world.node().run("openssl", &[&start, kind, more].concat()).unwrap();
    made.ok().unwrap();
    [certificate, key]
}

const P256: [&str; 4] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];

#[test]
fn a_root_that_is_given_takes_over_and_rotations_again_and_again_disturb_nobody() {
    let world = World::of_nodes(2);
    world.ok(&["init"]);
    let token = world.ok(&["join-token", "--quiet", "worker"]);
    join(&world, 2, token.trim()).ok().unwrap();
    until_node(&world, "n2", "Ready");
    world.up("s", "services: { a: { <<: *idle, deploy: { mode: global } } }");
    let tasks = |world: &World| {
        let mut ids: Vec<_> = world.running("s_a").into_iter().map(|task| task.id).collect();
        ids.sort();
        ids
    };
    let (before, first) = (tasks(&world), world.ok(&["swarm", "ca"]));

    // What cannot be a root is told, and nothing is changed.
    let days = |count: &'static str| ["-days", count];
    let good = root(&world, "good", &P256, &days("365"));
    let other = root(&world, "other", &P256, &days("365"));
    let leaf = root(&world, "leaf", &P256, &["-addext", "basicConstraints=critical,CA:FALSE"]);
    let short = root(&world, "short", &P256, &["-addext", "basicConstraints=critical,CA:TRUE,pathlen:0"]);
    let strange = root(&world, "strange", &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:secp256k1"], &[]);
    let text = world.file("text", "no PEM").display().to_string();
    for (certificate, key, words) in [
        (&good[0], &other[1], "does not belong to"),
        (&leaf[0], &leaf[1], "CA:TRUE"),
        (&short[0], &short[1], "pathlen"),
        (&strange[0], &strange[1], "is not one that skep signs with"),
        (&text, &good[1], "not PEM"),
        (&good[0], &text, "openssl pkcs8"),
    ] {
        let told = world.refused(&["swarm", "ca", "--rotate", "--ca-cert", certificate, "--ca-key", key]);
        assert!(told.contains(words), "{words}: {told}");
    }
    let told = world.refused(&["swarm", "ca", "--rotate", "--ca-cert", &good[0]]);
    assert!(told.contains("--ca-key"), "{told}");
    let told = world.refused(&["swarm", "ca", "--rotate", "--external-ca", "protocol=cfssl,url=https://x"]);
    assert!(told.contains("not supported"), "{told}");
    assert_eq!(world.ok(&["swarm", "ca"]), first);

    let over = AtomicBool::new(false);
    let written = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut written = 0;
            while !over.load(Ordering::Relaxed) {
                let label = format!("count={written}");
                world.ok(&["node", "update", "--label-add", &label, "n2"]);
                written += 1;
            }
            written
        });
        let end = End(&over);
        let rotate = |more: &[&str]| world.ok(&[&["swarm", "ca", "--rotate", "--quiet"], more].concat());
        // Of each kind of key, and more often than a node may miss.
        for (name, kind) in [
            ("one", P256.as_slice()),
            ("two", ["-newkey", "rsa:2048"].as_slice()),
            ("three", ["-newkey", "ed25519"].as_slice()),
        ] {
            let [certificate, key] = root(&world, name, kind, &days("365"));
            let now = rotate(&["--ca-cert", &certificate, "--ca-key", &key]);
            assert_eq!(now, fs::read_to_string(&certificate).unwrap());
            assert_eq!(world.ok(&["swarm", "ca"]), now);
            let again = world.refused(&["swarm", "ca", "--rotate", "--ca-cert", &certificate, "--ca-key", &key]);
            assert!(again.contains("has the name"), "{again}");
        }
        for _ in 0..4 {
            rotate(&[]);
        }
        drop(end);
        writer.join().unwrap()
    });
    assert!(written > 3, "{written} writes while it rotated");
    until_node(&world, "n2", "Ready");
    assert_eq!(tasks(&world), before);
    // A daemon that begins anew finds what it needs in its files.
    world.lab().node(2).kill_daemon(StopSignal::Kill).unwrap();
    world.lab().node(2).start_daemon().unwrap();
    until_node(&world, "n2", "Ready");
}
