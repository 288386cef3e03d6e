//! Networks under load, across machines: many containers that leave nothing behind, much data that arrives whole, and
//! programs of others that find each other by name.
//!
//! `SKEP_SOAK=1` (`cargo xtask test --soak`) runs the full counts: 1,000 containers and 1 GB.

use std::collections::BTreeSet;
use std::time::Duration;

use skep_lab::Node;

use super::Cluster;
use super::network::get;
use crate::world::World;

fn soaks() -> bool {
    std::env::var_os("SKEP_SOAK").is_some()
}

/// What a node's kernel and run folder have of networks and containers, one thing a line.
fn traces(node: &Node) -> BTreeSet<String> {
    let run = |program: &str, args: &[&str]| -> String {
        let outcome = node.run(program, args).unwrap();
        outcome.ok().unwrap_or_else(|error| panic!("{error}"))
    };
    let mut traces = BTreeSet::new();
    let mut add = |kind: &str, text: String| {
        traces.extend(text.lines().map(|line| format!("{kind}: {}", line.trim())).filter(|line| !line.ends_with(": ")));
    };
    for (kind, args) in [
        ("link", vec!["-br", "link"]),
        ("address", vec!["-br", "addr"]),
        ("rule", vec!["rule"]),
        ("rule v6", vec!["-6", "rule"]),
        ("route", vec!["route", "show", "table", "all"]),
        ("route v6", vec!["-6", "route", "show", "table", "all"]),
        ("neighbour", vec!["neigh", "show", "nud", "permanent"]),
    ] {
        add(kind, run("ip", &args));
    }
    // Rules count packets; whole elements would differ by them.
    let rules = run("nft", &["--stateless", "list", "ruleset"]);
    add("nft", without_pickers(&rules).replace("elements = ", "elements =\n").replace(", ", ",\n"));
    add("mount", run("cat", &["/proc/self/mounts"]));
    add("cgroup", run("sh", &["-c", "find /sys/fs/cgroup -type d -path '*containers*'"]));
    add("namespace", run("ls", &[&node.run_dir().join("net/ns").display().to_string()]));
    // Of containers; the cluster's own come and go.
    add(
        "connection",
        run("sh", &["-c", "grep -E '(src|dst)=10\\.9\\.' /proc/net/nf_conntrack | cut -d' ' -f1-3 || true"]),
    );
    traces
}

/// Without the chains that pick one of so many backends: there is one of each number that was ever in use, whosever they
/// were.
fn without_pickers(rules: &str) -> String {
    let mut kept = String::new();
    let mut inside = false;
    for line in rules.lines() {
        let chain = line.trim().strip_prefix("chain ");
        inside |= chain.is_some_and(|name| ["vip-", "any-", "addr-"].iter().any(|picker| name.starts_with(picker)));
        if !inside {
            kept.push_str(line);
            kept.push('\n');
        }
        inside &= line.trim() != "}";
    }
    kept
}

/// A job in a network with a published port.
fn job(world: &World, stack: &str, completions: usize) {
    let yaml = format!(
        "services:\n\
         \x20 many: {{ image: \"${{REGISTRY}}/busybox:1\", command: [\"true\"], networks: [wide], ports: [\"8080:80\"], \
             deploy: {{ mode: replicated-job, replicas: {completions} }} }}\n\
         networks: {{ wide: {{ enable_ipv6: true, ipam: {{ config: [{{ subnet: 10.9.0.0/16 }}] }} }} }}\n"
    );
    world.start(stack, &yaml);
    world.until_within(Duration::from_secs(if soaks() { 600 } else { 120 }), "the job is done", || {
        let rows = world.rows(&["service", "ls"]);
        let replicas = rows.first().and_then(|row| row["Replicas"].as_str()).unwrap_or_default().to_owned();
        if replicas.contains(&format!("{completions}/{completions}")) { Ok(()) } else { Err(replicas) }
    });
}

