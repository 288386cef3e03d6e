//! Verdicts on what a cluster of three nodes measured.

use std::net::Ipv4Addr;

use expect_test::{Expect, expect};
use skep_api::{Complaint, Firewall, ManagerProbe, ManagerTarget};
use skep_model::Timestamp;

use super::super::line;
use super::*;

const NAMES: [&str; 3] = ["n1", "n2", "n3"];
const SECOND: u64 = 1_000_000_000;

fn id(number: usize) -> NodeId {
    NodeId::from_u128(number as u128)
}

/// The way to node `to`, which is well.
fn probe(to: usize) -> PeerProbe {
    PeerProbe {
        node: id(to),
        address: Ipv4Addr::new(10, 127, 240, to as u8),
        endpoint: format!("192.0.2.{to}:7377").parse().ok(),
        sent: 30,
        answered: 30,
        round_trip: Some(Duration::from_millis(1)),
        passes: Some(1420),
        received_bytes: 5000,
        handshake_age: Some(Duration::from_secs(9)),
    }
}

fn healthy() -> Diagnosis {
    let manager = ManagerTarget { node: Some(id(1)), address: "192.0.2.1:7377".to_owned() };
    let node = |number: usize| NodeFindings {
        node: id(number),
        hostname: NAMES[number - 1].to_owned(),
        is_manager: number == 1,
        address: format!("192.0.2.{number}"),
        clock: Some(ProbeClock {
            asked: Timestamp(100 * SECOND),
            told: Timestamp(101 * SECOND),
            heard: Timestamp(103 * SECOND),
        }),
        examined: Some(Examined {
            peers: (1..=3).filter(|to| *to != number).map(probe).collect(),
            managers: vec![ManagerProbe { manager: manager.clone(), reached: Reached::Open, connected_in: None }],
            tunnel_port: 7377,
            mtu: 1420,
            interface_mtu: 1420,
            ..Examined::default()
        }),
        silent: None,
        older_level: None,
    };
    Diagnosis { nodes: (1..=3).map(node).collect() }
}

fn examined(diagnosis: &mut Diagnosis, node: usize) -> &mut Examined {
    diagnosis.nodes[node - 1].examined.as_mut().unwrap()
}

fn way(diagnosis: &mut Diagnosis, from: usize, to: usize) -> &mut PeerProbe {
    examined(diagnosis, from).peers.iter_mut().find(|probe| probe.node == id(to)).unwrap()
}

/// Packets of `from` do not reach `to`, so no echo comes back on either side.
fn block(diagnosis: &mut Diagnosis, from: usize, to: usize) {
    for (here, there) in [(from, to), (to, from)] {
        let probe = way(diagnosis, here, there);
        (probe.answered, probe.round_trip, probe.passes) = (0, None, None);
    }
    way(diagnosis, to, from).received_bytes = 0;
}

fn check(diagnosis: &Diagnosis, expected: &Expect) {
    let lines: Vec<String> = judge(diagnosis).findings.iter().map(line).collect();
    expected.assert_eq(&(lines.join("\n") + "\n"));
}

#[test]
fn a_healthy_cluster_has_no_findings() {
    let verdict = judge(&healthy());
    assert_eq!((verdict.findings, verdict.well), (Vec::new(), 30));
}

