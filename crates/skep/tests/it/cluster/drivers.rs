//! Networks of other drivers across machines: one of each node, the local network, and addresses that are asked for.

use std::collections::BTreeSet;

use skep_lab::OUTSIDE_ADDRESS;

use super::Cluster;
use super::network::{get, resolve};
use crate::world::World;

/// Answers with the host's name on port 80.
const WEB: &str = "x-web: &web { image: \"${REGISTRY}/busybox:1\", stop_grace_period: 1s, hostname: \"{{.Node.Hostname}}\", \
    command: [\"sh\", \"-c\", \"hostname > /index.html; exec httpd -f -p 80 -h /\"] }\n";

fn address(world: &World, task: &str) -> String {
    world.sh(task, "ip -4 -o addr show scope global | awk '{print $4}' | cut -d/ -f1")
}

/// A placement on one node.
fn on(node: u8) -> String {
    format!("placement: {{ constraints: [\"node.hostname == n{node}\"] }}")
}

#[test]
fn a_bridge_network_is_of_each_node_and_a_macvlan_is_the_local_network() {
    let cluster = Cluster::new(1, 2);
    let world = &cluster.world;
    let once = "deploy: { replicas: 3, placement: { max_replicas_per_node: 1 } }";
    world.up(
        "s",
        &format!(
            "{WEB}services:\n\
             \x20 near: {{ <<: *web, networks: [near], ports: [\"8080:80\", {{ target: 80, published: 8081, mode: host }}], {once} }}\n\
             \x20 client: {{ <<: *idle, networks: [near], {once} }}\n\
             \x20 lan: {{ <<: *web, networks: [lan], {once} }}\n\
             \x20 guest: {{ <<: *idle, networks: [lan], deploy: {{ {} }} }}\n\
             networks:\n\
             \x20 near: {{ driver: bridge }}\n\
             \x20 lan: {{ driver: macvlan, driver_opts: {{ parent: eth0 }}, ipam: {{ config: [{{ subnet: 198.51.100.0/24, \
                 gateway: 198.51.100.254, ip_range: 198.51.100.200/29, aux_addresses: {{ other: 198.51.100.201 }} }}] }} }}\n",
            on(1)
        ),
    );
    each_node_has_its_own(world);
    stations_are_on_the_local_network(world);
}

fn each_node_has_its_own(world: &World) {
    let nodes = |service: &str| world.running(service).into_iter().map(|task| (task.node.clone(), task.name.clone()));
    let (servers, clients): (Vec<_>, Vec<_>) = (nodes("s_near").collect(), nodes("s_client").collect());
    let places: Vec<(String, String)> =
        servers.iter().map(|(node, task)| (node.clone(), address(world, task))).collect();
    for (node, client) in &clients {
        let own = &places.iter().find(|(at, _)| at == node).expect("a task on each node").1;
        let found = world.until("its neighbour has a name", || resolve(world, client, "tasks.near"));
        assert_eq!(found, BTreeSet::from([own.clone()]), "on {node} only that of {node}");
        for _ in 0..4 {
            assert_eq!(get(world, client, "http://near/").map(|name| name.trim().to_owned()), Ok(node.clone()));
        }
        for (other, address) in places.iter().filter(|(at, _)| at != node) {
            let reached = get(world, client, &format!("http://{address}/"));
            assert!(reached.is_err(), "{node} reaches {other}: {reached:?}");
        }
        let out = world.exec(client, &["ping", "-c", "1", "-W", "5", &OUTSIDE_ADDRESS.to_string()]);
        assert!(out.is_ok(), "{out}");
    }
    for node in world.lab().nodes() {
        let host = world.until("the node's own port answers", || world.get_outside(node.address(), 8081));
        assert_eq!(host.body.trim(), node.name());
        let seen: BTreeSet<String> =
            (0..30).map(|_| world.get_outside(node.address(), 8080).unwrap().body.trim().to_owned()).collect();
        assert_eq!(seen.len(), 3, "a published port leads to every node: {seen:?}");
    }
}

