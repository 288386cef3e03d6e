//! What `skep events` tells of a cluster: of the past as far as it is remembered, and of what happens.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::world::World;

/// Everything until now, of the types that are asked for.
fn past(world: &World, filters: &[&str]) -> Vec<Value> {
    let filters: Vec<&str> = filters.iter().flat_map(|filter| ["--filter", filter]).collect();
    let line = [&["events", "--since", "1h", "--until", "0s", "--format", "json"], &filters[..]].concat();
    world
        .ok(&line)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("an event: {line}")))
        .collect()
}

fn actions(events: &[Value]) -> Vec<String> {
    let text = |event: &Value| format!("{} {}", event["Type"].as_str().unwrap(), event["Action"].as_str().unwrap());
    events.iter().map(text).collect()
}

#[test]
fn every_kind_of_object_tells_of_its_life() {
    let world = World::new();
    let content = world.file("content", "one");
    let content = content.to_str().unwrap();
    world.ok(&["secret", "create", "sec", content]);
    world.ok(&["config", "create", "conf", content]);
    world.ok(&["network", "create", "net"]);
    world.up("s", "services: { a: { <<: *idle } }");
    world.ok(&["service", "scale", "s_a=2"]);
    let image = format!("{}/busybox:1", world.images());
    world.ok(&["service", "update", "-q", "--update-monitor", "1s", "--image", &image, "--env-add", "A=1", "s_a"]);
    let node = world.ok(&["node", "ls", "-q"]).trim().to_owned();
    world.ok(&["node", "update", "--availability", "pause", &node]);
    world.ok(&["node", "update", "--label-add", "x=y", &node]);
    world.ok(&["stack", "rm", "s"]);
    world.ok(&["secret", "rm", "sec"]);
    world.ok(&["config", "rm", "conf"]);
    world.ok(&["network", "rm", "net"]);
    for kind in ["secret", "config", "network"] {
        let name = format!("name={}", &kind[..3].replace("con", "conf"));
        let told = actions(&past(&world, &[&format!("type={kind}"), &name]));
        assert_eq!(told, [format!("{kind} create"), format!("{kind} remove")]);
    }
    assert_eq!(actions(&past(&world, &["type=stack"])), ["stack create", "stack remove"]);
    let service = past(&world, &["type=service", "service=s_a"]);
    assert_eq!(service[0]["Action"], "create");
    assert_eq!(service.last().unwrap()["Action"], "remove");
    let attributes = |name: &str| {
        let found = service.iter().find(|event| !event["Actor"]["Attributes"][name].is_null());
        found.unwrap_or_else(|| panic!("{name} in {service:?}"))["Actor"]["Attributes"].clone()
    };
    let scaled = attributes("replicas.new");
    assert_eq!(
        (&scaled["name"], &scaled["replicas.old"], &scaled["replicas.new"]),
        (&"s_a".into(), &"1".into(), &"2".into())
    );
    assert!(service.iter().any(|event| event["Actor"]["Attributes"]["updatestate.new"] == "completed"), "{service:?}");
    let event = &service[0];
    assert_eq!(event["scope"], "swarm");
    assert!(event["timeNano"].as_u64().unwrap() / 1_000_000_000 == event["time"].as_u64().unwrap());
    let nodes = past(&world, &["type=node", "event=update", &format!("node={node}")]);
    assert!(nodes.iter().any(|event| event["Actor"]["Attributes"]["availability.new"] == "pause"), "{nodes:?}");
    let tasks = past(&world, &["type=task", "service=s_a"]);
    assert!(tasks.iter().any(|event| event["Actor"]["Attributes"]["state.new"] == "running"), "{tasks:?}");
    assert!(past(&world, &["scope=local"]).is_empty());
    let refused = world.refused(&["events", "--filter", "colour=red"]);
    assert!(refused.contains("`colour` is nothing to filter by"), "{refused}");
}

#[test]
fn a_reader_is_told_as_it_happens_and_where_the_memory_begins() {
    let world = World::new();
    let mut command = world.node().command(world.node().binary().unwrap());
    command.args(["events", "--since", "24h", "--filter", "type=secret"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (lines, told) = mpsc::channel();
    let out = BufReader::new(child.stdout.take().unwrap());
    let reader = thread::spawn(move || out.lines().map_while(Result::ok).for_each(|line| drop(lines.send(line))));
    let content = world.file("content", "one");
    world.ok(&["secret", "create", "sec", content.to_str().unwrap()]);
    let line = told.recv_timeout(Duration::from_secs(30)).expect("an event");
    assert!(line.contains(" secret create ") && line.contains("name=sec"), "{line}");
    kill_process(Pid::from_raw(child.id().cast_signed()).unwrap(), Signal::TERM).unwrap();
    let mut complaints = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut complaints).unwrap();
    child.wait().unwrap();
    reader.join().unwrap();
    assert!(complaints.contains("this manager remembers what happened since"), "{complaints}");
}
