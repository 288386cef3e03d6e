//! Command lines, and the parts of the spec that they make.

use super::*;
use clap::Parser;
use serde_json::{Value, json};

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    options: Options,
}

fn spec(line: &str) -> Result<ServiceSpec> {
    let words = super::super::syntax::words(line).map_err(anyhow::Error::msg)?;
    let options = Line::try_parse_from(std::iter::once("create".to_owned()).chain(words))?.options;
    options.spec("web".to_owned(), &[], |name| (name == "HOME").then(|| "/root".to_owned()))
}

/// The parts that the line changes of a service of one image and nothing else.
fn changed(line: &str) -> Value {
    let plain = serde_json::to_value(spec("nginx").unwrap()).unwrap();
    let made = serde_json::to_value(spec(line).unwrap_or_else(|problem| panic!("{line}: {problem}"))).unwrap();
    difference(&plain, &made).unwrap_or(Value::Null)
}

fn difference(old: &Value, new: &Value) -> Option<Value> {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            let null = Value::Null;
            let parts = new
                .iter()
                .filter_map(|(key, new)| Some((key.clone(), difference(old.get(key).unwrap_or(&null), new)?)));
            let parts: serde_json::Map<String, Value> = parts.collect();
            (!parts.is_empty()).then_some(Value::Object(parts))
        }
        (old, new) => (old != new).then(|| new.clone()),
    }
}

#[test]
fn each_flag_changes_its_part_and_no_other() {
    let container = |value: Value| json!({ "task": { "container": value } });
    let seconds = |secs: u64| json!({ "secs": secs, "nanos": 0 });
    for (line, expected) in [
        ("nginx", Value::Null),
        ("nginx:1", container(json!({ "image": "nginx:1" }))),
        ("nginx sh -c ls", container(json!({ "args": ["sh", "-c", "ls"] }))),
        ("nginx --port 80", container(json!({ "args": ["--port", "80"] }))),
        ("--entrypoint 'sh -c' nginx", container(json!({ "command": ["sh", "-c"] }))),
        ("-e A=1 -e HOME -e NONE nginx", container(json!({ "env": ["A=1", "HOME=/root"] }))),
        ("-e A=1 -e A=2 nginx", container(json!({ "env": ["A=2"] }))),
        (
            "-w /srv -u 33:33 --group 44 nginx",
            container(json!({ "working_dir": "/srv", "user": "33:33", "groups": ["44"] })),
        ),
        (
            "--hostname h --init -t --read-only nginx",
            container(json!({ "hostname": "h", "init": true, "tty": true, "read_only": true })),
        ),
        ("--init=false --tty=true nginx", container(json!({ "tty": true }))),
        (
            "--cap-add net_admin --cap-drop all nginx",
            container(json!({ "cap_add": ["CAP_NET_ADMIN"], "cap_drop": ["ALL"] })),
        ),
        (
            "--sysctl net.core.somaxconn=9 --ulimit nofile=5:6 nginx",
            container(json!({
                "sysctls": { "net.core.somaxconn": "9" }, "ulimits": [{ "name": "nofile", "soft": 5, "hard": 6 }]
            })),
        ),
        (
            "--oom-score-adj -5 --stop-signal SIGINT --stop-grace-period 3s nginx",
            container(json!({
                "oom_score_adj": -5, "stop_signal": "SIGINT", "stop_grace_period": seconds(3)
            })),
        ),
        (
            "--host a:1.2.3.4 --dns 9.9.9.9 --dns-search x.y --dns-option ndots:2 nginx",
            container(json!({
                "extra_hosts": [["a", "1.2.3.4"]], "dns_servers": ["9.9.9.9"], "dns_search": ["x.y"], "dns_options": ["ndots:2"]
            })),
        ),
        ("--container-label a=b nginx", container(json!({ "labels": { "a": "b" } }))),
        ("-l a=b nginx", json!({ "labels": { "a": "b" } })),
        (
            "--no-healthcheck nginx",
            container(json!({ "health_check": {
            "test": "Disabled", "interval": null, "timeout": null, "retries": null, "start_period": null, "start_interval": null
        } })),
        ),
        (
            "--replicas 3 --replicas-max-per-node 2 nginx",
            json!({
                "mode": { "Replicated": { "replicas": 3 } }, "task": { "placement": { "max_replicas_per_node": 2 } }
            }),
        ),
        ("--mode global nginx", json!({ "mode": "Global" })),
        (
            "--limit-cpu 0.5 --limit-memory 64m --limit-pids 9 --reserve-cpu 0 --reserve-memory 32m nginx",
            json!({
                "task": { "resources": {
                    "limits": { "nano_cpus": 500_000_000, "memory": 64 << 20, "pids": 9 }, "reservations": { "memory": 32 << 20 }
                } }
            }),
        ),
        (
            "--restart-condition on-failure --restart-delay 1s --restart-max-attempts 3 --restart-window 1m nginx",
            json!({
                "task": { "restart": { "condition": "OnFailure", "delay": { "secs": 1 }, "max_attempts": 3, "window": { "secs": 60 } } }
            }),
        ),
        (
            "--update-parallelism 0 --update-order start-first --update-failure-action rollback --update-delay 2s nginx",
            json!({
                "update": { "parallelism": 0, "order": "StartFirst", "failure_action": "Rollback", "delay": { "secs": 2 } }
            }),
        ),
        (
            "--rollback-monitor 1s --rollback-max-failure-ratio 0.5 --rollback-failure-action continue nginx",
            json!({
                "rollback": { "monitor": { "secs": 1 }, "max_failure_ratio": 0.5, "failure_action": "Continue" }
            }),
        ),
        (
            "--constraint node.role==worker --placement-pref spread=node.labels.zone nginx",
            json!({
                "task": { "placement": {
                    "constraints": [{ "key": "node.role", "op": "Equal", "value": "worker" }],
                    "preferences": [{ "spread": "node.labels.zone" }]
                } }
            }),
        ),
        (
            "--log-opt max-size=1m nginx",
            json!({ "task": { "log_driver": { "name": "json-file", "options": { "max-size": "1m" } } } }),
        ),
        ("--network none nginx", json!({ "task": { "networks": [] } })),
        ("--endpoint-mode dnsrr nginx", json!({ "endpoint": { "mode": "DnsRr" } })),
        (
            "--session-affinity client-ip --prefer-local nginx",
            json!({ "endpoint": { "session_affinity": "ClientIp", "prefer_local": true } }),
        ),
        ("--session-affinity none --prefer-local=false nginx", Value::Null),
        (
            "-p 8080:80 -p 8080:80 nginx",
            json!({ "endpoint": { "ports": [
            { "name": null, "protocol": "Tcp", "target": 80, "published": 8080, "mode": "Ingress", "host_ip": null }
        ] } }),
        ),
    ] {
        assert_eq!(changed(line), expected, "{line}");
    }
}