fn stations_are_on_the_local_network(world: &World) {
    let stations: Vec<(String, String)> =
        world.running("s_lan").into_iter().map(|task| (task.node.clone(), address(world, &task.name))).collect();
    let guest = address(world, "s_guest.1");
    let all: BTreeSet<&String> = stations.iter().map(|(_, address)| address).chain([&guest]).collect();
    assert_eq!(all.len(), 4, "no two tasks share an address: {all:?}");
    let given = |address: &&&String| {
        let last: u8 = address.rsplit('.').next().and_then(|last| last.parse().ok()).unwrap_or_default();
        (200..=207).contains(&last) && last != 201
    };
    assert_eq!(all.iter().filter(given).count(), 4, "of the range, and not somebody else's: {all:?}");
    for (node, address) in &stations {
        let outside = world.until("a station answers", || {
            world.get_outside(address.parse::<std::net::IpAddr>().expect("an address"), 80)
        });
        assert_eq!(outside.body.trim(), node, "who is on the local network reaches it by its address");
        assert_eq!(
            get(world, "s_guest.1", &format!("http://{address}/")).map(|name| name.trim().to_owned()),
            Ok(node.clone())
        );
    }
    let named = world.until("its neighbours have names", || match resolve(world, "s_guest.1", "lan")? {
        named if named.len() == 3 => Ok(named),
        named => Err(format!("{named:?}")),
    });
    assert_eq!(named, stations.iter().map(|(_, address)| address.clone()).collect());
    let blocks = world.ok(&["network", "inspect", "--format", "{{json .Blocks}}", "s_lan"]);
    assert_eq!(blocks.matches("/32").count(), 4, "{blocks}");

    // No node has the interface: the task is rejected and says so.
    world.ok(&["network", "create", "-d", "macvlan", "-o", "parent=eth9", "--subnet", "203.0.113.0/24", "elsewhere"]);
    let image = format!("{}/busybox:1", world.images());
    world.ok(&[
        "service",
        "create",
        "--detach",
        "--name",
        "lost",
        "--network",
        "elsewhere",
        "--restart-condition",
        "none",
        &image,
        "sleep",
        "9",
    ]);
    world.until("the task is rejected", || match world.tasks("lost") {
        tasks if tasks.iter().any(|task| task.state == "Rejected" && task.error.contains("`eth9`")) => Ok(()),
        tasks => Err(format!("{tasks:?}")),
    });
    let refused = world.refused(&["service", "create", "--network", "elsewhere", "--publish", "80:80", &image]);
    assert!(refused.contains("driver macvlan") && refused.contains("port 80"), "{refused}");
    // Addresses of tasks that are gone go to others.
    world.ok(&["service", "rm", "lost"]);
}

#[test]
fn an_address_that_is_asked_for_is_kept_for_its_task_wherever_that_is() {
    let cluster = Cluster::new(1, 2);
    let world = &cluster.world;
    world.ok(&["network", "create", "--subnet", "10.9.0.0/24", "--ipv6", "wide"]);
    let others = format!(
        "{WEB}services:\n\
         \x20 one: {{ <<: *web, networks: [wide], deploy: {{ replicas: 3, placement: {{ max_replicas_per_node: 1 }} }} }}\n\
         networks: {{ wide: {{ external: true }} }}\n"
    );
    world.up("s", &others);
    let held = world.running("s_one").into_iter().find(|task| task.node == "n1").expect("a task on n1");
    let taken = address(world, &held.name);
    let block = taken.rsplit_once('.').map(|(net, last)| (net.to_owned(), last.parse::<u8>().unwrap())).unwrap();
    // In n1's block, and the next that n1 would give.
    let wanted = format!("{}.{}", block.0, block.1 + 1);
    let asks = |address: &str, node: u8| {
        format!(
            "{WEB}services:\n\
             \x20 fixed: {{ <<: *web, networks: {{ wide: {{ ipv4_address: {address} }} }}, deploy: {{ {} }} }}\n\
             networks: {{ wide: {{ external: true }} }}\n",
            on(node)
        )
    };
    let refused = world.deploy("f", &asks(&taken, 2));
    assert!(!refused.is_ok() && refused.stderr.contains(&held.name), "{refused}");
    world.up("f", &asks(&wanted, 2));
    assert_eq!(address(world, "f_fixed.1"), wanted);
    let clients: Vec<String> = world.running("s_one").into_iter().map(|task| task.name).collect();
    let url = format!("http://{wanted}/");
    for client in &clients {
        let answer = world.until("its neighbours reach it", || get(world, client, &url));
        assert_eq!(answer.trim(), "n2", "from {client}");
    }
    // Over IPv6 too: the address has a twin.
    let twin = world.sh("f_fixed.1", "ip -6 -o addr show scope global | awk '{print $4}' | cut -d/ -f1");
    let over_v6 = world.until("its twin answers", || get(world, &clients[0], &format!("http://[{twin}]/")));
    assert_eq!(over_v6.trim(), "n2");

    // It is nobody else's, whoever asks and whatever n1 gives out.
    let second = world.deploy("g", &asks(&wanted, 3).replace("fixed:", "again:"));
    assert!(!second.is_ok() && second.stderr.contains("service f_fixed asks for it already"), "{second}");
    world.ok(&[
        "service",
        "create",
        "--quiet",
        "--name",
        "more",
        "--network",
        "wide",
        "--replicas",
        "4",
        "--constraint",
        "node.hostname==n1",
        &format!("{}/busybox:1", world.images()),
        "sleep",
        "1000",
    ]);
    let more: BTreeSet<String> = (1..=4).map(|slot| address(world, &format!("more.{slot}"))).collect();
    assert!(more.len() == 4 && !more.contains(&wanted), "{more:?}");

    // It moves with its task, and is never two tasks' at a time.
    world.up("f", &asks(&wanted, 3));
    assert_eq!(address(world, "f_fixed.1"), wanted);
    for client in &clients {
        world.until(&format!("{client} finds it where it is now"), || match get(world, client, &url)? {
            answer if answer.trim() == "n3" => Ok(()),
            answer => Err(answer),
        });
    }
}
