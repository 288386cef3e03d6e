//! Compose files with mistakes: every mistake is told with its place, and nothing is created.

use crate::world::World;

fn nothing_was_created(world: &World) {
    for list in [&["service", "ls", "-q"][..], &["network", "ls", "-q"], &["secret", "ls", "-q"], &["stack", "ls"]] {
        let said = world.ok(list);
        assert!(!said.contains("bad"), "{list:?}: {said}");
    }
    assert_eq!(world.ok(&["service", "ls", "-q"]), "");
}

#[test]
fn three_mistakes_are_three_errors_with_their_places_and_nothing_is_created() {
    let world = World::new();
    let outcome = world.deploy(
        "bad",
        "services:\n\
         \x20 web:\n\
         \x20   image: ${REGISTRY}/busybox:1\n\
         \x20   enviroment: [A=1]\n\
         \x20   ports: [\"80:http\"]\n\
         \x20   networks: [fornt]\n\
         networks:\n\
         \x20 front: {}\n",
    );
    assert_eq!(outcome.code, 1, "{outcome}");
    for place in ["bad.yml:4:5", "bad.yml:5:", "bad.yml:6:"] {
        assert!(outcome.stderr.contains(place), "{place} in: {outcome}");
    }
    for told in ["enviroment: [A=1]", "environment", "80:http", "fornt", "front"] {
        assert!(outcome.stderr.contains(told), "{told} in: {outcome}");
    }
    nothing_was_created(&world);
}

#[test]
fn what_is_known_but_not_supported_is_a_warning_with_its_place() {
    let world = World::new();
    let file = world.compose("odd", "services:\n  a:\n    <<: *idle\n    blkio_config: { weight: 300 }\n");
    let outcome = world.skep(&["stack", "deploy", "-c", &file, "odd"]);
    assert!(outcome.is_ok(), "{outcome}");
    assert!(outcome.stderr.contains("odd.yml:5:") && outcome.stderr.contains("blkio_config"), "{outcome}");
    assert_eq!(world.running("odd_a").len(), 1);
}

#[test]
fn variables_files_and_standard_input_make_one_project() {
    let world = World::new();
    world.file(".env", "NAME=from_dot_env\n");
    let base =
        world.compose("base", "services:\n  a:\n    <<: *idle\n    environment: { A: \"${NAME:?}\", B: base }\n");
    let more = "services:\n  a:\n    environment: { B: \"${MISSING:-more}\" }\n";
    let more = world.file("more.yml", more);
    let config = world.ok(&["stack", "config", "-c", &base, "-c", more.to_str().unwrap()]);
    assert!(config.contains("A: from_dot_env") && config.contains("B: more"), "{config}");

    let mut command = world.command(world.node(), &["stack", "deploy", "-c", "-", "piped"]);
    let input = std::fs::File::open(
        world.file("in.yml", "services: { a: { image: \"${REGISTRY}/busybox:1\", command: sleep 1000 } }"),
    )
    .unwrap();
    assert!(command.stdin(input).status().unwrap().success());
    assert_eq!(world.running("piped_a").len(), 1);

    let unset = world.compose("unset", "services:\n  a:\n    image: ${NOWHERE:?say which}\n");
    let told = world.refused(&["stack", "deploy", "-c", &unset, "unset"]);
    assert!(told.contains("unset.yml:3:") && told.contains("NOWHERE") && told.contains("say which"), "{told}");
}

#[test]
fn what_a_file_refers_to_must_be_there() {
    let world = World::new();
    let outcome = world.deploy(
        "bad",
        "services:\n  a:\n    <<: *idle\n    secrets: [token]\n    configs: [page]\n\
         secrets:\n  token: { file: ./no-such-file }\nconfigs:\n  page: { external: true }\n",
    );
    assert_eq!(outcome.code, 1, "{outcome}");
    assert!(outcome.stderr.contains("no-such-file"), "{outcome}");
    nothing_was_created(&world);
    let missing = world.refused(&["stack", "deploy", "-c", "/no/such/compose.yml", "bad"]);
    assert!(missing.contains("/no/such/compose.yml"), "{missing}");
}
