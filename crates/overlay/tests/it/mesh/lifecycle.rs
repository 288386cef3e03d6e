//! Repeats, losses, mending, the end, across nodes.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use skep_overlay::TableChange;
use skep_overlay::plan::Protocol::{Tcp, Udp};

use super::{Peer, client, host, nodes, uplink};
use crate::lab::{self, Place, ip, publish, service, vip};
use crate::netfilter;

fn state(node: &Peer) -> Vec<String> {
    let all = ["-o link", "-o addr", "route show table all", "rule", "neigh", "-d link show sk-ingress"];
    let mut state: Vec<String> = all.map(|what| node.run(|| ip(what))).to_vec();
    state.push(node.run(|| lab::program("bridge", "fdb show")));
    state
}

#[test]
fn applying_the_same_again_changes_nothing() {
    lab::run(|lab| {
        let ([mut one, _two, _three], _outside) = nodes(&lab);
        one.start("a", &[(1, 2), (9, 2)]);
        one.wanted.published.push(publish(Tcp, 8080, 80, &[host(1, 2, 2)]));
        one.apply();
        let before = state(&one);
        assert_eq!(one.apply().table, TableChange::None);
        assert_eq!(state(&one), before);
    });
}

#[test]
fn what_somebody_deletes_or_changes_comes_again() {
    lab::run(|lab| {
        let ([mut one, mut two], outside) = nodes(&lab);
        let a = one.start("a", &[(1, 2)]);
        two.start("far", &[(1, 5)]).serve(80, "far");
        for node in [&mut one, &mut two] {
            node.wanted.published.push(publish(Tcp, 8080, 80, &[host(1, 2, 5)]));
            node.apply();
        }
        let works = |when: &str| {
            assert_eq!(outside.ask(uplink(1), 8080).unwrap(), format!("far {}", client(1)), "{when}");
            assert_eq!(a.ask(host(1, 2, 5), 80).unwrap(), format!("far {}", host(1, 1, 2)), "{when}");
            assert_eq!(a.ask(host(1, 1, 9), 80).unwrap_err().kind(), ErrorKind::ConnectionRefused, "{when}");
        };
        works("before");
        let whole = [state(&one), state(&two)];
        let losses = [
            "route del 10.64.16.0/20 dev sk-tunnel",
            "route del 10.64.0.0/20 dev sk-tunnel",
            "route flush table 737600000",
            "route flush table 737700001",
            "route flush table 737700002",
            "rule del priority 1739",
            "rule del priority 1740",
            "rule del priority 1741",
            "neigh flush dev sk-ingress nud permanent",
            "link del sk-ingress",
            "link set sk-ingress down",
            "link set sk-ingress mtu 1000",
            "link set sk-tunnel down",
            "addr flush dev sk-ingress",
            "route replace 10.64.16.0/20 via 198.51.1.1",
        ];
        for loss in losses {
            for node in [&one, &two] {
                // Not every node has every one of them.
                node.run(|| lab::attempt("ip", loss));
                node.apply();
            }
            works(loss);
            assert_eq!(names(&whole), names(&[state(&one), state(&two)]), "{loss}");
        }
        one.run(|| {
            let links = ip("-o link");
            let names = links.lines().filter_map(|line| line.split([' ', ':', '@']).nth(2));
            for name in names.filter(|name| name.starts_with("sk")) {
                ip(&format!("link set {name} down"));
            }
        });
        one.apply();
        works("all down");
        one.run(|| lab::program("bridge", "fdb del 02:73:6b:00:00:02 dev sk-ingress"));
        two.run(netfilter::flush);
        let container = one.run(|| ip(&format!("route show {}", host(1, 1, 2))));
        one.run(|| ip(&format!("route del {}", container.split(" proto").next().unwrap())));
        one.apply();
        two.apply();
        works("the rest");
    });
}

/// Without what a new interface of the same kind has anew: numbers and the order of routes.
fn names(states: &[Vec<String>]) -> Vec<String> {
    let lines = states.iter().flat_map(|state| state[2..4].iter().flat_map(|text| text.lines()));
    let ours = lines.filter(|line| line.contains(" sk") || line.contains("proto 73"));
    let mut lines: Vec<_> = ours.map(|line| line.trim().to_owned()).collect();
    lines.sort();
    lines
}

#[test]
fn teardown_leaves_nothing() {
    lab::run(|lab| {
        let ([mut one, _two], _outside) = nodes(&lab);
        let state =
            |node: &Peer| ["-o link", "-o addr", "route show table all", "rule"].map(|what| node.run(|| ip(what)));
        one.start("a", &[(1, 2)]);
        one.wanted.published.push(publish(Tcp, 8080, 80, &[host(1, 2, 2)]));
        one.apply();
        one.daemon = None;
        one.run(|| one.overlay.teardown().unwrap());
        let left = state(&one);
        let all = left.concat();
        assert!(!all.contains("sk-") && !all.contains("skb-") && !all.contains("10.64."), "{all}");
        assert!(!left[2].contains("proto 73") && !left[3].contains("proto 73"), "{all}");
        assert_eq!(one.run(netfilter::tables), 0);
    });
}

