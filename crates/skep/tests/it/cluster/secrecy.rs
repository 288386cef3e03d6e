//! Who has a secret: the nodes that run a task that needs it, in memory, and no other.

use std::fs;
use std::io::{Read, Seek, SeekFrom};

use skep_lab::Node;

use super::Cluster;

/// In no program, image or log of anybody else. Written in halves, so that this test's own memory is no place to find it.
fn token() -> String {
    ["correct-horse", "battery-staple", "of-this-test"].join("~")
}

/// Files of the node below its folders, its tmpfs included, that have the text in clear.
fn on_disk(node: &Node, text: &str) -> Vec<String> {
    let folders = [node.data_dir(), node.run_dir()];
    let mut grep = node.command("grep");
    let found = grep.args(["-r", "-l", "-a", "-F", "-D", "skip", text]).args(folders).output().unwrap();
    String::from_utf8_lossy(&found.stdout).lines().map(str::to_owned).collect()
}

/// Names of the node's processes that have the text somewhere in their memory.
fn in_memory(node: &Node, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for pid in node.processes().unwrap() {
        // One that has just ended has no memory.
        let Ok(maps) = fs::read_to_string(format!("/proc/{pid}/maps")) else { continue };
        let Ok(mut memory) = fs::File::open(format!("/proc/{pid}/mem")) else { continue };
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned();
        let private = maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|rights| rights.starts_with("rw")));
        for line in private {
            let (from, to) = line.split(' ').next().and_then(|range| range.split_once('-')).unwrap();
            let [from, to] = [from, to].map(|end| u64::from_str_radix(end, 16).unwrap());
            let mut bytes = Vec::new();
            let read =
                memory.seek(SeekFrom::Start(from)).and_then(|_| (&mut memory).take(to - from).read_to_end(&mut bytes));
            // Pages that cannot be read, such as those of a device, hold nothing of ours.
            if read.is_err() && bytes.is_empty() {
                continue;
            }
            if bytes.windows(text.len()).any(|window| window == text.as_bytes()) {
                found.push(name.clone());
                break;
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

#[test]
fn a_node_without_a_task_that_needs_it_has_nothing_of_a_secret() {
    let cluster = Cluster::new(1, 2);
    let world = &cluster.world;
    let (user, other) = (cluster.node(2), cluster.node(3));
    let token = token();
    world.file("token.txt", &token);
    let on = |service: &str, node: &str, more: &str| {
        format!(
            "  {service}: {{ <<: *idle, deploy: {{ placement: {{ constraints: [\"node.hostname == {node}\"] }} }}{more} }}\n"
        )
    };
    let services = on("user", "n2", ", secrets: [token]") + &on("other", "n3", "");
    world.up("s", &format!("services:\n{services}secrets: {{ token: {{ file: ./token.txt }} }}\n"));
    assert_eq!(world.sh("s_user.1", "cat /run/secrets/token"), token);
    // Where it is needed both searches find it, in the tmpfs and in the daemon: they could elsewhere.
    let run_dir = user.run_dir();
    let found = on_disk(user, &token);
    assert!(!found.is_empty() && found.iter().all(|file| file.starts_with(run_dir.to_str().unwrap())), "{found:?}");
    assert!(in_memory(user, &token).contains(&"skep".to_owned()), "{:?}", in_memory(user, &token));

    assert_eq!(on_disk(other, &token), Vec::<String>::new());
    assert_eq!(in_memory(other, &token), Vec::<String>::new());
    // A manager's disk has it too, but not in clear.
    assert_eq!(on_disk(cluster.node(1), &token), Vec::<String>::new());

    // It moves, and what it left behind is nothing.
    world.up(
        "s",
        &format!(
            "services:\n{}secrets: {{ token: {{ file: ./token.txt }} }}\n",
            on("user", "n3", ", secrets: [token]")
        ),
    );
    assert_eq!(world.sh("s_user.1", "cat /run/secrets/token"), token);
    world.until("the node that ran it has no file of it", || match on_disk(user, &token) {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    });
}
