//! Managers that lose their disks, and a node that is cut off while it runs what must run once.

use std::fs;
use std::time::Duration;

use skep_lab::{Direction, StopSignal};

use super::{Cluster, configs, join, rows, write};

#[test]
fn a_manager_that_was_wiped_joins_as_a_new_one() {
    let cluster = Cluster::new(3, 0);
    write(&cluster, 1, "before").ok().unwrap();
    let node = cluster.node(3);
    node.kill_everything().unwrap();
    for entry in fs::read_dir(node.data_dir()).unwrap().flatten() {
        let path = entry.path();
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.unwrap();
    }
    // Two of three go on.
    write(&cluster, 2, "meanwhile").ok().unwrap();
    node.start_daemon().unwrap();
    join(&cluster.world, 3, "manager").ok().unwrap();
    let old = cluster.world.until("the wiped one is down", || {
        let rows = rows(&cluster.world, cluster.node(1), &["node", "ls"])?;
        let down = rows.iter().find(|row| row["Hostname"] == "n3" && row["Status"] == "Down");
        down.and_then(|row| row["ID"].as_str().map(str::to_owned)).ok_or_else(|| format!("{rows:?}"))
    });
    // Its name is another node's now, and stands for both.
    let ambiguous = cluster.on(1, &["node", "rm", "--force", "n3"]);
    assert!(!ambiguous.is_ok() && ambiguous.stderr.contains("ambiguous"), "{ambiguous}");
    cluster.on(1, &["node", "rm", "--force", &old]).ok().unwrap();
    cluster.until_whole(3);
    cluster.world.until("the new one has everything", || match configs(&cluster, 3)? {
        names if names == ["before", "meanwhile"] => Ok(()),
        names => Err(format!("{names:?}")),
    });
}

#[test]
fn a_manager_whose_disk_is_full_takes_no_part_and_is_back_once_there_is_room() {
    let cluster = Cluster::new(3, 0);
    let node = cluster.node(3);
    cluster.on(3, &["leave", "--force"]).ok().unwrap();
    cluster.world.until("n3 may be forgotten", || match cluster.on(1, &["node", "rm", "n3"]) {
        outcome if outcome.is_ok() => Ok(()),
        outcome => Err(outcome.to_string()),
    });
    if node.daemon().unwrap().is_some() {
        node.kill_daemon(StopSignal::Term).unwrap();
    }
    // It comes back with a disk of its own, which a file of somebody else's fills up.
    let data = node.data_dir().display().to_string();
    node.run("mount", &["-t", "tmpfs", "-o", "size=96m", "none", &data]).unwrap().ok().unwrap();
    node.start_daemon().unwrap();
    join(&cluster.world, 3, "manager").ok().unwrap();
    cluster.until_whole(3);
    let filler = format!("dd if=/dev/zero of={data}/filler bs=64k 2>/dev/null; true");
    node.run("sh", &["-c", &filler]).unwrap().ok().unwrap();
    cluster.world.ask(1);
    let many = |name: &str| {
        let binary = cluster.node(1).binary().unwrap().display().to_string();
        let random = "head -c 900000 /dev/urandom | base64 -w0 | head -c 900000";
        let script = format!("{random} | {binary} config create {name} -");
        cluster.node(1).run("sh", &["-c", &script]).unwrap()
    };
    for number in 0..24 {
        many(&format!("big-{number}")).ok().unwrap();
    }
    node.run("rm", &[&format!("{data}/filler")]).unwrap().ok().unwrap();
    if node.daemon().unwrap().is_some() {
        node.kill_daemon(StopSignal::Kill).unwrap();
    }
    node.start_daemon().unwrap();
    cluster.until_whole(3);
    let written = configs(&cluster, 1).unwrap();
    assert_eq!(written.len(), 24);
    cluster.world.until("n3 has all that was acknowledged without it", || match configs(&cluster, 3)? {
        names if names == written => Ok(()),
        names => Err(format!("{names:?}")),
    });
}

#[test]
fn at_most_one_container_lives_whatever_is_cut() {
    let cluster = Cluster::new(3, 2);
    for number in 1..=3 {
        cluster.on(1, &["node", "update", "--availability", "drain", &format!("n{number}")]).ok().unwrap();
    }
    cluster.world.up("s", "services: { a: { <<: *idle, x-skep: { at-most-one: true } } }");
    let first = cluster.world.until_running("s_a", 1)[0].clone();
    let holder: u8 = first.node.trim_start_matches('n').parse().unwrap();
    let rest: Vec<u8> = (1..=5).filter(|number| *number != holder).collect();
    let living = || -> usize { [4, 5].into_iter().map(|number| containers(&cluster, number)).sum() };
    assert_eq!(living(), 1);
    cluster.world.lab().partition(&[holder], &rest, Direction::Both).unwrap();
    let second = cluster.world.until("another node runs it", || {
        // Looked at the whole time: never both.
        assert!(living() <= 1, "two live containers of one slot");
        let running = cluster.world.running("s_a");
        match running.iter().find(|task| task.id != first.id) {
            Some(task) => Ok(task.clone()),
            None => {
                std::thread::sleep(Duration::from_millis(20));
                Err(format!("{:?}", cluster.world.tasks("s_a")))
            }
        }
    });
    assert_ne!(second.node, first.node);
    assert_eq!(containers(&cluster, holder), 0, "the lease ended it where nobody could tell it to stop");
    cluster.world.lab().heal().unwrap();
    cluster.until_whole(5);
    assert_eq!(living(), 1);
    assert_eq!(cluster.world.until_running("s_a", 1)[0].id, second.id);
}

/// How many processes of the idle service live on a node, as the kernel has them.
fn containers(cluster: &Cluster, number: u8) -> usize {
    let sleeps = |pid: &i32| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line == b"sleep\x00100000\x00");
    cluster.node(number).processes().unwrap().iter().filter(|pid| sleeps(pid)).count()
}
