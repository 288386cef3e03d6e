//! `doctor` on a real network: a healthy cluster has no findings, and each thing that is broken is found and named.

use std::process::Command;

use serde_json::Value;
use skep_lab::{Direction, Node, Outcome, StopSignal};

use super::Cluster;
use crate::world::World;

fn doctor(cluster: &Cluster, number: u8) -> (Outcome, Vec<Value>) {
    let outcome = cluster.on(number, &["doctor", "--format", "json"]);
    let findings = outcome.stdout.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    (outcome, findings)
}

fn is_clean(cluster: &Cluster, number: u8) {
    cluster.world.until("nothing is wrong", || match doctor(cluster, number) {
        (outcome, findings) if outcome.code == 0 && findings.is_empty() => Ok(()),
        (outcome, _) => Err(outcome.to_string()),
    });
}

/// The findings once there are some that `is` says yes to.
fn finds(cluster: &Cluster, what: &str, is: impl Fn(&Value) -> bool) -> Vec<Value> {
    cluster.world.until(&format!("the doctor finds {what}"), || {
        let (outcome, findings) = doctor(cluster, 1);
        let found = outcome.code == 1 && findings.iter().any(&is);
        if found { Ok(findings) } else { Err(outcome.to_string()) }
    })
}

fn says(finding: &Value, node: &str, words: &[&str]) -> bool {
    let all = finding.to_string();
    finding["Nodes"].as_array().is_some_and(|nodes| nodes.iter().any(|name| name == node))
        && words.iter().all(|word| all.contains(word))
}

