//! Names, labels and defaults are Docker's; what a cluster cannot honour is said with its place.

use std::time::Duration;

use expect_test::{Expect, expect, expect_file};
use skep_model::*;

use crate::{convert_with, converted, shown};

fn check_words(text: &str, expected: Expect) {
    let words = match convert_with(text, &[]) {
        Ok(conversion) => format!("converted\n{}", shown(&conversion.warnings)),
        Err(errors) => errors,
    };
    expected.assert_eq(&words);
}

#[test]
fn the_least_service_is_what_swarm_makes_of_it() {
    let conversion = converted("services: {bare: {image: noreg/x}}");
    expect_file!["../golden/least.txt"].assert_debug_eq(&conversion.spec);
}

#[test]
fn a_full_service_keeps_everything() {
    let text = "
services:
  web:
    image: nginx:1
    command: [run]
    entrypoint: /entry
    environment: {B: 2, A: 1, C: }
    ports: [\"8080-8081:80\", {target: 53, published: 53, protocol: udp, mode: host, host_ip: 127.0.0.1}]
    volumes: [\"data:/data:ro\", \"/src:/dst:rslave\", /anon]
    tmpfs: [\"/run:size=1m,mode=700\"]
    networks: {front: {aliases: [www]}, ext: }
    secrets: [s, {source: x, target: /abs, uid: \"7\", mode: 0400}]
    configs: [c]
    cap_add: [net_admin, ALL]
    cap_drop: [CAP_MKNOD]
    ulimits: {nofile: -1, nproc: {soft: 1, hard: 2}}
    security_opt: [no-new-privileges, seccomp=unconfined]
    healthcheck: {test: curl localhost, interval: 5s}
    post_start: [{command: migrate up, user: app, environment: {B: 2}}]
    pre_stop: [{command: [bye], privileged: true, working_dir: /x}]
    restart: on-failure:4
    logging: {options: {max-size: 1m}}
    platform: linux/arm64
    deploy:
      mode: global
      labels: {a: b}
      resources: {limits: {cpus: 0.5, memory: 64m, pids: 10}, reservations: {memory: 16m}}
      placement: {constraints: [node.role == worker], preferences: [spread: node.labels.zone]}
      update_config: {order: start-first}
networks:
  front: {internal: true, ipam: {config: [{subnet: 10.9.0.0/24}]}}
  unused: {}
  ext: {external: true, name: shared}
volumes: {data: {labels: {v: w}}}
secrets: {s: {file: s.txt}, x: {external: true}}
configs: {c: {content: hello}}
";
    let conversion = convert_with(text, &[("s.txt", "secret")]).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(shown(&conversion.warnings), "");
    expect_file!["../golden/full.txt"].assert_debug_eq(&conversion.spec);
}

#[test]
fn what_a_cluster_cannot_honour_is_said_with_its_place() {
    check_words(
        "services:
  web:
    image: nginx
    build: .
    container_name: web1
    depends_on: [db]
    logging: {driver: syslog}
    security_opt: [apparmor=unconfined]
    tmpfs: /x:noexec
    network_mode: bridge
  db: {image: db, pull_policy: daily, deploy: {resources: {limits: {cpus: 1}, reservations: {cpus: 2}}}}
networks: {default: {driver: bridge, enable_ipv6: true}}
",
        expect![[r#"
            converted
            compose.yml:4:5: warning: services.web.build has no effect in a cluster
                4 |     build: .
                  |     ^^^^^
                   help: the image must be in a registry: build and push it before the deploy
            compose.yml:5:5: warning: services.web.container_name has no effect in a cluster
                5 |     container_name: web1
                  |     ^^^^^^^^^^^^^^
                   help: tasks are named service.slot; reach the service by its name
            compose.yml:7:14: warning: services.web.logging: driver `syslog` is not supported yet
                7 |     logging: {driver: syslog}
                  |              ^
                   help: logs are kept on the node, 10 MB × 3 a task; `skep service logs` shows them
            compose.yml:8:20: warning: services.web: security_opt `apparmor=unconfined` is not supported yet
                8 |     security_opt: [apparmor=unconfined]
                  |                    ^^^^^^^^^^^^^^^^^^^
            compose.yml:9:12: warning: services.web: tmpfs options `noexec` are not supported yet and have no effect
                9 |     tmpfs: /x:noexec
                  |            ^^^^^^^^^
            compose.yml:10:5: warning: services.web.network_mode: bridge has no effect in a cluster
               10 |     network_mode: bridge
                  |     ^^^^^^^^^^^^
                   help: remove it, or use networks
            compose.yml:11:19: warning: services.db.pull_policy: daily is not supported yet
               11 |   db: {image: db, pull_policy: daily, deploy: {resources: {limits: {cpus: 1}, reservations: {cpus: 2}}}}
                  |                   ^^^^^^^^^^^
                   help: it means missing; each deploy asks the registry what the tag stands for
            compose.yml:11:100: warning: services.db.deploy.resources: more cpus is reserved than the limit allows to use
               11 | eploy: {resources: {limits: {cpus: 1}, reservations: {cpus: 2}}}}
                  |                                                             ^
                   help: reserve what the service needs, and limit it at that or above
            compose.yml:12:30: warning: networks.default.driver: bridge keeps tasks of different nodes apart
               12 | networks: {default: {driver: bridge, enable_ipv6: true}}
                  |                              ^^^^^^
                   help: remove it for a network over all nodes
        "#]],
    );
}

#[test]
fn at_most_one_excludes_what_would_run_two() {
    check_words(
        "services:
  db:
    image: db
    x-skep: {at-most-one: true}
    deploy: {update_config: {order: start-first}, rollback_config: {order: stop-first}}
  web:
    image: web
    x-skep: {at-most-one: false}
    deploy: {update_config: {order: start-first}}
",
        expect![[r#"
            compose.yml:5:37: error: services.db.deploy.update_config.order: start-first runs two tasks of a slot, at-most-one forbids it
                5 |     deploy: {update_config: {order: start-first}, rollback_config: {order: stop-first}}
                  |                                     ^^^^^^^^^^^
                   help: use order: stop-first, or remove x-skep.at-most-one
        "#]],
    );
}

#[test]
fn what_would_be_wrong_is_refused_all_at_once() {
    check_words(
        "services:
  web:
    build: .
  a:
    image: a
    network_mode: container:x
    deploy: {mode: replicated-job, placement: {constraints: [node.colour == red], preferences: [spread: zone]}}
    volumes: [\"nfs:/x\"]
    dns: nowhere
  b:
    image: b
    ports: [\"80:80/sctp\"]
    networks: {n: {ipv4_address: 10.9.0.7}}
    deploy: {replicas: 2, resources: {limits: {memory: 1m}}}
networks: {n: {ipam: {config: [{subnet: 10.9.0.1/24}]}}}
volumes: {nfs: {driver: rexray, driver_opts: {type: nfs}}}
",
        expect![[r#"
            compose.yml:3:5: error: services.web has no image
                3 |     build: .
                  |     ^^^^^
                   help: a cluster runs images from a registry: add image: beside build:, build and push it
            compose.yml:6:5: error: services.a.network_mode: container:x is not supported
                6 |     network_mode: container:x
                  |     ^^^^^^^^^^^^
                   help: use networks, and ports with mode: host to publish on the task's own node
            compose.yml:7:62: error: services.a: constraint key `node.colour` is not known; use node.id, node.hostname, node.role, node.ip, node.platform.os, node.platform.arch, node.labels.NAME or engine.labels.NAME
                7 |     deploy: {mode: replicated-job, placement: {constraints: [node.colour == red], preferences: [spread: zone]}}
                  |                                                              ^^^^^^^^^^^^^^^^^^
            compose.yml:7:105: error: services.a: cannot spread over `zone`
                7 | : {constraints: [node.colour == red], preferences: [spread: zone]}}
                  |                                                             ^^^^
                   help: spread over a label: node.labels.zone, or engine.labels.zone
            compose.yml:9:10: error: services.a.dns: `nowhere` is not an IP address
                9 |     dns: nowhere
                  |          ^^^^^^^
            compose.yml:12:13: error: services.b: ports of sctp are not supported
               12 |     ports: ["80:80/sctp"]
                  |             ^^^^^^^^^^^^
            compose.yml:13:34: error: services.b.networks.n: one address cannot be given to several tasks
               13 |     networks: {n: {ipv4_address: 10.9.0.7}}
                  |                                  ^^^^^^^^
                   help: remove ipv4_address, and reach the service by its name
            compose.yml:14:56: error: services.b.deploy.resources.limits.memory must be at least 4M
               14 |     deploy: {replicas: 2, resources: {limits: {memory: 1m}}}
                  |                                                        ^^
            compose.yml:15:12: error: network st_n: subnet 10.9.0.1/24 has host bits set; did you mean 10.9.0.0/24?
               15 | networks: {n: {ipam: {config: [{subnet: 10.9.0.1/24}]}}}
                  |            ^
            compose.yml:16:11: error: volumes.nfs: driver `rexray` is not supported
               16 | volumes: {nfs: {driver: rexray, driver_opts: {type: nfs}}}
                  |           ^^^
                   help: volumes are folders of the node: remove driver, or mount the storage on the nodes and bind it
            compose.yml:16:11: error: volumes.nfs.driver_opts: the option `device` is missing; write what is mounted, such as device: ":/export"
               16 | volumes: {nfs: {driver: rexray, driver_opts: {type: nfs}}}
                  |           ^^^
                   help: type, device and o are what `mount -t TYPE -o O DEVICE` is given
            compose.yml:3:5: warning: services.web.build has no effect in a cluster
                3 |     build: .
                  |     ^^^^^
                   help: the image must be in a registry: build and push it before the deploy
        "#]],
    );
}

#[test]
fn restart_is_a_policy_only_where_deploy_has_none() {
    let policy = |service: &str| converted(&format!("services: {{a: {service}}}")).spec.services[0].task.restart;
    let swarm = RestartPolicy::default();
    assert_eq!(policy("{image: x}"), swarm);
    assert_eq!(policy("{image: x, restart: \"no\"}").condition, Condition::None);
    assert_eq!(policy("{image: x, restart: unless-stopped}"), swarm);
    let failing = policy("{image: x, restart: \"on-failure:3\"}");
    assert_eq!((failing.condition, failing.max_attempts), (Condition::OnFailure, 3));
    let deploy = policy("{image: x, restart: \"no\", deploy: {restart_policy: {delay: 1s}}}");
    assert_eq!(deploy, RestartPolicy { delay: Duration::from_secs(1), ..swarm });
}

#[test]
fn a_port_is_published_once() {
    check_words(
        "services:
  a: {image: x, ports: [\"80:1\", \"127.0.0.1:80:2\", {target: 3, published: 90, mode: host}]}
  b: {image: x, ports: [\"80:1/udp\", {target: 3, published: 90, mode: host}, \"90:9\"]}
  c: {image: x, ports: [\"80-81:1\", \"10.0.0.1:85:1\", \"10.0.0.2:85:1\"]}
  d: {image: x, ports: [\"99:9\"], deploy: {endpoint_mode: dnsrr}}
",
        expect![[r#"
            compose.yml:2:33: error: services.a: a already publishes 80/tcp (compose.yml:2)
                2 |   a: {image: x, ports: ["80:1", "127.0.0.1:80:2", {target: 3, published: 90, mode: host}]}
                  |                                 ^^^^^^^^^^^^^^^^
                   help: publish another port
            compose.yml:3:77: error: services.b: a already publishes 90/tcp (compose.yml:2)
                3 |   b: {image: x, ports: ["80:1/udp", {target: 3, published: 90, mode: host}, "90:9"]}
                  |                                                                             ^^^^^^
                   help: publish another port
            compose.yml:4:25: error: services.c: a already publishes 80/tcp (compose.yml:2)
                4 |   c: {image: x, ports: ["80-81:1", "10.0.0.1:85:1", "10.0.0.2:85:1"]}
                  |                         ^^^^^^^^^
                   help: publish another port
            compose.yml:5:25: error: services.d: port 9 cannot be published by the routing mesh with endpoint_mode: dnsrr
                5 |   d: {image: x, ports: ["99:9"], deploy: {endpoint_mode: dnsrr}}
                  |                         ^^^^^^
                   help: publish it with mode: host, or use endpoint_mode: vip
        "#]],
    );
}

#[test]
fn the_example_stacks_convert_without_a_word() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/stacks");
    for entry in std::fs::read_dir(folder).unwrap() {
        let folder = entry.unwrap().path();
        let text = std::fs::read_to_string(folder.join("compose.yml")).unwrap();
        let beside = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let files: Vec<(String, String)> =
            beside.map(|name| (name.clone(), std::fs::read_to_string(folder.join(name)).unwrap())).collect();
        let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        let conversion = convert_with(&text, &files).unwrap_or_else(|e| panic!("{}:\n{e}", folder.display()));
        assert_eq!(shown(&conversion.warnings), "", "{}", folder.display());
    }
}
