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
    resolve(fixture, compose_files(fixture)).unwrap_or_else(|errors| panic!("{}:\n{errors}", fixture.display()))
}

fn resolve(folder: &Path, files: Vec<String>) -> Result<String, String> {
    let request = Request {
        files,
        working_directory: folder.to_str().unwrap().to_owned(),
        project_name: Some("p".to_owned()),
        home: Some("/home/me".to_owned()),
        ..Request::default()
    };
    let read = |path: &str| match std::fs::read(path) {
        Ok(bytes) => FileContent::Bytes(bytes.into()),
        Err(_) => FileContent::Missing,
    };
    let loaded = load_with(request, read, |name| variables().get(name).map(|value| (*value).to_owned()));
    loaded.map(|loaded| loaded.project.to_yaml()).map_err(|errors| shown(&errors))
}

#[test]
fn resolved_fixtures_are_as_recorded() {
    for fixture in fixtures() {
        let (here, all) = (fixture.to_str().unwrap(), fixture.parent().unwrap().to_str().unwrap());
        let shown = config(&fixture).replace(here, "/app").replace(all, "/fixtures");
        expect_file![fixture.join("config.golden")].assert_eq(&shown);
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
        let files = compose_files(&fixture);
        let text = reference_config(&reference, &fixture, &files);
        let text = text.unwrap_or_else(|problem| panic!("{}: {problem}", fixture.display()));
        let name = fixture.file_name().unwrap().display().to_string();
        differing.extend(differences(&name, &text, &config(&fixture)));
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

/// `stack config | docker compose -f - config` is the same project.
#[test]
fn docker_compose_reads_what_we_print() {
    let Ok(reference) = std::env::var("SKEP_DOCKER_COMPOSE") else {
        eprintln!("skipped: SKEP_DOCKER_COMPOSE does not name docker-compose");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    for fixture in fixtures() {
        let ours = config(&fixture);
        std::fs::write(folder.path().join("compose.yml"), &ours).unwrap();
        let theirs = reference_config(&reference, folder.path(), &["compose.yml".to_owned()]);
        let theirs = theirs.unwrap_or_else(|problem| panic!("{}: {problem}\n{ours}", fixture.display()));
        let found = differences(&fixture.file_name().unwrap().display().to_string(), &theirs, &ours);
        assert!(found.is_empty(), "{}", found.join("\n"));
    }
}

/// Any folder of compose files: `SKEP_COMPOSE_CORPUS=folder cargo test -p skep-compose-spec corpus -- --nocapture`.
#[test]
fn a_corpus_resolves_as_docker_compose_resolves_it() {
    let (Ok(reference), Ok(corpus)) = (std::env::var("SKEP_DOCKER_COMPOSE"), std::env::var("SKEP_COMPOSE_CORPUS"))
    else {
        eprintln!("skipped: SKEP_DOCKER_COMPOSE and SKEP_COMPOSE_CORPUS name docker-compose and a folder");
        return;
    };
    let yaml = |path: &PathBuf| path.extension().is_some_and(|end| end == "yml" || end == "yaml");
    let (mut equal, mut refused, mut differing) = (0, 0, Vec::new());
    for path in files_below(Path::new(&corpus)).into_iter().filter(yaml) {
        let (folder, file) = (path.parent().unwrap(), path.file_name().unwrap().to_str().unwrap().to_owned());
        let theirs = reference_config(&reference, folder, std::slice::from_ref(&file));
        let ours = resolve(folder, vec![file]);
        let name = path.strip_prefix(&corpus).unwrap().display();
        match (theirs, ours) {
            (Ok(theirs), Ok(ours)) => {
                let found = differences(&name.to_string(), &theirs, &ours);
                equal += usize::from(found.is_empty());
                differing.extend(found);
            }
            (Err(theirs), Err(ours)) => {
                refused += 1;
                eprintln!("{name}: refused by both:\n{}\n{ours}", theirs.trim());
            }
            (Ok(_), Err(errors)) => differing.push(format!("{name}: only they accept:\n{errors}")),
            (Err(problem), Ok(_)) => differing.push(format!("{name}: only we accept: {}", problem.trim())),
        }
    }
    eprintln!("{equal} equal, {refused} refused by both, and:\n{}", differing.join("\n"));
}

fn reference_config(reference: &str, folder: &Path, files: &[String]) -> Result<String, String> {
    let mut command = Command::new(reference);
    command.current_dir(folder).env_clear().envs(variables()).env("HOME", "/home/me").args(["-p", "p"]);
    for file in files {
        command.args(["-f", file]);
    }
    let output = command.arg("config").output().unwrap();
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout).unwrap()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

fn differences(name: &str, theirs: &str, ours: &str) -> Vec<String> {
    let (theirs, mut ours) = (normal(theirs), normal(ours));
    ours.drop_unused(&theirs);
    let (theirs, ours) = (theirs.flat(), ours.flat());
    let only_theirs = theirs.iter().filter(|line| !ours.contains(line)).map(|line| format!("{name}: theirs {line}"));
    let only_ours = ours.iter().filter(|line| !theirs.contains(line)).map(|line| format!("{name}: ours   {line}"));
    only_theirs.chain(only_ours).collect()
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
                // How to build is not read.
                if path.ends_with(".build") {
                    map.retain(|key, _| key == "context");
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
