//! What a compose file says of a container, looked at from inside the container.

use std::fs;

use crate::world::World;

#[test]
fn the_environment_comes_from_the_file_the_env_file_the_shell_and_the_image() {
    let world = World::new();
    world.file("a.env", "# a comment\nFROM_FILE=file\nBOTH=file\nQUOTED=\"two words\"\n");
    let file = world.compose(
        "s",
        "services:\n  a:\n    <<: *idle\n    env_file: [a.env]\n\
         \x20   environment: { BOTH: own, FROM_SHELL: , NOT_SET: , NUMBER: 7, DOLLAR: \"$$HOME\" }\n",
    );
    let mut deploy = world.command(world.node(), &["stack", "deploy", "-c", &file, "s"]);
    assert!(deploy.env("FROM_SHELL", "shell").env_remove("NOT_SET").status().unwrap().success());
    let environment = world.sh("s_a.1", "tr '\\0' '\\n' < /proc/1/environ");
    let lines: Vec<&str> = environment.lines().collect();
    for line in ["FROM_FILE=file", "BOTH=own", "QUOTED=two words", "FROM_SHELL=shell", "NUMBER=7", "DOLLAR=$HOME"] {
        assert!(lines.contains(&line), "{line} in {environment}");
    }
    assert!(lines.iter().any(|line| line.starts_with("PATH=")), "the image's: {environment}");
    assert!(!environment.contains("NOT_SET"), "{environment}");
}

#[test]
fn command_entrypoint_user_folder_and_host_name_are_as_written() {
    let world = World::new();
    world.up(
        "s",
        "services:\n\
         \x20 list: { <<: *idle, command: [\"sleep\", \"100001\"], working_dir: /made/for/it, hostname: box, user: \"1234:5678\" }\n\
         \x20 text: { <<: *idle, command: sleep '100002' }\n\
         \x20 entry: { <<: *idle, entrypoint: [\"sh\", \"-c\"], command: [\"exec sleep 100003\"] }\n\
         \x20 named: { <<: *idle, user: nobody, group_add: [\"4711\"], domainname: example.org }\n",
    );
    let first = |task: &str| world.sh(task, "tr '\\0' ' ' < /proc/1/cmdline");
    assert_eq!(first("s_list.1"), "sleep 100001");
    assert_eq!(first("s_text.1"), "sleep 100002");
    assert_eq!(first("s_entry.1"), "sleep 100003");
    assert_eq!(world.sh("s_list.1", "pwd; hostname; id -u; id -g"), "/made/for/it\nbox\n1234\n5678");
    assert_eq!(world.sh("s_list.1", "grep box /etc/hosts | wc -l"), "1");
    let status = world.sh("s_named.1", "grep -E '^(Uid|Groups):' /proc/1/status");
    assert!(status.contains("65534") && status.contains("4711"), "{status}");
    let id = world.running("s_text")[0].id.clone();
    assert_eq!(world.sh("s_text.1", "hostname"), id[..12], "by default the container's short id");
}

#[test]
fn a_read_only_container_writes_only_to_its_tmpfs() {
    let world = World::new();
    world.up(
        "s",
        "services:\n  a:\n    <<: *idle\n    read_only: true\n\
         \x20   tmpfs: [\"/scratch:size=1m,mode=1770\"]\n\
         \x20   volumes: [{ type: tmpfs, target: /other, tmpfs: { size: 2m } }]\n",
    );
    let refused = world.exec("s_a.1", &["touch", "/file"]);
    assert!(refused.stderr.contains("Read-only file system"), "{refused}");
    assert_eq!(world.sh("s_a.1", "touch /scratch/file /other/file && stat -c %a /scratch"), "1770");
    let full = world.exec("s_a.1", &["dd", "if=/dev/zero", "of=/scratch/big", "bs=1M", "count=2"]);
    assert!(full.stderr.contains("No space left"), "{full}");
    let sizes = world.sh("s_a.1", "df -k /scratch /other | awk 'NR>1 {print $2}'");
    assert_eq!(sizes, "1024\n2048");
}

#[test]
fn capabilities_are_dockers_less_what_is_dropped_plus_what_is_added() {
    let world = World::new();
    world.up(
        "s",
        "services:\n\
         \x20 default: { <<: *idle }\n\
         \x20 none: { <<: *idle, cap_drop: [ALL] }\n\
         \x20 one: { <<: *idle, cap_drop: [ALL], cap_add: [NET_ADMIN] }\n\
         \x20 less: { <<: *idle, cap_drop: [NET_RAW] }\n",
    );
    let effective = |service: &str| {
        let text = world.sh(&format!("s_{service}.1"), "grep CapEff /proc/1/status");
        u64::from_str_radix(text.split_whitespace().last().unwrap(), 16).unwrap()
    };
    // Docker's fourteen (moby, oci/caps/defaults.go), as `capsh --decode` numbers them.
    assert_eq!(effective("default"), 0xa804_25fb);
    assert_eq!(effective("none"), 0);
    assert_eq!(effective("one"), 1 << 12);
    assert_eq!(effective("less"), 0xa804_25fb & !(1 << 13));
}

