//! Repeats, crashes, leftovers, the end.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use skep_overlay::ipam::{Request, Rest};
use skep_overlay::plan::Endpoint;
use skep_overlay::plan::Protocol::{Tcp, Udp};
use skep_overlay::{RealizeError, TableChange};

use crate::lab::{self, NEIGHBOUR, NODE, Place, host, network, publish, service, start, vip};
use crate::netfilter;

#[test]
fn applying_the_same_again_changes_nothing() {
    lab::run(|lab| {
        let overlay = lab.overlay();
        let mut node = lab::empty();
        let a = start(&overlay, &mut node, "a", &[(1, 2), (9, 2)]);
        node.services.push(service(1, vip(1, 1), &[host(1, 2)]));
        assert_eq!(overlay.apply(&node).unwrap().table, TableChange::Whole);
        let before = lab::ip("-o addr") + &a.run(|| lab::ip("-o addr"));
        assert_eq!(overlay.apply(&node).unwrap().table, TableChange::None);
        assert_eq!(start(&overlay, &mut lab::empty(), "a", &[(1, 2), (9, 2)]), a);
        assert_eq!(lab::ip("-o addr") + &a.run(|| lab::ip("-o addr")), before);
        node.services[0].backends[0].serving = false;
        assert!(matches!(overlay.apply(&node).unwrap().table, TableChange::Difference { .. }));
    });
}

#[test]
fn the_table_is_made_again_when_somebody_flushes_the_ruleset() {
    lab::run(|lab| {
        let overlay = lab.overlay();
        let mut node = lab::empty();
        let one = start(&overlay, &mut node, "one", &[(1, 3)]);
        node.published.push(publish(Tcp, 8080, 80, &[host(1, 3)]));
        overlay.apply(&node).unwrap();
        one.serve(80, "one");
        netfilter::flush();
        assert_eq!(netfilter::tables(), 0);
        assert!(lab.outside().ask(NODE, 8080).is_err());
        assert_eq!(overlay.apply(&node).unwrap().table, TableChange::Whole);
        assert!(lab.outside().ask(NODE, 8080).unwrap().starts_with("one"));
    });
}

#[test]
fn the_next_daemon_adopts_what_lives_and_removes_the_rest() {
    lab::run(|lab| {
        let first = lab.overlay();
        let mut node = lab::empty();
        let a = start(&first, &mut node, "a", &[(1, 2)]);
        let b = start(&first, &mut node, "b", &[(1, 3)]);
        let mut more = node.clone();
        start(&first, &mut more, "gone", &[(1, 4), (2, 4)]);
        more.services.push(service(1, vip(1, 1), &[host(1, 3)]));
        first.apply(&more).unwrap();
        let listener = b.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 80)).unwrap());
        let mut client = a.run(|| TcpStream::connect((vip(1, 1), 80)).unwrap());
        let (mut server, _) = listener.accept().unwrap();
        drop(first);

        let second = lab.overlay();
        let ids: Vec<_> = second.sandboxes().into_iter().map(|sandbox| sandbox.id).collect();
        assert_eq!(ids, ["a", "b", "gone"]);
        assert_eq!(second.apply(&node).unwrap().table, TableChange::Whole);
        assert_eq!(second.sandboxes(), [a.clone(), b.clone()]);
        let links = lab::ip("-o link");
        assert_eq!(links.matches("skv-").count(), 2, "{links}");
        assert_eq!(links.matches(": skb-").count(), 1, "{links}");
        // The connection that was open through all of this goes on.
        client.write_all(b"still").unwrap();
        let mut answer = [0; 5];
        server.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"still");
    });
}

#[test]
fn half_made_sandboxes_are_completed() {
    lab::run(|lab| {
        let overlay = lab.overlay();
        let mut node = lab::empty();
        let a = start(&overlay, &mut node, "a", &[(1, 2)]);
        let b = start(&overlay, &mut node, "b", &[(1, 3)]);
        overlay.apply(&node).unwrap();
        a.run(|| lab::ip("link del eth0"));
        b.run(|| {
            lab::ip("addr flush dev eth0");
            lab::ip("link set lo down")
        });
        let a = start(&overlay, &mut lab::empty(), "a", &[(1, 2)]);
        let b = start(&overlay, &mut lab::empty(), "b", &[(1, 3)]);
        b.serve(80, "b");
        assert_eq!(a.ask(host(1, 3), 80).unwrap(), "b 10.64.16.2");
    });
}