#[test]
fn a_way_that_is_closed_is_told_by_its_deaf_end() {
    let mut one_way = healthy();
    block(&mut one_way, 2, 3);
    check(
        &one_way,
        &expect![[r#"
        n3: nothing of n2 arrives here through the tunnel: 7377/udp is blocked (0 of 30 packets of each answered); on n3: let 7377/udp in from 192.0.2.2 in every firewall on the way
    "#]],
    );
    let mut closed = healthy();
    block(&mut closed, 1, 2);
    block(&mut closed, 3, 2);
    examined(&mut closed, 2).firewall = Some(Firewall::Ufw);
    check(
        &closed,
        &expect![[r#"
        n2: nothing of n1, n3 arrives here through the tunnel: 7377/udp is blocked (0 of 30 packets of each answered); on n2: ufw allow proto udp from 192.0.2.1 to any port 7377; ufw allow proto udp from 192.0.2.3 to any port 7377
    "#]],
    );
    let mut unanswered = healthy();
    way(&mut unanswered, 1, 2).answered = 0;
    examined(&mut unanswered, 2).firewall = Some(Firewall::Ufw);
    check(
        &unanswered,
        &expect![[r#"
        n2: what n1 sends arrives through the tunnel, and is not answered (0 of 30 packets of each answered); on n2: ufw allow in on sk-tunnel
    "#]],
    );
}

#[test]
fn one_node_alone_tells_what_it_can() {
    let mut alone = healthy();
    alone.nodes.truncate(1);
    way(&mut alone, 1, 3).answered = 0;
    alone.nodes[0].examined.as_mut().unwrap().managers[0].manager.node = None;
    check(
        &alone,
        &expect![[r#"
        000000000000: nothing comes back to n1 through the tunnel (0 of 30 packets of each answered); on 000000000000: let 7377/udp in from 192.0.2.1 in every firewall on the way
    "#]],
    );
}

#[test]
fn a_node_that_is_away_or_old_is_told_once() {
    let mut away = healthy();
    for (node, other) in [(1, 3), (2, 3)] {
        (way(&mut away, node, other).answered, way(&mut away, node, other).received_bytes) = (0, 0);
    }
    away.nodes[2].examined = None;
    away.nodes[2].silent = Some("node n3 is not connected".to_owned());
    away.nodes[1].examined = None;
    away.nodes[1].older_level = Some(3);
    check(
        &away,
        &expect![[r#"
        n2: cannot examine itself (its skep is of level 3); update skep on it
        n3: does not answer (node n3 is not connected); see there whether its daemon runs and reaches a manager: skep info
    "#]],
    );
}

#[test]
fn a_narrow_link_is_its_nodes_and_a_narrow_way_is_both_ends() {
    let mut link = healthy();
    for (from, to) in [(1, 3), (3, 1), (2, 3), (3, 2)] {
        way(&mut link, from, to).passes = Some(1340);
    }
    (1..=3).for_each(|node| examined(&mut link, node).mtu = 1340);
    check(
        &link,
        &expect![[r#"
        n3: the ways to n1, n2 are narrower than its interface says (packets of 1340 bytes pass the tunnel, 1420 would have to; skep keeps to it); on n3: ip link set mtu 1400 dev $(ip -o addr show to 192.0.2.3 | awk '{print $2}'), or widen the link
    "#]],
    );
    let mut between = healthy();
    way(&mut between, 1, 2).passes = Some(1300);
    check(
        &between,
        &expect![[r#"
        n1 and n2: the way between them is narrower than their interfaces say (packets of 1300 bytes pass the tunnel, 1420 would have to); on n1: ip link set mtu 1360 dev $(ip -o addr show to 192.0.2.1 | awk '{print $2}'), or widen the link
    "#]],
    );
}

#[test]
fn loss_distance_clocks_ports_and_complaints_are_told_with_their_figures() {
    let mut bad = healthy();
    way(&mut bad, 2, 3).answered = 26;
    way(&mut bad, 3, 2).answered = 21;
    way(&mut bad, 1, 2).answered = 29;
    bad.nodes[1].is_manager = true;
    way(&mut bad, 1, 2).round_trip = Some(Duration::from_millis(180));
    bad.nodes[2].clock.as_mut().unwrap().told = Timestamp(97 * SECOND);
    examined(&mut bad, 3).clock_synchronised = Some(false);
    examined(&mut bad, 2).managers[0].reached = Reached::Silent;
    examined(&mut bad, 3).managers[0].reached = Reached::Refused;
    let complaint =
        Complaint { what: "IP forwarding is off".to_owned(), mend: "sysctl -w net.ipv4.ip_forward=1".to_owned() };
    examined(&mut bad, 1).complaints.push(complaint);
    check(
        &bad,
        &expect![[r#"
        n1: IP forwarding is off; sysctl -w net.ipv4.ip_forward=1
        n3: its clock is not that of the manager which was asked (3 seconds behind, and nobody sets it); timedatectl set-ntp true
        n1: n2 cannot connect to its control port (192.0.2.1:7377: no answer); on n1: let 7377/tcp in from 192.0.2.2 in every firewall on the way
        n1: n3 cannot connect to its control port (192.0.2.1:7377: refused); start skep on n1, or let its firewall accept 7377/tcp
        n2 and n3: packets between them are lost (9 of 30); look at the link between them: `ip -s link` on both counts what its interfaces drop
        n1 and n2: these managers are far from each other: writes and elections are slow (a round trip takes 180 ms); skep node demote n2
    "#]],
    );
}
