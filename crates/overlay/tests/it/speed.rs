//! How long changes take, printed; no assertion. `cargo nextest run -p skep-overlay --run-ignored only --no-capture`

use std::net::Ipv4Addr;
use std::time::Instant;

use ipnet::Ipv4Net;
use skep_overlay::plan::{Backend, Mesh, MeshPeer, Protocol::Tcp};
use skep_overlay::tunnel::PrivateKey;

use crate::lab::{self, host, network, publish, service, start, vip};

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let begin = Instant::now();
    let value = work();
    println!("{what}: {:.3} ms", begin.elapsed().as_secs_f64() * 1e3);
    value
}

#[test]
#[ignore = "a measurement, not a test"]
fn fifty_containers() {
    lab::run(|lab| {
        let overlay = timed("open", || lab.overlay());
        let mut node = lab::empty();
        node.networks.push(network(1));
        overlay.apply(&node).unwrap();
        let mut ids = Vec::new();
        timed("50 sandboxes, one after the other", || {
            for last in 10..60 {
                start(&overlay, &mut node, &format!("task{last}"), &[(1, last)]);
                ids.push(format!("task{last}"));
            }
        });
        let more: Vec<u8> = (60..110).collect();
        timed("50 sandboxes, from 8 threads", || {
            std::thread::scope(|scope| {
                for chunk in more.chunks(7) {
                    let (overlay, mut scratch) = (&overlay, lab::empty());
                    scope.spawn(move || {
                        chunk.iter().for_each(|last| {
                            start(overlay, &mut scratch, &format!("task{last}"), &[(1, *last)]);
                        });
                    });
                }
            });
        });
        let backends: Vec<_> = (10..60).map(|last| host(1, last)).collect();
        node.services.push(service(1, vip(1, 1), &backends));
        node.published.push(publish(Tcp, 8080, 80, &backends));
        timed("apply, 50 endpoints at once", || overlay.apply(&node).unwrap());
        timed("apply, nothing new", || overlay.apply(&node).unwrap());
        node.services[0].backends[7].serving = false;
        timed("apply, one endpoint leaves", || overlay.apply(&node).unwrap());
        drop(overlay);
        let overlay = timed("open with 100 sandboxes", || lab.overlay());
        for last in 60..110 {
            start(&overlay, &mut node, &format!("task{last}"), &[(1, last)]);
        }
        timed("first apply, the whole table, 100 endpoints", || overlay.apply(&node).unwrap());
        timed("50 sandboxes removed", || ids.iter().for_each(|id| overlay.remove_sandbox(id).unwrap()));
        timed("teardown of the other 50", || overlay.teardown().unwrap());
    });
}

#[test]
#[ignore = "a measurement, not a test"]
fn one_endpoint_among_many() {
    lab::run(|lab| {
        let overlay = lab.overlay();
        for size in [100usize, 1_000, 10_000] {
            let mut node = lab::empty();
            node.networks.push(network(1));
            for number in 0..size / 10 {
                let address = |slot: usize| Ipv4Addr::from(u32::from(host(1, 2)) + (number * 10 + slot) as u32 % 2000);
                let backends: Vec<_> = (0..10).map(address).collect();
                let vip = Ipv4Addr::from(u32::from(host(1, 0)) + 2100 + number as u32);
                node.services.push(service(1, vip, &backends));
            }
            timed(&format!("{size} backends loaded"), || overlay.apply(&node).unwrap());
            node.services[3].backends.push(Backend { address: host(1, 251), serving: true });
            timed(&format!("one more among {size}"), || overlay.apply(&node).unwrap());
            node.services[3].backends.pop();
            timed(&format!("one fewer among {size}"), || overlay.apply(&node).unwrap());
        }
    });
}

#[test]
#[ignore = "a measurement, not a test"]
fn among_many_nodes() {
    lab::run(|lab| {
        let overlay = lab.overlay();
        for size in [10u32, 100, 1_000] {
            let mut node = lab::empty();
            node.networks.push(network(1));
            let address = |number: u32| Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 64, 0, 0)) + number);
            let peer = |number: u32| MeshPeer {
                node: format!("node{number:04}"),
                key: PrivateKey::from_bytes(
                    [(number / 250) as u8, (number % 250) as u8].repeat(16).try_into().unwrap(),
                )
                .public(),
                endpoint: Some(([192, 0, 2, 1], 7377).into()),
                address: address(number),
                blocks: (0..10u32)
                    .map(|block| Ipv4Net::new((0x0a80_0000 + (block * 2000 + number) * 64).into(), 26).unwrap())
                    .collect(),
                keepalive_s: None,
            };
            node.mesh = Some(Mesh {
                key: PrivateKey::from_bytes([255; 32]),
                port: 7377,
                address: address(4000),
                nodes: "10.64.0.0/20".parse().unwrap(),
                mtu: 1420,
                path: None,
                peers: (1..=size).map(peer).collect(),
            });
            timed(&format!("among {size} nodes with 10 blocks each"), || overlay.apply(&node).unwrap());
            timed("apply, nothing new", || overlay.apply(&node).unwrap());
            node.mesh.as_mut().unwrap().peers[3].blocks.push("10.192.0.0/26".parse().unwrap());
            timed("apply, one more block", || overlay.apply(&node).unwrap());
        }
        timed("teardown", || overlay.teardown().unwrap());
    });
}
