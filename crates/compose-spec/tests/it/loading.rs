//! What a project is made of.

use crate::{World, load, shown};

#[test]
fn a_small_stack_loads_without_a_word() {
    let loaded =
        load("services: {web: {image: nginx, ports: [\"8080:80\"]}}").unwrap_or_else(|e| panic!("{}", shown(&e)));
    assert_eq!(shown(&loaded.warnings), "");
    let web = &loaded.project.services["web"];
    assert_eq!(web.image.as_deref(), Some("nginx"));
    assert_eq!((web.ports[0].published, web.ports[0].target), (Some((8080, 8080)), 80));
    assert_eq!(loaded.project.name, "app");
}

#[test]
fn the_environment_is_asked_for_and_env_files_fill_in() {
    let world = World::new()
        .file(
            "compose.yml",
            "services: {web: {image: \"$IMAGE:${TAG:-latest}\", env_file: web.env, environment: {A: , B: 2}}}",
        )
        .file(".env", "IMAGE=nginx\nTAG=from-file\n")
        .file("web.env", "A=0\nB=1\nC=${TAG}\n")
        .variable("TAG", "1.27")
        .variable("A", "outside");
    let loaded = world.load(&["compose.yml"]).unwrap_or_else(|e| panic!("{}", shown(&e)));
    let web = &loaded.project.services["web"];
    assert_eq!(web.image.as_deref(), Some("nginx:1.27"));
    let environment: Vec<_> = web.environment.iter().map(|(k, v)| format!("{k}={}", v.as_deref().unwrap())).collect();
    assert_eq!(environment, ["A=outside", "B=2", "C=1.27"]);
}
