//! Published ports: on every address of the node, with the client's address kept.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::Duration;

use skep_lab::{OUTSIDE_ADDRESS, OUTSIDE_ADDRESS_V6};

use crate::world::World;

/// nginx that answers with the client's address.
const WHO: &str = "configs:\n  who: { content: \"server { listen 80; listen [::]:80; location / { return 200 $$remote_addr; } }\" }\n\
    x-who: &who { image: \"${REGISTRY}/nginx:1\", stop_grace_period: 1s, configs: [{ source: who, target: /etc/nginx/conf.d/default.conf }] }\n";

#[test]
fn a_published_port_answers_on_every_address_and_keeps_the_clients() {
    let world = World::new();
    world.up(
        "s",
        &format!("{WHO}services: {{ web: {{ <<: *who, ports: [\"8080:80\"], deploy: {{ replicas: 2 }} }} }}\n"),
    );
    let node = world.node();
    let answer = |look: &dyn Fn() -> Result<skep_lab::HttpAnswer, String>| world.until("the port answers", look).body;
    assert_eq!(answer(&|| world.get_outside(node.address(), 8080)), OUTSIDE_ADDRESS.to_string());
    for address in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST), IpAddr::V4(node.address())] {
        answer(&|| world.get_inside(address, 8080));
    }
    let listed = world.ok(&["service", "ls", "--format", "{{.Ports}}"]);
    assert_eq!(listed, "*:8080->80/tcp\n");
    world.ok(&["stack", "rm", "s"]);
    world.until("the port is closed", || match world.get_outside(node.address(), 8080) {
        Ok(answer) => Err(format!("{answer:?}")),
        Err(_) => Ok(()),
    });
}

#[test]
fn a_published_port_answers_on_the_nodes_ipv6_address() {
    let world = World::new();
    world.up("s", &format!("{WHO}services: {{ web: {{ <<: *who, ports: [\"8080:80\"] }} }}\n"));
    let address = world.node().address_v6();
    let _client = OUTSIDE_ADDRESS_V6;
    world.until("the port answers over IPv6", || world.get_outside(address, 8080));
}

#[test]
fn a_port_in_host_mode_is_the_containers_alone() {
    let world = World::new();
    let yaml = format!(
        "{WHO}services:\n  web: {{ <<: *who, ports: [{{ target: 80, published: 8081, mode: host }}], deploy: {{ replicas: 2 }} }}\n"
    );
    let outcome = world.deploy("s", &yaml);
    assert_eq!(outcome.code, 2, "two of them have no room on one node: {outcome}");
    assert!(outcome.stderr.contains("port"), "{outcome}");
    assert_eq!(world.running("s_web").len(), 1);
    let answer = world.until("the port answers", || world.get_outside(world.node().address(), 8081));
    assert_eq!(answer.body, OUTSIDE_ADDRESS.to_string());
    world.until("localhost too", || world.get_inside(Ipv4Addr::LOCALHOST, 8081));
}

#[test]
fn udp_is_published_as_well() {
    let world = World::new();
    world.up(
        "s",
        "services:\n  echo:\n    image: ${REGISTRY}/python:3-slim\n    ports: [\"5353:53/udp\"]\n    command:\n      - python3\n      - -c\n      - |\n\
         \x20       import socket\n        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n        s.bind((\"\", 53))\n\
         \x20       while True: s.sendto(*s.recvfrom(100))\n",
    );
    let address = world.node().address();
    let answer = world.until("a datagram comes back", || {
        let asked = world.lab().outside(|| {
            let socket = UdpSocket::bind((OUTSIDE_ADDRESS, 0))?;
            socket.set_read_timeout(Some(Duration::from_millis(500)))?;
            socket.connect((address, 5353))?;
            socket.send(b"hello")?;
            let mut buffer = [0; 16];
            let length = socket.recv(&mut buffer)?;
            Ok::<Vec<u8>, std::io::Error>(buffer[..length].to_vec())
        });
        asked.unwrap().map_err(|error| error.to_string())
    });
    assert_eq!(answer, b"hello");
}

#[test]
fn a_port_on_localhost_is_not_for_the_world() {
    let world = World::new();
    let outcome =
        world.deploy("s", &format!("{WHO}services: {{ web: {{ <<: *who, ports: [\"127.0.0.1:8082:80\"] }} }}\n"));
    assert!(outcome.is_ok(), "{outcome}");
    world.until("localhost answers", || world.get_inside(Ipv4Addr::LOCALHOST, 8082));
    let outside = world.get_outside(world.node().address(), 8082);
    assert!(outside.is_err(), "{outside:?}");
}
