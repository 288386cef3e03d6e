//! A manager and a worker: two processes on two machines, which share nothing but TCP.

use rustix::process::{Pid, Signal, kill_process};
use skep_lab::StopSignal;

use crate::world::World;

/// A cluster of a manager n1 and a worker n2.
pub fn cluster() -> World {
    let world = World::of_nodes(2);
    world.ok(&["init"]);
    let token = world.ok(&["join-token", "--quiet", "worker"]);
    join(&world, token.trim()).ok().unwrap();
    world.until("both nodes are ready", || {
        let nodes = world.rows(&["node", "ls"]);
        let ready = nodes.iter().filter(|node| node["Status"] == "Ready").count();
        if ready == 2 { Ok(()) } else { Err(format!("{nodes:?}")) }
    });
    world
}

fn join(world: &World, token: &str) -> skep_lab::Outcome {
    let manager = format!("{}:7377", world.node().address());
    world.skep_on(world.lab().node(2), &["join", "--token", token, &manager])
}

const ON_WORKER: &str = "services: { a: { <<: *idle, command: [\"sh\", \"-c\", \"echo hello from $$(hostname); exec sleep 100000\"], \
    secrets: [token], deploy: { placement: { constraints: [\"node.hostname == n2\"] } } } }\n\
    secrets: { token: { file: ./token.txt } }\n";

#[test]
fn a_task_of_the_worker_runs_there_and_the_manager_shows_its_logs_and_enters_it() {
    let world = cluster();
    world.file("token.txt", "hush");
    world.up("s", ON_WORKER);
    let task = world.running("s_a")[0].clone();
    assert_eq!(task.node, "n2");
    assert_eq!(world.ok(&["ps", "-q"]), "", "nothing runs on the manager");
    assert_eq!(world.skep_on(world.lab().node(2), &["ps", "-q"]).ok().unwrap().lines().count(), 1);
    assert_eq!(world.sh("s_a.1", "cat /run/secrets/token"), "hush");
    let logs = world.ok(&["service", "logs", "s_a"]);
    assert!(logs.contains("@n2") && logs.contains("hello from"), "{logs}");
    assert_eq!(world.exec("s_a.1", &["sh", "-c", "exit 9"]).code, 9);
    // Root on a worker is not the cluster's administrator.
    let refused = world.skep_on(world.lab().node(2), &["service", "ls"]);
    assert_eq!(refused.code, 1, "{refused}");
    assert!(refused.stderr.contains("198.51.100.1:7377"), "the managers are named: {refused}");
}

#[test]
fn a_workers_containers_outlive_its_daemon_and_are_adopted() {
    let world = cluster();
    world.file("token.txt", "hush");
    world.up("s", ON_WORKER);
    let id = world.running("s_a")[0].id.clone();
    let worker = world.lab().node(2);
    let within = || -> Vec<i32> {
        let has =
            |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|text| text.contains(&id));
        worker.processes().unwrap().into_iter().filter(has).collect()
    };
    let before = within();
    assert!(!before.is_empty());
    worker.kill_daemon(StopSignal::Kill).unwrap();
    assert_eq!(within(), before);
    worker.start_daemon().unwrap();
    world.until("the manager reaches the same task again", || {
        let outcome = world.exec("s_a.1", &["true"]);
        let tasks = world.running("s_a");
        match outcome.is_ok() && tasks.len() == 1 && tasks[0].id == id {
            true => Ok(()),
            false => Err(format!("{outcome} {tasks:?}")),
        }
    });
    assert_eq!(within(), before);
}

#[test]
fn replicas_spread_over_nodes_and_global_services_are_on_each() {
    let world = cluster();
    world.up(
        "s",
        "services:\n  a: { <<: *idle, deploy: { replicas: 4 } }\n  g: { <<: *idle, deploy: { mode: global } }\n",
    );
    let on = |service: &str, node: &str| world.running(service).iter().filter(|task| task.node == node).count();
    assert_eq!((on("s_a", "n1"), on("s_a", "n2")), (2, 2));
    assert_eq!((on("s_g", "n1"), on("s_g", "n2")), (1, 1));
    let few = world.deploy(
        "t",
        "services: { a: { <<: *idle, deploy: { replicas: 3, placement: { max_replicas_per_node: 1 } } } }",
    );
    assert_eq!(few.code, 2, "{few}");
    assert!(few.stderr.contains("max replicas per node"), "{few}");
}

