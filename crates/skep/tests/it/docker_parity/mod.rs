//! skep's containers beside those of a real dockerd: the same image, limits and question, on one node.
//!
//! `probe.sh` says what a process finds around itself, once as a container's first process and once by exec. What differs
//! must be in the table of `docs/docker-differences.md`, with the reason; that table is read here.

mod differences;
mod trees;

use std::collections::BTreeMap;

use skep_lab::{Docker, Node};

use crate::world::World;
use differences::{Facts, check};

const PROBE: &str = include_str!("probe.sh");
/// Where the probe writes: also a read-only container and any user can.
const AS_COMMAND: &str = "/dev/shm/probe.command";
const BY_EXEC: &str = "/dev/shm/probe.exec";
/// What a process that joins a running container may find otherwise than its first one.
const OF_EACH_PROCESS: &[&str] = &["process", "namespace", "limit", "env", "try"];

/// One container, as both are asked for it.
struct Case {
    name: &'static str,
    /// Options of `docker run`.
    docker: &'static [&'static str],
    /// More lines of a Compose service.
    compose: &'static str,
}

const CASES: &[Case] = &[
    Case {
        name: "limits",
        docker: &["--memory", "64m", "--cpus", "0.5", "--pids-limit", "100", "--env", "GREETING=a b"],
        compose: "environment: { GREETING: a b }
    deploy: { resources: { limits: { memory: 64M, cpus: \"0.5\", pids: 100 } } }",
    },
    Case {
        name: "settings",
        docker: &[
            "--user",
            "nobody:2000",
            "--group-add",
            "3000",
            "--cap-drop",
            "ALL",
            "--cap-add",
            "NET_ADMIN",
            "--cap-add",
            "CHOWN",
            "--read-only",
            "--tmpfs",
            "/tmp",
            "--ulimit",
            "nofile=512:1024",
            "--ulimit",
            "core=0",
            "--sysctl",
            "net.core.somaxconn=512",
            "--sysctl",
            "kernel.msgmax=9000",
            "--hostname",
            "box",
            "--domainname",
            "example.org",
            "--workdir",
            "/srv/app",
            "--init",
            "--shm-size",
            "32m",
            "--add-host",
            "db:10.1.2.3",
            "--dns",
            "192.0.2.53",
            "--dns-search",
            "example.org",
            "--oom-score-adj",
            "100",
            "--security-opt",
            "no-new-privileges",
            "--volume",
            "data:/data",
            "--volume",
            "/etc/services:/etc/known:ro",
        ],
        compose: "user: nobody:2000
    group_add: [\"3000\"]
    cap_drop: [ALL]
    cap_add: [NET_ADMIN, CHOWN]
    read_only: true
    tmpfs: [/tmp]
    ulimits: { nofile: { soft: 512, hard: 1024 }, core: 0 }
    sysctls: { net.core.somaxconn: 512, kernel.msgmax: 9000 }
    hostname: box
    domainname: example.org
    working_dir: /srv/app
    init: true
    shm_size: 32m
    extra_hosts: [\"db=10.1.2.3\"]
    dns: [192.0.2.53]
    dns_search: [example.org]
    oom_score_adj: 100
    security_opt: [no-new-privileges:true]
    volumes: [\"data:/data\", \"/etc/services:/etc/known:ro\"]",
    },
];

#[test]
fn a_container_finds_what_it_finds_under_docker() {
    let (world, docker) = both();
    let run = |args: &[&str]| docker.run(world.node(), args).unwrap().ok().unwrap_or_else(|error| panic!("{error}"));
    run(&["network", "create", "front"]);
    let image = format!("{}/busybox:1", world.images());
    let mut unknown = Vec::new();
    for case in CASES {
        let script = format!("{}\nexec sleep 100000", probe_into(AS_COMMAND));
        let start = ["run", "--detach", "--name", case.name, "--network", "front"];
        run(&[&start, case.docker, &[&image, "sh", "-c", &script]].concat());
        let exec = |command: &[&str]| docker.run(world.node(), &[&["exec", case.name], command].concat()).unwrap();
        let under_docker = facts(&world, &exec);

        world.up(case.name, &stack(case, &script));
        let under_skep = facts(&world, &|command| world.exec(&format!("{}_a.1", case.name), command));
        unknown.extend(check(case.name, &under_docker, &under_skep));
    }
    assert!(unknown.is_empty(), "{} differences that the page does not list:\n{}", unknown.len(), unknown.join("\n"));
}

/// A node with a dockerd and a skep, both of which can pull.
fn both() -> (World, Docker) {
    let world = World::bare();
    let docker = Docker::find().unwrap();
    docker.start(world.node()).unwrap();
    world.ok(&["init"]);
    (world, docker)
}

fn stack(case: &Case, script: &str) -> String {
    // JSON is YAML; a dollar sign is Compose's.
    let script = serde_json::to_string(&script.replace('$', "$$")).unwrap();
    format!(
        "services:\n  a:\n    image: ${{REGISTRY}}/busybox:1\n    command: [\"sh\", \"-c\", {script}]\n\
         \x20   {}\nvolumes: {{ data: {{}} }}\n",
        case.compose
    )
}

fn probe_into(file: &str) -> String {
    format!("PROBE={file}\n{PROBE}")
}

/// What the probe says as the container's command and, with keys that begin with `exec/`, by exec.
fn facts(world: &World, exec: &dyn Fn(&[&str]) -> skep_lab::Outcome) -> Facts {
    let read = |file: &str| {
        world.until(&format!("the probe has written {file}"), || {
            let outcome = exec(&["cat", file]);
            if outcome.stdout.ends_with("end\tend\tend\n") { Ok(outcome.stdout) } else { Err(outcome.to_string()) }
        })
    };
    let mut facts = parse(&read(AS_COMMAND), world.node());
    exec(&["sh", "-c", &probe_into(BY_EXEC)]);
    for (key, value) in parse(&read(BY_EXEC), world.node()) {
        if OF_EACH_PROCESS.iter().any(|section| key.starts_with(&format!("{section}/"))) {
            facts.insert(format!("exec/{key}"), value);
        }
    }
    facts
}

fn parse(text: &str, node: &Node) -> Facts {
    let mut facts = BTreeMap::new();
    for line in text.lines() {
        let [section, key, value] = line.splitn(3, '\t').collect::<Vec<_>>()[..] else { panic!("three parts: {line}") };
        let value = match section {
            "namespace" => namespace(node, key, value),
            "mount" => mount(key, value),
            "process" if key == "SigIgn" => ignored_signals(value),
            _ => value.trim().to_owned(),
        };
        let mut name = format!("{section}/{}", key.trim_start_matches('/'));
        // What is mounted more than once at one place.
        while facts.contains_key(&name) {
            name.push('+');
        }
        facts.insert(name, value);
    }
    facts
}

/// Without 32 and 33, which glibc keeps for itself: dockerd hands on whether its own parent's posix_spawn ignored them.
fn ignored_signals(mask: &str) -> String {
    let own_to_glibc = 0b11 << 31;
    format!("{:016x}", u64::from_str_radix(mask, 16).unwrap() & !own_to_glibc)
}

fn namespace(node: &Node, kind: &str, value: &str) -> String {
    let of_node = std::fs::read_link(format!("/proc/{}/ns/{kind}", node.holder().pid)).unwrap();
    if of_node.to_str() == Some(value) { "the node's".to_owned() } else { "own".to_owned() }
}

/// `TYPE ROOT OPTIONS PROPAGATION; SOURCE; OPTIONS OF THE FILE SYSTEM`, without what names this node or this container.
fn mount(target: &str, value: &str) -> String {
    let [view, source, options] = value.splitn(3, "; ").collect::<Vec<_>>()[..] else { panic!("three parts: {value}") };
    let [kind, root, rest] = view.splitn(3, ' ').collect::<Vec<_>>()[..] else { panic!("three parts: {view}") };
    let root = if root.len() > 1 && root != "/null" { "(own)" } else { root };
    let mut options: Vec<&str> = options.split(',').filter(|option| !option.contains('/')).collect();
    options.sort_unstable();
    let source = if source.starts_with("/dev/") { "(disk)" } else { source };
    let of_disk = source == "(disk)" || target == "/";
    let options =
        if of_disk { options[..].iter().find(|o| **o == "ro").unwrap_or(&"rw").to_string() } else { options.join(",") };
    format!("{kind} {root} {rest} from {source} with {options}")
}
