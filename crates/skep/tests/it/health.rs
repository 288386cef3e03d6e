//! Health checks: what is not healthy does not run, and what ceases to be is replaced.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use skep_lab::images_folder;

use crate::world::World;

#[test]
fn a_task_runs_only_once_it_is_healthy_and_is_replaced_when_it_is_not_any_more() {
    let world = World::new();
    let folder = world.shared_folder("health");
    let yaml = format!(
        "services:\n  a:\n    <<: *idle\n    volumes: [\"{}:/health\"]\n\
         \x20   healthcheck: {{ test: [\"CMD-SHELL\", \"cat /health/ok || (echo no file; false)\"], interval: 200ms, retries: 3, start_period: 300s, start_interval: 100ms }}\n",
        folder.display()
    );
    world.start("s", &yaml);
    let first = world.until("the task waits for its health", || match world.tasks("s_a").as_slice() {
        [task] if task.state == "Starting" => Ok(task.clone()),
        tasks => Err(format!("{tasks:?}")),
    });
    // It stays so while it is not: exec works, and nothing counts it as running.
    world.sh("s_a.1", "true");
    assert!(world.running("s_a").is_empty());
    fs::write(folder.join("ok"), "").unwrap();
    assert_eq!(world.until_running("s_a", 1)[0].id, first.id);
    let containers = world.ok(&["ps"]);
    assert!(containers.contains("(healthy)"), "{containers}");

    fs::remove_file(folder.join("ok")).unwrap();
    world.until("the unhealthy task failed", || {
        let tasks = world.tasks("s_a");
        let failed = |task: &crate::world::Task| task.id == first.id && task.error.contains("unhealthy");
        if tasks.iter().any(failed) { Ok(()) } else { Err(format!("{tasks:?}")) }
    });
    fs::write(folder.join("ok"), "").unwrap();
    assert_ne!(world.until_running("s_a", 1)[0].id, first.id);
}

#[test]
fn a_check_that_hangs_is_a_check_that_failed() {
    let world = World::new();
    let outcome = world.deploy(
        "s",
        "services: { a: { <<: *idle, healthcheck: { test: [\"CMD\", \"sleep\", \"1000\"], interval: 100ms, timeout: 300ms, retries: 2 } } }",
    );
    assert_eq!(outcome.code, 1, "{outcome}");
    assert!(outcome.stderr.contains("unhealthy"), "{outcome}");
}

/// A blob of a registry's storage folder: its digest.
fn store(storage: &Path, content: &[u8]) -> String {
    let file = storage.join("new-blob");
    fs::write(&file, content).unwrap();
    let sum = Command::new("sha256sum").arg(&file).output().unwrap();
    let hex = String::from_utf8(sum.stdout).unwrap()[..64].to_owned();
    let folder = storage.join("docker/registry/v2/blobs/sha256").join(&hex[..2]).join(&hex);
    fs::create_dir_all(&folder).unwrap();
    fs::rename(file, folder.join("data")).unwrap();
    hex
}

fn link(repository: &Path, place: &str, hex: &str) {
    let folder = repository.join(place);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("link"), format!("sha256:{hex}")).unwrap();
}

/// Gives a storage folder's `busybox:1` a health check, in the place of the image as it was.
fn check_images_health(storage: &Path, check: &Value) {
    let repository = storage.join("docker/registry/v2/repositories/library/busybox");
    let blob = |digest: &str| {
        let hex = digest.trim().trim_start_matches("sha256:");
        storage.join("docker/registry/v2/blobs/sha256").join(&hex[..2]).join(hex).join("data")
    };
    let read = |digest: &str| -> Value { serde_json::from_slice(&fs::read(blob(digest)).unwrap()).unwrap() };
    let tag = repository.join("_manifests/tags/1/current");
    let mut manifest = read(&fs::read_to_string(tag.join("link")).unwrap());
    let mut config = read(manifest["config"]["digest"].as_str().expect("the tag is one image"));
    config["config"]["Healthcheck"] = check.clone();
    let config = serde_json::to_vec(&config).unwrap();
    let hex = store(storage, &config);
    link(&repository, &format!("_layers/sha256/{hex}"), &hex);
    manifest["config"]["digest"] = json!(format!("sha256:{hex}"));
    manifest["config"]["size"] = json!(config.len());
    let hex = store(storage, &serde_json::to_vec(&manifest).unwrap());
    link(&repository, &format!("_manifests/revisions/sha256/{hex}"), &hex);
    link(&repository, &format!("_manifests/tags/1/index/sha256/{hex}"), &hex);
    fs::remove_file(tag.join("link")).unwrap();
    link(&repository, "_manifests/tags/1/current", &hex);
}

#[test]
fn an_images_own_check_counts_unless_the_service_switches_it_off() {
    let mut world = World::new();
    world.stop_registry();
    let storage = world.node().folder().join("checked");
    let copied = Command::new("cp").arg("-al").arg(images_folder().unwrap()).arg(&storage).status().unwrap();
    assert!(copied.success());
    // In nanoseconds, as an image's configuration has it.
    let check = json!({ "Test": ["CMD-SHELL", "echo never; false"], "Interval": 200_000_000, "Retries": 2 });
    check_images_health(&storage, &check);
    world.serve(&storage);
    let outcome = world.deploy("s", "services: { a: { <<: *idle } }");
    assert_eq!(outcome.code, 1, "{outcome}");
    assert!(outcome.stderr.contains("unhealthy container: the last check gave 1: never"), "{outcome}");
    world.up("s", "services: { a: { <<: *idle, healthcheck: { disable: true } } }");
    let containers = world.ok(&["ps"]);
    assert!(!containers.contains("health"), "{containers}");
}