#[test]
fn a_service_is_in_the_networks_that_it_names_or_in_the_default_one() {
    let networks = |line: &str| -> Vec<String> {
        spec(line).unwrap().task.networks.into_iter().map(|network| network.network).collect()
    };
    assert_eq!(networks("nginx"), ["default"]);
    assert_eq!(networks("--network back --network name=front,alias=web nginx"), ["back", "front"]);
    assert_eq!(networks("--network none nginx"), [""; 0]);
}

#[test]
fn health_checks_are_put_together() {
    let made = spec("--health-cmd 'test -e /ok' --health-interval 2s --health-retries 4 nginx").unwrap();
    let check = made.task.container.health_check.unwrap();
    assert_eq!(check.test, Some(skep_model::HealthTest::Shell("test -e /ok".to_owned())));
    assert_eq!((check.interval.unwrap().as_secs(), check.retries, check.timeout), (2, Some(4), None));
}

#[test]
fn generic_resources_are_asked_for_by_kind() {
    let made = spec("--generic-resource gpu=2 --generic-resource apple=1 --generic-resource gpu=3 nginx").unwrap();
    let asked = made.task.resources.generic.iter().map(|asked| (asked.kind.as_str(), asked.amount)).collect::<Vec<_>>();
    assert_eq!(asked, [("apple", 1), ("gpu", 3)]);
}

#[test]
fn what_cannot_be_is_refused_in_words() {
    for (line, word) in [
        ("--mode replicated-job --update-parallelism 2 nginx", "jobs may not have an update config"),
        ("--mode global --replicas 2 nginx", "global service"),
        ("--isolation hyperv nginx", "Windows"),
        ("--credential-spec file://x nginx", "Windows"),
        ("--generic-resource gpu nginx", "is not KIND=NUMBER"),
        ("--log-driver syslog nginx", "log driver `syslog` is not supported"),
        ("--log-opt tag=x nginx", "log option `tag`"),
        ("--no-healthcheck --health-cmd x nginx", "conflicts"),
        ("--stop-signal SIGNOPE nginx", "not a signal"),
        ("--endpoint-mode dnsrr -p 80 nginx", "dnsrr"),
        ("--endpoint-mode dnsrr --prefer-local nginx", "dnsrr"),
        ("--limit-memory 1m nginx", "at least 4 MiB"),
        ("--update-max-failure-ratio 2 nginx", "failure-ratio"),
        ("--mount source=a,target=b nginx", "absolute path"),
        ("-p 80:80 -p 80:81 nginx", "duplicate published port"),
        ("--rollback-failure-action rollback nginx", "invalid value"),
        ("--restart-delay 5 nginx", "not a duration"),
        ("-e =a nginx", "no name"),
    ] {
        let problem = spec(line).expect_err(line).to_string();
        assert!(problem.contains(word), "{line}: {problem}");
    }
}

#[test]
fn variables_of_files_are_under_those_of_the_line() {
    let words = ["create", "-e", "B=line", "nginx"];
    let options = Line::try_parse_from(words).unwrap().options;
    let files = [("f".to_owned(), "A=1\nB=file\n".to_owned())];
    let made = options.spec("web".to_owned(), &files, |_| None).unwrap();
    assert_eq!(made.task.container.env, ["A=1", "B=line"]);
}

#[test]
fn a_service_without_a_name_is_called_as_its_image() {
    for (image, name) in
        [("nginx", "nginx_"), ("127.0.0.1:5000/library/my-app:1@sha256:ab", "myapp_"), ("---", "service_")]
    {
        let made = name_for(image, 0x1234_5678);
        assert!(made.starts_with(name) && made.len() == name.len() + 4, "{made}");
        assert_eq!(skep_model::validate_service_name(&made), Ok(()), "{made}");
    }
    assert_ne!(name_for("nginx", 1), name_for("nginx", 2));
}
