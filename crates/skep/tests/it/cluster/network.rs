//! Networks across machines: names, service addresses and published ports of tasks on other nodes, and what others see.

use std::collections::BTreeSet;

use serde_json::Value;
use skep_lab::{OUTSIDE_ADDRESS, StopSignal};

use super::Cluster;
use super::wire::Wire;
use crate::world::World;

/// nginx that answers with the client's address, or with the host's name at `/host`; never on the first node.
pub const WHO: &str = "configs:\n  who: { content: \"server { listen 80; location = / { return 200 $$remote_addr; } \
    location /host { return 200 $$hostname; } }\" }\n\
    x-who: &who { image: \"${REGISTRY}/nginx:1\", stop_grace_period: 1s, \
    configs: [{ source: who, target: /etc/nginx/conf.d/default.conf }] }\n";

/// What `wget` within a task gets.
pub fn get(world: &World, task: &str, url: &str) -> Result<String, String> {
    let outcome = world.exec(task, &["timeout", "5", "wget", "-q", "-O", "-", url]);
    if outcome.is_ok() { Ok(outcome.stdout) } else { Err(outcome.to_string()) }
}

/// The addresses behind a name, as a task sees them.
pub fn resolve(world: &World, task: &str, name: &str) -> Result<BTreeSet<String>, String> {
    let outcome = world.exec(task, &["nslookup", "-type=a", name]);
    let answer = outcome.stdout.split_once("Name:").ok_or_else(|| outcome.to_string())?.1;
    let addresses = answer.lines().filter_map(|line| line.strip_prefix("Address: "));
    Ok(addresses.map(|address| address.trim().to_owned()).collect())
}

pub fn inspect(world: &World, args: &[&str]) -> Value {
    let text = world.ok(args);
    let mut all: Vec<Value> = serde_json::from_str(&text).unwrap_or_else(|_| panic!("a list of objects: {text}"));
    all.remove(0)
}

/// The first process of a service's one container, on node `number`.
pub fn process(world: &World, service: &str, number: u8) -> Result<i32, String> {
    let running = world.running(service);
    let id = &running.first().ok_or_else(|| format!("{service} does not run"))?.id;
    let asked = world.node().number();
    world.ask(number);
    let found = world.processes(id);
    world.ask(asked);
    found.first().copied().ok_or_else(|| format!("{service} has no process on n{number}"))
}

/// The one address of a task.
fn address(world: &World, task: &str) -> String {
    world.sh(task, "ip -4 -o addr show scope global | awk '{print $4}' | cut -d/ -f1")
}

#[test]
fn services_on_other_nodes_are_reached_by_name_address_and_port_and_networks_stay_apart() {
    let cluster = Cluster::new(1, 2);
    let world = &cluster.world;
    world.up(
        "s",
        &format!(
            "{WHO}services:\n\
             \x20 web: {{ <<: *who, networks: [front], ports: [\"8080:80\"], deploy: {{ replicas: 2, \
                 placement: {{ constraints: [\"node.hostname != n1\"], max_replicas_per_node: 1 }} }} }}\n\
             \x20 client: {{ <<: *idle, networks: [front], deploy: {{ placement: {{ constraints: [\"node.hostname == n1\"] }} }} }}\n\
             \x20 stranger: {{ <<: *idle, networks: [back], deploy: {{ placement: {{ constraints: [\"node.hostname == n1\"] }} }} }}\n\
             \x20 far: {{ <<: *who, networks: [back], deploy: {{ placement: {{ constraints: [\"node.hostname == n2\"] }} }} }}\n\
             networks: {{ front: {{}}, back: {{}} }}\n"
        ),
    );
    let own = address(world, "s_client.1");
    for url in ["http://web/", "http://s_web/"] {
        let seen = world.until("a service on other nodes answers", || get(world, "s_client.1", url));
        assert_eq!(seen, own, "{url}: the container's own address arrives");
    }
    let hosts: BTreeSet<String> =
        (0..20).map(|_| get(world, "s_client.1", "http://web/host").unwrap().trim().to_owned()).collect();
    assert_eq!(hosts.len(), 2, "the service's address leads to both: {hosts:?}");
    let tasks = world.until("both tasks have a name", || match resolve(world, "s_client.1", "tasks.web")? {
        tasks if tasks.len() == 2 => Ok(tasks),
        tasks => Err(format!("{tasks:?}")),
    });
    for task in &tasks {
        assert_eq!(get(world, "s_client.1", &format!("http://{task}/")).as_ref(), Ok(&own));
        let stranger = get(world, "s_stranger.1", &format!("http://{task}/"));
        assert!(stranger.is_err(), "another network reaches {task}: {stranger:?}");
    }
    let by_name = get(world, "s_stranger.1", "http://web/").unwrap_err();
    assert!(by_name.contains("bad address"), "{by_name}");
    for slot in ["web.1", "s_web.2"] {
        let found = resolve(world, "s_client.1", slot).unwrap();
        assert!(found.len() == 1 && found.is_subset(&tasks), "a slot is one task, wherever it is: {found:?}");
    }
    let stranger = address(world, "s_stranger.1");
    assert_eq!(world.until("its own network does", || get(world, "s_stranger.1", "http://far/")), stranger);

    every_node_answers(world, 8080);
    the_cluster_tells_who_is_where(&cluster, &tasks);
}