#[test]
fn a_bridge_stays_while_a_sandbox_is_on_it() {
    lab::run(|lab| {
        let overlay = lab.overlay();
        let mut node = lab::empty();
        start(&overlay, &mut node, "a", &[(1, 2)]);
        overlay.apply(&lab::empty()).unwrap();
        assert_eq!(lab::ip("-o link").matches(": skb-").count(), 1);
        overlay.remove_sandbox("a").unwrap();
        overlay.remove_sandbox("a").unwrap();
        overlay.apply(&lab::empty()).unwrap();
        // The kernel removes a namespace's links when it comes to it.
        while lab::ip("-o link").contains(" skv-") {
            std::thread::yield_now();
        }
        assert_eq!(lab::ip("-o link").matches("sk").count(), 0);
    });
}

#[test]
fn teardown_leaves_nothing() {
    lab::run(|lab| {
        let state = || [lab::ip("-o link"), lab::ip("-o addr"), lab::ip("route"), lab::ip("rule")];
        let before = state();
        let overlay = lab.overlay();
        let mut node = lab::empty();
        start(&overlay, &mut node, "a", &[(1, 2), (9, 2)]);
        node.services.push(service(1, vip(1, 1), &[host(1, 2)]));
        node.published.push(publish(Tcp, 8080, 80, &[host(1, 2)]));
        overlay.apply(&node).unwrap();
        overlay.teardown().unwrap();
        assert_eq!(state(), before);
        assert_eq!(netfilter::tables(), 0);
        assert!(!lab.config.run_dir.join("net/ns").exists());
        let mounts = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        assert!(!mounts.contains(lab.config.run_dir.to_str().unwrap()), "{mounts}");
    });
}

#[test]
fn clients_of_a_removed_container_are_refused_at_once() {
    lab::run(|lab| {
        let overlay = lab.overlay();
        let mut node = lab::empty();
        let a = start(&overlay, &mut node, "a", &[(1, 2)]);
        let b = start(&overlay, &mut node, "b", &[(1, 3)]);
        node.services.push(service(1, vip(1, 1), &[host(1, 3)]));
        overlay.apply(&node).unwrap();
        let listener = b.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 80)).unwrap());
        let mut client = a.run(|| TcpStream::connect((vip(1, 1), 80)).unwrap());
        let (_server, _) = listener.accept().unwrap();
        node.endpoints.retain(|endpoint| endpoint.sandbox != "b");
        node.services[0].backends.clear();
        overlay.apply(&node).unwrap();
        overlay.remove_sandbox("b").unwrap();
        client.write_all(b"?").unwrap();
        let error = client.read(&mut [0; 1]).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused), "{error}");
    });
}

#[test]
fn udp_senders_that_began_before_their_port_was_published_reach_the_container() {
    lab::run(|lab| {
        let overlay = lab.overlay();
        let mut node = lab::empty();
        let one = start(&overlay, &mut node, "one", &[(1, 3)]);
        overlay.apply(&node).unwrap();
        one.serve(80, "one");
        // Somebody listens, so that the sender meets no refusal before.
        let _holder = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 5514)).unwrap();
        let sender = lab.outside().run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap());
        sender.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        sender.connect((NODE, 5514)).unwrap();
        sender.send(b"?").unwrap();
        node.published.push(publish(Udp, 5514, 80, &[host(1, 3)]));
        overlay.apply(&node).unwrap();
        sender.send(b"?").unwrap();
        let mut answer = [0; 64];
        let length = sender.recv(&mut answer).unwrap();
        assert_eq!(&answer[..length], format!("one {NEIGHBOUR}").as_bytes());
    });
}

