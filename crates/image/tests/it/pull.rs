//! Pulls from a real registry.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::sync::Mutex;

use serde_json::json;
use skep_image::{ErrorKind, ImageStore, Platform, Progress, Reference, RegistryConfig};

use crate::build::{Layer, Layout, gzipped, plain, zstd};
use crate::programs::{leftovers, scratch};
use crate::registry::Registry;

pub fn amd64() -> Vec<Platform> {
    vec!["linux/amd64".parse().unwrap()]
}

pub async fn open(dir: &std::path::Path) -> ImageStore {
    ImageStore::open(dir, RegistryConfig::default()).await.unwrap()
}

pub fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

#[tokio::test]
async fn an_image_becomes_folders_for_overlayfs() {
    let registry = Registry::start();
    let mut layout = Layout::new();
    let base = Layer::new()
        .dir("./")
        .dir("etc/")
        .file("etc/passwd", b"root:x:0:0::/root:/bin/sh\n")
        .dir("old/")
        .file("old/file", b"x");
    let middle = Layer::new().dir("data/").file("data/zstd", b"compressed with zstd");
    let top = Layer::new().dir("etc/").file("etc/.wh.passwd", b"").file(".wh.old", b"").file("hello", b"world");
    let process = json!({ "Env": ["PATH=/bin"], "Cmd": ["/bin/true"], "User": "7:8", "StopSignal": "SIGQUIT" });
    layout.image("v1", "amd64", process, &[gzipped(&base), zstd(&middle), plain(&top)]);
    let name = registry.name("demo:v1");
    layout.push("v1", &name);

    let dir = scratch();
    let store = open(dir.path()).await;
    let resolved = store.resolve(&reference(&name), None).await.unwrap();
    assert_eq!(resolved.platforms, amd64());
    let events = Mutex::new(Vec::new());
    let image =
        store.pull(&reference(&name), None, &amd64(), |event| events.lock().unwrap().push(event)).await.unwrap();

    assert_eq!(image.digest, resolved.digest);
    assert_eq!(image.config.env, ["PATH=/bin"]);
    assert_eq!(image.config.user, "7:8");
    assert_eq!(image.config.stop_signal.as_deref(), Some("SIGQUIT"));
    let [base, middle, top] = &image.layers[..] else { panic!("three layers: {image:?}") };
    assert_eq!(fs::read(middle.join("data/zstd")).unwrap(), b"compressed with zstd");
    assert_eq!(fs::read(top.join("hello")).unwrap(), b"world");
    assert_eq!(fs::metadata(base.join("etc/passwd")).unwrap().permissions().mode() & 0o7777, 0o644);
    for whiteout in ["etc/passwd", "old"] {
        let meta = fs::symlink_metadata(top.join(whiteout)).unwrap();
        assert_eq!((meta.mode() & 0o170000, meta.rdev()), (0o020000, 0), "{whiteout} is a whiteout");
    }
    let events = events.into_inner().unwrap();
    assert!(matches!(events[0], Progress::Resolved { layers: 3, .. }));
    assert_eq!(events.iter().filter(|event| matches!(event, Progress::Unpacked { .. })).count(), 3);
    assert_eq!(leftovers(dir.path()), [""; 0]);

    let summary = store.list().unwrap();
    assert_eq!((summary.len(), summary[0].tag.as_deref(), summary[0].id), (1, Some("v1"), image.id));
}

#[tokio::test]
async fn an_image_that_is_here_by_digest_needs_no_registry() {
    let mut registry = Registry::start();
    let mut layout = Layout::new();
    layout.image("v1", "amd64", json!({}), &[gzipped(&Layer::new().file("a", b"1"))]);
    let name = registry.name("demo:v1");
    layout.push("v1", &name);
    let dir = scratch();
    let store = open(dir.path()).await;
    let image = store.pull(&reference(&name), None, &amd64(), |_| {}).await.unwrap();
    registry.stop();

    let pinned = reference(&name).with_digest(image.digest);
    assert_eq!(store.find(&pinned).unwrap().unwrap().id, image.id);
    assert_eq!(store.find(&reference(&name)).unwrap().unwrap().id, image.id);
    assert_eq!(store.pull(&pinned, None, &amd64(), |_| {}).await.unwrap().layers, image.layers);
    let error = store.pull(&reference(&name), None, &amd64(), |_| {}).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
}

#[tokio::test]
async fn what_does_not_exist_is_said_so() {
    let registry = Registry::start();
    let dir = scratch();
    let store = open(dir.path()).await;
    let error = store.pull(&reference(&registry.name("none:v9")), None, &amd64(), |_| {}).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
    assert!(error.to_string().contains("none:v9"), "{error}");
    assert!(error.to_string().contains("manifest unknown"), "{error}");
}

#[tokio::test]
async fn work_on_images_can_be_given_to_other_threads() {
    let dir = scratch();
    let store = open(dir.path()).await;
    let name = reference("127.0.0.1:9/none:v1");
    let pulling = tokio::spawn({
        let (store, name) = (store.clone(), name.clone());
        async move { store.pull(&name, None, &Platform::host(), |_| {}).await.is_err() }
    });
    let resolving = tokio::spawn({
        let (store, name) = (store.clone(), name.clone());
        async move { store.resolve(&name, None).await.is_err() }
    });
    let loading = tokio::spawn({
        let store = store.clone();
        async move { store.load(std::io::empty(), &Platform::host()).await.is_err() }
    });
    assert!(pulling.await.unwrap() && resolving.await.unwrap() && loading.await.unwrap());
}
