//! What a project is made of.

use skep_compose_spec::project::MountKind;
use skep_compose_spec::{FileContent, Loaded, Outcome, Request, load as load_step};

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

#[test]
fn standard_input_is_a_file_like_any() {
    let world = World::new().file("-", "services: {web: {image: x, volumes: [\"./a:/a\"]}}");
    let project = world.load(&["-"]).unwrap_or_else(|e| panic!("{}", shown(&e))).project;
    let MountKind::Bind(bind) = &project.services["web"].mounts[0].kind else { panic!("a bind mount") };
    assert_eq!(bind.source, "/app/a");
}

#[test]
fn services_of_other_profiles_are_left_out() {
    let text = "services: {web: {image: x}, debug: {image: y, profiles: [dev], depends_on: [web]}}";
    let names = |loaded: Loaded| loaded.project.services.into_keys().collect::<Vec<_>>();
    assert_eq!(names(load(text).unwrap()), ["web"]);
    let dev = World::new().file("compose.yml", text).variable("COMPOSE_PROFILES", "dev,test");
    assert_eq!(names(dev.load(&["compose.yml"]).unwrap()), ["debug", "web"]);
    let optional = "services: {a: {image: x, depends_on: {b: {condition: service_started, required: false}}}, b: {image: y, profiles: [p]}}";
    assert!(load(optional).unwrap().project.services["a"].depends_on.is_empty());
}

#[test]
fn each_round_asks_for_what_the_one_before_has_shown() {
    let mut request =
        Request { files: vec!["c.yml".to_owned()], working_directory: "/app".to_owned(), ..Request::default() };
    let mut asked = Vec::new();
    loop {
        match load_step(&request) {
            Outcome::Wanted(wanted) => {
                asked.push(format!("{:?} {:?}", wanted.files, wanted.variables));
                for path in wanted.files {
                    let content = match path.as_str() {
                        "/app/c.yml" => {
                            let text = "services: {a: {image: \"$I\", env_file: e.env}}\nsecrets: {s: {file: s.txt}}";
                            FileContent::Bytes(text.as_bytes().into())
                        }
                        "/app/.env" => FileContent::Missing,
                        _ => FileContent::Bytes(b"A=1".as_slice().into()),
                    };
                    request.contents.insert(path, content);
                }
                request.variables.extend(wanted.variables.into_iter().map(|name| (name, Some("x".to_owned()))));
            }
            Outcome::Loaded { .. } => break,
            Outcome::Refused(errors) => panic!("{}", shown(&errors)),
        }
    }
    let expected = [
        "{\"/app/.env\", \"/app/c.yml\"} {}",
        "{} {\"I\"}",
        "{\"/app/e.env\", \"/app/s.txt\"} {\"COMPOSE_PROJECT_NAME\"}",
    ];
    assert_eq!(asked, expected);
}

#[test]
fn a_debug_print_of_a_project_has_no_secret_in_it() {
    let world = World::new()
        .file("compose.yml", "services: {a: {image: x, secrets: [s]}}\nsecrets: {s: {file: s.txt}}")
        .file("s.txt", "hunter2");
    let loaded = world.load(&["compose.yml"]).unwrap_or_else(|e| panic!("{}", shown(&e)));
    assert!(!format!("{:?}", loaded.project.secrets).contains("hunter2"));
    assert!(!loaded.project.to_yaml().contains("hunter2"));
}

#[test]
fn line_ends_of_windows_and_a_byte_order_mark_are_read_over() {
    let world = World::new()
        .file(
            "compose.yml",
            "\u{feff}services:\r\n  a:\r\n    image: x\r\n    env_file: a.env\r\n    command: |\r\n      run\r\n",
        )
        .file("a.env", "\u{feff}A=1\r\nB=\"2\"\r\nC='3' # c\r\n");
    let project = world.load(&["compose.yml"]).unwrap_or_else(|e| panic!("{}", shown(&e))).project;
    let a = &project.services["a"];
    assert_eq!(a.image.as_deref(), Some("x"));
    let values: Vec<_> = a.environment.iter().map(|(k, v)| (k.as_str(), v.as_deref().unwrap())).collect();
    assert_eq!(values, [("A", "1"), ("B", "2"), ("C", "3")]);
}

/// The whole format: one path a line, `*` for a name and `[]` for a list's items.
#[test]
fn every_attribute_of_the_format_is_known() {
    let mut unknown = Vec::new();
    for path in include_str!("../attributes.txt").lines() {
        let (mut text, mut ends) = (String::new(), String::new());
        for part in path.split('.') {
            let (name, list) = part.strip_suffix("[]").map_or((part, false), |name| (name, true));
            let name = if name == "*" { "k" } else { name };
            text += &format!("{{{name}: {}", if list { "[" } else { "" });
            ends.insert_str(0, if list { "]}" } else { "}" });
        }
        let found = load(&format!("{text}{ends}")).err().unwrap_or_default();
        unknown.extend(
            found.into_iter().filter(|d| d.message.contains("has no attribute")).map(|d| format!("{path}: {d}")),
        );
    }
    assert!(unknown.is_empty(), "{}", unknown.join("\n"));
}

proptest::proptest! {
    #[test]
    fn any_text_survives_being_written_and_read(texts in proptest::collection::vec("(\\PC|[ -~\n\t:#]){0,12}", 1..6)) {
        // Every character escaped: what goes in does not depend on what is tested.
        let escaped = |text: &str| text.chars().map(|c| format!("\\U{:08x}", u32::from(c))).collect::<String>();
        let lines: Vec<String> = texts.iter().map(|text| format!("\"{}\"", escaped(&text.replace('$', "$$")))).collect();
        let text = format!("services: {{a: {{image: x, command: [{}]}}}}", lines.join(", "));
        let once = load(&text).unwrap_or_else(|e| panic!("{}", shown(&e))).project;
        proptest::prop_assert_eq!(once.services["a"].command.as_ref(), Some(&texts));
        let yaml = once.to_yaml();
        let again = load(&yaml).unwrap_or_else(|e| panic!("{}\n{yaml}", shown(&e))).project;
        proptest::prop_assert_eq!(again.services["a"].command.as_ref(), Some(&texts), "{}", yaml);
        proptest::prop_assert_eq!(again.to_yaml(), yaml);
    }
}