#[test]
fn sysctls_and_ulimits_are_set_in_the_container_alone() {
    let world = World::new();
    world.up(
        "s",
        "services:\n  a:\n    <<: *idle\n\
         \x20   sysctls: { net.ipv4.ip_default_ttl: 77, kernel.msgmax: 4096 }\n\
         \x20   ulimits: { nofile: { soft: 100, hard: 200 }, core: 0 }\n",
    );
    assert_eq!(world.sh("s_a.1", "cat /proc/sys/net/ipv4/ip_default_ttl /proc/sys/kernel/msgmax"), "77\n4096");
    assert_eq!(world.sh("s_a.1", "ulimit -Sn; ulimit -Hn; ulimit -c"), "100\n200\n0");
    let outside = world.node().run("cat", &["/proc/sys/net/ipv4/ip_default_ttl"]).unwrap().ok().unwrap();
    assert_eq!(outside.trim(), "64");
}

#[test]
fn a_sysctl_of_the_whole_machine_is_refused() {
    let world = World::new();
    let outcome = world.deploy("s", "services: { a: { <<: *idle, sysctls: { kernel.panic: 1 } } }");
    assert_eq!(outcome.code, 1, "{outcome}");
    assert!(outcome.stderr.contains("kernel.panic"), "{outcome}");
}

#[test]
fn extra_hosts_are_in_the_hosts_file() {
    let world = World::new();
    world.up(
        "s",
        "services: { a: { <<: *idle, extra_hosts: [\"db.example:192.0.2.7\", \"six=2001:db8::7\", \"host:host-gateway\"] } }",
    );
    let hosts = world.sh("s_a.1", "cat /etc/hosts");
    let has = |address: &str, name: &str| {
        hosts.lines().any(|line| line.split_whitespace().collect::<Vec<_>>() == [address, name])
    };
    assert!(has("192.0.2.7", "db.example") && has("2001:db8::7", "six"), "{hosts}");
    assert!(hosts.lines().any(|line| line.ends_with("\thost") || line.ends_with(" host")), "{hosts}");
}

#[test]
fn an_init_reaps_orphans_and_passes_signals_on() {
    let world = World::new();
    let out = world.shared_folder("out");
    let yaml = format!(
        "services:\n  a:\n    <<: *idle\n    init: true\n    stop_grace_period: 60s\n    volumes: [\"{}:/out\"]\n\
         \x20   command: [\"sh\", \"-c\", \"trap 'echo TERM > /out/signal; exit 0' TERM; while :; do sleep 0.1; done\"]\n",
        out.display()
    );
    world.up("s", &yaml);
    assert_ne!(world.sh("s_a.1", "cat /proc/1/comm"), "sh");
    // An orphan whose parent is gone ends as nobody's zombie.
    world.sh("s_a.1", "sh -c 'true & exec true' && sleep 0.2; (sh -c 'sleep 0.1 &'); sleep 0.5");
    world.until("no zombie is left", || {
        let states = world.sh("s_a.1", "grep -h State /proc/[0-9]*/status 2>/dev/null");
        if states.contains('Z') { Err(states) } else { Ok(()) }
    });
    world.ok(&["stack", "rm", "s"]);
    world.until("it was told to stop", || fs::read_to_string(out.join("signal")).map_err(|error| error.to_string()));
}

#[test]
fn the_stop_signal_is_sent_and_the_grace_is_given() {
    let world = World::new();
    let out = world.shared_folder("out");
    let yaml = format!(
        "services:\n\
         \x20 slow:\n    <<: *idle\n    stop_signal: SIGUSR1\n    stop_grace_period: 60s\n    volumes: [\"{0}:/out\"]\n\
         \x20   command: [\"sh\", \"-c\", \"trap 'sleep 2; echo USR1 > /out/slow; exit 0' USR1; while :; do sleep 0.1; done\"]\n\
         \x20 deaf:\n    <<: *idle\n    stop_grace_period: 1s\n    volumes: [\"{0}:/out\"]\n\
         \x20   command: [\"sh\", \"-c\", \"trap 'echo TERM > /out/deaf' TERM; while :; do sleep 0.1; done\"]\n",
        out.display()
    );
    world.up("s", &yaml);
    world.ok(&["stack", "rm", "s"]);
    let said = |file: &str| {
        let path = out.join(file);
        world.until("the container heard its signal", || fs::read_to_string(&path).map_err(|error| error.to_string()))
    };
    assert_eq!(said("deaf"), "TERM\n");
    assert_eq!(said("slow"), "USR1\n", "two seconds of work are done within the grace");
    world.until("the deaf one is killed after its grace", || {
        let left = world.ok(&["ps", "-a", "-q"]);
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
}

#[test]
fn labels_of_services_and_of_containers_are_kept_apart() {
    let world = World::new();
    world.up(
        "s",
        "services: { a: { <<: *idle, labels: { of.container: one }, deploy: { labels: { of.service: two } } } }",
    );
    let text = world.ok(&["service", "inspect", "s_a"]);
    let service: serde_json::Value = serde_json::from_str(&text).unwrap();
    let spec = &service[0]["Spec"];
    assert_eq!(spec["Labels"]["of.service"], "two", "{text}");
    assert_eq!(spec["Labels"]["com.docker.stack.namespace"], "s", "{text}");
    assert_eq!(spec["TaskTemplate"]["ContainerSpec"]["Labels"]["of.container"], "one", "{text}");
    assert_eq!(world.ok(&["service", "ls", "-q", "--filter", "label=of.service=two"]).lines().count(), 1);
    assert_eq!(world.ok(&["service", "ls", "-q", "--filter", "label=of.container"]).lines().count(), 0);
}