/// Removes a stack, and waits until no node has anything of its network; what each has then.
fn remove(world: &World, stack: &str) -> Vec<BTreeSet<String>> {
    world.ok(&["stack", "rm", stack]);
    let of_network =
        |line: &&String| ["link: skb-", "link: skv-", "10.9.", ":a09:"].iter().any(|part| line.contains(part));
    let settled = |node: &Node| {
        let mut last = BTreeSet::new();
        // Twice the same, for a node changes one thing after the other.
        world.until("a node has nothing of the network any more", || {
            let now = traces(node);
            let left: Vec<&String> = now.iter().filter(of_network).collect();
            match left.is_empty() && now == last {
                true => Ok(now),
                false => {
                    let told = format!("{}: {left:#?}", node.name());
                    last = now;
                    Err(told)
                }
            }
        })
    };
    world.lab().nodes().iter().map(settled).collect()
}

#[test]
fn a_thousand_containers_leave_nothing_behind() {
    let cluster = Cluster::new(1, 1);
    let world = &cluster.world;
    // What the first container of a node makes, such as folders, may stay.
    job(world, "first", 4);
    let before = remove(world, "first");
    assert!(before.iter().all(|traces| traces.len() > 50), "there is something to compare");
    job(world, "all", if soaks() { 1_000 } else { 120 });
    let nodes: BTreeSet<String> = world.tasks("all_many").into_iter().map(|task| task.node).collect();
    assert_eq!(nodes.len(), 2, "both nodes had their part: {nodes:?}");
    let after = remove(world, "all");
    for (node, (before, after)) in world.lab().nodes().iter().zip(before.iter().zip(&after)) {
        let more: Vec<&String> = after.difference(before).collect();
        let less: Vec<&String> = before.difference(after).collect();
        assert!(more.is_empty() && less.is_empty(), "{}: left {more:#?}, lost {less:#?}", node.name());
    }
}

#[test]
fn much_data_arrives_whole_and_programs_find_each_other_by_name_over_both_families() {
    let cluster = Cluster::new(1, 1);
    let world = &cluster.world;
    let on = |node: u8| format!("deploy: {{ placement: {{ constraints: [\"node.hostname == n{node}\"] }} }}");
    world.up(
        "s",
        &format!(
            "services:\n\
             \x20 store: {{ image: \"${{REGISTRY}}/redis:7\", stop_grace_period: 1s, {far}, \
                 command: [\"redis-server\", \"--protected-mode\", \"no\", \"--bind\", \"*\", \"-::*\"] }}\n\
             \x20 data: {{ <<: *idle, {far} }}\n\
             \x20 names: {{ image: \"${{REGISTRY}}/python:3\", command: [python3, -u, /names.py], stop_grace_period: 1s, \
                 configs: [{{ source: names, target: /names.py }}], {far} }}\n\
             \x20 near: {{ <<: *idle, {near} }}\n\
             \x20 tool: {{ image: \"${{REGISTRY}}/dig:1\", command: [sleep, \"100000\"], stop_grace_period: 1s, {near} }}\n\
             \x20 cli: {{ image: \"${{REGISTRY}}/redis:7\", entrypoint: [sleep, \"100000\"], stop_grace_period: 1s, {near} }}\n\
             configs: {{ names: {{ content: {SERVER:?} }} }}\n\
             networks: {{ default: {{ enable_ipv6: true }} }}\n",
            far = on(2),
            near = on(1),
        ),
    );
    redis_is_found(world);
    dig_asks_over_each_transport_and_family(world);
    data_arrives_whole(world);
}

/// Answers every question with one address, over UDP and TCP, IPv4 and IPv6.
const SERVER: &str = r#"import socket, struct, threading
def answer(q):
    end = q.index(0, 12) + 5
    return q[:2] + b"\x85\x80\0\1\0\1\0\0\0\0" + q[12:end] + b"\xc0\x0c\0\1\0\1\0\0\0\1\0\4" + bytes([192, 0, 2, 53])
def udp(s):
    while True:
        q, who = s.recvfrom(4096)
        s.sendto(answer(q), who)
def tcp(s):
    while True:
        c, _ = s.accept()
        size, = struct.unpack("!H", c.recv(2))
        a = answer(c.recv(size))
        c.sendall(struct.pack("!H", len(a)) + a)
        c.close()
