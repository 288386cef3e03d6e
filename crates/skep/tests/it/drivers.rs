//! Networks of other drivers on one node: the node's own, none, and what is refused in words.

use skep_lab::StopSignal;

use crate::world::World;

/// Serves `hostname` on a port with the fewest means.
const WEB: &str = "x-web: &web { image: \"${REGISTRY}/busybox:1\", stop_grace_period: 1s, \
    command: [\"sh\", \"-c\", \"hostname > /index.html; exec httpd -f -p 8088 -h /\"] }\n";

#[test]
fn a_container_shares_its_nodes_network_or_has_loopback_alone() {
    let world = World::new();
    let yaml = format!(
        "{WEB}services:\n\
         \x20 mode: {{ <<: *web, network_mode: host, ports: [\"9000:8088\"], extra_hosts: [\"other:192.0.2.7\"] }}\n\
         \x20 named: {{ <<: *idle, networks: [outer] }}\n\
         \x20 closed: {{ <<: *idle, network_mode: none }}\n\
         networks: {{ outer: {{ external: true, name: host }} }}\n"
    );
    let outcome = world.deploy("s", &yaml);
    assert!(outcome.is_ok(), "{outcome}");
    assert!(outcome.stderr.contains("services.mode.ports has no effect with network_mode: host"), "{outcome}");
    // The node's own address and port are the container's.
    let answer = world.until("the node answers", || world.get_outside(world.node().address(), 8088));
    let own = world.node().run("hostname", &[]).unwrap().stdout;
    assert_eq!(answer.body.trim(), own.trim(), "the host's name is the node's");
    let node = world.node().run("readlink", &["/proc/self/ns/net"]).unwrap().stdout;
    for task in ["s_mode.1", "s_named.1"] {
        assert_eq!(world.sh(task, "readlink /proc/self/ns/net"), node.trim(), "{task}");
    }
    assert!(world.sh("s_mode.1", "cat /etc/hosts").contains("192.0.2.7\tother"));
    assert_eq!(world.sh("s_closed.1", "ls /sys/class/net"), "lo");
    let shown = world.ok(&["service", "inspect", "--format", "{{json .Spec.TaskTemplate.Networks}}", "s_named"]);
    assert!(shown.contains("\"Target\":\"host\""), "{shown}");
    assert_eq!(world.ok(&["network", "ls", "--quiet"]), "", "no network was made for them");

    world.ok(&[
        "service",
        "create",
        "--quiet",
        "--name",
        "cli",
        "--network",
        "host",
        &format!("{}/busybox:1", world.images()),
        "sleep",
        "1000",
    ]);
    assert_eq!(world.sh("cli.1", "readlink /proc/self/ns/net"), node.trim());
    let ports = ["--network", "host", "--publish", "80:80"];
    let refused = world.refused(&[&["service", "create"][..], &ports, &["busybox"]].concat());
    assert!(refused.contains("port 80 cannot be published"), "{refused}");

    // A new daemon takes them over as they are.
    let before = world.running("s_mode")[0].id.clone();
    world.node().kill_daemon(StopSignal::Kill).unwrap();
    world.node().start_daemon().unwrap();
    world.until("the task is known to run", || match world.skep(&["service", "ps", "s_mode"]) {
        outcome if outcome.is_ok() => Ok(()),
        outcome => Err(outcome.to_string()),
    });
    assert_eq!(world.until_running("s_mode", 1)[0].id, before);
    world.until("it serves on", || world.get_outside(world.node().address(), 8088));
}

#[test]
fn networks_are_made_listed_and_removed_as_in_docker() {
    let world = World::new();
    let made = world.ok(&["network", "create", "--driver", "bridge", "--label", "for=test", "near"]);
    assert_eq!(made.trim().len(), 25, "{made}");
    world.ok(&[
        "network",
        "create",
        "--subnet",
        "10.9.0.0/24",
        "--ip-range",
        "10.9.0.128/25",
        "--aux-address",
        "nas=10.9.0.130",
        "wide",
    ]);
    world.up("s", "services: { idle: { <<: *idle, networks: [wide] } }\nnetworks: { wide: { external: true } }\n");
    let address = world.sh("s_idle.1", "ip -4 -o addr show scope global | awk '{print $4}'");
    assert!(
        address.starts_with("10.9.0.1") && address != "10.9.0.130/24",
        "of the range, and nobody else's: {address}"
    );
    let names = |filter: &str| world.ok(&["network", "ls", "--filter", filter, "--format", "{{.Name}}/{{.Driver}}"]);
    assert_eq!(names("driver=bridge"), "near/bridge\n");
    assert_eq!(names("label=for=test"), "near/bridge\n");
    assert_eq!(names("dangling=true"), "near/bridge\n");
    assert_eq!(names("dangling=false"), "wide/overlay\n");
    let config = world.ok(&["network", "inspect", "--format", "{{json .IPAM.Config}}", "wide"]);
    assert!(config.contains("\"IPRange\":\"10.9.0.128/25\"") && config.contains("\"nas\":\"10.9.0.130\""), "{config}");

    let refused = world.skep(&["network", "rm", "near", "wide", "host", "missing"]);
    assert_eq!(refused.stdout, "near\n", "{refused}");
    for part in ["wide is in use by service s_idle", "host is a pre-defined network", "missing"] {
        assert!(refused.stderr.contains(part), "{part}: {refused}");
    }
    assert_eq!(world.ok(&["network", "rm", "--force", "missing"]), "");
    world.ok(&["network", "create", "--label", "keep", "kept"]);
    world.ok(&["network", "create", "gone"]);
    assert!(world.refused(&["network", "prune"]).contains("--force"), "nobody is there to ask");
    let pruned = world.ok(&["network", "prune", "--force", "--filter", "label!=keep"]);
    assert_eq!(pruned, "Deleted Networks:\ngone\n");
    assert_eq!(world.ok(&["network", "prune", "--force", "--filter", "until=1h"]), "");

    // A network from before is taken as it is, and that is said.
    let asks =
        "services: { idle: { <<: *idle, networks: [old] } }\nnetworks: { old: { name: kept, enable_ipv6: true } }\n";
    let outcome = world.deploy("t", asks);
    assert!(outcome.is_ok() && outcome.stderr.contains("network kept exists with IPv4 alone"), "{outcome}");
    let driver = world.deploy(
        "u",
        "services: { idle: { <<: *idle, networks: [old] } }\nnetworks: { old: { name: kept, driver: bridge } }\n",
    );
    assert!(!driver.is_ok() && driver.stderr.contains("driver: overlay"), "{driver}");
}
