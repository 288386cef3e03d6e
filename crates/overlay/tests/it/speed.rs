//! How long changes take, printed; no assertion. `cargo nextest run -p skep-overlay --run-ignored only --no-capture`

use std::time::Instant;

use skep_overlay::plan::{Backend, Protocol::Tcp};

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
                let address =
                    |slot: usize| std::net::Ipv4Addr::from(u32::from(host(1, 2)) + (number * 10 + slot) as u32 % 2000);
                let backends: Vec<_> = (0..10).map(address).collect();
                let vip = std::net::Ipv4Addr::from(u32::from(host(1, 0)) + 2100 + number as u32);
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