#[test]
fn tasks_of_a_lost_node_run_elsewhere_and_end_there_when_it_is_back() {
    let world = cluster();
    world.up("s", "services: { a: { <<: *idle, deploy: { replicas: 2 } } }");
    let lost = world.running("s_a").into_iter().find(|task| task.node == "n2").expect("they are spread");
    world.lab().unplug(2).unwrap();
    world.until("both run on the node that is left", || {
        let on_first = world.running("s_a").into_iter().filter(|task| task.node == "n1").count();
        if on_first == 2 { Ok(()) } else { Err(format!("{:?}", world.tasks("s_a"))) }
    });
    let here = |node: &skep_lab::Node| world.skep_on(node, &["ps", "-q"]).stdout.lines().count();
    assert_eq!(here(world.lab().node(2)), 1, "what is cut off runs on");
    world.lab().plug(2).unwrap();
    world.until("the node is back, and the task that was replaced is gone", || {
        let left = here(world.lab().node(2));
        let tasks = world.tasks("s_a");
        let ended = tasks.iter().any(|task| task.id == lost.id && task.state != "Running");
        if left == 0 && ended { Ok(()) } else { Err(format!("{left} {tasks:?}")) }
    });
}

#[test]
fn a_wrong_token_is_refused_and_a_worker_that_left_is_gone() {
    let world = World::of_nodes(2);
    world.ok(&["init"]);
    let token = world.ok(&["join-token", "--quiet", "worker"]);
    let token = token.trim();
    let last = if token.ends_with('0') { "1" } else { "0" };
    let wrong = format!("{}{last}", &token[..token.len() - 1]);
    let refused = join(&world, &wrong);
    assert_ne!(refused.code, 0, "{refused}");
    assert!(refused.stderr.contains("token"), "{refused}");
    join(&world, token).ok().unwrap();
    let left = world.skep_on(world.lab().node(2), &["leave"]);
    assert!(left.is_ok(), "{left}");
    world.until("the node is down", || {
        let nodes = world.rows(&["node", "ls"]);
        let down = nodes.iter().any(|node| node["Hostname"] == "n2" && node["Status"] == "Down");
        if down || nodes.len() == 1 { Ok(()) } else { Err(format!("{nodes:?}")) }
    });
}

/// Whether a process of the first node has a file open whose path holds `text`.
fn is_read(world: &World, text: &str) -> bool {
    let open = |pid: i32| std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let leads = |entry: std::fs::DirEntry| {
        std::fs::read_link(entry.path()).is_ok_and(|path| path.to_string_lossy().contains(text))
    };
    world.named("daemon").into_iter().any(|pid| open(pid).any(leads))
}

#[test]
fn logs_of_a_service_follow_new_tasks_say_what_is_missing_and_end_with_their_reader() {
    let world = cluster();
    let file = |replicas: u8| {
        format!(
            "services: {{ a: {{ <<: *idle, command: [\"sh\", \"-c\", \"echo hello; exec sleep 100000\"], \
             deploy: {{ replicas: {replicas}, placement: {{ max_replicas_per_node: 1, constraints: [\"node.labels.on == yes\"] }} }} }} }}"
        )
    };
    world.start("s", &file(1));
    // Nothing runs yet, and the reader waits.
    let output = world.file("followed", "");
    let mut command = world.command(world.node(), &["service", "logs", "--follow", "s_a"]);
    let mut reader = command.stdout(std::fs::File::create(&output).unwrap()).spawn().unwrap();
    let until_lines = |count: usize, of: &str| {
        world.until(&format!("{count} lines were followed"), || {
            let text = std::fs::read_to_string(&output).unwrap();
            if text.matches("hello").count() == count && text.contains(of) { Ok(()) } else { Err(text) }
        });
    };
    world.ok(&["node", "update", "--label-add", "on=yes", "n1"]);
    until_lines(1, "@n1");
    world.ok(&["node", "update", "--label-add", "on=yes", "n2"]);
    world.up("s", &file(2));
    until_lines(2, "@n2");
    let here = world.running("s_a").into_iter().find(|task| task.node == "n1").unwrap().id;
    assert!(is_read(&world, &here));
    // The command's guard hands it on.
    kill_process(Pid::from_child(&reader), Signal::TERM).unwrap();
    reader.wait().unwrap();
    world.until("nobody reads any more", || if is_read(&world, &here) { Err(here.clone()) } else { Ok(()) });

    let whole = world.skep(&["service", "logs", "s_a"]);
    assert!(whole.is_ok() && whole.stdout.matches("hello").count() == 2, "{whole}");
    world.lab().node(2).kill_daemon(StopSignal::Kill).unwrap();
    world.until("what is missing is said after the rest", || {
        let part = world.skep(&["service", "logs", "s_a"]);
        let told = part.code == 1 && part.stderr.contains("not all that was written");
        if told && part.stdout.contains("@n1") && !part.stdout.contains("@n2") { Ok(()) } else { Err(part.to_string()) }
    });
}
