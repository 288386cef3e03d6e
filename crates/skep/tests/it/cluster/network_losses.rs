//! Networks across machines when daemons, machines or all power go.

use std::collections::BTreeSet;

use skep_api::Assignment;
use skep_lab::{OUTSIDE_ADDRESS, StopSignal};

use super::Cluster;
use super::network::{WHO, get, resolve};
use crate::workers_first::written;
use crate::world::World;

/// A web server on each worker, and a client on n2, all on one network; port 8080 leads to the servers.
fn stack(replicas: u8) -> String {
    format!(
        "{WHO}services:\n\
         \x20 web: {{ <<: *who, ports: [\"8080:80\"], deploy: {{ replicas: {replicas}, \
             placement: {{ constraints: [\"node.hostname != n1\"], max_replicas_per_node: 1 }} }} }}\n\
         \x20 client: {{ <<: *idle, deploy: {{ placement: {{ constraints: [\"node.hostname == n2\"] }} }} }}\n"
    )
}

/// Every task of the service by its own address, and the service by its name, as the client has them.
fn all_answer(world: &World, tasks: &BTreeSet<String>) {
    let urls = tasks.iter().map(|task| format!("http://{task}/")).chain(["http://web/".to_owned()]);
    for url in urls {
        world.until(&format!("{url} answers"), || get(world, "s_client.1", &url));
    }
}

/// The port with the client's address, at a node.
fn port_answers(world: &World, number: u8) {
    let node = world.lab().node(number);
    let answer = world.until(&format!("the port of n{number} answers"), || world.get_outside(node.address(), 8080));
    assert_eq!(answer.body, OUTSIDE_ADDRESS.to_string());
}

#[test]
fn networks_outlive_daemons_and_a_lost_node_leaves_the_service_to_the_others() {
    let cluster = Cluster::new(1, 3);
    let world = &cluster.world;
    world.up("s", &stack(3));
    let tasks = world.until("all tasks have a name", || match resolve(world, "s_client.1", "tasks.web")? {
        tasks if tasks.len() == 3 => Ok(tasks),
        tasks => Err(format!("{tasks:?}")),
    });
    all_answer(world, &tasks);

    for number in 1..=4 {
        cluster.node(number).kill_daemon(StopSignal::Kill).unwrap();
    }
    // Nobody is there but the helpers.
    (1..=4).for_each(|number| port_answers(world, number));
    // One comes back at another port, which the others are told of.
    cluster.node(3).write_config("tunnel_port = 51820\n").unwrap();
    for number in 1..=4 {
        cluster.node(number).start_daemon().unwrap();
    }
    cluster.until_whole(4);
    let moved = format!("{}:51820, handshake", cluster.node(3).address());
    world.until("n2 meets n3 at its new port", || match cluster.on(2, &["info"]) {
        info if info.stdout.contains(&moved) => Ok(()),
        info => Err(info.to_string()),
    });
    all_answer(world, &tasks);

    cluster.node(4).kill_everything().unwrap();
    world.lab().unplug(4).unwrap();
    world.until("the lost node's task is gone from the names", || match resolve(world, "s_client.1", "tasks.web")? {
        left if left.len() == 2 && left.is_subset(&tasks) => Ok(()),
        left => Err(format!("{left:?}")),
    });
    for _ in 0..12 {
        get(world, "s_client.1", "http://web/").unwrap_or_else(|error| panic!("the survivors answer: {error}"));
        port_answers(world, 1);
    }
}

#[test]
fn after_a_power_cut_workers_reach_each_other_before_any_manager_is_back() {
    let cluster = Cluster::new(1, 2);
    let world = &cluster.world;
    world.up("s", &stack(2));
    let tasks = world.until("both tasks have a name", || match resolve(world, "s_client.1", "tasks.web")? {
        tasks if tasks.len() == 2 => Ok(tasks),
        tasks => Err(format!("{tasks:?}")),
    });
    all_answer(world, &tasks);
    let client = world.running("s_client")[0].id.clone();
    for number in [2, 3] {
        world.until("peers and servers are written down", || {
            let set = written(&cluster.node(number).data_dir())?;
            let peers = set.iter().filter(|assignment| matches!(assignment, Assignment::Peer(_))).count();
            let served = |assignment: &Assignment| match assignment {
                Assignment::Endpoint(endpoint) => endpoint.name == "s_web" && endpoint.backends.len() == 2,
                _ => false,
            };
            if peers == 2 && set.iter().any(served) { Ok(()) } else { Err(format!("{set:?}")) }
        });
    }

    (1..=3).for_each(|number| cluster.node(number).kill_everything().unwrap());
    for number in [2, 3] {
        cluster.node(number).start_daemon().unwrap();
    }
    port_answers(world, 2);
    port_answers(world, 3);
    world.ask(2);
    let first = world.until("the client runs", || world.processes(&client).first().copied().ok_or("not".to_owned()));
    world.ask(1);
    let script = format!(
        "nsenter --net --target {first} sh -c 'for n in 1 2 3 4 5 6 7 8; do \
         wget -q -T 5 -t 1 -O - http://$0/host || exit 1; done' "
    );
    for task in &tasks {
        world.until("each worker's container reaches the others'", || {
            match cluster.node(2).run("sh", &["-c", &format!("{script}{task}")]).unwrap() {
                outcome if outcome.is_ok() => Ok(()),
                outcome => Err(outcome.to_string()),
            }
        });
    }

    cluster.node(1).start_daemon().unwrap();
    cluster.until_whole(3);
    all_answer(world, &tasks);
    assert_eq!(world.tasks("s_web").len(), 2, "nothing was replaced");
    port_answers(world, 1);
}
