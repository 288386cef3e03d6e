//! Which files are accepted, against `docker compose`'s verdict where it is there.

use std::process::Command;

use crate::{World, shown};

/// Whether we accept, and whether the reference does.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Verdict {
    Accepted,
    Refused,
    /// We are more forgiving, with or without a warning.
    OnlyOurs,
    /// We refuse what could not work.
    OnlyTheirs,
}
use Verdict::{Accepted, OnlyOurs, OnlyTheirs, Refused};

/// Bodies of one service, after `image: x`.
const SERVICES: &[(Verdict, &str)] = &[
    (Accepted, "ports: [80]"),
    (Accepted, "ports: ['80-82:80-82']"),
    (Refused, "ports: ['80-82:80-83']"),
    (Refused, "ports: ['80-79:80-79']"),
    (Refused, "ports: ['x:80']"),
    (Refused, "ports: ['80:']"),
    (Refused, "ports: ['70000:80']"),
    (Refused, "ports: ['80:80/icmp']"),
    (Refused, "ports: ['1.2.3:80:80']"),
    (Accepted, "ports: ['1.2.3.4:80:80/TCP']"),
    (Accepted, "ports: ['[::1]:80:80']"),
    (OnlyOurs, "ports: ['::1:80:80']"),
    (Refused, "ports: {a: b}"),
    (Refused, "ports: 80"),
    (Accepted, "ports: [{target: '80', published: 80}]"),
    (Refused, "ports: [{published: 80}]"),
    (Refused, "ports: [{target: 80, publish: 80}]"),
    (OnlyTheirs, "ports: [{target: 80, protocol: icmp}]"),
    (OnlyTheirs, "ports: [{target: 80, mode: hots}]"),
    (Accepted, "volumes: ['a:/b']\nvolumes: {a: }"),
    (Refused, "volumes: ['nowhere:/b']"),
    (Accepted, "volumes: ['./a:/b:ro,z']"),
    (Accepted, "volumes: [/b]"),
    (Accepted, "volumes: [/b, /b/, /c/../b]"),
    (Accepted, "ports: ['0:80']"),
    (Accepted, "hostname: ''\nuser: ''\ndns: ''\nnetworks: []\nports: []"),
    (OnlyTheirs, "environment: ['=x']"),
    (Refused, "volumes: ['/a:/b:ro:rw']"),
    (Refused, "volumes: [':/b']"),
    (Refused, "volumes: [{type: bind, source: /a, target: /b, binds: {}}]"),
    (Refused, "volumes: [{type: bund, source: /a, target: /b}]"),
    (Refused, "volumes: [{source: /a, target: /b}]"),
    (Refused, "volumes: ['/a:/b', '/c:/d']\ntmpfs: [/b]"),
    (Accepted, "volumes: ['/a:/b', '/c:/b']"),
    (Accepted, "environment: [A=1, A=2, B]"),
    (Accepted, "environment: {A: 1, B: true, C: 1.5, D: }"),
    (Refused, "environment: {A: [1]}"),
    (Refused, "environment: A=1"),
    (Refused, "environment:"),
    (Refused, "environment: {1: a}"),
    (Accepted, "command:"),
    (Accepted, "command: []"),
    (Refused, "command: 'a \"b'"),
    (OnlyOurs, "command: [sleep, 5]"),
    (Refused, "command: {a: b}"),
    (Refused, "user: 1000"),
    (Accepted, "user: '1000'"),
    (Refused, "hostname: [a]"),
    (Accepted, "init: yes"),
    (Accepted, "init: 'on'"),
    (Refused, "init: maybe"),
    (Refused, "tty: 1"),
    (Accepted, "stop_grace_period: 1d2h"),
    (Refused, "stop_grace_period: 10"),
    (Refused, "stop_grace_period: '10'"),
    (Refused, "stop_grace_period: 10x"),
    (Accepted, "shm_size: 64mb"),
    (Accepted, "shm_size: 1000"),
    (Refused, "shm_size: lots"),
    (Accepted, "mem_limit: 1g\ndeploy: {resources: {limits: {memory: 1024m}}}"),
    (Refused, "mem_limit: 1g\ndeploy: {resources: {limits: {memory: 1m}}}"),
    (Refused, "scale: 2\ndeploy: {replicas: 3}"),
    (Accepted, "scale: 2\ndeploy: {replicas: 2}"),
    (Refused, "deploy: {replicas: many}"),
    (Refused, "deploy: {replicas: -1}"),
    (Refused, "deploy: {replicas: 1.5}"),
    (Accepted, "deploy:"),
    (OnlyTheirs, "deploy: {mode: replicatd}"),
    (Refused, "deploy: {modes: global}"),
    (Refused, "deploy: {resources: {limits: {cpus: x}}}"),
    (Accepted, "deploy: {resources: {limits: {cpus: '0.5', pids: 3}}}"),
    (Refused, "deploy: {update_config: {order: first}}"),
    (OnlyTheirs, "deploy: {restart_policy: {condition: sometimes}}"),
    (Refused, "deploy: {restart_policy: {delay: 5}}"),
    (Refused, "deploy: {placement: {constraints: node.role==manager}}"),
    (Refused, "deploy: {placement: {preferences: [node.labels.x]}}"),
    (Accepted, "post_start: [{command: [a, b], user: root, privileged: true, working_dir: /x, environment: [A=1]}]"),
    (Accepted, "pre_stop: [{command: 'a \"b c\"', environment: {A: 1}}]"),
    (Refused, "post_start: {command: a}"),
    (Refused, "post_start: [a]"),
    (Refused, "pre_stop: [{commands: a}]"),
    (Refused, "pre_stop: [{user: a}]"),
    (Refused, "pre_stop: [{command: 'a \"b'}]"),
    (Accepted, "healthcheck: {test: [NONE]}"),
    (Refused, "healthcheck: {test: [curl, x]}"),
    (OnlyTheirs, "healthcheck: {test: []}"),
    (Refused, "healthcheck: {interval: 5}"),
    (Accepted, "healthcheck: {retries: '3', disable: false}"),
    (Refused, "healthcheck: {retry: 3}"),
    (Refused, "depends_on: [nobody]"),
    (Refused, "depends_on: {nobody: {condition: service_started, required: false}}"),
    (Refused, "depends_on: {a: {condition: service_started}}"),
    (Refused, "depends_on: {b: {condition: started}}"),
    (Refused, "networks: [nowhere]"),
    (Accepted, "networks: [default]"),
    (Accepted, "networks: {default: {aliases: [x]}}"),
    (Refused, "networks: {default: {alias: [x]}}"),
    (OnlyTheirs, "networks: {default: {ipv4_address: x}}"),
    (Refused, "networks: [default]\nnetwork_mode: host"),
    (Refused, "secrets: [nobody]"),
    (Refused, "configs: [{source: nobody}]"),
    (Accepted, "secrets: [s]\nsecrets: {s: {file: x}}"),
    (OnlyTheirs, "secrets: [{source: s, target: ../x}]\nsecrets: {s: {file: x}}"),
    (Accepted, "ulimits: {nofile: 5}"),
    (Refused, "ulimits: {nofile: {soft: 5}}"),
    (Refused, "ulimits: {nofile: x}"),
    (Refused, "ulimits: [nofile]"),
    (Accepted, "extra_hosts: ['a:1.1.1.1', 'b=::1', 'c=[::1]', 'd=host-gateway']"),
    (Accepted, "extra_hosts: {a: 1.1.1.1, b: [1.1.1.1, 2.2.2.2]}"),
    (Refused, "extra_hosts: [a]"),
    (OnlyTheirs, "restart: sometimes"),
    (Accepted, "restart: on-failure:3"),
    (OnlyTheirs, "restart: on-failure:x"),
    (Accepted, "restart: no"),
    (Refused, "restart: 5"),
    (Refused, "pull_policy: sometimes"),
    (Accepted, "pull_policy: every_12h"),
    (Accepted, "labels: [a, b=1]"),
    (Refused, "labels: [[a]]"),
    (Refused, "cap_add: NET_ADMIN"),
    (Accepted, "dns: 1.1.1.1"),
    (Accepted, "tmpfs: '/a:size=1m'"),
    (Accepted, "logging: {driver: syslog, options: {a: 1}}"),
    (Refused, "logging: {drivers: x}"),
    (Accepted, "x-anything: {a: [1]}"),
    (Refused, "anything: 1"),
    (Refused, "env_file: nowhere.env"),
    (Accepted, "env_file: [{path: nowhere.env, required: false}]"),
    (Refused, "env_file: [{paths: x}]"),
    (Accepted, "gpus: all"),
    (Accepted, "blkio_config: {weight: 300}"),
    (Accepted, "oom_score_adj: -5"),
    (Refused, "oom_score_adj: 5000"),
    (Accepted, "profiles: [a]"),
    (Accepted, "environment: {A: \"${X:-d}\"}"),
    (Refused, "environment: {A: \"${X:?no}\"}"),
    (Refused, "environment: {A: \"${}\"}"),
    (Accepted, "environment: {A: \"$X $\"}"),
    (Refused, "image: y\nimage: z"),
    (Accepted, "devices: ['/dev/null', '/dev/a:/dev/b:r']"),
    (Accepted, "security_opt: [a, b]"),
    (Accepted, "sysctls: {a.b: 1}"),
    (Refused, "build: {contexts: .}"),
    (Accepted, "build: ."),
    (Accepted, "group_add: [5, a]"),
    (Accepted, "expose: [5, '6-7', '8/udp']"),
    (Accepted, "stop_signal: SIGTERM\nworking_dir: /x\nread_only: true\nprivileged: false"),
];

