//! IPv6 within networks, across machines.

use std::collections::BTreeSet;

use skep_lab::OUTSIDE_ADDRESS_V6;

use super::Cluster;
use super::network::get;
use crate::world::World;

/// nginx that answers with the client's address, or with the host's name at `/host`.
const WHO: &str = "configs:\n  who: { content: \"server { listen 80; listen [::]:80; location = / { return 200 $$remote_addr; } \
    location /host { return 200 $$hostname; } }\" }\n\
    x-who: &who { image: \"${REGISTRY}/nginx:1\", stop_grace_period: 1s, \
    configs: [{ source: who, target: /etc/nginx/conf.d/default.conf }] }\n";

fn aaaa(world: &World, task: &str, name: &str) -> Result<BTreeSet<String>, String> {
    let outcome = world.exec(task, &["nslookup", "-type=aaaa", name]);
    let answer = outcome.stdout.split_once("Name:").ok_or_else(|| outcome.to_string())?.1;
    let addresses = answer.lines().filter_map(|line| line.strip_prefix("Address: "));
    Ok(addresses.map(|address| address.trim().to_owned()).collect())
}

#[test]
fn services_on_other_nodes_are_reached_over_ipv6_by_name_address_and_port_and_networks_stay_apart() {
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
             networks: {{ front: {{ enable_ipv6: true }}, back: {{ enable_ipv6: true }} }}\n"
        ),
    );
    let own = world.sh("s_client.1", "ip -6 -o addr show scope global | awk '{print $4}' | cut -d/ -f1");
    let tasks = world.until("both tasks have a name", || match aaaa(world, "s_client.1", "tasks.web")? {
        tasks if tasks.len() == 2 => Ok(tasks),
        tasks => Err(format!("{tasks:?}")),
    });
    for task in &tasks {
        let seen = world.until("it answers", || get(world, "s_client.1", &format!("http://[{task}]/")));
        assert_eq!(seen, own, "{task}: the container's own address arrives");
        let stranger = get(world, "s_stranger.1", &format!("http://[{task}]/"));
        assert!(stranger.is_err(), "another network reaches {task}: {stranger:?}");
    }
    let service = aaaa(world, "s_client.1", "web").unwrap();
    let service = service.first().expect("the service has an IPv6 address").clone();
    let hosts: BTreeSet<String> = (0..20)
        .map(|_| get(world, "s_client.1", &format!("http://[{service}]/host")).unwrap().trim().to_owned())
        .collect();
    assert_eq!(hosts.len(), 2, "the service's address leads to both: {hosts:?}");
    for number in 1..=3 {
        let node = cluster.node(number).address_v6();
        let answer = world.until("every node answers", || world.get_outside(node, 8080));
        assert_eq!(answer.body, OUTSIDE_ADDRESS_V6.to_string(), "n{number}: the client's own address arrives");
    }
}
