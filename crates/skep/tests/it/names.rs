//! Names within a network: services, their tasks, aliases, containers, and what is not a name.

use std::collections::BTreeSet;

use crate::world::World;

const WEB: &str = "x-web: &web { image: \"${REGISTRY}/busybox:1\", stop_grace_period: 1s, \
    command: [\"sh\", \"-c\", \"hostname > /index.html; exec httpd -f -p 80 -h /\"] }\n";

/// The addresses of a name, as a container's resolver gives them.
fn lookup(world: &World, task: &str, name: &str) -> BTreeSet<String> {
    let outcome = world.exec(task, &["nslookup", "-type=a", name, "127.0.0.11"]);
    let answers = outcome.stdout.split_once("\n\n").map(|(_, answers)| answers.to_owned()).unwrap_or_default();
    answers.lines().filter_map(|line| line.strip_prefix("Address: ")).map(|address| address.trim().to_owned()).collect()
}

fn own_address(world: &World, task: &str) -> String {
    world.sh(task, "ip -4 -o addr show eth0 | awk '{print $4}' | cut -d/ -f1")
}

#[test]
fn a_service_is_one_address_and_its_tasks_are_theirs() {
    let world = World::new();
    let yaml = format!("{WEB}services:\n  web: {{ <<: *web, deploy: {{ replicas: 3 }} }}\n  client: {{ <<: *idle }}\n");
    world.up("s", &yaml);
    assert_eq!(world.sh("s_client.1", "grep nameserver /etc/resolv.conf"), "nameserver 127.0.0.11");
    let service = lookup(&world, "s_client.1", "web");
    assert_eq!(service.len(), 1, "{service:?}");
    assert_eq!(lookup(&world, "s_client.1", "s_web"), service, "also under its full name");
    let tasks: BTreeSet<String> = (1..=3).map(|slot| own_address(&world, &format!("s_web.{slot}"))).collect();
    assert_eq!(lookup(&world, "s_client.1", "tasks.web"), tasks);
    assert!(tasks.is_disjoint(&service));

    // The one address spreads over all tasks.
    let names: BTreeSet<String> = (1..=3).map(|slot| world.sh(&format!("s_web.{slot}"), "hostname")).collect();
    world.until("every task has answered", || {
        let script = "for i in $(seq 20); do timeout 5 wget -q -O - http://web/ || exit 1; done";
        let answered: BTreeSet<String> = world.sh("s_client.1", script).lines().map(str::to_owned).collect();
        if answered == names { Ok(()) } else { Err(format!("{answered:?} of {names:?}")) }
    });

    world.ok(&["service", "scale", "s_web=1"]);
    world.until("names follow the tasks", || {
        let tasks = lookup(&world, "s_client.1", "tasks.web");
        if tasks.len() == 1 { Ok(()) } else { Err(format!("{tasks:?}")) }
    });
    assert_eq!(lookup(&world, "s_client.1", "web"), service, "the service's address stays");
    let one =
        world.sh("s_client.1", "for i in 1 2 3 4 5; do timeout 5 wget -q -O - http://web/; done | sort -u | wc -l");
    assert_eq!(one, "1");
}

#[test]
fn aliases_are_names_in_their_network_only() {
    let world = World::new();
    let yaml = format!(
        "{WEB}services:\n\
         \x20 web: {{ <<: *web, networks: {{ one: {{ aliases: [www, page] }}, two: {{}} }} }}\n\
         \x20 a: {{ <<: *idle, networks: [one] }}\n\
         \x20 b: {{ <<: *idle, networks: [two] }}\n\
         networks: {{ one: {{}}, two: {{}} }}\n"
    );
    world.up("s", &yaml);
    for name in ["web", "www", "page", "WWW"] {
        assert_eq!(lookup(&world, "s_a.1", name).len(), 1, "{name}");
    }
    assert_eq!(lookup(&world, "s_b.1", "web").len(), 1);
    assert_eq!(lookup(&world, "s_b.1", "www").len(), 0);
    assert_ne!(lookup(&world, "s_a.1", "web"), lookup(&world, "s_b.1", "web"), "an address in each network");
}

#[test]
fn without_a_virtual_address_a_service_is_its_tasks() {
    let world = World::new();
    let yaml = format!(
        "{WEB}services:\n  web: {{ <<: *web, deploy: {{ replicas: 2, endpoint_mode: dnsrr }} }}\n  client: {{ <<: *idle }}\n"
    );
    world.up("s", &yaml);
    let tasks: BTreeSet<String> = (1..=2).map(|slot| own_address(&world, &format!("s_web.{slot}"))).collect();
    assert_eq!(lookup(&world, "s_client.1", "web"), tasks);
}

#[test]
fn a_container_knows_its_own_host_name_and_strangers_get_no_answer() {
    let world = World::new();
    world.up("s", "services:\n  a: { <<: *idle, hostname: box }\n  b: { <<: *idle }\n");
    let address = own_address(&world, "s_a.1");
    assert_eq!(world.sh("s_a.1", "ping -c 1 -W 5 box | head -1 | cut -d'(' -f2 | cut -d')' -f1"), address);
    assert_eq!(lookup(&world, "s_b.1", "box"), BTreeSet::from([address]));
    assert_eq!(lookup(&world, "s_b.1", "nobody-has-this-name").len(), 0);
}
