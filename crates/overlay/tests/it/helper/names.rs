//! Names, asked where containers ask: at 127.0.0.11, port 53, in their own namespaces.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::Ordering;

use hickory_proto::rr::RecordType::{A, AAAA, PTR, TXT};
use skep_overlay::plan::{Backend, Service};
use skep_overlay::snapshot::{RESOLVER, ServeError};

use super::dns::{self, addresses, ask, ask_tcp, query, serve_world, with_edns, words};
use super::{Daemon, forwards};
use crate::lab::{self, INTERNET, NEIGHBOUR, host, network, service, start, vip};

const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(RESOLVER), 53);

#[test]
fn containers_find_each_other_by_name() {
    lab::run(|lab| {
        let overlay = lab.overlay();
        let daemon = Daemon::start(&lab);
        let mut node = lab::empty();
        let client = start(&overlay, &mut node, "client", &[(1, 2)]);
        let stranger = start(&overlay, &mut node, "stranger", &[(2, 2)]);
        let old = start(&overlay, &mut node, "old", &[(7, 2)]);
        start(&overlay, &mut node, "one", &[(1, 3)]);
        start(&overlay, &mut node, "two", &[(1, 4)]);
        node.services.push(service(1, vip(1, 1), &[host(1, 3), host(1, 4)]));
        daemon.serve(&overlay.plan(&node).snapshot);
        overlay.apply(&node).unwrap();
        let say = |name, kind| words(&ask(&client, SERVER, &query(name, kind)));

        assert_eq!(say("service", A), "No Error, 30 10.64.30.1");
        assert_eq!(say("SerVice", A), "No Error, 30 10.64.30.1");
        assert_eq!(say("service.n1", A), "No Error, 30 10.64.30.1");
        assert_eq!(say("service", AAAA), "No Error, 30 fd64::a40:1e01");
        assert_eq!(say("one", AAAA), "No Error, 5 fd64::a40:1003");
        let nibbles = format!("fd64{}0a401003", "0".repeat(20));
        let reverse: String = nibbles.chars().rev().map(|nibble| format!("{nibble}.")).collect();
        assert_eq!(words(&ask(&client, SERVER, &query(&format!("{reverse}ip6.arpa"), PTR))), "No Error, 5 one.n1.");
        assert_eq!(words(&ask(&old, SERVER, &query("old", AAAA))), "No Error", "its network has IPv4 only");
        assert_eq!(words(&ask(&old, SERVER, &query("old", A))), "No Error, 5 10.64.112.2");
        assert_eq!(say("one", A), "No Error, 5 10.64.16.3");
        assert_eq!(say("3.16.64.10.in-addr.arpa", PTR), "No Error, 5 one.n1.");
        assert_eq!(say("nobody", A), "Non-Existent Domain");
        let both: Vec<IpAddr> = vec![host(1, 3).into(), host(1, 4).into()];
        let orders: BTreeSet<Vec<IpAddr>> =
            (0..64).map(|_| addresses(&ask(&client, SERVER, &query("tasks.service", A)))).collect();
        assert_eq!(orders, BTreeSet::from([both.clone(), both.into_iter().rev().collect()]));

        let queries = [query("service", A), query("nobody", A), query("one", A)];
        let by_tcp: Vec<String> = ask_tcp(&client, SERVER, &queries).iter().map(words).collect();
        assert_eq!(by_tcp, ["No Error, 30 10.64.30.1", "Non-Existent Domain", "No Error, 5 10.64.16.3"]);
        assert_eq!(words(&ask(&stranger, SERVER, &query("service", A))), "Non-Existent Domain");

        // The next snapshot is what the next question sees.
        node.services[0].backends[0].serving = false;
        daemon.serve(&overlay.plan(&node).snapshot);
        assert_eq!(say("tasks.service", A), "No Error, 5 10.64.16.4");
    });
}

#[test]
fn a_long_answer_is_cut_by_udp_and_whole_by_tcp() {
    lab::run(|lab| {
        let overlay = lab.overlay();
        let daemon = Daemon::start(&lab);
        let mut node = lab::empty();
        let client = start(&overlay, &mut node, "client", &[(1, 2)]);
        let backends = (1..=100).map(|last| Backend { address: Ipv4Addr::new(10, 64, 17, last), serving: true });
        let (network, names) = (network(1).id, vec!["many".to_owned()]);
        node.services.push(Service {
            network,
            vip: None,
            names,
            backends: backends.collect(),
            balance: Default::default(),
        });
        daemon.serve(&overlay.plan(&node).snapshot);
        overlay.apply(&node).unwrap();
        let cut = ask(&client, SERVER, &query("many", A));
        assert!(cut.metadata.truncation && cut.answers.is_empty());
        assert_eq!(ask(&client, SERVER, &with_edns(query("many", A), 4096)).answers.len(), 100);
        assert_eq!(ask_tcp(&client, SERVER, &[query("many", A)])[0].answers.len(), 100);
    });
}

