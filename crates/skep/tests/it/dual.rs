//! IPv6 within networks: every container, service and published port has it beside IPv4, unless a network is without.

use std::net::Ipv6Addr;

use serde_json::Value;
use skep_lab::OUTSIDE_ADDRESS_V6;

use crate::world::World;

/// Serves forever, on both families: `index.html` is the container's host name.
const WEB: &str = "x-web: &web { image: \"${REGISTRY}/busybox:1\", stop_grace_period: 1s, \
    command: [\"sh\", \"-c\", \"hostname > /index.html; exec httpd -f -p '[::]:80' -h /\"] }\n";

/// nginx that answers with the client's address.
const WHO: &str = "configs:\n  who: { content: \"server { listen 80; listen [::]:80; location / { return 200 $$remote_addr; } }\" }\n\
    x-who: &who { image: \"${REGISTRY}/nginx:1\", stop_grace_period: 1s, configs: [{ source: who, target: /etc/nginx/conf.d/default.conf }] }\n";

/// What `ip` says inside of the task's IPv6 addresses.
fn addresses(world: &World, task: &str) -> Vec<Ipv6Addr> {
    let text = world.sh(task, "ip -6 -o addr show scope global | awk '{print $4}' | cut -d/ -f1");
    text.lines().map(|line| line.parse().unwrap_or_else(|_| panic!("an address: {line}"))).collect()
}

fn aaaa(world: &World, task: &str, name: &str) -> Vec<Ipv6Addr> {
    let outcome = world.exec(task, &["nslookup", "-type=aaaa", name, "127.0.0.11"]);
    let answers = outcome.stdout.split_once("\n\n").map(|(_, answers)| answers.to_owned()).unwrap_or_default();
    let mut found: Vec<Ipv6Addr> = answers
        .lines()
        .filter_map(|line| line.strip_prefix("Address: "))
        .map(|address| address.trim().parse().unwrap_or_else(|_| panic!("an address: {address}")))
        .collect();
    found.sort();
    found
}

fn get(world: &World, task: &str, address: Ipv6Addr) -> Result<String, String> {
    let outcome = world.exec(task, &["timeout", "5", "wget", "-q", "-O", "-", &format!("http://[{address}]/")]);
    if outcome.is_ok() { Ok(outcome.stdout.trim().to_owned()) } else { Err(outcome.to_string()) }
}

fn inspect(world: &World, args: &[&str]) -> Value {
    let mut all: Vec<Value> = serde_json::from_str(&world.ok(args)).unwrap();
    all.remove(0)
}

#[test]
fn containers_services_and_ports_have_ipv6_beside_ipv4() {
    let world = World::new();
    let yaml = format!(
        "{WHO}services:\n\
         \x20 web: {{ <<: *who, ports: [\"8080:80\"], deploy: {{ replicas: 2 }} }}\n\
         \x20 client: {{ <<: *idle, cap_add: [NET_ADMIN] }}\n\
         networks: {{ default: {{ enable_ipv6: true }} }}\n"
    );
    world.up("s", &yaml);
    let own = addresses(&world, "s_client.1")[0];
    assert!(own.is_unique_local(), "{own}");
    let mut tasks: Vec<Ipv6Addr> = (1..=2).map(|slot| addresses(&world, &format!("s_web.{slot}"))[0]).collect();
    tasks.sort();
    assert_eq!(aaaa(&world, "s_client.1", "tasks.web"), tasks);
    assert_eq!(aaaa(&world, "s_client.1", "web.1"), [addresses(&world, "s_web.1")[0]]);
    let service = aaaa(&world, "s_client.1", "web");
    assert!(service.len() == 1 && !tasks.contains(&service[0]), "{service:?}");
    for address in tasks.iter().chain(&service) {
        let seen = world.until("it answers", || get(&world, "s_client.1", *address));
        assert_eq!(seen, own.to_string(), "{address}: the container's own address arrives");
        world.sh("s_client.1", &format!("ping -6 -c 1 -W 5 {}", tasks[0]));
    }
    let named = world.sh("s_client.1", &format!("nslookup {} 127.0.0.11 | grep name", tasks[0]));
    assert!(named.contains("s_web."), "{named}");
    let hosts = world.sh("s_client.1", "cat /etc/hosts");
    assert!(hosts.contains(&own.to_string()), "{hosts}");

    let seen = world.until("the port answers", || world.get_outside(world.node().address_v6(), 8080)).body;
    assert_eq!(seen, OUTSIDE_ADDRESS_V6.to_string(), "with the client's address");
    world.until("localhost too", || world.get_inside(Ipv6Addr::LOCALHOST, 8080));

    let network = inspect(&world, &["network", "inspect", "--verbose", "s_default"]);
    assert_eq!((&network["EnableIPv6"], network["IPAM"]["Config"].as_array().unwrap().len()), (&Value::Bool(true), 2));
    assert_eq!(network["Services"]["s_web"]["VIPv6"], service[0].to_string());
    let listed: Vec<&Value> = network["Services"]["s_web"]["Tasks"].as_array().unwrap().iter().collect();
    assert!(listed.iter().all(|task| tasks.iter().any(|at| task["EndpointIPv6"] == at.to_string())), "{listed:?}");

    // A forged source gets no answer, be it a neighbour's or of no network.
    for forged in [tasks[0].to_string(), "fd99::1".to_owned()] {
        // It is the container's own to use once the kernel has asked in vain whether somebody else has it.
        let wait = "while ip -6 addr show dev eth0 | grep -q tentative; do sleep 0.1; done";
        world.sh("s_client.1", &format!("ip -6 addr add {forged}/128 dev eth0; {wait}"));
        let stolen =
            world.exec("s_client.1", &["ping", "-6", "-c", "1", "-W", "2", "-I", &forged, &tasks[1].to_string()]);
        assert!(stolen.stdout.contains("100% packet loss"), "{stolen}");
    }
}

