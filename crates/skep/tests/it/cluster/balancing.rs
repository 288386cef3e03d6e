//! Which task of a service a connection leads to, where the service asks for more than any.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use skep_lab::http_get;

use super::Cluster;
use super::network::{WHO, get};
use crate::world::World;

/// Enough that two tasks would both have been met.
const MANY: usize = 12;

/// The hosts that answer at a node's published port.
fn at(world: &World, number: u8) -> BTreeSet<String> {
    let node = world.lab().node(number);
    let at = SocketAddr::from((node.address(), 8080));
    let ask = || {
        let answer = world.lab().outside(|| http_get(at, "/host")).unwrap().map_err(|error| format!("{error:#}"))?;
        Ok(answer.body.trim().to_owned())
    };
    (0..MANY).map(|_| world.until(&format!("the port of n{number} answers"), ask)).collect()
}

/// Those that answer a container.
fn inside(world: &World) -> BTreeSet<String> {
    (0..MANY).map(|_| get(world, "s_client.1", "http://web/host").unwrap().trim().to_owned()).collect()
}

#[test]
fn a_client_stays_with_its_task_and_a_node_takes_its_own_tasks_first_when_asked_to() {
    let cluster = Cluster::new(1, 2);
    let world = &cluster.world;
    world.up(
        "s",
        &format!(
            "{WHO}services:\n\
             \x20 web: {{ <<: *who, hostname: \"{{{{.Node.Hostname}}}}\", ports: [\"8080:80\"], \
                 x-skep: {{ session-affinity: client-ip }}, deploy: {{ replicas: 2, \
                 placement: {{ constraints: [\"node.hostname != n1\"], max_replicas_per_node: 1 }} }} }}\n\
             \x20 client: {{ <<: *idle, deploy: {{ placement: {{ constraints: [\"node.hostname == n2\"] }} }} }}\n"
        ),
    );
    let tasks = |world: &World| world.running("s_web").into_iter().map(|task| task.id).collect::<BTreeSet<_>>();
    let before = tasks(world);
    let first = world.until("all nodes lead a client to one task", || {
        let hosts: BTreeSet<String> = (1..=3).flat_map(|number| at(world, number)).collect();
        if hosts.len() == 1 { Ok(hosts) } else { Err(format!("{hosts:?}")) }
    });
    assert!(first.is_subset(&BTreeSet::from(["n2".to_owned(), "n3".to_owned()])), "{first:?}");
    assert_eq!(inside(world).len(), 1);

    world.ok(&["service", "update", "--session-affinity", "none", "--prefer-local", "s_web"]);
    for number in [2, 3] {
        world.until("a node leads to its own task", || match at(world, number) {
            hosts if hosts == BTreeSet::from([format!("n{number}")]) => Ok(()),
            hosts => Err(format!("n{number} leads to {hosts:?}")),
        });
    }
    assert_eq!(at(world, 1).len(), 2, "a node without one leads to any");
    assert_eq!(inside(world), BTreeSet::from(["n2".to_owned()]));
    assert_eq!(tasks(world), before, "no task was replaced");
    let shown = world.ok(&["service", "inspect", "--pretty", "s_web"]);
    assert!(shown.contains("Prefer Local:") && !shown.contains("Session Affinity"), "{shown}");
}
