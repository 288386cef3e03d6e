//! Nodes that change their keys in the tunnel by themselves, while containers talk through it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use skep_lab::StopSignal;

use super::Cluster;
use super::network::{inspect, process, resolve};
use crate::world::World;

const STACK: &str = "services:\n\
    \x20 echo: { image: \"${REGISTRY}/busybox:1\", command: [nc, -ll, -p, \"9000\", -e, cat], stop_grace_period: 1s, \
        deploy: { placement: { constraints: [\"node.hostname == n3\"] } } }\n\
    \x20 client: { <<: *idle, deploy: { placement: { constraints: [\"node.hostname == n2\"] } } }\n";

/// A connection out of a service's one container, on node `number`.
fn connect(world: &World, service: &str, number: u8, to: Ipv4Addr) -> TcpStream {
    let namespace = File::open(format!("/proc/{}/ns/net", process(world, service, number).unwrap())).unwrap();
    let inside = || {
        rustix::thread::move_into_link_name_space(namespace.as_fd(), None).unwrap();
        TcpStream::connect((to, 9000)).unwrap()
    };
    let stream = thread::scope(|scope| scope.spawn(inside).join().unwrap());
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

#[test]
fn connections_outlive_many_changes_of_keys_on_both_sides() {
    let cluster = Cluster::new(1, 2);
    let world = &cluster.world;
    for number in [2, 3] {
        cluster.node(number).kill_daemon(StopSignal::Term).unwrap();
        cluster.node(number).write_config("tunnel_key_rotation = \"3s\"\n").unwrap();
        cluster.node(number).start_daemon().unwrap();
    }
    cluster.until_whole(3);
    world.up("s", STACK);
    let server = world.until("the server has a name", || match resolve(world, "s_client.1", "tasks.echo")? {
        tasks if tasks.len() == 1 => Ok(tasks),
        tasks => Err(format!("{tasks:?}")),
    });
    let server = server.first().unwrap().parse().unwrap();
    let mut stream = connect(world, "s_client", 2, server);
    let mut keys: [BTreeSet<String>; 2] = Default::default();
    let mut longest = Duration::ZERO;
    let mut looked = Instant::now();
    while keys.iter().any(|keys| keys.len() < 4) {
        let said = Instant::now();
        stream.write_all(b"still there?").unwrap();
        let mut heard = [0; 12];
        stream.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"still there?");
        longest = longest.max(said.elapsed());
        thread::sleep(Duration::from_millis(5));
        if looked.elapsed() > Duration::from_millis(500) {
            for (number, keys) in (2..).zip(&mut keys) {
                keys.insert(inspect(world, &["node", "inspect", &format!("n{number}")])["Tunnel"]["Key"].to_string());
            }
            looked = Instant::now();
        }
    }
    println!("the longest pause of a connection over {} changes of keys was {longest:?}", keys.len() * 3);
    let left = cluster.node(2).data_dir().join("net/tunnel.key");
    assert!(left.exists(), "the key in use is on the disk");
}
