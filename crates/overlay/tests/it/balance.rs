//! Clients that stay with their backend, and nodes that take their own backends first.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use skep_overlay::plan::Protocol::{Tcp, Udp};
use skep_overlay::plan::{Balance, Choice, NodeNetwork};

use crate::lab::{self, Outside, Place, host, publish, service, start, twin, vip, within};
use crate::mesh;

const STAYS: Balance = Balance { choice: Choice::ByClient, local_first: false };
const AT_HOME: Balance = Balance { choice: Choice::Random, local_first: true };
/// Enough connections that chance would have led one of them elsewhere.
const MANY: usize = 12;

/// Service address 1 and published port 8080 of both protocols lead to port 80 of these.
fn lead(node: &mut NodeNetwork, backends: &[Ipv4Addr], balance: Balance) {
    node.services = vec![service(1, vip(1, 1), backends)];
    node.services[0].balance = balance;
    node.published = [Tcp, Udp].map(|protocol| publish(protocol, 8080, 80, backends)).to_vec();
    node.published.iter_mut().for_each(|port| port.balance = balance);
}

/// The one server that answers all of many questions.
fn only(ask: impl Fn() -> std::io::Result<String>) -> String {
    let names: BTreeSet<String> = (0..MANY).map(|_| ask().unwrap().split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(names.len(), 1, "{names:?}");
    names.into_iter().next().unwrap()
}

/// By each of so many addresses of the outside.
fn clients(outside: &Outside, count: u8) -> Vec<(Ipv4Addr, Outside)> {
    let client = |number| {
        let address = Ipv4Addr::new(198, 51, 100, 100 + number);
        let (thread, namespace) = lab::namespace();
        outside.run(|| {
            lab::ip(&format!("link add c{number} type veth peer name eth0 netns {thread}"));
            lab::ip(&format!("link set c{number} up"));
            lab::ip(&format!("route add {address} dev c{number}"));
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
            std::fs::write("/proc/sys/net/ipv4/conf/all/proxy_arp", "1").unwrap();
        });
        within(&namespace, || {
            lab::ip("link set lo up");
            lab::ip(&format!("addr add {address}/32 dev eth0"));
            lab::ip("link set eth0 up");
            lab::ip("route add default dev eth0");
        });
        (address, Outside(namespace))
    };
    (0..count).map(client).collect()
}

#[test]
fn a_client_stays_with_its_backend_and_clients_are_spread() {
    lab::run(|lab| {
        let overlay = lab.overlay();
        let mut node = lab::empty();
        let containers: Vec<_> =
            (0..12).map(|number| start(&overlay, &mut node, &format!("c{number}"), &[(1, 20 + number)])).collect();
        let servers = ["a", "b", "c"];
        let all = [host(1, 2), host(1, 3), host(1, 4)];
        for (name, last) in servers.into_iter().zip(2..) {
            start(&overlay, &mut node, name, &[(1, last)]).serve(80, name);
        }
        lead(&mut node, &all, STAYS);
        overlay.apply(&node).unwrap();
        let by_address = |place: &dyn Fn(Ipv4Addr) -> std::io::Result<String>| only(|| place(vip(1, 1)));
        let mut seen = BTreeMap::new();
        for (number, container) in containers.iter().enumerate() {
            let tcp = by_address(&|to| container.ask(to, 80));
            assert_eq!(tcp, by_address(&|to| container.ask_udp(to, 80)), "a client is its address");
            let six = only(|| container.ask(twin(vip(1, 1)), 80));
            assert!(servers.contains(&six.as_str()));
            seen.insert(number, tcp);
        }
        assert_eq!(seen.values().collect::<BTreeSet<_>>().len(), 3, "{seen:?}");
        // A backend goes: its clients alone are led elsewhere. It comes again: they are led back.
        for backends in [&all[..2], &all[..]] {
            lead(&mut node, backends, STAYS);
            overlay.apply(&node).unwrap();
            for (number, container) in containers.iter().enumerate() {
                let now = by_address(&|to| container.ask(to, 80));
                assert!(
                    now == seen[&number] || backends.len() == 2 && seen[&number] == "c",
                    "{number}: {now}, {seen:?}"
                );
            }
        }
        // By a published port too.
        let outside: Vec<_> = clients(&lab.outside(), 8);
        let answers = outside.iter().map(|(_, client)| {
            let tcp = only(|| client.ask(lab::NODE, 8080));
            assert_eq!(tcp, only(|| client.ask_udp(lab::NODE, 8080)));
            tcp
        });
        let answers: BTreeSet<String> = answers.collect();
        assert!(answers.len() > 1, "all clients were led to {answers:?}");
    });
}

#[test]
fn all_nodes_lead_a_client_to_the_same_backend() {
    lab::run(|lab| {
        let ([mut one, mut two, mut three], outside) = mesh::nodes(&lab);
        let all: Vec<_> = (1..=3).map(|number| mesh::host(1, number, 5)).collect();
        for (node, name) in [(&mut one, "one"), (&mut two, "two"), (&mut three, "three")] {
            node.start(name, &[(1, 5)]).serve(80, name);
            lead(&mut node.wanted, &all, STAYS);
            node.apply();
        }
        // One address for all nodes, as a client far away has.
        let client = Ipv4Addr::new(203, 0, 113, 5);
        outside.run(|| {
            lab::ip(&format!("addr add {client}/32 dev lo"));
            for number in 1..=3u8 {
                lab::ip(&format!("route replace {} dev out{number} src {client}", mesh::uplink(number)));
            }
        });
        for (node, number) in [&one, &two, &three].into_iter().zip(1u8..) {
            node.run(|| lab::ip(&format!("route replace {client} via {}", mesh::client(number))));
        }
        let by_node: BTreeSet<_> = (1..=3).map(|number| only(|| outside.ask(mesh::uplink(number), 8080))).collect();
        assert_eq!(by_node.len(), 1, "{by_node:?}");
        assert!(outside.ask(mesh::uplink(1), 8080).unwrap().ends_with(&format!(" {client}")));
    });
}

#[test]
fn a_node_takes_its_own_backends_first_and_others_when_it_has_none() {
    lab::run(|lab| {
        let ([mut one, mut two, mut three], outside) = mesh::nodes(&lab);
        let a = one.start("a", &[(1, 2)]);
        let backends = [mesh::host(1, 1, 5), mesh::host(1, 2, 5)];
        one.start("one", &[(1, 5)]).serve(80, "one");
        two.start("two", &[(1, 5)]).serve(80, "two");
        for node in [&mut one, &mut two, &mut three] {
            lead(&mut node.wanted, &backends, AT_HOME);
            node.apply();
        }
        assert_eq!(only(|| a.ask(vip(1, 1), 80)), "one");
        assert_eq!(only(|| a.ask(twin(vip(1, 1)), 80)), "one");
        assert_eq!(only(|| outside.ask(mesh::uplink(1), 8080)), "one");
        assert_eq!(only(|| outside.ask_udp(mesh::uplink(2), 8080)), "two");
        assert_eq!(only(|| one.ask(Ipv4Addr::LOCALHOST, 8080)), "one", "by the net helper's proxy");
        // The third has none of its own.
        let answers = || outside.ask(mesh::uplink(3), 8080).unwrap().split(' ').next().unwrap().to_owned();
        let mut seen = BTreeSet::new();
        while seen.len() < 2 {
            seen.insert(answers());
        }
        // Nor has the first, once its own serves no more.
        one.wanted.services[0].backends[0].serving = false;
        one.wanted.published.iter_mut().for_each(|port| port.backends = vec![backends[1]]);
        one.apply();
        assert_eq!(only(|| a.ask(vip(1, 1), 80)), "two");
        assert_eq!(only(|| outside.ask(mesh::uplink(1), 8080)), "two");
    });
}

#[test]
fn clients_of_the_net_helpers_proxies_stay_too() {
    lab::run(|lab| {
        let ([mut one, _two], _outside) = mesh::nodes(&lab);
        let all: Vec<_> = (5..=8).map(|place| mesh::host(1, 1, place)).collect();
        for (place, name) in (5..=8).zip(["a", "b", "c", "d"]) {
            one.start(name, &[(1, place)]).serve(80, name);
        }
        lead(&mut one.wanted, &all, STAYS);
        one.apply();
        only(|| one.ask(Ipv4Addr::LOCALHOST, 8080));
        only(|| one.ask_udp(Ipv4Addr::LOCALHOST, 8080));
    });
}