for family, any in [(socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")]:
    for kind, serve in [(socket.SOCK_DGRAM, udp), (socket.SOCK_STREAM, tcp)]:
        s = socket.socket(family, kind)
        if family == socket.AF_INET6: s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        s.bind((any, 53))
        if kind == socket.SOCK_STREAM: s.listen(16)
        threading.Thread(target=serve, args=(s,)).start()
"#;

fn redis_is_found(world: &World) {
    let redis = |args: &[&str]| -> Result<String, String> {
        let outcome = world.exec("s_cli.1", &[&["timeout", "5", "redis-cli"], args].concat());
        if outcome.is_ok() { Ok(outcome.stdout.trim().to_owned()) } else { Err(outcome.to_string()) }
    };
    world.until("redis answers by its name", || match redis(&["-h", "store", "ping"])?.as_str() {
        "PONG" => Ok(()),
        other => Err(other.to_owned()),
    });
    assert_eq!(redis(&["-h", "store", "set", "bee", "hive"]), Ok("OK".to_owned()));
    for (kind, name) in [("A", "s_store"), ("AAAA", "store"), ("AAAA", "tasks.store"), ("A", "store.1")] {
        let address = dig(world, &[name, kind]).pop().unwrap_or_default();
        assert_eq!(address.contains(':'), kind == "AAAA", "{name} {kind}: {address}");
        assert_eq!(redis(&["-h", &address, "get", "bee"]), Ok("hive".to_owned()), "{name} at {address}");
    }
}

/// What `dig` finds.
fn dig(world: &World, args: &[&str]) -> Vec<String> {
    let outcome = world.exec("s_tool.1", &[&["dig", "+short", "+time=3", "+tries=2"], args].concat());
    outcome.ok().unwrap_or_else(|error| panic!("{error}")).lines().map(str::to_owned).collect()
}

fn dig_asks_over_each_transport_and_family(world: &World) {
    let dig = |args: &[&str]| dig(world, args);
    // The node's own resolver.
    for transport in ["+notcp", "+tcp"] {
        let (v4, v6) = (dig(&[transport, "store", "A"]), dig(&[transport, "store", "AAAA"]));
        assert!(v4.len() == 1 && v4[0].starts_with("10."), "{transport} {v4:?}");
        assert!(v6.len() == 1 && v6[0].starts_with("fd"), "{transport} {v6:?}");
        assert_eq!(dig(&[transport, "-x", &v4[0]]), ["s_store.s_default."], "{transport}");
        assert_eq!(dig(&[transport, "-x", &v6[0]]), ["s_store.s_default."], "{transport}");
    }
    // A server on the other node, by its service's name and by its task's.
    for name in ["names", "tasks.names"] {
        for family in ["-4", "-6"] {
            for transport in ["+notcp", "+tcp"] {
                let answer = world.until("the other node's server answers", || {
                    match dig(&[family, transport, &format!("@{name}"), "any.example", "A"]) {
                        answer if answer == ["192.0.2.53"] => Ok(answer),
                        answer => Err(format!("{name} {family} {transport}: {answer:?}")),
                    }
                });
                assert_eq!(answer.len(), 1);
            }
        }
    }
}

fn data_arrives_whole(world: &World) {
    // Bytes that no repetition and no compression makes fewer.
    let megabytes = if soaks() { 1024 } else { 64 };
    world.sh("s_data.1", &format!("mkdir /data; dd if=/dev/urandom of=/data/all bs=1M count={megabytes} 2>/dev/null"));
    let sent = world.sh("s_data.1", "md5sum </data/all; wc -c </data/all; httpd -p 9000 -h /data");
    let received = world.sh("s_near.1", "wget -q -O - http://data:9000/all | tee /all | md5sum; wc -c </all");
    assert_eq!(received, sent, "what arrives is what was sent");
    assert!(received.ends_with(&(megabytes << 20).to_string()), "{received}");
    assert!(get(world, "s_near.1", "http://names/").is_err(), "a port that nobody serves refuses");
}