/// Also those without a task, and each with the client's own address.
fn every_node_answers(world: &World, port: u16) {
    for node in world.lab().nodes() {
        for _ in 0..6 {
            let answer = world.until("the port answers", || world.get_outside(node.address(), port));
            assert_eq!(answer.body, OUTSIDE_ADDRESS.to_string(), "at {}", node.name());
        }
    }
}

fn the_cluster_tells_who_is_where(cluster: &Cluster, tasks: &BTreeSet<String>) {
    let world = &cluster.world;
    let network = inspect(world, &["network", "inspect", "--verbose", "s_front"]);
    let web = &network["Services"]["s_web"];
    let shown = web["Tasks"].as_array().unwrap_or_else(|| panic!("{network}"));
    let addresses: BTreeSet<String> =
        shown.iter().map(|task| task["EndpointIP"].as_str().unwrap_or_default().to_owned()).collect();
    assert_eq!(&addresses, tasks);
    let nodes: BTreeSet<&str> = shown.iter().map(|task| task["Info"]["Node"].as_str().unwrap_or_default()).collect();
    assert_eq!(nodes, BTreeSet::from(["n2", "n3"]));
    assert_eq!(network["Peers"].as_array().map(Vec::len), Some(3), "{network}");
    assert!(inspect(world, &["network", "inspect", "s_front"]).get("Services").is_none());
    let node = inspect(world, &["node", "inspect", "n2"]);
    let endpoint = format!("{}:7377", cluster.node(2).address());
    assert_eq!(node["Tunnel"]["Endpoint"], endpoint.as_str(), "{node}");
    assert_eq!(node["Tunnel"]["Key"].as_str().map(str::len), Some(44), "{node}");
    let info = cluster.on(1, &["info"]).ok().unwrap();
    assert!(info.contains("7377/udp") && info.contains(&endpoint) && info.contains("handshake"), "{info}");
}

#[test]
fn nothing_is_read_on_the_wire_and_a_removed_node_is_cut_off() {
    // A small pool, which the nodes' own addresses share with the networks.
    let pool = ["--default-addr-pool", "10.200.0.0/22", "--default-addr-pool-mask-length", "24"];
    let cluster = Cluster::with_settings(1, 2, &pool);
    let world = &cluster.world;
    let place = inspect(world, &["node", "inspect", "n2"])["Tunnel"]["Address"].clone();
    assert!(place.as_str().is_some_and(|place| place.starts_with("10.200.3.")), "{place}");
    let refused = world.refused(&["network", "create", "--subnet", "10.200.3.0/28", "taken"]);
    assert!(refused.contains("10.200.3.0/24"), "{refused}");
    world.up(
        "s",
        &format!(
            "{WHO}services:\n\
             \x20 web: {{ <<: *who, ports: [\"8080:80\"], deploy: {{ placement: {{ constraints: [\"node.hostname == n2\"] }} }} }}\n\
             \x20 near: {{ <<: *idle, deploy: {{ placement: {{ constraints: [\"node.hostname == n1\"] }} }} }}\n\
             \x20 far: {{ <<: *idle, deploy: {{ placement: {{ constraints: [\"node.hostname == n3\"] }} }} }}\n"
        ),
    );
    let web = world.until("the service has an address", || {
        resolve(world, "s_near.1", "tasks.web")?.pop_first().ok_or_else(|| "none".to_owned())
    });
    let canary = "canary-0f9d1c7e";
    let wire = Wire::listen(world.lab());
    let asked = world.until("the service answers", || get(world, "s_near.1", &format!("http://web/host?{canary}")));
    assert!(!asked.is_empty());
    let frames = wire.frames();
    let readable = frames.iter().filter(|frame| frame.windows(canary.len()).any(|part| part == canary.as_bytes()));
    assert_eq!(readable.count(), 0, "of {} frames", frames.len());
    assert!(frames.iter().any(|frame| Wire::is_udp_to(frame, 7377)), "what passed, passed in the tunnel");

    // It does not hear of its removal: its own daemon is dead, and its containers and its tunnel live on.
    let removed = cluster.node(3);
    let leaves = get(world, "s_far.1", &format!("http://{web}/"));
    assert!(leaves.is_ok(), "a member reaches the service: {leaves:?}");
    let inside = world.running("s_far")[0].id.clone();
    world.ask(3);
    let pid = world.processes(&inside)[0];
    world.ask(1);
    removed.kill_daemon(StopSignal::Kill).unwrap();
    world.until("the silent node is down", || match world.rows(&["node", "ls"]) {
        rows if rows.iter().any(|row| row["Hostname"] == "n3" && row["Status"] == "Down") => Ok(()),
        rows => Err(format!("{rows:?}")),
    });
    let reach = |address: &str| {
        let script = format!("exec nsenter --net --target {pid} timeout 3 bash -c 'exec 3<>/dev/tcp/{address}/80'");
        removed.run("bash", &["-c", &script]).unwrap()
    };
    world.until("a node that is down keeps its place", || match reach(&web) {
        outcome if outcome.is_ok() => Ok(()),
        outcome => Err(outcome.to_string()),
    });
    world.ok(&["node", "rm", "--force", "n3"]);
    world.until("the removed node's containers reach nobody", || match reach(&web) {
        outcome if !outcome.is_ok() => Ok(()),
        outcome => Err(outcome.to_string()),
    });
    assert!(get(world, "s_near.1", &format!("http://{web}/")).is_ok(), "the others do");
}