/// Whole files.
const FILES: &[(Verdict, &str)] = &[
    (Refused, ""),
    (Refused, "[]"),
    (Refused, "services: []"),
    (Refused, "services: {a: }"),
    (Refused, "services: {a: {}}"),
    (Refused, "services: {a: {build: .}, 'b c': {image: x}}"),
    (Refused, "service: {a: {image: x}}"),
    (Refused, "services: {a: {image: x}}\nvolumes: [v]"),
    (Refused, "services: {a: {image: x}}\nvolumes: {v: {external: true, driver: x}}"),
    (Refused, "services: {a: {image: x}}\nvolumes: {v: {drivers: x}}"),
    (Accepted, "services: {a: {image: x}}\nvolumes: {v: {driver: x, x-y: z}}"),
    (Refused, "services: {a: {image: x}}\nnetworks: {n: {ipam: {config: [{subnets: x}]}}}"),
    (Accepted, "services: {a: {image: x}}\nnetworks: {n: {external: {name: y}}}"),
    (Refused, "services: {a: {image: x}}\nsecrets: {s: {}}"),
    (Refused, "services: {a: {image: x}}\nsecrets: {s: }"),
    (Refused, "services: {a: {image: x, secrets: [s]}}\nsecrets: {s: {file: x, environment: Y}}"),
    (Refused, "services: {a: {image: x}}\nconfigs: {s: {file: x, content: Y}}"),
    (Accepted, "services: {a: {image: x}}\nx-y: 1"),
    // The reference is run with a name of its own.
    (OnlyTheirs, "services: {a: {image: x}}\nname: Not Valid"),
    (Accepted, "version: '3'\nservices: {a: {image: x}}"),
    (Accepted, "services: {a: &a {image: x}, b: *a, c: {<<: *a, labels: [q]}}"),
    (Accepted, "services: {a: &a {image: x}, c: {<<: [*a, {labels: [q]}]}}"),
    (Refused, "services: {a: {<<: x}}"),
    (Refused, "services: {a: *nowhere}"),
    (Refused, "services:\n\ta: {image: x}"),
    (Refused, "services: {a: {image: x, extends: b}}"),
    (Refused, "services: {a: {image: x, extends: b}, b: {image: y, extends: a}}"),
    (Accepted, "services: {a: {extends: {service: b}}, b: {image: y}}"),
    (OnlyTheirs, "services: {a: {extends: {service: b, files: x}}, b: {image: y}}"),
    (OnlyTheirs, "include: [{paths: x}]\nservices: {b: {image: y}}"),
    (Refused, "include: {path: x}\nservices: {b: {image: y}}"),
    (Accepted, "include: []\nservices: {b: {image: y}}"),
    (Accepted, "services: {a: {image: x}}\n---\nservices: {b: {image: y}}"),
    (Refused, "services: {a: {image: x}\n"),
    (Accepted, "services: {a: {image: !reset x, build: .}}"),
];

