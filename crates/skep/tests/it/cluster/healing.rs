//! Names when a partition ends, and a node that comes back from a reboot with nothing of its network left.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use skep_lab::{Direction, Node, OUTSIDE_ADDRESS, http_get};

use super::Cluster;
use super::network::{WHO, get, process, resolve};
use crate::world::World;

/// The addresses behind a name, asked of a container's resolver by a process in its network: no manager has a part in it.
struct Resolver {
    service: String,
    number: u8,
}

impl Resolver {
    fn ask(&self, world: &World, name: &str) -> Result<BTreeSet<Ipv4Addr>, String> {
        let process = process(world, &self.service, self.number)?;
        let namespace = File::open(format!("/proc/{process}/ns/net")).map_err(|error| error.to_string())?;
        let inside = || -> std::io::Result<Vec<u8>> {
            rustix::thread::move_into_link_name_space(namespace.as_fd(), None)?;
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.set_read_timeout(Some(Duration::from_secs(1)))?;
            socket.send_to(&question(name), (Ipv4Addr::new(127, 0, 0, 11), 53))?;
            let mut answer = vec![0; 4096];
            let length = socket.recv(&mut answer)?;
            answer.truncate(length);
            Ok(answer)
        };
        let answer = thread::scope(|scope| scope.spawn(inside).join().expect("it does not panic"));
        Ok(addresses(&answer.map_err(|error| error.to_string())?))
    }
}

/// Who has the address of `name`? (RFC 1035)
fn question(name: &str) -> Vec<u8> {
    let mut bytes = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).expect("labels are short"));
        bytes.extend(label.as_bytes());
    }
    bytes.extend([0, 0, 1, 0, 1]);
    bytes
}

/// Of an answer whose records are all addresses of the name that was asked for.
fn addresses(answer: &[u8]) -> BTreeSet<Ipv4Addr> {
    const RECORD: [u8; 6] = [0xc0, 12, 0, 1, 0, 1];
    let records = answer.windows(16).filter(|part| part[..6] == RECORD && part[10..12] == [0, 4]);
    records.map(|part| Ipv4Addr::new(part[12], part[13], part[14], part[15])).collect()
}

/// The addresses of the tasks that run, as the managers know them.
fn truth(world: &World, service: &str) -> Result<BTreeSet<Ipv4Addr>, String> {
    let outcome = world.skep(&["network", "inspect", "--verbose", "s_default"]);
    let text = outcome.ok().map_err(|error| error.to_string())?;
    let shown: serde_json::Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let tasks = shown[0]["Services"][service]["Tasks"].as_array().cloned().unwrap_or_default();
    Ok(tasks.iter().filter_map(|task| task["EndpointIP"].as_str()?.parse().ok()).collect())
}

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
fn names_are_right_on_both_sides_when_a_partition_ends() {
    let cluster = Cluster::new(1, 2);
    let world = &cluster.world;
    world.up("s", &stack("replicas: 4"));
    let resolvers = [2, 3].map(|number| Resolver { service: format!("s_c{number}"), number });
    // Short of what makes a node lost, and beyond: then its tasks end with the partition, and others begin.
    for (round, cut) in [(1, 2), (2, 8)] {
        world.lab().partition(&[3], &[1, 2], Direction::Both).unwrap();
        let ends = Instant::now() + Duration::from_secs(cut);
        let wanted = 4 + round;
        world.ok(&["service", "scale", "--detach", &format!("s_web={wanted}")]);
        thread::sleep(ends.saturating_duration_since(Instant::now()));
        world.lab().heal().unwrap();
        let healed = Instant::now();
        world.until("both sides know what runs, and the same", || {
            let truth = truth(world, "s_web")?;
            let known = [resolvers[0].ask(world, "tasks.web")?, resolvers[1].ask(world, "tasks.web")?];
            let right = truth.len() == wanted && known.iter().all(|known| *known == truth);
            if right { Ok(()) } else { Err(format!("{truth:?} run, known are {known:?}")) }
        });
        println!("after {cut} s apart all tasks ran and were known {:?} after the end", healed.elapsed());
    }
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
        // Asked anew each time: until the node is missed, the name still leads to what ran there before.
        world.until("both have a name on both nodes, and answer", || {
            let tasks = resolve(world, &client(number), "tasks.web")?;
            for task in &tasks {
                get(world, &client(number), &format!("http://{task}/"))?;
            }
            if tasks.len() == 2 { Ok(()) } else { Err(format!("{tasks:?}")) }
        });
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
