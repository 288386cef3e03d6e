//! What users read when something is wrong: every mistake, its place, what would be right.

use expect_test::{Expect, expect};

use crate::{World, shown};

fn check_world(world: &World, files: &[&str], expected: Expect) {
    let diagnostics = world.load(files).map(|loaded| format!("loaded\n{}", shown(&loaded.warnings)));
    expected.assert_eq(&diagnostics.unwrap_or_else(|errors| shown(&errors)));
}

fn check(text: &str, expected: Expect) {
    check_world(&World::new().file("compose.yml", text), &["compose.yml"], expected);
}

#[test]
fn three_mistakes_are_three_errors() {
    check(
        "services:
  web:
    imge: nginx
    ports: [\"80:http\"]
    deploy:
      replicas: many
",
        expect![[r#"
            compose.yml:3:5: error: services.web has no attribute `imge`
                3 |     imge: nginx
                  |     ^^^^
                   help: did you mean `image`?
            compose.yml:4:13: error: invalid port `80:http`: `http` is not a port
                4 |     ports: ["80:http"]
                  |             ^^^^^^^^^
                   help: write "8080:80", "127.0.0.1:8080:80", "8000-8005:8000-8005/udp", or target: and published:
            compose.yml:6:17: error: services.web.deploy.replicas must be a whole number, not `many`
                6 |       replicas: many
                  |                 ^^^^
        "#]],
    );
}

#[test]
fn mistakes_of_every_kind_are_found_together() {
    check(
        "services:
  web:
    image: nginx:${TAG:?say which}
    user: 1000
    stop_grace_period: 10
    restart: alwys
    healthcheck: {test: [curl, localhost], retries: -1}
    volumes: [\"date:/data\", \"/a:relative\"]
    networks: [frnt]
    secrets: [{source: pw, mode: \"rw\"}]
    depends_on: [db, web]
    extra_hosts: [nohost]
    ulimits: {nofile: {soft: 2, hard: 1}}
    deploy: {resources: {limits: {memory: 1 gigabyte, cpus: two}}, update_config: {max_failure_ratio: 20}}
  database: {image: postgres}
networks: {front: }
volumes: {data: }
secrets: {pw: {file: missing.txt}}
",
        expect![[r#"
            compose.yml:3:12: error: required variable `TAG` is missing a value: say which
                3 |     image: nginx:${TAG:?say which}
                  |            ^^^^^^^^^^^^^^^^^^^^^^^
                   help: set it in the environment or in .env: TAG=…
            compose.yml:4:11: error: services.web.user must be a string, not the number 1000
                4 |     user: 1000
                  |           ^^^^
                   help: quote it: "1000"
            compose.yml:5:24: error: services.web.stop_grace_period must be a duration such as 30s or 1m30s, not the number 10
                5 |     stop_grace_period: 10
                  |                        ^^
                   help: a number needs its unit: 10s
            compose.yml:6:14: error: services.web.restart must be no, always, on-failure[:retries] or unless-stopped, not `alwys`
                6 |     restart: alwys
                  |              ^^^^^
                   help: did you mean `always`?
            compose.yml:7:25: error: services.web.healthcheck.test must start with CMD, CMD-SHELL or NONE, not `curl`
                7 |     healthcheck: {test: [curl, localhost], retries: -1}
                  |                         ^
                   help: write ["CMD", "curl", …], or the whole line as one string
            compose.yml:7:53: error: services.web.healthcheck.retries must not be negative
                7 |     healthcheck: {test: [curl, localhost], retries: -1}
                  |                                                     ^^
            compose.yml:8:15: error: services.web refers to undefined volume `date`
                8 |     volumes: ["date:/data", "/a:relative"]
                  |               ^^^^^^^^^^^^
                   help: did you mean `data`?
            compose.yml:8:29: error: services.web.volumes.1: `relative` is not an absolute path in the container
                8 |     volumes: ["date:/data", "/a:relative"]
                  |                             ^^^^^^^^^^^^^
                   help: write /relative, or relative:/path to mount something there
            compose.yml:9:16: error: services.web refers to undefined network `frnt`
                9 |     networks: [frnt]
                  |                ^^^^
                   help: did you mean `front`?
            compose.yml:10:34: error: services.web.secrets.0.mode must be permission bits
               10 |     secrets: [{source: pw, mode: "rw"}]
                  |                                  ^^^^
                   help: write them in octal: 0440, or "0440"
            compose.yml:11:18: error: services.web depends on undefined service `db`
               11 |     depends_on: [db, web]
                  |                  ^^
            compose.yml:11:22: error: services depend on each other in a circle: web -> web
               11 |     depends_on: [db, web]
                  |                      ^^^
                   help: remove one of these dependencies
            compose.yml:12:19: error: services.web.extra_hosts.0: `nohost` has no address
               12 |     extra_hosts: [nohost]
                  |                   ^^^^^^
                   help: write "name=10.0.0.1"
            compose.yml:13:15: error: services.web.ulimits.nofile: the soft limit 2 is above the hard limit 1
               13 |     ulimits: {nofile: {soft: 2, hard: 1}}
                  |               ^^^^^^
            compose.yml:14:43: error: services.web.deploy.resources.limits.memory: invalid size `1 gigabyte`; write a number with b, k, m, g or t: 512m, 1.5g
               14 |     deploy: {resources: {limits: {memory: 1 gigabyte, cpus: two}}, update_config: {max_failure_ratio: 20}}
                  |                                           ^^^^^^^^^^
            compose.yml:14:61: error: services.web.deploy.resources.limits.cpus: invalid number of cpus `two`; write a number of cores: 0.5, 2
               14 |     deploy: {resources: {limits: {memory: 1 gigabyte, cpus: two}}, update_config: {max_failure_ratio: 20}}
                  |                                                             ^^^
            compose.yml:14:103: error: services.web.deploy.update_config.max_failure_ratio must be a number from 0 to 1, not the number 20
               14 | 1 gigabyte, cpus: two}}, update_config: {max_failure_ratio: 20}}
                  |                                                             ^^
                   help: write 0.2 for 20 percent
            compose.yml:18:22: error: secrets.pw.file: cannot read missing.txt: there is no such file
               18 | secrets: {pw: {file: missing.txt}}
                  |                      ^^^^^^^^^^^
        "#]],
    );
}

#[test]
fn text_that_is_not_yaml_is_pointed_at() {
    check(
        "services:\n\tweb: {image: x}\n",
        expect![[r#"
        compose.yml:2:2: error: not valid YAML: tabs disallowed within this context (block indentation)
            2 |  web: {image: x}
              |  ^
               help: YAML is indented with spaces; this line has a tab
    "#]],
    );
    check(
        "services: {web: {image: x}\n",
        expect![[r#"
        compose.yml:2:1: error: not valid YAML: while parsing a flow mapping, did not find expected ',' or '}'
            2 | 
              | ^
    "#]],
    );
    check(
        "services:\n  web: {image: x}\n bad: 1\n",
        expect![[r#"
        compose.yml:3:2: error: not valid YAML: while parsing a block mapping, did not find expected key
            3 |  bad: 1
              |  ^
    "#]],
    );
}

#[test]
fn keys_given_twice_name_both_places() {
    check(
        "services:\n  web:\n    image: a\n    tty: true\n    image: b\n  web: {image: c}\n",
        expect![[r#"
        compose.yml:5:5: error: key `image` is given twice, first at compose.yml:3
            5 |     image: b
              |     ^^^^^
               help: remove one of the two, or merge them
        compose.yml:6:3: error: key `web` is given twice, first at compose.yml:2
            6 |   web: {image: c}
              |   ^^^
               help: remove one of the two, or merge them
    "#]],
    );
}

#[test]
fn keys_that_are_no_strings_are_refused() {
    check(
        "services: {a: {image: x, environment: {1: a, true: b, 2.5: c, ~: d}}}\n",
        expect![[r#"
        compose.yml:1:40: error: non-string key 1: keys must be strings
            1 | services: {a: {image: x, environment: {1: a, true: b, 2.5: c, ~: d}}}
              |                                        ^
               help: quote it: "1"
        compose.yml:1:46: error: non-string key true: keys must be strings
            1 | services: {a: {image: x, environment: {1: a, true: b, 2.5: c, ~: d}}}
              |                                              ^^^^
               help: quote it: "true"
        compose.yml:1:55: error: non-string key 2.5: keys must be strings
            1 | services: {a: {image: x, environment: {1: a, true: b, 2.5: c, ~: d}}}
              |                                                       ^^^
               help: quote it: "2.5"
        compose.yml:1:63: error: non-string key null: keys must be strings
            1 | services: {a: {image: x, environment: {1: a, true: b, 2.5: c, ~: d}}}
              |                                                               ^
               help: quote it: "null"
    "#]],
    );
}

#[test]
fn aliases_that_grow_without_end_are_stopped() {
    let mut bomb = String::from("x-a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..8 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb += &format!("x-a{level}: &a{level} [{aliases}]\n");
    }
    check(
        &bomb,
        expect![[r#"
        compose.yml:5:47: error: the file has more than 100000 values when its aliases are filled in
            5 | x-a4: &a4 [*a3, *a3, *a3, *a3, *a3, *a3, *a3, *a3, *a3, *a3]
              |                                               ^^^
    "#]],
    );
    check(
        "services: &a {web: *a}\n",
        expect![[r#"
        compose.yml:1:20: error: this alias stands inside the value that it refers to
            1 | services: &a {web: *a}
              |                    ^^
    "#]],
    );
    check(
        &format!("x-deep: {}1{}\n", "[".repeat(500), "]".repeat(500)),
        expect![[r#"
        compose.yml:1:264: error: not valid YAML: recursion limit exceeded
            1 | [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[
              |                                                             ^
    "#]],
    );
}

#[test]
fn unset_variables_are_said_once_each() {
    check(
        "services: {a: {image: \"x:$TAG\", hostname: \"$TAG$NAME\"}}\n",
        expect![[r#"
        loaded
        compose.yml:1:23: warning: the variable `TAG` is not set; it becomes an empty string
            1 | services: {a: {image: "x:$TAG", hostname: "$TAG$NAME"}}
              |                       ^^^^^^^^
               help: set it in the environment or in .env, or give a default: ${TAG:-value}
        compose.yml:1:43: warning: the variable `NAME` is not set; it becomes an empty string
            1 | services: {a: {image: "x:$TAG", hostname: "$TAG$NAME"}}
              |                                           ^^^^^^^^^^^
               help: set it in the environment or in .env, or give a default: ${NAME:-value}
    "#]],
    );
}

#[test]
fn what_has_no_effect_is_a_warning() {
    check(
        "services:
  web:
    image: nginx
    command: echo a && echo b
    gpus: all
    mac_address: 02:42:ac:11:00:02
    environment: {VERSION: 1.10}
    configs: [{source: c, mode: 440}]
    links: [other]
configs: {c: {content: x}}
",
        expect![[r#"
            loaded
            compose.yml:4:14: warning: services.web.command: no shell reads this, so `&` has no special meaning
                4 |     command: echo a && echo b
                  |              ^^^^^^^^^^^^^^^^
                   help: write ["sh", "-c", "…"] to run it in a shell, or quote the operator
            compose.yml:5:5: warning: services.web.gpus is not supported yet and has no effect
                5 |     gpus: all
                  |     ^^^^
            compose.yml:6:5: warning: services.web.mac_address is not supported yet and has no effect
                6 |     mac_address: 02:42:ac:11:00:02
                  |     ^^^^^^^^^^^
            compose.yml:7:28: warning: services.web.environment.VERSION: 1.10 is a number to YAML and becomes `1.1`
                7 |     environment: {VERSION: 1.10}
                  |                            ^^^^
                   help: quote it to keep it as it is: "1.10"
            compose.yml:8:33: warning: services.web.configs.0.mode: 440 is read as a decimal number, 0o670 in octal
                8 |     configs: [{source: c, mode: 440}]
                  |                                 ^^^
                   help: write 0440 for the usual meaning
            compose.yml:9:5: warning: services.web.links is not supported yet and has no effect
                9 |     links: [other]
                  |     ^^^^^
                   help: services of one network reach each other by name
        "#]],
    );
}

#[test]
fn files_that_do_not_fit_together_name_both() {
    let world = World::new()
        .file("a.yml", "services: {web: {image: x, command: [a], cap_add: [A]}}")
        .file("b.yml", "services:\n  web:\n    cap_add: {A: 1}\n    imagee: y\n");
    check_world(
        &world,
        &["a.yml", "b.yml"],
        expect![[r#"
        b.yml:3:14: error: cannot override services.web.cap_add: it was a list at a.yml:1 and is a mapping here
            3 |     cap_add: {A: 1}
              |              ^
               help: write both the same way, or replace the earlier one with !override
        b.yml:4:5: error: services.web has no attribute `imagee`
            4 |     imagee: y
              |     ^^^^^^
               help: did you mean `image`?
    "#]],
    );
}

#[test]
fn files_that_are_not_there_are_named() {
    let world = World::new()
        .file("compose.yml", "services: {a: {image: x, env_file: [a.env, b.env]}}")
        .file("a.env", "A B=1\nC=${\n");
    check_world(
        &world,
        &["compose.yml"],
        expect![[r#"
        a.env:1:1: error: a variable's name cannot contain a space: `A B`
            1 | A B=1
              | ^^^
               help: write NAME=value, one to a line
        a.env:2:3: error: invalid interpolation format: `${`
            2 | C=${
              |   ^^
               help: write ${NAME}, ${NAME:-default}, ${NAME:?message} or ${NAME:+other}; a dollar sign is $$
        compose.yml:1:44: error: cannot read b.env: there is no such file
            1 | services: {a: {image: x, env_file: [a.env, b.env]}}
              |                                            ^^^^^
    "#]],
    );
    check_world(
        &World::new(),
        &["compose.yml"],
        expect![[r#"
        error: cannot read compose.yml: there is no such file
    "#]],
    );
    check_world(
        &World::new(),
        &[],
        expect![[r#"
        error: no compose file was given
               help: name one with --compose-file
    "#]],
    );
}

#[test]
fn includes_and_extensions_that_lead_nowhere_are_named() {
    let world = World::new()
        .file("compose.yml", "include: [b.yml, gone.yml]\nservices:\n  a: {extends: {service: bse, file: c.yml}}\n  c: {extends: d}\n  d: {extends: c}\n")
        .file("b.yml", "include: [compose.yml]\nservices: {b: {image: x}}")
        .file("c.yml", "services: {base: {image: x}}");
    check_world(
        &world,
        &["compose.yml"],
        expect![[r#"
            b.yml:1:11: error: include cycle: compose.yml includes b.yml includes compose.yml
                1 | include: [compose.yml]
                  |           ^^^^^^^^^^^
            compose.yml:1:18: error: cannot read gone.yml: there is no such file
                1 | include: [b.yml, gone.yml]
                  |                  ^^^^^^^^
            compose.yml:3:16: error: services.a extends service `bse`, which c.yml does not have
                3 |   a: {extends: {service: bse, file: c.yml}}
                  |                ^
                   help: did you mean `base`?
            compose.yml:4:16: error: services extend each other in a circle: d extends c extends d
                4 |   c: {extends: d}
                  |                ^
            compose.yml:5:16: error: services extend each other in a circle: c extends d extends c
                5 |   d: {extends: c}
                  |                ^
        "#]],
    );
}

#[test]
fn what_skep_adds_is_as_strict_as_the_format() {
    check(
        "services:
  web:
    image: x
    x-skep: {at_most_one: true}
  db:
    image: x
    x-skep: {at-most-one: once}
  c:
    image: x
    x-skep: true
",
        expect![[r#"
            compose.yml:4:14: error: services.web.x-skep has no attribute `at_most_one`
                4 |     x-skep: {at_most_one: true}
                  |              ^^^^^^^^^^^
                   help: did you mean `at-most-one`?
            compose.yml:7:27: error: services.db.x-skep.at-most-one must be true or false, not `once`
                7 |     x-skep: {at-most-one: once}
                  |                           ^^^^
            compose.yml:10:13: error: services.c.x-skep must be a mapping, not the boolean true
               10 |     x-skep: true
                  |             ^^^^
        "#]],
    );
}

#[test]
fn attributes_in_the_wrong_place_are_sent_to_the_right_one() {
    check(
        "services:
  web:
    image: x
    replicas: 3
    constraints: [node.role == worker]
    interval: 5s
image: y
web: {image: z}
",
        expect![[r#"
            compose.yml:4:5: error: services.web has no attribute `replicas`
                4 |     replicas: 3
                  |     ^^^^^^^^
                   help: it belongs under deploy:
            compose.yml:5:5: error: services.web has no attribute `constraints`
                5 |     constraints: [node.role == worker]
                  |     ^^^^^^^^^^^
                   help: it belongs under deploy: placement:
            compose.yml:6:5: error: services.web has no attribute `interval`
                6 |     interval: 5s
                  |     ^^^^^^^^
                   help: it belongs under healthcheck:
            compose.yml:7:1: error: a compose file has no attribute `image`
                7 | image: y
                  | ^^^^^
                   help: it belongs under services: NAME:
            compose.yml:8:1: error: a compose file has no attribute `web`
                8 | web: {image: z}
                  | ^^^
                   help: remove it, or name it x-… if it is for another tool
        "#]],
    );
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(lines in proptest::collection::vec(("( {0,6})", "(services|a|image|ports|volumes|environment|deploy|<<|x|-|command|include|extends)", "(:|: |)", "(\\[|\\{|\\]|\\}|\"|'|&a|\\*a|!reset|\\$\\{|80:80|1.5|\u{fc}|x|~|\\|)"), 0..12)) {
        let text: String = lines.iter().map(|(pad, key, colon, value)| format!("{pad}{key}{colon}{value}\n")).collect();
        if let Err(errors) = World::new().file("compose.yml", &text).load(&["compose.yml"]) {
            proptest::prop_assert!(!errors.is_empty());
            shown(&errors);
        }
    }
}
