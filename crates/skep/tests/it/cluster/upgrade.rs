//! Two neighbouring versions as two real builds: a cluster of the build before becomes one of this build, node by node,
//! under writes and requests. `cargo xtask test --soak` makes the other build and names it in `SKEP_PREVIOUS`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use skep_lab::{Outcome, StopSignal};

use super::{Cluster, configs, write};
use crate::load;
use crate::world::World;

const MANAGERS: u8 = 3;
const NODES: u8 = 4;

/// A command of the build before, on a node that runs it.
fn before(world: &World, previous: &Path, number: u8, args: &[&str]) -> Outcome {
    let mut command = world.lab().node(number).command(previous);
    Outcome::of(command.args(args), &format!("n{number}$ {} {}", previous.display(), args.join(" "))).unwrap()
}

/// A cluster of the build before.
fn cluster_before(previous: &Path) -> Cluster {
    let world = World::of_nodes(NODES);
    for node in world.lab().nodes() {
        node.start_daemon_of(previous, &[], &[]).unwrap();
    }
    before(&world, previous, 1, &["init", "--advertise-addr", "eth0"]).ok().unwrap();
    let manager = format!("{}:7377", world.lab().node(1).address());
    for number in 2..=NODES {
        let role = if number <= MANAGERS { "manager" } else { "worker" };
        let token = before(&world, previous, 1, &["join-token", "--quiet", role]).ok().unwrap();
        before(&world, previous, number, &["join", "--token", token.trim(), &manager]).ok().unwrap();
    }
    let cluster = Cluster { world, managers: MANAGERS };
    cluster.until_whole(usize::from(NODES));
    cluster
}

fn web(version: u8) -> String {
    format!(
        "configs:\n  web: {{ content: \"server {{ listen 80; access_log off; location / {{ return 200 {version}; }} }}\" }}\n\
         services:\n  web:\n    image: ${{REGISTRY}}/nginx:1\n    ports: [\"8080:80\"]\n\
         \x20   configs: [{{ source: web, target: /etc/nginx/conf.d/default.conf }}]\n\
         \x20   healthcheck: {{ test: [CMD, busybox, wget, -q, -O, /dev/null, \"http://127.0.0.1/\"], interval: 5s, \
         timeout: 20s, start_period: 60s, start_interval: 100ms }}\n\
         \x20   deploy: {{ replicas: 4, update_config: {{ order: start-first, monitor: 100ms }} }}\n"
    )
}

/// Each container with its start: another one of either is another container.
fn running(cluster: &Cluster) -> Vec<String> {
    let mut all: Vec<String> =
        cluster.world.running("s_web").into_iter().map(|task| format!("{}@{}", task.id, task.node)).collect();
    all.sort();
    all
}

/// Whether something of this build's level is still refused.
fn level_is_low(cluster: &Cluster) -> Result<bool, String> {
    let [certificate, key] = ["ca.crt", "ca.key"].map(|name| cluster.world.file(name, "-").display().to_string());
    let told = cluster.world.skep(&["swarm", "ca", "--rotate", "--ca-cert", &certificate, "--ca-key", &key]);
    match (told.stderr.contains("too old"), told.stderr.contains("not PEM")) {
        (true, false) => Ok(true),
        (false, true) => Ok(false),
        _ => Err(told.to_string()),
    }
}

#[test]
fn nodes_of_the_version_before_are_replaced_one_by_one_and_nothing_restarts() {
    let Some(previous) = std::env::var_os("SKEP_PREVIOUS").map(PathBuf::from) else { return };
    let cluster = cluster_before(&previous);
    let world = &cluster.world;
    world.up("s", &web(1));
    let addresses = [1, NODES].map(|number| SocketAddr::new(cluster.node(number).address().into(), 8080));
    let over = AtomicBool::new(false);
    let (written, seen) = load::during(world, &addresses, || {
        thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let mut written = Vec::new();
                for count in 0.. {
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    // Whichever manager is up: one of them is being replaced.
                    let name = format!("c{count}");
                    if (1..=MANAGERS).any(|number| write(&cluster, number, &name).is_ok()) {
                        written.push(name);
                    }
                }
                written
            });
            let end = load::End(&over);
            // A follower first, then the worker, and whoever led at last.
            let leader = cluster.leader();
            let followers = (1..=MANAGERS).filter(|number| *number != leader);
            let order: Vec<u8> = followers
                .take(1)
                .chain([NODES])
                .chain((1..=MANAGERS).filter(|n| *n != leader).skip(1))
                .chain([leader])
                .collect();
            for (step, number) in order.iter().enumerate() {
                let kept = running(&cluster);
                world.ask(order[0]);
                cluster.node(*number).kill_daemon(StopSignal::Term).unwrap();
                if *number == order[0] {
                    world.ask(leader);
                }
                cluster.node(*number).start_daemon().unwrap();
                cluster.until_whole(usize::from(NODES));
                assert_eq!(running(&cluster), kept, "n{number} is of this build, and nothing moved or began anew");
                if step == 0 {
                    world.ask(order[0]);
                    assert_eq!(level_is_low(&cluster), Ok(true));
                    world.up("s", &web(2));
                }
            }
            world.until("the level rises", || match level_is_low(&cluster)? {
                true => Err("it is low".to_owned()),
                false => Ok(()),
            });
            drop(end);
            writer.join().unwrap()
        })
    });
    for (address, seen) in addresses.iter().zip(&seen) {
        seen.assert_whole(&address.to_string());
        assert!(seen.answers.contains_key("1") && seen.answers.contains_key("2"), "{:?}", seen.answers);
    }
    assert!(written.len() > 10, "{written:?}");
    let there = configs(&cluster, 1).unwrap();
    let lost: Vec<_> = written.iter().filter(|name| !there.contains(name)).collect();
    assert!(lost.is_empty(), "of {} that were acknowledged: {lost:?}", written.len());
}
