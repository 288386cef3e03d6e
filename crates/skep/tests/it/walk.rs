//! The first day of a user: init, deploy, curl, look, scale, remove, leave.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use skep_lab::OUTSIDE_ADDRESS;

use crate::traces::Traces;
use crate::world::{World, example};

const PORT: u16 = 8080;

/// `visit N answered by HOST for CLIENT`
fn visit(world: &World, ask: impl Fn() -> Result<skep_lab::HttpAnswer, String>) -> (u64, String) {
    world.until("the counter counts", || {
        let answer = ask()?;
        let words: Vec<&str> = answer.body.split_whitespace().collect();
        match (answer.status, words.as_slice()) {
            (200, ["visit", count, "answered", "by", _, "for", client]) => {
                Ok((count.parse().unwrap(), (*client).to_owned()))
            }
            _ => Err(format!("{answer:?}")),
        }
    })
}

#[test]
fn a_first_day_from_init_to_leave() {
    let world = World::bare();
    let node = world.node();
    let before = Traces::of_kernel(node);

    let welcome = world.ok(&["init"]);
    let data_dir = node.data_dir();
    for told in [data_dir.to_str().unwrap(), "daemon.log", "7377", "No sudo", "skep join --token SKEP-1-"] {
        assert!(welcome.contains(told), "{told} in: {welcome}");
    }

    let idle = world.until("keeper and net helper run", || {
        let now = Traces::of_kernel(node);
        let runs = |name: &str| now.lines().any(|line| line.starts_with("process:") && line.contains(name));
        if runs("keeper") && runs(" net ") { Ok(now) } else { Err(format!("{now:?}")) }
    });

    let said = world.ok(&["stack", "deploy", "-c", &example("counter/compose.yml"), "counter"]);
    for service in ["counter_proxy", "counter_web", "counter_redis"] {
        assert!(said.contains(service), "{said}");
    }
    let (first, client) = visit(&world, || world.get_outside(node.address(), PORT));
    assert_eq!(client, OUTSIDE_ADDRESS.to_string(), "the client's address is kept");
    let (second, _) = visit(&world, || world.get_inside(Ipv4Addr::LOCALHOST, PORT));
    assert!(second > first);
    // A node reaches itself under its own address too, and `localhost` may be the IPv6 one.
    for address in [IpAddr::V4(node.address()), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
        visit(&world, || world.get_inside(address, PORT));
    }

    let tasks = world.rows(&["stack", "ps", "counter"]);
    assert_eq!(tasks.len(), 4, "{tasks:?}");
    assert!(tasks.iter().all(|task| task["CurrentState"].as_str().unwrap().starts_with("Running")), "{tasks:?}");
    let services = world.ok(&["service", "ls"]);
    assert!(services.contains("counter_web") && services.contains("2/2"), "{services}");
    let logs = world.ok(&["service", "logs", "counter_web"]);
    assert!(logs.contains("counter_web.1.") && logs.contains("counting in redis:6379"), "{logs}");
    assert_eq!(world.sh("counter_web.1", "cat /proc/1/comm"), "python3");

    world.ok(&["service", "scale", "counter_web=3"]);
    world.until_running("counter_web", 3);

    world.ok(&["stack", "rm", "counter"]);
    assert_eq!(world.ok(&["service", "ls", "-q"]), "");
    world.until("nothing in the kernel tells of the stack", || {
        let now = Traces::of_kernel(node);
        // The frame of the packet filter and the parent of the containers' cgroups stay for the next stack.
        let frame = |line: &&str| match line.strip_prefix("nft list ruleset: ") {
            Some(rule) => !rule.contains("8080") && !rule.replace("10.64.0.0/10", "").contains("10.64."),
            None => line.starts_with("cgroup: ") && line.ends_with("/c"),
        };
        let left: Vec<&str> = now.since(&idle).into_iter().filter(|line| !frame(line)).collect();
        let containers = world.ok(&["ps", "--all", "-q"]);
        if left.is_empty() && containers.is_empty() { Ok(()) } else { Err(format!("{containers} {left:#?}")) }
    });

    let said = world.ok(&["leave", "--force"]);
    assert!(said.contains("counter_data"), "the volume that stays is named: {said}");
    assert!(said.contains("daemon was stopped"), "{said}");
    assert_eq!(Traces::of_kernel(node).since(&before), Vec::<&str>::new());
    let folders = Traces::of_folders(node);
    assert!(folders.lines().any(|file| file.starts_with("data/volumes/counter_data/_data/")), "{folders:?}");
    let known = |file: &&str| {
        !["data/volumes/counter_data/", "data/daemon.lo", "data/images/"].iter().any(|start| file.starts_with(start))
    };
    assert_eq!(folders.lines().filter(known).collect::<Vec<_>>(), Vec::<&str>::new());
    let blobs = |file: &&str| file.contains("blobs/") || file.contains("layers/");
    assert_eq!(folders.lines().filter(blobs).collect::<Vec<_>>(), Vec::<&str>::new(), "no image stays");

    world.ok(&["init"]);
    assert_eq!(world.ok(&["volume", "ls", "-q"]), "counter_data\n");
    let said = world.ok(&["leave", "--force", "--volumes"]);
    assert!(!said.contains("counter_data"), "{said}");
    let folders = Traces::of_folders(node);
    assert!(!folders.lines().any(|file| file.contains("counter_data")), "{folders:?}");
}

#[test]
fn the_hello_and_postgres_examples_come_up_and_the_database_survives_a_redeploy() {
    let world = World::new();
    world.ok(&["stack", "deploy", "-c", &example("hello/compose.yml"), "hello"]);
    let answer = world.until("hello answers", || world.get_outside(world.node().address(), 8081));
    assert!(answer.body.contains("Welcome to nginx"), "{answer:?}");
    let deploy = || world.ok(&["stack", "deploy", "-c", &example("postgres/compose.yml"), "pg"]);
    deploy();
    let psql = |query: &str| {
        let connect = "PGPASSWORD=$(cat /run/secrets/password) psql -h 127.0.0.1 -U postgres -d app";
        world.sh("pg_db.1", &format!("{connect} -Atc \"{query}\""))
    };
    psql("create table t (x int); insert into t values (42)");
    world.ok(&["stack", "rm", "pg"]);
    deploy();
    assert_eq!(psql("select x from t"), "42");
}
