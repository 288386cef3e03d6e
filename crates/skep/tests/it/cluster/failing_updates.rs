//! Updates that fail under load: each ends as its `failure_action` says, and whoever asks notices nothing.

use std::net::SocketAddr;
use std::thread;

use serde_json::Value;

use super::Cluster;
use crate::load;
use crate::world::World;

/// nginx that answers with its version, and serves once it does.
const WEB: &str = r#"configs:
  web: { content: "server { listen 80; access_log off; location / { return 200 @VERSION; } }" }
services:
  web:
    image: ${REGISTRY}/@IMAGE
    configs: [{ source: web, target: /etc/nginx/conf.d/default.conf }]
    ports: ["@PORT:80"]
    stop_grace_period: 2s
    command: [@COMMAND]
    healthcheck: { test: [@CHECK], interval: 300ms, timeout: 20s, retries: 2, start_period: @START, start_interval: 100ms }
    x-skep: { progress-deadline: 5s }
    deploy:
      replicas: 2
      placement: { constraints: ["node.role == worker"], max_replicas_per_node: 2 }
      resources: { reservations: { generic_resources: [{ discrete_resource_spec: { kind: @KIND, value: @APPLES } }] } }
      update_config: { order: @ORDER, failure_action: @ACTION, monitor: 6s, delay: @DELAY }
      rollback_config: { order: @ORDER, monitor: 500ms }
"#;

/// How requests fail whose server ends; the last is a connection that is closed without a word.
const ENDS: [&str; 4] = ["ConnectionRefused", "ConnectionReset", "UnexpectedEof", "does not speak HTTP: None"];

/// How the second version is broken.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Broken {
    Not,
    Image,
    Check,
    /// It never listens, and ends after three seconds.
    Crash,
    /// It serves, and ends after three seconds.
    LateCrash,
    /// No node has room for it.
    Full,
}

#[derive(Clone, Copy, Debug)]
struct Case {
    broken: Broken,
    order: &'static str,
    action: &'static str,
    port: u16,
}

const fn case(broken: Broken, order: &'static str, action: &'static str, port: u16) -> Case {
    Case { broken, order, action, port }
}

const CASES: [Case; 10] = [
    case(Broken::Image, "stop-first", "pause", 8001),
    case(Broken::Image, "start-first", "rollback", 8002),
    case(Broken::Check, "stop-first", "rollback", 8003),
    case(Broken::Check, "start-first", "pause", 8004),
    case(Broken::Crash, "stop-first", "pause", 8005),
    case(Broken::Crash, "start-first", "rollback", 8006),
    case(Broken::Full, "stop-first", "rollback", 8007),
    case(Broken::Full, "start-first", "pause", 8008),
    case(Broken::LateCrash, "stop-first", "pause", 8009),
    case(Broken::LateCrash, "start-first", "rollback", 8010),
];

impl Case {
    fn stack(&self) -> String {
        format!("s{}", self.port)
    }

    fn yaml(&self, version: u8, broken: Broken) -> String {
        let served = "\"nginx\", \"-g\", \"daemon off;\"";
        let crash = "\"sh\", \"-c\", \"sleep 3; exit 1\"";
        let late_crash = "\"sh\", \"-c\", \"nginx; sleep 3; exit 1\"";
        let check = "\"CMD\", \"busybox\", \"wget\", \"-q\", \"-O\", \"/dev/null\", \"http://127.0.0.1/\"";
        let (image, command, check, start) = match broken {
            Broken::Image => ("nosuch:9", served, check, "60s"),
            Broken::Check => ("nginx:1", served, "\"CMD\", \"false\"", "1s"),
            Broken::Crash => ("nginx:1", crash, check, "60s"),
            Broken::LateCrash => ("nginx:1", late_crash, check, "60s"),
            Broken::Not | Broken::Full => ("nginx:1", served, check, "60s"),
        };
        // The two services of `Full` share three of four.
        let (kind, apples) = match (self.broken, broken) {
            (Broken::Full, Broken::Full) => ("apple", 2),
            (Broken::Full, _) => ("apple", 1),
            _ => ("pear", 1),
        };
        // Longer than the bad task serves, for it is not to have company.
        let delay = if self.broken == Broken::LateCrash { "5s" } else { "0s" };
        WEB.replace("@VERSION", &version.to_string())
            .replace("@IMAGE", image)
            .replace("@COMMAND", command)
            .replace("@CHECK", check)
            .replace("@START", start)
            .replace("@PORT", &self.port.to_string())
            .replace("@KIND", kind)
            .replace("@APPLES", &apples.to_string())
            .replace("@ORDER", self.order)
            .replace("@ACTION", self.action)
            .replace("@DELAY", delay)
    }
}

fn update(world: &World, service: &str) -> Value {
    let text = world.ok(&["service", "inspect", service]);
    let value: Value = serde_json::from_str(&text).unwrap();
    value[0]["UpdateStatus"].clone()
}