#[test]
fn a_node_alone_again_keeps_its_own_containers() {
    lab::run(|lab| {
        let ([mut one, _two], _outside) = nodes(&lab);
        let a = one.start("a", &[(1, 2)]);
        let b = one.start("b", &[(1, 3)]);
        b.serve(80, "b");
        let together = one.wanted.mesh.take();
        one.apply();
        assert_eq!(a.ask(host(1, 1, 3), 80).unwrap(), format!("b {}", host(1, 1, 2)));
        assert_eq!(a.ask(host(1, 2, 3), 80).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        let left = one.run(|| ip("-o link") + &ip("route show table all") + &ip("rule"));
        assert!(!left.contains("sk-") && !left.contains("1737"), "{left}");
        one.wanted.mesh = together;
        one.apply();
        assert_eq!(a.ask(host(1, 1, 3), 80).unwrap(), format!("b {}", host(1, 1, 2)));
    });
}

#[test]
fn connections_to_a_dead_nodes_container_end_at_once_and_others_live() {
    lab::run(|lab| {
        let ([mut one, mut two, mut three], outside) = nodes(&lab);
        let a = one.start("a", &[(1, 2)]);
        let (dead, alive) = (two.start("dead", &[(1, 5)]), three.start("alive", &[(1, 5)]));
        let listeners =
            [&dead, &alive].map(|place| place.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 80)).unwrap()));
        let (both, left) = ([host(1, 2, 5), host(1, 3, 5)], [host(1, 3, 5)]);
        let lead = |nodes: &mut [&mut Peer], backends: &[Ipv4Addr]| {
            for node in nodes {
                node.wanted.services = vec![service(1, vip(1, 1), backends)];
                node.wanted.published = vec![publish(Tcp, 8080, 80, backends)];
                node.apply();
            }
        };
        lead(&mut [&mut one, &mut two, &mut three], &both[..1]);
        let mut lost = [
            a.run(|| TcpStream::connect((vip(1, 1), 80)).unwrap()),
            outside.run(|| TcpStream::connect((uplink(1), 8080)).unwrap()),
        ];
        lead(&mut [&mut one, &mut three], &both);
        let _held = [listeners[0].accept().unwrap(), listeners[0].accept().unwrap()];
        lead(&mut [&mut one, &mut three], &left);
        // Named by nobody any more, though nobody has said a word of its end.
        for stream in &mut lost {
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            stream.write_all(b"?").unwrap();
            assert_eq!(stream.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        }
        let mut kept = a.run(|| TcpStream::connect((vip(1, 1), 80)).unwrap());
        let (mut server, _) = listeners[1].accept().unwrap();
        kept.write_all(b"still").unwrap();
        let mut answer = [0; 5];
        server.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"still");
    });
}

#[test]
fn a_container_that_drains_elsewhere_keeps_its_connections() {
    lab::run(|lab| {
        let ([mut one, mut two], _outside) = nodes(&lab);
        let a = one.start("a", &[(1, 2)]);
        let far = two.start("far", &[(1, 5)]);
        one.wanted.services = vec![service(1, vip(1, 1), &[host(1, 2, 5)])];
        one.apply();
        let listener = far.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 80)).unwrap());
        let mut stream = a.run(|| TcpStream::connect((vip(1, 1), 80)).unwrap());
        let (mut server, _) = listener.accept().unwrap();
        one.wanted.services[0].backends[0].serving = false;
        one.apply();
        stream.write_all(b"still").unwrap();
        let mut answer = [0; 5];
        server.read_exact(&mut answer).unwrap();
        assert_eq!(a.ask(vip(1, 1), 80).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn udp_senders_follow_to_another_node() {
    lab::run(|lab| {
        let ([mut one, mut two, mut three], outside) = nodes(&lab);
        two.start("second", &[(1, 5)]).serve(80, "second");
        three.start("third", &[(1, 5)]).serve(80, "third");
        let sender = outside.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap());
        sender.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        sender.connect((uplink(1), 5514)).unwrap();
        // Somebody listens, so that the sender meets no refusal before.
        let holder = one.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 5514)).unwrap());
        sender.send(b"?").unwrap();
        drop(holder);
        for (backend, name) in [(host(1, 2, 5), "second"), (host(1, 3, 5), "third")] {
            for node in [&mut one, &mut two, &mut three] {
                node.wanted.published = vec![publish(Udp, 5514, 80, &[backend])];
                node.apply();
            }
            sender.send(b"?").unwrap();
            let mut answer = [0; 64];
            let length = sender.recv(&mut answer).unwrap();
            assert_eq!(&answer[..length], format!("{name} {}", client(1)).as_bytes());
        }
    });
}

#[test]
fn the_next_daemon_ends_connections_to_what_died_meanwhile() {
    lab::run(|lab| {
        let ([mut one, mut two], _outside) = nodes(&lab);
        let a = one.start("a", &[(1, 2)]);
        let far = two.start("far", &[(1, 5)]);
        one.wanted.services = vec![service(1, vip(1, 1), &[host(1, 2, 5)])];
        one.apply();
        let listener = far.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 80)).unwrap());
        let mut stream = a.run(|| TcpStream::connect((vip(1, 1), 80)).unwrap());
        let _held = listener.accept().unwrap();
        one.wanted.services[0].backends.clear();
        one.restart(&lab);
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(b"?").unwrap();
        let error = stream.read(&mut [0; 1]).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused), "{error}");
    });
}
