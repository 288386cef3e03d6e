//! A worker without a manager: after a power cut of everything it is back first, and one that says nothing is missed.

use std::fs;
use std::path::Path;

use skep_api::{Assignment, decode_assignments};
use skep_identity::NodeKey;
use skep_model::{Task, TaskState};

use crate::two_nodes::cluster;
use crate::world::World;

/// A web server of the worker: it tells a secret and a start's number, which its volume counts.
const WEB: &str = "services:\n\
    \x20 web:\n\
    \x20   image: ${REGISTRY}/busybox:1\n\
    \x20   command: [\"sh\", \"-c\", \"echo . >> /data/starts; cat /run/secrets/token > /index.html; \
                 wc -l < /data/starts >> /index.html; exec httpd -f -p 80 -h /\"]\n\
    \x20   ports: [\"8080:80\"]\n\
    \x20   secrets: [token]\n\
    \x20   volumes: [\"data:/data\"]\n\
    \x20   stop_grace_period: 1s\n\
    \x20   deploy: { placement: { constraints: [\"node.hostname == n2\"] } }\n\
    \x20 client: { <<: *idle, deploy: { placement: { constraints: [\"node.hostname == n2\"] } } }\n\
    \x20 job:\n\
    \x20   <<: *idle\n\
    \x20   command: [\"true\"]\n\
    \x20   deploy: { restart_policy: { condition: none }, placement: { constraints: [\"node.hostname == n2\"] } }\n\
    volumes: { data: {} }\n\
    secrets: { token: { file: ./token.txt } }\n";

/// First processes of the worker's containers.
fn wards(world: &World) -> Vec<i32> {
    let worker = world.lab().node(2);
    let ids = world.skep_on(worker, &["ps", "-q", "--no-trunc"]).stdout;
    let within = |pid: &i32| {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        ids.lines().any(|id| groups.contains(id))
    };
    worker.processes().unwrap().into_iter().filter(within).collect()
}

/// What the worker would start without a manager; on the disk it is sealed.
pub fn written(data_dir: &Path) -> Result<Vec<Assignment>, String> {
    let key = NodeKey::from_pem(&fs::read_to_string(data_dir.join("identity/key.pem")).unwrap()).unwrap();
    let sealed = fs::read(data_dir.join("agent/assignments")).map_err(|error| error.to_string())?;
    assert!(!sealed.windows(4).any(|window| window == b"hush"), "no secret is on the disk in clear");
    let (format, sealed) = sealed.split_at(2);
    let encoded = key.sealing_key("assignments").open(format, sealed).map_err(|error| error.to_string())?;
    Ok(decode_assignments(&encoded).map_err(|error| error.to_string())?.set)
}

fn web_says(world: &World) -> Result<String, String> {
    let answer = world.get_outside(world.lab().node(2).address(), 8080)?;
    Ok(answer.body)
}

#[test]
fn a_worker_without_managers_starts_what_it_had_and_nothing_restarts_when_they_are_back() {
    let world = cluster();
    world.file("token.txt", "hush\n");
    world.up("s", WEB);
    let tasks: Vec<String> = ["s_web", "s_client"].iter().map(|name| world.running(name)[0].id.clone()).collect();
    world.until("the port answers", || match web_says(&world)? {
        said if said == "hush\n1\n" => Ok(()),
        said => Err(said),
    });
    world.until("the job is done", || match &world.tasks("s_job")[..] {
        [job] if job.state == "Complete" => Ok(()),
        jobs => Err(format!("{jobs:?}")),
    });
    let worker = world.lab().node(2);
    world.until("all is written down", || {
        let set = written(&worker.data_dir())?;
        let ended = |task: &Task| task.service_name == "s_job" && task.status.state == TaskState::Complete;
        let count = |is: fn(&Assignment) -> bool| set.iter().filter(|assignment| is(assignment)).count();
        let job = set.iter().any(|assignment| matches!(assignment, Assignment::Task(task) if ended(task)));
        let tasks = count(|assignment| matches!(assignment, Assignment::Task(_)));
        let secrets = count(|assignment| matches!(assignment, Assignment::Secret(_)));
        if (tasks, secrets, job) == (3, 1, true) { Ok(()) } else { Err(format!("{set:?}")) }
    });

    world.node().kill_everything().unwrap();
    worker.kill_everything().unwrap();
    worker.start_daemon().unwrap();
    world.until("the port answers again, with the secret", || match web_says(&world)? {
        said if said == "hush\n2\n" => Ok(()),
        said => Err(said),
    });
    world.until("both containers run", || {
        let ids = world.skep_on(worker, &["ps", "-q", "--no-trunc"]).stdout;
        if tasks.iter().all(|task| ids.contains(task.as_str())) { Ok(()) } else { Err(ids) }
    });
    let before = wards(&world);
    assert!(before.len() >= 2, "{before:?}");

    world.start_daemon();
    world.until("the manager knows the same tasks again", || {
        let now: Vec<_> = ["s_web", "s_client"].iter().flat_map(|name| world.running(name)).collect();
        let name = world.exec("s_client.1", &["wget", "-q", "-O", "-", "http://web/"]);
        let same = now.iter().map(|task| &task.id).eq(&tasks);
        if same && name.stdout == "hush\n2\n" { Ok(()) } else { Err(format!("{now:?} {name}")) }
    });
    assert_eq!(web_says(&world).unwrap(), "hush\n2\n");
    assert_eq!(wards(&world), before, "nothing was restarted");
    assert_eq!(world.tasks("s_web").len(), 1, "nothing was replaced");
    assert_eq!(world.tasks("s_job").len(), 1, "what had ended did not run again");
}

#[test]
fn a_manager_that_is_frozen_is_missed_and_found_again() {
    let world = cluster();
    let worker = world.lab().node(2);
    let session = |word: &str| {
        let info = world.skep_on(worker, &["info"]);
        let line = format!(" Session: {word}");
        if info.stdout.lines().any(|said| said == line) { Ok(info.stdout) } else { Err(info.to_string()) }
    };
    let managers = world.until("the session is up", || session("up"));
    assert!(managers.contains("198.51.100.1:7377"), "{managers}");
    let manager = world.node().daemon().unwrap().expect("the manager runs").pid.to_string();
    // No connection ends by it: nothing but silence tells.
    world.node().run("kill", &["-STOP", &manager]).unwrap().ok().unwrap();
    world.until("the manager is missed", || session("no manager in reach"));
    world.node().run("kill", &["-CONT", &manager]).unwrap().ok().unwrap();
    world.until("the session is up again", || session("up"));
}
