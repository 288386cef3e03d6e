//! Our resolved project against `docker compose config`'s, over a folder of fixtures.
//!
//! Each fixture is a folder under tests/fixtures with compose.yml and its golden `config.yml`, which is
//! always compared; where the reference implementation is there (`SKEP_DOCKER_COMPOSE` names it), its
//! output is compared, too, as a tree.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use expect_test::expect_file;
use skep_compose_spec::{FileContent, Request, load_with};

use crate::shown;

fn fixtures() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut all: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.sort();
    all
}

/// Every compose file of a fixture, in the order of their names.
fn compose_files(fixture: &Path) -> Vec<String> {
    let names = std::fs::read_dir(fixture).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut files: Vec<String> = names.filter(|name| name.starts_with("compose") && name.ends_with(".yml")).collect();
    files.sort();
    files
}

fn variables() -> BTreeMap<&'static str, &'static str> {
    BTreeMap::from([("OUTSIDE", "from outside"), ("EMPTY", ""), ("TAG", "1.27")])
}

fn config(fixture: &Path) -> String {
    let request = Request {
        files: compose_files(fixture),
        working_directory: fixture.to_str().unwrap().to_owned(),
        project_name: Some("p".to_owned()),
        home: Some("/home/me".to_owned()),
        ..Request::default()
    };
    let read = |path: &str| match std::fs::read(path) {
        Ok(bytes) => FileContent::Bytes(bytes.into()),
        Err(_) => FileContent::Missing,
    };
    let loaded = load_with(request, read, |name| variables().get(name).map(|value| (*value).to_owned()));
    let loaded = loaded.unwrap_or_else(|errors| panic!("{}:\n{}", fixture.display(), shown(&errors)));
    loaded.project.to_yaml()
}

#[test]
fn resolved_fixtures_are_as_recorded() {
    for fixture in fixtures() {
        let here = fixture.to_str().unwrap();
        expect_file![fixture.join("config.golden")].assert_eq(&config(&fixture).replace(here, "/app"));
    }
}

