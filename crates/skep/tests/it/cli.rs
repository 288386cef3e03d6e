//! The command line: Docker's columns and keys, filters, and one line for what is missing.

use std::os::unix::process::CommandExt;

use serde_json::Value;
use skep_lab::{Lab, Outcome, StopSignal};

use crate::world::World;

/// The header of a listing, its columns separated as Docker separates them.
fn header(world: &World, args: &[&str]) -> Vec<String> {
    let said = world.ok(args);
    let first = said.lines().next().unwrap_or_default();
    first.split("  ").map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

#[test]
fn listings_have_dockers_columns() {
    let world = World::new();
    world.up("s", "services: { a: { <<: *idle, ports: [\"8080:80\"] } }");
    for (args, expected) in [
        (&["stack", "ls"][..], "NAME SERVICES"),
        (&["stack", "services", "s"], "ID NAME MODE REPLICAS IMAGE PORTS"),
        (&["service", "ls"], "ID NAME MODE REPLICAS IMAGE PORTS"),
        (&["stack", "ps", "s"], "ID NAME IMAGE NODE DESIRED_STATE CURRENT_STATE ERROR PORTS"),
        (&["service", "ps", "s_a"], "ID NAME IMAGE NODE DESIRED_STATE CURRENT_STATE ERROR PORTS"),
        (&["node", "ls"], "ID HOSTNAME STATUS AVAILABILITY MANAGER_STATUS ENGINE_VERSION"),
        (&["ps"], "CONTAINER_ID IMAGE COMMAND CREATED STATUS PORTS NAMES"),
        (&["network", "ls"], "NETWORK_ID NAME DRIVER SCOPE"),
        (&["volume", "ls"], "DRIVER VOLUME_NAME"),
        (&["secret", "ls"], "ID NAME DRIVER CREATED UPDATED"),
        (&["config", "ls"], "ID NAME CREATED UPDATED"),
        (&["image", "ls"], "REPOSITORY TAG IMAGE_ID CREATED SIZE"),
    ] {
        let expected: Vec<String> = expected.split(' ').map(|word| word.replace('_', " ")).collect();
        assert_eq!(header(&world, args), expected, "{args:?}");
    }
}

#[test]
fn json_is_one_object_a_line_with_dockers_keys() {
    let world = World::new();
    world.up("s", "services:\n  a: { <<: *idle }\n  b: { <<: *idle }\n");
    for (args, count, keys) in [
        (&["service", "ls"][..], 2, "ID Image Mode Name Ports Replicas"),
        (&["stack", "ps", "s"], 2, "CurrentState DesiredState Error ID Image Name Node Ports"),
        (&["stack", "ls"], 1, "Name Services"),
        (&["node", "ls"], 1, "Availability EngineVersion Hostname ID ManagerStatus Self Status TLSStatus"),
        (&["network", "ls"], 1, "CreatedAt Driver ID IPv6 Internal Labels Name Scope"),
    ] {
        let text = world.ok(&[args, &["--format", "json"]].concat());
        let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(rows.len(), count, "{args:?}: {text}");
        for key in keys.split(' ') {
            assert!(rows[0].get(key).is_some(), "{key} in {args:?}: {text}");
        }
    }
    let containers = world.ok(&["ps", "--format", "json"]);
    for line in containers.lines() {
        let container: Value = serde_json::from_str(line).unwrap();
        for key in ["ID", "Image", "Command", "CreatedAt", "RunningFor", "State", "Status", "Ports", "Names"] {
            assert!(container.get(key).is_some(), "{key}: {line}");
        }
    }
}

#[test]
fn listings_are_filtered_shortened_and_reduced_to_ids() {
    let world = World::new();
    world.up("s", "services:\n  a: { <<: *idle }\n  b: { <<: *idle }\n");
    let ids = world.ok(&["service", "ls", "-q"]);
    assert_eq!(ids.lines().map(str::len).collect::<Vec<_>>(), [12, 12]);
    let whole = world.ok(&["service", "ls", "-q", "--no-trunc"]);
    assert!(whole.lines().all(|id| id.len() == 25) && whole.starts_with(ids.lines().next().unwrap()), "{whole}");
    assert_eq!(world.ok(&["service", "ls", "--filter", "name=s_b", "--format", "{{.Name}}"]), "s_b\n");
    assert_eq!(world.ok(&["stack", "ps", "s", "--filter", "desired-state=shutdown", "-q"]), "");
    assert_eq!(world.ok(&["stack", "ps", "s", "--filter", "name=s_a", "--format", "{{.Name}}"]), "s_a.1\n");
    let wrong = world.refused(&["service", "ls", "--filter", "colour=red"]);
    assert!(wrong.contains("colour"), "{wrong}");
    // By a prefix of the id as well as by name.
    let prefix = ids.lines().next().unwrap();
    assert_eq!(world.ok(&["service", "ps", prefix, "--format", "{{.Name}}"]), "s_a.1\n");
    let missing = world.refused(&["service", "ps", "nothing"]);
    assert!(missing.contains("nothing"), "{missing}");
}

#[test]
fn help_and_versions_need_no_daemon() {
    let world = World::bare();
    let help = world.ok(&["--help"]);
    assert!(help.lines().count() <= 40, "one screen: {help}");
    for group in ["Start", "Deploy", "Look", "Mend", "Nodes"] {
        assert!(help.lines().any(|line| line == group), "{group}");
    }
    assert!(world.ok(&["--version"]).starts_with("skep "));
    let nonsense = world.skep(&["stak", "ls"]);
    assert_eq!(nonsense.code, 1, "{nonsense}");
    assert!(nonsense.stderr.contains("stack"), "a suggestion: {nonsense}");
}

#[test]
fn without_a_daemon_or_a_cluster_one_line_says_what_mends_it() {
    let world = World::bare();
    let told = world.refused(&["service", "ls"]);
    assert_eq!(told.lines().count(), 1, "{told}");
    assert!(told.contains("skep init"), "{told}");
    world.start_daemon();
    let told = world.refused(&["service", "ls"]);
    assert_eq!(told.lines().count(), 1, "{told}");
    assert!(told.contains("skep init") && told.contains("skep join"), "{told}");
    assert!(world.skep(&["info"]).is_ok());
    world.ok(&["init"]);
    let again = world.refused(&["init"]);
    assert!(again.contains("already"), "{again}");
}

#[test]
fn whoever_is_not_root_is_told_so_in_one_line() {
    let lab = Lab::builder().build().unwrap();
    // The binary lies where only root looks; a copy where everybody does.
    let copy = std::env::temp_dir().join(format!("skep-not-root-{}", lab.name()));
    std::fs::copy(env!("CARGO_BIN_EXE_skep"), &copy).unwrap();
    let run = |args: &[&str]| {
        let mut command = std::process::Command::new(&copy);
        command.args(args).env("SKEP_RUN_DIR", "/nonexistent/run").env("SKEP_DATA_DIR", "/nonexistent/data").uid(65534);
        Outcome::of(&mut command, &args.join(" ")).unwrap()
    };
    let outcomes = [run(&["daemon"]), run(&["init"])];
    std::fs::remove_file(&copy).unwrap();
    for outcome in outcomes {
        assert_eq!(outcome.code, 1, "{outcome}");
        assert_eq!(outcome.stderr.trim().lines().count(), 1, "{outcome}");
        assert!(outcome.stderr.contains("sudo skep"), "{outcome}");
    }
}

#[test]
fn a_second_daemon_is_refused() {
    let world = World::new();
    let outcome = world.skep(&["daemon"]);
    assert_eq!(outcome.code, 1, "{outcome}");
    assert!(outcome.stderr.contains("another skep daemon"), "{outcome}");
    let other = world.node().folder().join("other");
    let (data, run) = (other.join("data"), other.join("run"));
    let (data, run) = (data.to_str().unwrap(), run.to_str().unwrap());
    let outcome = world.skep(&["--data-dir", data, "--run-dir", run, "daemon"]);
    assert_eq!(outcome.code, 1, "one a network namespace, whatever its folders: {outcome}");
    assert!(outcome.stderr.contains("network namespace"), "{outcome}");
    world.ok(&["node", "ls"]);
}

#[test]
fn the_only_manager_does_not_leave_its_services_unless_forced() {
    let world = World::new();
    world.up("s", "services: { a: { <<: *idle } }");
    let told = world.refused(&["leave"]);
    assert!(told.contains("--force"), "{told}");
    world.ok(&["node", "ls"]);
    world.ok(&["leave", "--force"]);
    assert!(world.refused(&["node", "ls"]).contains("skep init"));
}

#[test]
fn a_broken_settings_file_is_told_with_its_place() {
    let world = World::bare();
    world.node().write_config("data_dri = \"/x\"\n").unwrap();
    let told = world.refused(&["init"]);
    assert!(told.contains("config.toml") && told.contains("data_dri"), "{told}");
    world.node().write_config("").unwrap();
    world.ok(&["init"]);
    world.node().kill_daemon(StopSignal::Term).unwrap();
}

#[test]
fn images_are_pulled_listed_and_removed() {
    let world = World::new();
    let name = format!("{}/busybox:1", world.images());
    world.ok(&["image", "pull", &name]);
    let listed = world.ok(&["image", "ls", "--format", "{{.Repository}}:{{.Tag}}"]);
    assert_eq!(listed, format!("{name}\n"));
    world.up("s", "services: { a: { <<: *idle } }");
    let told = world.refused(&["image", "rm", &name]);
    assert!(told.contains("s_a"), "{told}");
    world.ok(&["stack", "rm", "s"]);
    world.until("the image can be removed", || {
        let outcome = world.skep(&["image", "rm", &name]);
        if outcome.is_ok() { Ok(()) } else { Err(outcome.to_string()) }
    });
    assert_eq!(world.ok(&["image", "ls", "-q"]), "");
    let told = world.refused(&["image", "pull", &format!("{}/nosuch:1", world.images())]);
    assert!(told.contains("nosuch"), "{told}");
}
