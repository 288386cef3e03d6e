//! A node that comes back from a reboot with nothing of its network left.

use std::net::{IpAddr, Ipv4Addr};

use skep_lab::{Node, OUTSIDE_ADDRESS, http_get};

use super::Cluster;
use super::network::{WHO, get, resolve};

fn stack(web: &str) -> String {
    let client = |number: u8| {
        format!(
            "\x20 c{number}: {{ <<: *idle, deploy: {{ placement: {{ constraints: [\"node.hostname == n{number}\"] }} }} }}\n"
        )
    };
    format!(
        "{WHO}services:\n\x20 web: {{ <<: *who, ports: [\"8080:80\"], deploy: {{ {web} }} }}\n{}{}",
        client(2),
        client(3)
    )
}

#[test]
fn a_node_that_was_rebooted_has_its_networks_names_and_ports_again() {
    let cluster = Cluster::new(1, 2);
    let world = &cluster.world;
    world.up(
        "s",
        &stack("replicas: 2, placement: { max_replicas_per_node: 1, constraints: [\"node.hostname != n1\"] }"),
    );
    let node = cluster.node(3);
    node.kill_everything().unwrap();
    forget_network(node);
    node.start_daemon().unwrap();
    cluster.until_whole(3);
    let client = |number: u8| format!("s_c{number}.1");
    for number in [2, 3] {
        let tasks =
            world.until("both have a name on both nodes", || match resolve(world, &client(number), "tasks.web")? {
                tasks if tasks.len() == 2 => Ok(tasks),
                tasks => Err(format!("{tasks:?}")),
            });
        for task in &tasks {
            world.until("a task answers a client", || get(world, &client(number), &format!("http://{task}/")));
        }
        world.until("the service answers a client", || get(world, &client(number), "http://web/"));
    }
    for node in world.lab().nodes() {
        for address in [IpAddr::from(node.address()), Ipv4Addr::LOCALHOST.into()] {
            let answer = world.until("every node answers on the port", || match address.is_loopback() {
                true => node
                    .in_netns(|| http_get((address, 8080).into(), "/"))
                    .unwrap()
                    .map_err(|error| format!("{error:#}")),
                false => world.get_outside(address, 8080),
            });
            assert!(address.is_loopback() || answer.body == OUTSIDE_ADDRESS.to_string(), "{}", answer.body);
        }
    }
}

/// What a reboot takes: all that skep told the kernel, every mount below the node's folders, and the run folder.
fn forget_network(node: &Node) {
    let script = format!(
        "nft flush ruleset
        awk '$2 ~ \"^{run}/|^{data}/\" {{ print $2 }}' /proc/self/mounts | tac | xargs -r -n 1 umount
        for link in $(ip -o link | awk -F '[ :@]+' '$2 ~ /^(sk|skb|skv)-/ {{ print $2 }}'); do ip link del $link; done
        ip rule | awk -F : '$1 >= 1737 && $1 <= 1741 {{ print $1 }}' | xargs -r -n 1 ip rule del priority
        ip route flush table all proto 73
        echo 0 > /proc/sys/net/ipv4/ip_forward",
        run = node.run_dir().display(),
        data = node.data_dir().display()
    );
    // Containers' links vanish by themselves, some time after their processes.
    node.run("sh", &["-c", &script]).unwrap();
    let left = node.run("sh", &["-c", "ip -o link; ip route show table all; ip rule; nft list ruleset"]).unwrap();
    let ours = ["sk-", "skb-", "proto 73", "1740:", "table ip skep"];
    assert!(ours.iter().all(|ours| !left.stdout.contains(ours)), "{left}");
    std::fs::remove_dir_all(node.run_dir()).unwrap();
    std::fs::create_dir(node.run_dir()).unwrap();
}