#[test]
fn every_kind_of_failing_update_ends_as_asked_and_no_request_fails() {
    let world = World::of_nodes(3);
    for number in [2, 3] {
        world.lab().node(number).write_config("generic_resources = [\"apple=2\", \"pear=100\"]\n").unwrap();
    }
    let cluster = Cluster::in_world(world, 1, 2, &[]);
    let world = &cluster.world;
    // Each on threads of its own: what fails here is not to wait for what fails there.
    let each = |act: &(dyn Fn(&Case) + Sync)| {
        thread::scope(|scope| CASES.iter().for_each(|case| drop(scope.spawn(move || act(case)))));
    };
    each(&|case| drop(world.up(&case.stack(), &case.yaml(1, Broken::Not))));
    let addresses = CASES.map(|case| SocketAddr::new(cluster.node(1).address().into(), case.port));
    let ((), seen) = load::during(world, &addresses, || {
        each(&|case| {
            let outcome = world.deploy(&case.stack(), &case.yaml(2, case.broken));
            let (code, state) = match case.action {
                "rollback" => (3, "rollback_completed"),
                _ => (1, "paused"),
            };
            let ended = update(world, &format!("{}_web", case.stack()));
            assert_eq!(ended["State"], state, "{case:?}: {outcome}");
            assert_eq!(outcome.code, code, "{case:?}: {outcome}");
        });
    });
    for (case, seen) in CASES.iter().zip(seen) {
        match case.broken {
            // It had requests when it ended, and is led some more until its end is known to all nodes.
            Broken::LateCrash => {
                assert!(seen.answers.contains_key("2") && seen.answered > 20, "{case:?}: it serves: {seen:?}");
                let of_its_end = |(.., kind): &(_, _, String)| ENDS.iter().any(|end| kind.ends_with(end));
                assert!(seen.failed.iter().all(of_its_end), "{case:?}: {seen:?}");
            }
            Broken::Not | Broken::Image | Broken::Check | Broken::Crash | Broken::Full => {
                seen.assert_whole(&format!("{case:?}"));
            }
        }
    }
    // Paused or rolled back, what is left is the version that was good.
    for case in CASES.iter().filter(|case| case.broken != Broken::LateCrash || case.action == "rollback") {
        // A slot whose old task stopped first stays with the new one while the update is paused.
        let given_up = case.broken == Broken::Crash && case.action == "pause";
        world.until_running(&format!("{}_web", case.stack()), if given_up { 1 } else { 2 });
        for _ in 0..10 {
            let answer = world.get_outside(cluster.node(1).address(), case.port);
            assert_eq!(answer.map(|answer| answer.body), Ok("1".to_owned()), "{case:?}");
        }
    }
}

#[test]
fn a_node_that_is_lost_in_mid_update_holds_it_up_no_longer_than_it_takes_to_be_missed() {
    let world = World::of_nodes(4);
    let cluster = Cluster::in_world(world, 1, 3, &[]);
    let world = &cluster.world;
    let yaml = |version: u8| {
        format!(
            "configs:\n  web: {{ content: \"server {{ listen 80; access_log off; location / {{ return 200 {version}; }} }}\" }}\n\
             services:\n  web:\n    image: ${{REGISTRY}}/nginx:1\n    ports: [\"8080:80\"]\n    stop_grace_period: 2s\n\
             \x20   configs: [{{ source: web, target: /etc/nginx/conf.d/default.conf }}]\n\
             \x20   healthcheck: {{ test: [CMD, busybox, wget, -q, -O, /dev/null, \"http://127.0.0.1/\"], interval: 300ms, \
             timeout: 20s, start_period: 60s, start_interval: 100ms }}\n\
             \x20   deploy: {{ replicas: 6, placement: {{ constraints: [\"node.role == worker\"] }}, \
             update_config: {{ order: start-first, delay: 2s, monitor: 1s, failure_action: rollback }} }}\n"
        )
    };
    world.up("s", &yaml(1));
    let address = SocketAddr::new(cluster.node(1).address().into(), 8080);
    let start = std::time::Instant::now();
    let ((lost, down), seen) = load::during(world, &[address], || {
        world.start("s", &yaml(2));
        world.until("the update has replaced a task", || {
            let tasks = world.tasks("s_web");
            if tasks.iter().any(|task| task.state == "Shutdown") { Ok(()) } else { Err(format!("{tasks:?}")) }
        });
        assert_eq!(update(world, "s_web")["State"], "updating");
        world.lab().unplug(4).unwrap();
        let lost = start.elapsed();
        cluster.node(4).kill_everything().unwrap();
        world.until("the node is known to be lost", || {
            let rows = world.rows(&["node", "ls"]);
            let down = rows.iter().any(|row| row["Hostname"] == "n4" && row["Status"] == "Down");
            if down { Ok(()) } else { Err(format!("{rows:?}")) }
        });
        let down = start.elapsed();
        world.until("the update is over", || match update(world, "s_web") {
            status if status["State"] == "completed" => Ok(()),
            status => Err(status.to_string()),
        });
        (lost, down)
    });
    let [seen] = seen.as_slice() else { panic!("one address was asked") };
    assert!(seen.answered > 100 && seen.answers.len() == 2, "both versions answered: {seen:?}");
    // What was under way when it was lost is lost; whoever asks then and later waits for seconds at worst.
    for (began, took, kind) in &seen.failed {
        assert!(*began <= lost, "lost at {lost:?}, down at {down:?}: began at {began:?}, took {took:?}, {kind}");
    }
    assert!(seen.failed.len() <= load::CLIENTS, "each client was in the middle of one: {seen:?}");
    let running = world.until_running("s_web", 6);
    assert!(running.iter().all(|task| task.node != "n4"), "{running:?}");
}
