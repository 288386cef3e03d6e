//! What stays in the store and what goes: crashes, collection, names, archives.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::json;
use skep_image::{Digest, ErrorKind, Image, ImageError, ImageStore, Names, Platform, RegistryConfig, Roots};

use crate::build::{Blob, Layer, Layout, archive_of, digest, gzipped, plain};
use crate::programs::{leftovers, program, run, scratch, skopeo_copy};
use crate::pull::{amd64, open, reference};
use crate::registry::Registry;

fn layer(content: &str) -> Blob {
    gzipped(&Layer::new().file("f", content.as_bytes()))
}

async fn load(store: &ImageStore, name: &str, layers: &[Blob]) -> Image {
    let mut layout = Layout::new();
    layout.image(name, "amd64", json!({}), layers);
    store.load(std::io::Cursor::new(layout.archive()), &amd64()).await.unwrap().remove(0).image
}

fn layers_in(dir: &Path) -> usize {
    fs::read_dir(dir.join("layers")).unwrap().count()
}

#[tokio::test]
async fn collection_keeps_what_names_roots_and_holders_need() {
    let dir = scratch();
    let store = open(dir.path()).await;
    let shared = || layer("shared");
    let one = load(&store, "demo.test/one:v1", &[shared(), layer("1")]).await;
    let two = load(&store, "demo.test/two:v1", &[shared(), layer("2")]).await;
    let three = load(&store, "demo.test/three:v1", &[layer("3")]).await;
    assert_eq!(layers_in(dir.path()), 4);
    let nothing = store.gc(&Roots::default()).await.unwrap();
    assert_eq!(nothing.layers, 0, "names keep their images");

    store.remove(&one.reference).unwrap();
    assert_eq!(store.gc(&Roots::default()).await.unwrap().layers, 0, "somebody holds the image");
    let id = one.id;
    drop(one);
    let roots = Roots { in_use: BTreeSet::from([id]), names: Names::Keep };
    assert_eq!(store.gc(&roots).await.unwrap().layers, 0, "a root by image id");
    let collected = store.gc(&Roots::default()).await.unwrap();
    assert_eq!((collected.layers, layers_in(dir.path())), (1, 3), "the shared layer stays");
    assert!(collected.freed_bytes > 0);

    let old = Roots {
        in_use: BTreeSet::from([two.digest]),
        names: Names::DropUnusedBefore(SystemTime::now() - Duration::from_secs(3600)),
    };
    assert_eq!(store.gc(&old).await.unwrap().names, []);
    let (two_digest, three_name) = (two.digest, three.reference.clone());
    drop((two, three));
    let now = SystemTime::now() + Duration::from_secs(5);
    let all = Roots { in_use: BTreeSet::from([two_digest]), names: Names::DropUnusedBefore(now) };
    let collected = store.gc(&all).await.unwrap();
    assert_eq!((collected.names, collected.layers), (vec![three_name], 1));
    assert!(store.find(&reference("demo.test/two:v1")).unwrap().is_some());
    let last = store.gc(&Roots { names: Names::DropUnusedBefore(now), ..Roots::default() }).await.unwrap();
    assert_eq!((last.layers, layers_in(dir.path())), (2, 0));
    assert_eq!(fs::read_dir(dir.path().join("blobs/sha256")).unwrap().count(), 0);
    assert_eq!(leftovers(dir.path()), [""; 0]);
}