#[test]
fn addresses_outlive_the_daemon() {
    lab::run(|lab| {
        let request = |wanted: Option<Ipv4Addr>| Request {
            network: "network1".into(),
            subnet: network(1).subnet,
            blocks: vec!["10.64.16.0/26".parse().unwrap()],
            reserved: BTreeSet::from([network(1).gateway]),
            kept: BTreeSet::new(),
            rest: Rest::Must,
            wanted,
        };
        let first = lab.overlay();
        assert_eq!(first.allocate("a", &[request(None)], 0).unwrap(), [host(1, 2)]);
        assert_eq!(first.allocate("b", &[request(None)], 0).unwrap(), [host(1, 3)]);
        let refused = first.allocate("c", &[request(None), request(Some(host(1, 3)))], 0).unwrap_err();
        assert!(matches!(refused, RealizeError::Ipam(_)), "{refused}");
        drop(first);
        let second = lab.overlay();
        assert_eq!(second.allocate("b", &[request(None)], 0).unwrap(), [host(1, 3)]);
        second.release_others(&BTreeSet::from(["b".to_owned()]), 0).unwrap();
        assert_eq!(second.allocate("c", &[request(None)], 0).unwrap(), [host(1, 4)], "nothing is left of the refusal");
        second.teardown().unwrap();
        assert!(!lab.config.data_dir.join("net/addresses.json").exists());
    });
}

/// Whatever follows whatever, the kernel takes the difference: a refused one would be answered by a whole new table.
#[test]
fn every_change_is_a_difference() {
    lab::run(|lab| {
        let overlay = lab.overlay();
        overlay.apply(&lab::empty()).unwrap();
        let mut seed = 7u32;
        let mut below = move |bound: u32| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 16) % bound
        };
        for step in 0..60 {
            let mut node = lab::empty();
            node.networks = (1..=9).filter(|_| below(2) == 0).map(network).collect();
            if below(4) == 0 {
                node.pool = "172.31.0.0/16".parse().unwrap();
            }
            for number in (1..=9).filter(|number| node.networks.contains(&network(*number))).collect::<Vec<_>>() {
                let backends: Vec<_> = (2..2 + below(5) as u8).map(|last| host(number, last)).collect();
                node.endpoints.extend(backends.iter().map(|address| Endpoint {
                    sandbox: format!("task{address}"),
                    network: network(number).id,
                    address: *address,
                    names: vec![],
                    serving: true,
                }));
                node.services.push(service(number, vip(number, 1), &backends));
                node.published.push(publish(Tcp, 8000 + u16::from(number), 80, &backends));
                node.published.push(publish(Udp, 8000, 80, &backends));
            }
            if let Some(port) = node.published.first_mut().filter(|_| below(2) == 0) {
                port.bind = Some(NODE.into());
            }
            let change = overlay.apply(&node).unwrap().table;
            assert_ne!(change, TableChange::Whole, "step {step}");
            assert_eq!(overlay.apply(&node).unwrap().table, TableChange::None, "step {step}");
        }
    });
}

#[test]
fn containers_come_and_go_at_once() {
    lab::run(|lab| {
        let overlay = lab.overlay();
        let mut node = lab::empty();
        let keeper = start(&overlay, &mut node, "keeper", &[(1, 2)]);
        overlay.apply(&node).unwrap();
        keeper.serve(80, "keeper");
        std::thread::scope(|scope| {
            for worker in 0..4u8 {
                let (overlay, node) = (&overlay, &node);
                scope.spawn(move || {
                    for round in 0..5 {
                        let (id, last) = (format!("w{worker}-{round}"), 10 + worker * 10 + round);
                        let mut own = node.clone();
                        let sandbox = start(overlay, &mut own, &id, &[(1, last), (2 + worker, last)]);
                        overlay.apply(&own).unwrap();
                        assert_eq!(sandbox.run(|| lab::ip("-o addr show eth1")).matches("inet ").count(), 1);
                        overlay.apply(node).unwrap();
                        overlay.remove_sandbox(&id).unwrap();
                    }
                });
            }
        });
        overlay.apply(&node).unwrap();
        assert_eq!(overlay.sandboxes(), std::slice::from_ref(&keeper));
        assert_eq!(keeper.ask(host(1, 2), 80).unwrap(), "keeper 10.64.16.2");
        assert_eq!(lab::ip("-o link").matches(": skb-").count(), 1);
    });
}