#[test]
fn names_of_the_world_are_asked_upstream_and_kept() {
    lab::run(|lab| {
        let overlay = lab.overlay();
        let daemon = Daemon::start(&lab);
        let mut node = lab::empty();
        // Nobody listens on the first: the second is asked at once.
        node.upstreams = vec![(NEIGHBOUR, 53).into(), (INTERNET, 53).into()];
        let client = start(&overlay, &mut node, "client", &[(1, 2)]);
        let other = start(&overlay, &mut node, "other", &[(2, 2)]);
        daemon.serve(&overlay.plan(&node).snapshot);
        overlay.apply(&node).unwrap();
        let asked = serve_world(&lab.outside(), INTERNET.into());
        let count = || asked.load(Ordering::SeqCst);

        let first = ask(&client, SERVER, &query("www.example.com", A));
        assert_eq!(words(&first), "No Error, 600 192.0.2.1");
        let again = ask(&other, SERVER, &query("WWW.example.com", A));
        assert_eq!(addresses(&again), addresses(&first));
        assert!(again.answers[0].ttl <= 600);
        assert_eq!(count(), 1, "the second answer was kept from the first");

        assert_eq!(words(&ask(&client, SERVER, &query("missing.example.com", A))), "Non-Existent Domain");
        assert_eq!(words(&ask(&client, SERVER, &query("missing.example.com", A))), "Non-Existent Domain");
        assert_eq!(count(), 2, "that there is none is kept as well");

        let cut = ask(&client, SERVER, &query("big.example.com", TXT));
        assert!(cut.metadata.truncation);
        assert_eq!(ask_tcp(&client, SERVER, &[query("big.example.com", TXT)])[0].answers.len(), 30);
        let large = ask(&client, SERVER, &with_edns(query("big.example.com", TXT), 4096));
        assert_eq!((large.answers.len(), large.edns.map(|edns| edns.max_payload())), (30, Some(4096)));

        assert_eq!(words(&ask(&client, SERVER, &query("broken.example.com", A))), "Server Failure");
        // Other upstreams may answer otherwise.
        node.upstreams = vec![(NEIGHBOUR, 53).into()];
        daemon.serve(&overlay.plan(&node).snapshot);
        assert_eq!(words(&ask(&client, SERVER, &query("www.example.com", A))), "Server Failure");
    });
}

#[test]
fn an_upstream_that_is_slow_keeps_nobody_else_waiting() {
    lab::run(|lab| {
        let overlay = lab.overlay();
        let daemon = Daemon::start(&lab);
        let mut node = lab::empty();
        node.upstreams = vec![(INTERNET, 53).into()];
        let client = start(&overlay, &mut node, "client", &[(1, 2)]);
        daemon.serve(&overlay.plan(&node).snapshot);
        overlay.apply(&node).unwrap();
        let asked = serve_world(&lab.outside(), INTERNET.into());
        std::thread::scope(|scope| {
            let held = scope.spawn(|| ask(&client, SERVER, &query("held.example.com", A)));
            while asked.load(Ordering::SeqCst) == 0 && !held.is_finished() {
                std::thread::yield_now();
            }
            // Were they to wait for the first, they would wait until it has failed.
            for name in ["1.example.com", "2.example.com", "3.example.com", "release.example.com"] {
                assert_eq!(words(&ask(&client, SERVER, &query(name, A))), "No Error, 600 192.0.2.1");
            }
            assert_eq!(words(&held.join().unwrap()), "No Error, 600 192.0.2.1");
        });
    });
}

#[test]
fn an_internal_network_asks_nobody_outside() {
    lab::run(|lab| {
        let overlay = lab.overlay();
        let daemon = Daemon::start(&lab);
        let mut node = lab::empty();
        node.upstreams = vec![(INTERNET, 53).into()];
        let inner = start(&overlay, &mut node, "inner", &[(9, 2)]);
        let both = start(&overlay, &mut node, "both", &[(9, 3), (1, 2)]);
        let snapshot = overlay.plan(&node).snapshot;
        assert!(!forwards(&snapshot, "inner") && forwards(&snapshot, "both"));
        daemon.serve(&snapshot);
        overlay.apply(&node).unwrap();
        let asked = serve_world(&lab.outside(), INTERNET.into());
        assert_eq!(words(&ask(&inner, SERVER, &query("www.example.com", A))), "Non-Existent Domain");
        assert_eq!(asked.load(Ordering::SeqCst), 0);
        assert_eq!(words(&ask(&inner, SERVER, &query("both", A))), "No Error, 5 10.64.144.3");
        assert_eq!(words(&ask(&both, SERVER, &query("www.example.com", A))), "No Error, 600 192.0.2.1");
    });
}

#[test]
fn a_sandbox_that_is_made_anew_has_its_resolver_again() {
    lab::run(|lab| {
        let overlay = lab.overlay();
        let daemon = Daemon::start(&lab);
        let mut node = lab::empty();
        let client = start(&overlay, &mut node, "client", &[(1, 2)]);
        let mut snapshot = overlay.plan(&node).snapshot;
        daemon.serve(&snapshot);
        overlay.apply(&node).unwrap();
        assert_eq!(dns::words(&ask(&client, SERVER, &query("client", A))), "No Error, 5 10.64.16.2");

        overlay.apply(&lab::empty()).unwrap();
        overlay.remove_sandbox("client").unwrap();
        let errors = daemon.apply(&snapshot);
        let [ServeError::Resolver { sandbox, message }] = errors.as_slice() else { panic!("{errors:?}") };
        assert_eq!(sandbox, "client");
        assert!(message.contains("client"), "{message}");

        let client = start(&overlay, &mut lab::empty(), "client", &[(1, 2)]);
        snapshot.upstreams = vec![];
        daemon.serve(&snapshot);
        overlay.apply(&node).unwrap();
        assert_eq!(dns::words(&ask(&client, SERVER, &query("client", A))), "No Error, 5 10.64.16.2");
    });
}