fn files() -> Vec<(Verdict, String)> {
    let of_service = |body: &str| {
        let (own, rest) = body
            .split_once("\nvolumes: {")
            .map_or((body, String::new()), |(own, rest)| (own, format!("volumes: {{{rest}\n")));
        let (own, rest) =
            own.split_once("\nsecrets: {").map_or((own, rest), |(own, rest)| (own, format!("secrets: {{{rest}\n")));
        let own: String = own.lines().map(|line| format!("    {line}\n")).collect();
        format!("services:\n  b: {{image: y}}\n  a:\n    image: x\n{own}{rest}")
    };
    let services = SERVICES.iter().map(|(verdict, body)| (*verdict, of_service(body)));
    services.chain(FILES.iter().map(|(verdict, text)| (*verdict, (*text).to_owned()))).collect()
}

#[test]
fn each_file_is_accepted_or_refused_as_it_should_be() {
    let mut wrong = Vec::new();
    for (verdict, text) in files() {
        let result = World::new().file("compose.yml", &text).file("x", "secret").load(&["compose.yml"]);
        let expected = matches!(verdict, Accepted | OnlyOurs);
        match result {
            Ok(loaded) if !expected => wrong.push(format!("accepted:\n{text}\n{}", shown(&loaded.warnings))),
            Err(errors) if expected => wrong.push(format!("refused:\n{text}\n{}", shown(&errors))),
            Err(errors) if errors.is_empty() => wrong.push(format!("refused without a reason:\n{text}")),
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn docker_compose_has_the_same_verdicts() {
    let Ok(reference) = std::env::var("SKEP_DOCKER_COMPOSE") else {
        eprintln!("skipped: SKEP_DOCKER_COMPOSE does not name docker-compose");
        return;
    };
    let mut wrong = Vec::new();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("x"), "secret").unwrap();
    for (verdict, text) in files() {
        std::fs::write(folder.path().join("compose.yml"), &text).unwrap();
        let mut command = Command::new(&reference);
        command.current_dir(folder.path()).env_clear().args(["-p", "p", "-f", "compose.yml", "config"]);
        let output = command.output().unwrap();
        if output.status.success() != matches!(verdict, Accepted | OnlyTheirs) {
            wrong.push(format!("{verdict:?}, but:\n{text}\n{}", String::from_utf8_lossy(&output.stderr)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
