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
/// Where the probe writes, in the container.
const AS_COMMAND: &str = "/probe.command";
const BY_EXEC: &str = "/probe.exec";
/// What a process that joins a running container may find otherwise than its first one.
const OF_EACH_PROCESS: &[&str] = &["process", "namespace", "limit", "env", "try"];

#[test]
fn a_container_finds_what_it_finds_under_docker() {
    let (world, docker) = both();
    let image = format!("{}/busybox:1", world.images());
    let script = format!("{}\nexec sleep 100000", probe_into(AS_COMMAND));

    let run = |args: &[&str]| docker.run(world.node(), args).unwrap().ok().unwrap_or_else(|error| panic!("{error}"));
    run(&["network", "create", "front"]);
    let limits = ["--memory", "64m", "--cpus", "0.5", "--pids-limit", "100", "--env", "GREETING=a b"];
    run(&[&["run", "--detach", "--name", "probe", "--network", "front"], &limits[..], &[&image, "sh", "-c", &script]]
        .concat());
    let under_docker =
        facts(&world, &|command| docker.run(world.node(), &[&["exec", "probe"], command].concat()).unwrap());

    world.up("probe", &stack(&script));
    let under_skep = facts(&world, &|command| world.exec("probe_a.1", command));
    check(&under_docker, &under_skep);
}

/// A node with a dockerd and a skep, both of which can pull.
fn both() -> (World, Docker) {
    let world = World::bare();
    let docker = Docker::find().unwrap();
    docker.start(world.node()).unwrap();
    world.ok(&["init"]);
    (world, docker)
}

fn stack(script: &str) -> String {
    // JSON is YAML; a dollar sign is Compose's.
    let script = serde_json::to_string(&script.replace('$', "$$")).unwrap();
    format!(
        "services:\n  a:\n    image: ${{REGISTRY}}/busybox:1\n    command: [\"sh\", \"-c\", {script}]\n\
         \x20   environment: {{ GREETING: a b }}\n\
         \x20   deploy: {{ resources: {{ limits: {{ memory: 64M, cpus: \"0.5\", pids: 100 }} }} }}\n"
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