fn run(mut command: Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn nft(node: &Node, rules: &str) {
    let mut command = node.command("nft");
    command.args(rules.split_whitespace());
    run(command);
}

/// How many segments leave a node in one piece: the lab's switch does not see how long each of many is.
fn set_segments(world: &World, number: u8, segments: &str) {
    let mut command = world.lab().node(number).command("ip");
    command.args(["link", "set", "eth0", "gso_max_segs", segments]);
    run(command);
}

fn set_port_mtu(cluster: &Cluster, number: u8, mtu: &str) {
    let mut command = cluster.world.lab().outside_command("ip");
    command.args(["link", "set", &format!("node{number}"), "mtu", mtu]);
    run(command);
}

#[test]
fn each_broken_way_is_found_and_named_and_a_healthy_cluster_is_clean() {
    let cluster = Cluster::new(1, 2);
    is_clean(&cluster, 1);
    let shown = cluster.on(1, &["doctor", "--verbose"]);
    assert!(shown.is_ok() && shown.stdout.contains("All is well"), "{shown}");
    assert_eq!(shown.stdout.lines().filter(|line| line.starts_with('n')).count(), 6, "every way, both ways: {shown}");
    is_clean(&cluster, 2);

    // One way only, and both nodes still reach their manager.
    cluster.world.lab().partition(&[2], &[3], Direction::OneWay).unwrap();
    let findings =
        finds(&cluster, "the way from n2 to n3", |it| says(it, "n3", &["nothing of n2 arrives", "7377/udp"]));
    assert!(!findings.iter().any(|it| says(it, "n2", &["arrives"])), "the other way is open: {findings:?}");
    cluster.world.lab().heal().unwrap();
    is_clean(&cluster, 1);

    nft(cluster.node(2), "add table inet closed");
    nft(cluster.node(2), "add chain inet closed input { type filter hook input priority 0 ; }");
    nft(cluster.node(2), "add rule inet closed input udp dport 7377 drop");
    let findings = finds(&cluster, "n2's closed port", |it| says(it, "n2", &["n1, n3", "7377/udp", "0 of 30"]));
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert!(findings[0]["Mend"].as_str().unwrap().contains("198.51.100.1"), "who is to be let in: {findings:?}");
    nft(cluster.node(2), "delete table inet closed");
    is_clean(&cluster, 1);

    nft(cluster.node(1), "add table inet closed");
    nft(cluster.node(1), "add chain inet closed input { type filter hook input priority 0 ; }");
    nft(cluster.node(1), "add rule inet closed input ip saddr 198.51.100.3 tcp dport 7377 ct state new drop");
    let findings = finds(&cluster, "n1's control port", |it| says(it, "n1", &["n3 cannot connect", "no answer"]));
    assert_eq!(findings.len(), 1, "{findings:?}");
    nft(cluster.node(1), "delete table inet closed");

    (1..=3).for_each(|number| set_segments(&cluster.world, number, "1"));
    set_port_mtu(&cluster, 3, "1400");
    let findings = finds(&cluster, "n3's narrow link", |it| says(it, "n3", &["narrower", "mtu 140", "198.51.100.3"]));
    assert_eq!(findings.len(), 1, "{findings:?}");
    set_port_mtu(&cluster, 3, "1500");
    (1..=3).for_each(|number| set_segments(&cluster.world, number, "65535"));
    is_clean(&cluster, 1);

    let machine = cluster.node(3);
    machine.kill_daemon(StopSignal::Term).unwrap();
    finds(&cluster, "that n3 is away", |it| says(it, "n3", &["does not answer", "not connected"]));
    machine.write_config("clock_shift_seconds = 100\n").unwrap();
    machine.start_daemon().unwrap();
    cluster.until_whole(3);
    let findings = finds(&cluster, "n3's clock", |it| says(it, "n3", &["clock", "ahead"]));
    assert!(findings.iter().any(|it| says(it, "n3", &["About a minute"])), "{findings:?}");
}

#[test]
fn a_machine_whose_routes_are_in_the_clusters_ranges_is_refused_and_a_later_route_is_told() {
    let world = World::of_nodes(2);
    let route = |number: u8, verb: &str, to: &str| {
        let mut command = world.lab().node(number).command("ip");
        command.args(["route", verb, to, "dev", "eth0"]);
        run(command);
    };
    // Where the usual pool is in use, the first node takes another.
    route(1, "add", "10.100.0.0/24");
    let refused = world.refused(&["init", "--default-addr-pool", "10.64.0.0/10"]);
    assert!(refused.contains("10.100.0.0/24 by eth0") && refused.contains("10.64.0.0/10"), "{refused}");
    world.ok(&["init", "--advertise-addr", "eth0"]);
    assert!(world.ok(&["info"]).contains("Default Address Pool: 10.128.0.0/10"));
    world.ok(&["network", "create", "--subnet", "10.20.0.0/24", "mine"]);

    for (mine, says) in
        [("10.150.1.0/24", "the cluster's address pool"), ("10.20.0.0/25", "the subnet of network mine")]
    {
        route(2, "add", mine);
        let refused = super::join(&world, 2, "worker");
        let both = refused.stderr.contains(mine) && refused.stderr.contains(says);
        assert!(refused.code != 0 && both && refused.stderr.contains("eth0"), "{refused}");
        route(2, "del", mine);
    }
    super::join(&world, 2, "worker").ok().unwrap();
    route(2, "add", "10.150.1.0/24");
    world.until("the route is told of", || {
        let found = world.skep(&["doctor"]);
        let told =
            found.stdout.contains("n2: this machine's route to 10.150.1.0/24 by eth0 collides with 10.128.0.0/10");
        if found.code == 1 && told { Ok(()) } else { Err(found.to_string()) }
    });
    route(2, "del", "10.150.1.0/24");
    world.until("all is well again", || match world.skep(&["doctor"]) {
        found if found.is_ok() => Ok(()),
        found => Err(found.to_string()),
    });
}

const FILES: &str = "configs:\n  files: { content: \"server { listen 80; location / { root /tmp; } }\" }\n\
    services:\n\
    \x20 web: { image: \"${REGISTRY}/nginx:1\", stop_grace_period: 1s, networks: [front], \
    configs: [{ source: files, target: /etc/nginx/conf.d/default.conf }], \
    deploy: { placement: { constraints: [\"node.hostname == n2\"] } } }\n\
    \x20 client: { <<: *idle, networks: [front], deploy: { placement: { constraints: [\"node.hostname == n3\"] } } }\n\
    networks: { front: {} }\n";

#[test]
fn a_link_that_is_narrower_than_the_interfaces_say_is_noticed_and_large_transfers_pass() {
    let world = World::of_nodes(3);
    // Only what the tunnel sends: the cluster's own TCP would find its way.
    for number in 1..=3 {
        set_segments(&world, number, "1");
        let from = if number == 3 { "198.51.100.0/24" } else { "198.51.100.3" };
        for rules in [
            "add table inet narrow".to_owned(),
            "add chain inet narrow input { type filter hook input priority 0 ; }".to_owned(),
            format!("add rule inet narrow input ip saddr {from} udp dport 7377 meta length > 1400 drop"),
        ] {
            nft(world.lab().node(number), &rules);
        }
    }
    let cluster = Cluster::in_world(world, 1, 2, &[]);
    let world = &cluster.world;
    world.up("s", FILES);
    world.sh("s_web.1", "dd if=/dev/zero of=/tmp/large bs=1M count=4");
    let fetched = world.until("a large file passes", || {
        let outcome = world.exec("s_client.1", &["sh", "-c", "timeout 10 wget -q -O - http://web/large | wc -c"]);
        let whole = outcome.is_ok() && outcome.stdout.trim() == (4 << 20).to_string();
        if whole { Ok(outcome) } else { Err(outcome.to_string()) }
    });
    assert!(fetched.is_ok());
    for number in [2, 3] {
        let routes = cluster.node(number).run("ip", &["route", "show", "dev", "sk-tunnel"]).unwrap().ok().unwrap();
        let all = routes.lines().all(|line| line.contains("mtu 13"));
        assert!(all && !routes.is_empty(), "n{number}: {routes}");
        let log = std::fs::read_to_string(cluster.node(number).data_dir().join("daemon.log")).unwrap();
        assert!(log.contains("the way to a node is narrower"), "n{number}");
    }
    let (_, findings) = doctor(&cluster, 1);
    assert!(findings.iter().any(|it| says(it, "n3", &["narrower", "skep keeps to it"])), "{findings:?}");
}