#[test]
fn networks_are_closed_to_each_other_and_internal_ones_to_the_outside() {
    let world = World::new();
    let yaml = format!(
        "{WEB}services:\n\
         \x20 a: {{ <<: *web, networks: [one] }}\n\
         \x20 b: {{ <<: *web, networks: [two] }}\n\
         \x20 closed: {{ <<: *web, networks: [inner] }}\n\
         \x20 both: {{ <<: *web, networks: [one, inner] }}\n\
         networks: {{ one: {{ enable_ipv6: true }}, two: {{ enable_ipv6: true }}, inner: {{ enable_ipv6: true, internal: true }} }}\n"
    );
    world.up("s", &yaml);
    let address = |task: &str| addresses(&world, task)[0];
    assert!(get(&world, "s_a.1", address("s_b.1")).is_err());
    assert!(get(&world, "s_a.1", address("s_closed.1")).is_err());
    let shared = addresses(&world, "s_both.1");
    assert_eq!(shared.len(), 2);
    assert_eq!(shared.iter().filter(|at| get(&world, "s_a.1", **at).is_ok()).count(), 1, "on its own network only");
    assert_eq!(shared.iter().filter(|at| get(&world, "s_closed.1", **at).is_ok()).count(), 1);
    let ping =
        |task: &str, to: Ipv6Addr| world.exec(task, &["ping", "-6", "-c", "1", "-W", "2", &to.to_string()]).is_ok();
    let node = world.node().address_v6();
    assert!(ping("s_a.1", OUTSIDE_ADDRESS_V6), "the way out");
    assert!(!ping("s_closed.1", OUTSIDE_ADDRESS_V6) && !ping("s_closed.1", node));
}

#[test]
fn a_network_may_have_a_range_of_its_own_or_none() {
    let world = World::new();
    let yaml = format!(
        "{WEB}services:\n\
         \x20 chosen: {{ <<: *web, networks: {{ own: {{ ipv6_address: \"fd00:1::20\" }} }} }}\n\
         \x20 client: {{ <<: *idle, networks: [own] }}\n\
         \x20 old: {{ <<: *web, networks: [without], ports: [\"8081:80\"] }}\n\
         \x20 neighbour: {{ <<: *idle, networks: [without] }}\n\
         networks:\n\
         \x20 own: {{ ipam: {{ config: [{{ subnet: 10.1.0.0/24 }}, {{ subnet: \"fd00:1::/64\" }}] }} }}\n\
         \x20 without: {{}}\n"
    );
    world.up("s", &yaml);
    let chosen: Ipv6Addr = "fd00:1::20".parse().unwrap();
    assert_eq!(addresses(&world, "s_chosen.1"), [chosen]);
    assert_eq!(world.sh("s_chosen.1", "ip -4 -o addr show eth0 | awk '{print $4}'"), "10.1.0.32/24");
    assert!(get(&world, "s_client.1", chosen).is_ok());
    assert!(addresses(&world, "s_old.1").is_empty());
    assert!(aaaa(&world, "s_neighbour.1", "old").is_empty());
    world.until("its port answers over IPv6 too", || world.get_outside(world.node().address_v6(), 8081));
    let network = inspect(&world, &["network", "inspect", "s_without"]);
    assert_eq!(network["EnableIPv6"], false);
    let listed = world.ok(&["network", "ls", "--format", "{{.Name}} {{.IPv6}}"]);
    assert!(listed.contains("s_own true") && listed.contains("s_without false"), "{listed}");

    let clash = world.refused(&["network", "create", "--subnet", "fd00:1:0:0:8000::/65", "other"]);
    assert!(clash.contains("overlaps fd00:1::/64 of network s_own"), "{clash}");
    let outcome = world.deploy(
        "t",
        "services: { a: { <<: *idle, networks: { n: { ipv4_address: 10.2.0.9, ipv6_address: \"fd00:2::8\" } } } }\n\
         networks: { n: { ipam: { config: [{ subnet: 10.2.0.0/24 }, { subnet: \"fd00:2::/64\" }] } } }\n",
    );
    assert!(outcome.stderr.contains("fd00:2::9"), "the one that goes with it is named: {outcome}");
}