#[tokio::test]
async fn collections_beside_pulls_take_nothing_from_them() {
    let dir = scratch();
    let store = open(dir.path()).await;
    let collecting = async {
        for _ in 0..40 {
            let now = SystemTime::now() + Duration::from_secs(5);
            store.gc(&Roots { names: Names::DropUnusedBefore(now), ..Roots::default() }).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let loading = async {
        for _ in 0..20 {
            let image = load(&store, "demo.test/app:v1", &[layer("a"), layer("b")]).await;
            assert!(image.layers.iter().all(|layer| layer.join("f").is_file()));
        }
    };
    tokio::join!(collecting, loading);
}

#[tokio::test]
async fn names_can_be_added_and_removed() {
    let dir = scratch();
    let store = open(dir.path()).await;
    let image = load(&store, "demo.test/app:v1", &[layer("1")]).await;
    let (name, other) = (reference("demo.test/app:v1"), reference("mine/app:stable"));
    store.tag(&name, &other).unwrap();
    let listed: Vec<_> = store.list().unwrap().into_iter().map(|s| (s.repository, s.tag, s.id)).collect();
    assert_eq!(
        listed,
        [("demo.test/app".into(), Some("v1".into()), image.id), ("mine/app".into(), Some("stable".into()), image.id)]
    );
    assert_eq!(store.remove(&name).unwrap(), std::slice::from_ref(&name));
    assert!(store.find(&name).unwrap().is_none());
    assert_eq!(store.find(&other).unwrap().unwrap().id, image.id);
    assert!(matches!(store.remove(&name), Err(ImageError::NotHere { .. })));
    assert!(matches!(store.tag(&name, &other), Err(ImageError::NotHere { .. })));
    // By digest under its repository, whatever the tag.
    let by_digest = reference("mine/app:latest").with_digest(image.digest);
    assert_eq!(store.remove(&by_digest).unwrap(), [other]);
}

#[tokio::test]
async fn what_a_crash_left_is_dropped_at_the_next_start() {
    let dir = scratch();
    let image = {
        let store = open(dir.path()).await;
        let image = load(&store, "demo.test/app:v1", &[layer("1"), layer("2")]).await;
        store.flush().await;
        image
    };
    let [survivor, lost] = &image.layers[..] else { panic!("two layers") };
    let lost = lost.parent().unwrap();
    // As after a power cut: the machine was started again before the second layer was synced.
    fs::remove_file(lost.join("durable")).unwrap();
    let meta = fs::read_to_string(lost.join("meta.json")).unwrap();
    let mut meta: serde_json::Value = serde_json::from_str(&meta).unwrap();
    meta["boot"] = json!("another");
    fs::write(lost.join("meta.json"), meta.to_string()).unwrap();
    fs::create_dir_all(dir.path().join("tmp/tmp-7/fs/half")).unwrap();
    let name = image.reference.clone();
    let (survivor, lost) = (survivor.clone(), lost.to_owned());
    drop(image);

    let store = reopen(dir.path()).await;
    assert_eq!(leftovers(dir.path()), [""; 0]);
    assert!(survivor.is_dir() && !lost.exists());
    assert!(store.find(&name).unwrap().is_none(), "an incomplete image is not here");
    assert_eq!(store.list().unwrap(), []);
    load(&store, "demo.test/app:v1", &[layer("1"), layer("2")]).await;
    assert!(store.find(&name).unwrap().is_some());
}

#[tokio::test]
async fn damaged_small_files_count_as_absent() {
    let dir = scratch();
    let image = {
        let store = open(dir.path()).await;
        let image = load(&store, "demo.test/app:v1", &[layer("1")]).await;
        store.flush().await;
        image
    };
    let name = image.reference.clone();
    let config = dir.path().join("blobs/sha256").join(image.id.hex());
    drop(image);
    fs::write(&config, "").unwrap();
    for entry in fs::read_dir(dir.path().join("refs")).unwrap() {
        fs::write(entry.unwrap().path(), "{").unwrap();
    }
    let store = reopen(dir.path()).await;
    assert!(store.find(&name).unwrap().is_none());
    store.gc(&Roots::default()).await.unwrap();
    assert_eq!(layers_in(dir.path()), 0);
}

/// The last holder of an image or a background sync may keep the store a moment longer than its name.
async fn reopen(dir: &Path) -> ImageStore {
    loop {
        match ImageStore::open(dir, RegistryConfig::default()).await {
            Err(ImageError::Locked { .. }) => tokio::task::yield_now().await,
            outcome => return outcome.unwrap(),
        }
    }
}

#[tokio::test]
async fn a_store_is_opened_once_and_only_in_its_format() {
    let dir = scratch();
    let store = open(dir.path()).await;
    let second = ImageStore::open(dir.path(), RegistryConfig::default()).await;
    assert!(matches!(second, Err(ImageError::Locked { .. })));
    drop(store);
    fs::write(dir.path().join("format"), "999\n").unwrap();
    let error = ImageStore::open(dir.path(), RegistryConfig::default()).await.err().unwrap();
    assert!(error.to_string().contains("999"), "{error}");
}

#[tokio::test]
async fn an_index_is_pinned_and_each_platform_found_under_it() {
    let registry = Registry::start();
    let mut layout = Layout::new();
    let amd = layout.image("amd", "amd64", json!({}), &[layer("amd64")]);
    let arm = layout.image("arm", "arm64", json!({}), &[layer("arm64")]);
    let index = layout.index("multi", &[amd, arm]);
    let name = registry.name("multi:v1");
    layout.push("multi", &name);
    let dir = scratch();
    let store = open(dir.path()).await;
    let resolved = store.resolve(&reference(&name), None).await.unwrap();
    assert_eq!(resolved.digest.to_string(), index);
    let names: Vec<String> = resolved.platforms.iter().map(Platform::to_string).collect();
    assert_eq!(names, ["linux/amd64", "linux/arm64"]);

    let pinned = reference(&name).with_digest(resolved.digest);
    for (platform, content) in [("linux/arm64", "arm64"), ("linux/amd64", "amd64")] {
        let image = store.pull(&pinned, None, &[platform.parse().unwrap()], |_| {}).await.unwrap();
        assert_eq!(fs::read_to_string(image.layers[0].join("f")).unwrap(), content);
        assert_eq!(image.digest, resolved.digest);
        assert_ne!(image.manifest, resolved.digest);
    }
    let riscv = ["linux/riscv64".parse().unwrap()];
    let error = store.pull(&pinned, None, &riscv, |_| {}).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoPlatform);
    assert!(error.to_string().contains("linux/riscv64: it offers linux/amd64, linux/arm64"), "{error}");
}

#[tokio::test]
async fn archives_of_docker_and_oci_load_with_their_names() {
    let dir = scratch();
    let store = open(&dir.path().join("store")).await;
    let mut layout = Layout::new();
    // The same layer twice: overlayfs must not get it twice.
    let twice = [layer("same"), layer("other"), layer("same")];
    layout.image("v1", "amd64", json!({ "Cmd": ["/f"] }), &twice);
    let from = format!("oci:{}:v1", layout.path().display());
    let docker = dir.path().join("docker.tar");
    skopeo_copy(&[&from, &format!("docker-archive:{}:demo.test/docker:v1", docker.display())]);
    let oci = dir.path().join("oci.tar");
    skopeo_copy(&[&from, &format!("oci-archive:{}:demo.test/oci:v1", oci.display())]);
    run(program("gzip", "gzip").arg(&docker));

    let gz = fs::File::open(dir.path().join("docker.tar.gz")).unwrap();
    let docker = store.load(gz, &amd64()).await.unwrap();
    assert_eq!(docker[0].reference.to_string(), "demo.test/docker:v1");
    assert_eq!(docker[0].image.config.cmd, ["/f"]);
    assert_eq!(docker[0].image.layers.len(), 2);
    assert_eq!(fs::read_to_string(docker[0].image.layers[1].join("f")).unwrap(), "same");
    let oci = store.load(fs::File::open(oci).unwrap(), &amd64()).await.unwrap();
    assert_eq!(oci[0].reference.to_string(), "demo.test/oci:v1");
    assert_eq!(oci[0].image.layers, docker[0].image.layers, "layers are shared whatever brought them");
    assert_eq!(store.list().unwrap().len(), 2);
}

#[tokio::test]
async fn unusable_archives_are_explained() {
    let dir = scratch();
    let store = open(dir.path()).await;
    let load = async |bytes: Vec<u8>| {
        let error = store.load(std::io::Cursor::new(bytes), &amd64()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        crate::protocol::chain(&error)
    };
    assert!(load(b"no archive at all".to_vec()).await.contains("not a valid tar"));
    assert!(load(Layer::new().file("x", b"").tar()).await.contains("names no image"));
    let mut nameless = Layout::new();
    nameless.image("v1", "amd64", json!({}), &[layer("1")]);
    assert!(load(nameless.archive()).await.contains("names no image"));
    // One byte of the layer differs.
    let blob = plain(&Layer::new().file("f", b"original"));
    let damaged = blob.bytes.iter().map(|b| if *b == b'g' { b'G' } else { *b }).collect::<Vec<u8>>();
    let digest_of_blob = digest(&blob.bytes);
    let original = blob.bytes.clone();
    let archive = archive_of(&[blob]);
    let at = archive.windows(original.len()).position(|window| window == original).unwrap();
    let mut archive = archive;
    archive[at..at + original.len()].copy_from_slice(&damaged);
    assert!(load(archive).await.contains(&format!("{digest_of_blob} is missing or damaged")));
    assert!(digest_of_blob.parse::<Digest>().is_ok());
}