#[test]
fn a_resolved_project_resolves_to_itself() {
    for fixture in fixtures() {
        let once = config(&fixture);
        let world = crate::World::new().file("compose.yml", &once);
        let world = fixtures().iter().flat_map(|f| files_below(f)).fold(world, |world, path| {
            let text = std::fs::read_to_string(&path).unwrap();
            world.file(path.to_str().unwrap(), &text)
        });
        let again = world.variable("OUTSIDE", "from outside").load(&["compose.yml"]);
        let again = again.unwrap_or_else(|errors| panic!("{}:\n{}\n{once}", fixture.display(), shown(&errors)));
        assert_eq!(again.project.to_yaml(), once, "{}", fixture.display());
    }
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

/// What the reference prints and we leave out, or the reverse, meaning the same.
fn normal(text: &str) -> Tree {
    let mut tree = Tree::read(text);
    tree.normalize("");
    tree
}

#[test]
fn fixtures_resolve_as_docker_compose_resolves_them() {
    let Ok(reference) = std::env::var("SKEP_DOCKER_COMPOSE") else {
        eprintln!("skipped: SKEP_DOCKER_COMPOSE does not name docker-compose");
        return;
    };
    let mut differing = Vec::new();
    for fixture in fixtures() {
        let mut command = Command::new(&reference);
        command.current_dir(&fixture).env_clear().envs(variables()).env("HOME", "/home/me").args(["-p", "p"]);
        for file in compose_files(&fixture) {
            command.args(["-f", &file]);
        }
        let output = command.arg("config").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let problem = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{}: {problem}", fixture.display());
        let (theirs, mut ours) = (normal(&text), normal(&config(&fixture)));
        ours.drop_unused(&theirs);
        let (theirs, ours) = (theirs.flat(), ours.flat());
        for line in theirs.iter().filter(|line| !ours.contains(line)) {
            differing.push(format!("{}: only theirs: {line}", fixture.file_name().unwrap().display()));
        }
        for line in ours.iter().filter(|line| !theirs.contains(line)) {
            differing.push(format!("{}: only ours: {line}", fixture.file_name().unwrap().display()));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

/// YAML for comparison: what a plain reader makes of it, scalars as text.
#[derive(Debug, Clone, PartialEq)]
enum Tree {
    Scalar(String),
    List(Vec<Tree>),
    Map(BTreeMap<String, Tree>),
}

impl Tree {
    fn read(text: &str) -> Tree {
        use saphyr_parser::{Event, Parser};
        let mut events = Parser::new_from_str(text).map(|event| event.unwrap().0).filter(|event| {
            !matches!(event, Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::StreamEnd)
        });
        fn node<'t>(first: Event<'t>, events: &mut impl Iterator<Item = Event<'t>>) -> Tree {
            match first {
                Event::Scalar(text, ..) => Tree::Scalar(text.into_owned()),
                Event::SequenceStart(..) => {
                    let mut items = Vec::new();
                    loop {
                        match events.next().unwrap() {
                            Event::SequenceEnd => return Tree::List(items),
                            event => items.push(node(event, events)),
                        }
                    }
                }
                Event::MappingStart(..) => {
                    let mut map = BTreeMap::new();
                    loop {
                        match events.next().unwrap() {
                            Event::MappingEnd => return Tree::Map(map),
                            Event::Scalar(key, ..) => {
                                let event = events.next().unwrap();
                                map.insert(key.into_owned(), node(event, events));
                            }
                            other => panic!("{other:?}"),
                        }
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        let first = events.next().unwrap();
        node(first, &mut events)
    }

    fn normalize(&mut self, path: &str) {
        match self {
            Tree::Scalar(_) => {}
            Tree::List(items) => {
                for item in items.iter_mut() {
                    item.normalize(path);
                }
            }
            Tree::Map(map) => {
                map.retain(|key, _| !key.starts_with("x-"));
                // The default, which is printed by some versions only.
                map.retain(|key, value| !(key == "create_host_path" && *value == Tree::Scalar("false".to_owned())));
                if path.ends_with(".healthcheck") && map.get("disable") == Some(&Tree::Scalar("true".to_owned())) {
                    map.remove("test");
                }
                // Older attributes that we fold into `deploy`.
                let parts: Vec<&str> = path.split('.').collect();
                if parts.len() == 3 && parts[1] == "services" {
                    for (old, new) in [
                        ("cpus", "deploy.resources.limits.cpus"),
                        ("mem_limit", "deploy.resources.limits.memory"),
                        ("mem_reservation", "deploy.resources.reservations.memory"),
                        ("pids_limit", "deploy.resources.limits.pids"),
                        ("scale", "deploy.replicas"),
                    ] {
                        if let Some(value) = map.remove(old) {
                            put(map, &new.split('.').collect::<Vec<_>>(), value);
                        }
                    }
                    // Printed by some versions only.
                    for empty in ["command", "entrypoint"] {
                        if map.get(empty) == Some(&Tree::Scalar("null".to_owned())) {
                            map.remove(empty);
                        }
                    }
                }
                for (key, value) in map.iter_mut() {
                    value.normalize(&format!("{path}.{key}"));
                }
                let hollow = |tree: &Tree| matches!(tree, Tree::Map(map) if map.is_empty());
                map.retain(|_, value| !hollow(value));
            }
        }
    }

    /// The reference leaves out what no service uses.
    fn drop_unused(&mut self, theirs: &Tree) {
        let (Tree::Map(ours), Tree::Map(theirs)) = (self, theirs) else { panic!("a project is a mapping") };
        for section in ["networks", "volumes", "secrets", "configs"] {
            let Some(Tree::Map(all)) = ours.get_mut(section) else { continue };
            all.retain(|key, _| matches!(theirs.get(section), Some(Tree::Map(used)) if used.contains_key(key)));
        }
    }

    fn flat(&self) -> Vec<String> {
        match self {
            Tree::Scalar(text) => vec![format!(" = {text}")],
            Tree::List(items) => items
                .iter()
                .enumerate()
                .flat_map(|(i, item)| item.flat().into_iter().map(move |line| format!(".{i}{line}")))
                .collect(),
            Tree::Map(map) => map
                .iter()
                .flat_map(|(key, value)| value.flat().into_iter().map(move |line| format!(".{key}{line}")))
                .collect(),
        }
    }
}

fn put(map: &mut BTreeMap<String, Tree>, path: &[&str], value: Tree) {
    match path {
        [] => {}
        [last] => {
            map.insert((*last).to_owned(), value);
        }
        [first, rest @ ..] => {
            let inner = map.entry((*first).to_owned()).or_insert_with(|| Tree::Map(BTreeMap::new()));
            if let Tree::Map(inner) = inner {
                put(inner, rest, value);
            }
        }
    }
}
