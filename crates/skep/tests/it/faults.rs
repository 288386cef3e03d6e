//! Processes that are killed, and power that is cut: what runs on, what comes back, and what is still there.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use skep_lab::{ProcessId, StopSignal};

use crate::world::World;

/// A web server that tells its container's id, and a client of it.
const WEB: &str = "services:\n\
    \x20 web:\n\
    \x20   image: ${REGISTRY}/busybox:1\n\
    \x20   command: [\"sh\", \"-c\", \"hostname > /index.html; exec httpd -f -p 80 -h /\"]\n\
    \x20   ports: [\"8080:80\"]\n\
    \x20   stop_grace_period: 1s\n\
    \x20 client: { <<: *idle }\n";

fn answers(world: &World) {
    let node = world.node();
    world.until("the port answers outside", || world.get_outside(node.address(), 8080));
    world.until("the port answers on localhost", || world.get_inside(Ipv4Addr::LOCALHOST, 8080));
}

/// First processes of the running containers, by task.
fn first_processes(world: &World) -> BTreeMap<String, i32> {
    let tasks = ["s_web", "s_client"].into_iter().flat_map(|service| world.running(service));
    tasks.map(|task| (task.id.clone(), world.processes(&task.id)[0])).collect()
}

/// A shell in a container, without any help of skep.
fn enter(pid: i32, script: &str) -> String {
    let pid = pid.to_string();
    let args = ["--target", &pid, "--net", "--mount", "--pid", "--root", "--wd", "sh", "-c", script];
    let output = std::process::Command::new("nsenter").args(args).output().unwrap();
    assert!(output.status.success(), "{script}: {output:?}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn kill(pid: i32) {
    let process = ProcessId::of(pid).expect("it runs");
    process.stop(StopSignal::Kill, std::time::Duration::from_secs(10)).unwrap();
}

#[test]
fn without_a_daemon_containers_run_on_and_the_next_one_adopts_them() {
    let world = World::new();
    world.up("s", WEB);
    answers(&world);
    let before = first_processes(&world);
    let client = before[&world.running("s_client")[0].id];
    world.crash_daemon();

    answers(&world);
    let web = enter(client, "wget -q -O - http://web/");
    assert!(!web.is_empty(), "names resolve");
    let command_line = world.skep(&["service", "ls"]);
    assert_ne!(command_line.code, 0);
    assert!(command_line.stderr.contains("daemon"), "{command_line}");

    world.start_daemon();
    world.until("the daemon shows what it adopted", || {
        let now = first_processes(&world);
        if now == before { Ok(()) } else { Err(format!("{before:?} {now:?}")) }
    });
    answers(&world);
    assert_eq!(world.sh("s_client.1", "wget -q -O - http://web/"), web);
    assert_eq!(world.tasks("s_web").len(), 1, "nothing was replaced");
}

#[test]
fn a_daemon_killed_in_the_middle_of_a_deploy_goes_on_with_it() {
    let world = World::new();
    world.start("s", WEB);
    world.crash_daemon();
    world.start_daemon();
    world.until_running("s_web", 1);
    world.until_running("s_client", 1);
    answers(&world);
    world.until("every container is a task's", || {
        let containers = world.ok(&["ps", "-q"]);
        if containers.lines().count() == 2 { Ok(()) } else { Err(containers) }
    });
    let folders = std::fs::read_dir(world.node().data_dir().join("containers")).unwrap().count();
    let tasks = world.tasks("s_web").len() + world.tasks("s_client").len();
    assert!(folders <= tasks, "{folders} folders of {tasks} tasks");
}

#[test]
fn what_ended_while_no_daemon_looked_is_told_and_restarted_by_the_next() {
    let world = World::new();
    world.up("s", WEB);
    let before = first_processes(&world);
    let web = world.running("s_web")[0].id.clone();
    world.crash_daemon();
    kill(before[&web]);
    world.start_daemon();
    world.until("the failure is told with its code, and the next task runs", || {
        let tasks = world.tasks("s_web");
        let failed = tasks.iter().any(|task| task.id == web && task.error.contains("(137)"));
        let next = tasks.iter().any(|task| task.id != web && task.state == "Running");
        if failed && next { Ok(()) } else { Err(format!("{tasks:?}")) }
    });
    answers(&world);
}

#[test]
fn a_killed_keeper_is_replaced_and_containers_do_not_notice() {
    let world = World::new();
    world.up("s", WEB);
    let before = first_processes(&world);
    let keepers: Vec<i32> = std::fs::read_to_string(world.node().run_dir().join("keeper.lock"))
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .map_or_else(|| keeper(&world), |pid| vec![pid]);
    assert_eq!(keepers.len(), 1, "{keepers:?}");
    kill(keepers[0]);
    answers(&world);
    assert_eq!(first_processes(&world), before);
    world.ok(&["service", "scale", "s_client=2"]);
    world.until_running("s_client", 2);
    assert_eq!(world.sh("s_web.1", "cat /index.html | wc -l"), "1");
    // The new keeper is told of ends of containers that the old one made.
    let web = world.running("s_web")[0].id.clone();
    kill(before[&web]);
    world.until("another task takes over", || match world.running("s_web") {
        running if running.len() == 1 && running[0].id != web => Ok(()),
        running => Err(format!("{running:?}")),
    });
}

/// The keeper is nobody's child; wardens are its children of the same name.
fn keeper(world: &World) -> Vec<i32> {
    let all = world.named("skep-keeper");
    let is_keeper = |pid: &i32| parent(*pid).is_none_or(|parent| !all.contains(&parent));
    all.iter().copied().filter(is_keeper).collect()
}

fn parent(pid: i32) -> Option<i32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

#[test]
fn a_lost_warden_fails_its_task_and_the_next_one_starts() {
    let world = World::new();
    world.up("s", WEB);
    let before = first_processes(&world);
    let web = world.running("s_web")[0].id.clone();
    let warden = parent(before[&web]).expect("a container's first process has a parent");
    kill(warden);
    world.until("the task failed and another runs", || {
        let tasks = world.tasks("s_web");
        let failed = tasks.iter().any(|task| task.id == web && task.error.contains("supervisor lost"));
        let next = tasks.iter().any(|task| task.id != web && task.state == "Running");
        if failed && next { Ok(()) } else { Err(format!("{tasks:?}")) }
    });
    assert!(ProcessId::of(before[&web]).is_none(), "nothing runs unsupervised");
    answers(&world);
}

#[test]
fn a_killed_net_helper_is_back_and_names_and_localhost_with_it() {
    let world = World::new();
    world.up("s", WEB);
    answers(&world);
    let before = first_processes(&world);
    let helper = world.named(" net --run-dir");
    assert_eq!(helper.len(), 1, "{helper:?}");
    kill(helper[0]);
    answers(&world);
    world.until("names resolve", || {
        let outcome = world.exec("s_client.1", &["wget", "-q", "-O", "-", "http://web/"]);
        if outcome.is_ok() { Ok(()) } else { Err(outcome.to_string()) }
    });
    assert_eq!(first_processes(&world), before);
}

#[test]
fn a_daemon_that_stops_in_order_leaves_containers_running() {
    let world = World::new();
    world.up("s", WEB);
    let before = first_processes(&world);
    world.node().kill_daemon(StopSignal::Term).unwrap();
    answers(&world);
    world.start_daemon();
    world.until("all is adopted", || {
        let now = first_processes(&world);
        if now == before { Ok(()) } else { Err(format!("{before:?} {now:?}")) }
    });
}

#[test]
fn after_a_power_cut_stacks_are_back_with_their_data() {
    let world = World::new();
    let with_data = format!(
        "{WEB}\
         \x20 db:\n    <<: *idle\n    volumes: [\"data:/data\"]\n    secrets: [token]\n\
         volumes: {{ data: {{}} }}\nsecrets: {{ token: {{ file: ./token.txt }} }}\n"
    );
    world.file("token.txt", "hush");
    world.up("s", &with_data);
    world.sh("s_db.1", "echo kept > /data/file && sync");
    // The last acknowledged writes before the cut.
    let secret = world.file("late.txt", "late");
    world.ok(&["secret", "create", "late", secret.to_str().unwrap()]);
    world.ok(&["service", "scale", "--detach", "s_client=2"]);
    world.node().kill_everything().unwrap();

    world.start_daemon();
    for (service, count) in [("s_web", 1), ("s_client", 2), ("s_db", 1)] {
        world.until_running(service, count);
    }
    answers(&world);
    assert_eq!(world.sh("s_db.1", "cat /data/file /run/secrets/token"), "kept\nhush");
    assert!(world.ok(&["secret", "ls"]).contains("late"));
    assert_eq!(world.sh("s_client.1", "wget -q -O - http://web/ | wc -l"), "1");
}
