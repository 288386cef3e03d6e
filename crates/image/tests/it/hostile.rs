//! Archives built to reach out of their layer. Whatever they say, nothing outside the layer's folder changes,
//! and a refused layer leaves nothing.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use skep_image::{ErrorKind, ImageStore, Limits, RegistryConfig};
use tar::EntryType;

use crate::build::{Blob, DIR, Layer, META, Meta, archive_of, gzipped, plain, zstd};
use crate::programs::{Scratch, leftovers, scratch};
use crate::protocol::chain;
use crate::pull::amd64;

/// A folder with a store in it, and things beside the store that archives aim at.
struct Stage {
    dir: Scratch,
    before: BTreeMap<PathBuf, String>,
}

/// What a layer came to: the folder, or the error's messages.
type Outcome = Result<PathBuf, String>;

impl Stage {
    fn new() -> Stage {
        let dir = scratch();
        let victim = dir.path().join("victim");
        fs::create_dir_all(victim.join("sub")).unwrap();
        fs::write(victim.join("file"), "untouched").unwrap();
        fs::set_permissions(victim.join("file"), fs::Permissions::from_mode(0o600)).unwrap();
        let before = snapshot(dir.path());
        Stage { dir, before }
    }

    /// The folder that archives try to reach, as an absolute path.
    fn victim(&self) -> String {
        self.dir.path().join("victim").display().to_string()
    }

    async fn load(&self, blob: Blob) -> Outcome {
        self.load_with(blob, Limits::default()).await
    }

    async fn load_with(&self, blob: Blob, limits: Limits) -> Outcome {
        let root = self.dir.path().join("store");
        let store = ImageStore::open_with(&root, RegistryConfig::default(), limits).await.unwrap();
        let layers = || fs::read_dir(root.join("layers")).unwrap().count();
        let layers_before = layers();
        let archive = archive_of(&[blob]);
        let outcome = store.load(std::io::Cursor::new(archive), &amd64()).await;
        store.flush().await;
        assert_eq!(snapshot(self.dir.path()), self.before, "something outside the store changed");
        assert_eq!(leftovers(&root), [""; 0], "nothing is left in tmp/");
        match outcome {
            Ok(loaded) => Ok(loaded[0].image.layers.first().cloned().unwrap_or_default()),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Invalid, "{}", chain(&error));
                assert_eq!(layers(), layers_before, "no layer of a refused image");
                Err(chain(&error))
            }
        }
    }

    async fn refused(&self, layer: Layer, because: &str) {
        let outcome = self.load(plain(&layer)).await;
        let error = outcome.expect_err("the layer is refused");
        assert!(error.contains(because), "expected `{because}` in: {error}");
    }

    async fn accepted(&self, layer: Layer) -> PathBuf {
        self.load(plain(&layer)).await.expect("the layer is harmless")
    }
}

/// Everything beside the store: kind, mode, owner, links, times, content.
fn snapshot(dir: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut queue = vec![dir.to_owned()];
    while let Some(folder) = queue.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path == dir.join("store") {
                continue;
            }
            let meta = fs::symlink_metadata(&path).unwrap();
            let content = if meta.is_file() { fs::read_to_string(&path).unwrap() } else { String::new() };
            let text = format!(
                "{:o} {}:{} links {} mtime {}.{} ctime {}.{} {content}",
                meta.mode(),
                meta.uid(),
                meta.gid(),
                meta.nlink(),
                meta.mtime(),
                meta.mtime_nsec(),
                meta.ctime(),
                meta.ctime_nsec(),
            );
            if meta.is_dir() {
                queue.push(path.clone());
            }
            found.insert(path, text);
        }
    }
    found
}

const UP: &str = "../../../../../../../../../../../../../..";

#[tokio::test]
async fn names_that_lead_out_are_refused() {
    let stage = Stage::new();
    for name in ["../escape", "/../escape", "a/../../escape", "./../victim/file", ".."] {
        stage.refused(Layer::new().file(name, b"x"), "leads out of the layer").await;
        stage.refused(Layer::new().dir(name), "leads out of the layer").await;
        stage.refused(Layer::new().link(name, "a"), "leads out of the layer").await;
        stage.refused(Layer::new().pax(&[("path", name.as_bytes())]).file("ok", b"x"), "leads out of the layer").await;
        stage.refused(Layer::new().long_name(name).file("ok", b"x"), "leads out of the layer").await;
    }
    stage.refused(Layer::new().pax(&[("path", b"a\0b")]).file("ok", b"x"), "leads out of the layer").await;
    let inside = stage.accepted(Layer::new().file("/absolute/a/./b/../c", b"x")).await;
    assert!(inside.join("absolute/a/c").is_file());
}

#[tokio::test]
async fn files_through_symlinks_stay_inside() {
    let stage = Stage::new();
    let victim = stage.victim();
    for target in
        [victim.clone(), format!("{UP}{victim}"), format!("/proc/self/root{victim}"), format!("/proc/1/root{victim}")]
    {
        for below in ["link/file", "link/new", "link/sub/deep/new"] {
            let layer = Layer::new().symlink("link", &target).file(below, b"overwritten");
            stage.refused(layer, "leads nowhere within the layer").await;
        }
        // The target exists within the layer: then that is what the name means.
        let layer = Layer::new().dir(&target).symlink("link", &target).file("link/new", b"inside");
        let root = match stage.load(plain(&layer)).await {
            Ok(root) => root,
            Err(error) => {
                assert!(error.contains("leads out") && target.starts_with(".."), "{error}");
                continue;
            }
        };
        let within = root.join(target.trim_start_matches('/')).join("new");
        assert_eq!(fs::read(within).unwrap(), b"inside");
    }
    let root = stage
        .accepted(Layer::new().symlink("root", "/").symlink("up", UP).file("root/a", b"1").file("up/b", b"2"))
        .await;
    assert!(root.join("a").is_file() && root.join("b").is_file(), "`/` and `..` end at the layer's root");
}

#[tokio::test]
async fn chains_and_loops_of_symlinks_stay_inside() {
    let stage = Stage::new();
    let chained = Layer::new().symlink("a", "b").symlink("b", "c").symlink("c", &stage.victim()).file("a/new", b"x");
    stage.refused(chained, "leads nowhere within the layer").await;
    let looped = Layer::new().symlink("a", "b").symlink("b", "a").file("a/new", b"x");
    stage.refused(looped, "`a`").await;
    let nested = Layer::new().dir("d").symlink("d/up", "..").symlink("d/up/out", &stage.victim()).file("out/new", b"x");
    stage.refused(nested, "leads nowhere within the layer").await;
}

#[tokio::test]
async fn a_parent_that_becomes_a_symlink_is_not_followed() {
    let stage = Stage::new();
    let layer = Layer::new().dir("d").file("d/a", b"1").symlink("d", &stage.victim()).file("d/new", b"x");
    stage.refused(layer, "leads nowhere within the layer").await;
    let layer = Layer::new().dir("p/q").file("p/q/a", b"1").symlink("p", &stage.victim()).file("p/q/a", b"x");
    stage.refused(layer, "leads nowhere within the layer").await;
    let back = Layer::new().symlink("d", &stage.victim()).dir("d").file("d/new", b"x");
    assert!(stage.accepted(back).await.join("d/new").is_file(), "a folder replaces the link");
}

#[tokio::test]
async fn hard_links_to_the_outside_are_refused() {
    let stage = Stage::new();
    let victim = format!("{}/file", stage.victim());
    stage.refused(Layer::new().link("x", &format!("{UP}{victim}")), "hard link leads out").await;
    stage.refused(Layer::new().link("x", &victim), "neither its layer nor those below").await;
    let through = Layer::new().symlink("l", &stage.victim()).link("x", "l/file");
    stage.refused(through, "neither its layer nor those below").await;
    stage.refused(Layer::new().link("x", ""), "hard link leads out").await;
    stage.refused(Layer::new().link("x", "x"), "hard link to itself").await;
    stage.refused(Layer::new().dir("d").link("x", "d"), "failed to make a hard link").await;
    // A link to the link itself, then content "through" it: the name is replaced, not the target written.
    let write = Layer::new().symlink("l", &victim).link("x", "l").file("x", b"overwritten").file("l", b"overwritten");
    let root = stage.accepted(write).await;
    assert!(fs::symlink_metadata(root.join("x")).unwrap().is_file());
    let records = Layer::new().pax(&[("linkpath", format!("{UP}{victim}").as_bytes())]).link("x", "ok");
    stage.refused(records, "hard link leads out").await;
}

#[tokio::test]
async fn modes_owners_and_attributes_never_go_through_links() {
    let stage = Stage::new();
    let victim = format!("{}/file", stage.victim());
    let loud = Meta { mode: 0o6777, uid: 12345, gid: 12345, mtime: 1 };
    let xattr: &[(&str, &[u8])] = &[("SCHILY.xattr.trusted.mark", b"1")];
    let layer = Layer::new()
        .pax(xattr)
        .raw(EntryType::Symlink, "l", &victim, &loud, b"")
        .pax(xattr)
        .raw(EntryType::Link, "h", "l", &loud, b"")
        .pax(xattr)
        .raw(EntryType::Symlink, "d", &stage.victim(), &loud, b"")
        .pax(xattr)
        .raw(EntryType::Symlink, "self", "/proc/self/fd/3", &loud, b"");
    let root = stage.accepted(layer).await;
    assert_eq!(fs::symlink_metadata(root.join("l")).unwrap().uid(), 12345);
    // The same names again, as what has a mode.
    let layer = Layer::new()
        .symlink("l", &victim)
        .raw(EntryType::Fifo, "l", "", &loud, b"")
        .symlink("d", &stage.victim())
        .raw(EntryType::Directory, "d", "", &loud, b"")
        .symlink("f", &victim)
        .raw(EntryType::Regular, "f", "", &loud, b"x")
        .symlink("c", &victim)
        .device(EntryType::Char, "c", 1, 3, &loud);
    let root = stage.accepted(layer).await;
    for name in ["l", "d", "f", "c"] {
        assert_eq!(fs::symlink_metadata(root.join(name)).unwrap().mode() & 0o7777, 0o6777, "{name}");
    }
}

#[tokio::test]
async fn whiteouts_delete_nothing_outside() {
    let stage = Stage::new();
    stage.refused(Layer::new().file(".wh...", b""), "whiteout of nothing").await;
    stage.refused(Layer::new().file("a/.wh..", b""), "whiteout of nothing").await;
    stage.refused(Layer::new().file(".wh.", b""), "whiteout of nothing").await;
    stage.refused(Layer::new().file("../.wh.victim", b""), "leads out of the layer").await;
    for name in [".wh.file", ".wh..wh..opq"] {
        let layer = Layer::new().symlink("l", &stage.victim()).file(&format!("l/{name}"), b"");
        stage.refused(layer, "leads nowhere within the layer").await;
    }
    let root = stage.accepted(Layer::new().symlink("l", &stage.victim()).file(".wh.l", b"")).await;
    assert!(fs::symlink_metadata(root.join("l")).unwrap().is_symlink(), "a whiteout does not apply to its own layer");
}

#[tokio::test]
async fn devices_are_made_within_the_layer_only() {
    let stage = Stage::new();
    let root = stage
        .accepted(Layer::new().device(EntryType::Block, "dev/sda", 8, 0, &META).device(
            EntryType::Char,
            "null",
            1,
            3,
            &META,
        ))
        .await;
    assert!(fs::symlink_metadata(root.join("dev/sda")).unwrap().file_type().is_block_device());
    // Written through afterwards: the device node is replaced, never opened.
    let root = stage
        .accepted(
            Layer::new()
                .device(EntryType::Block, "sda", 8, 0, &META)
                .file("sda", b"x")
                .device(EntryType::Fifo, "p", 0, 0, &META)
                .file("p", b"x"),
        )
        .await;
    assert!(root.join("sda").is_file() && root.join("p").is_file());
    stage.refused(Layer::new().device(EntryType::Fifo, "p", 0, 0, &META).file("p/x", b""), "used as a folder").await;
}

#[tokio::test]
async fn marks_of_overlayfs_cannot_be_smuggled_in() {
    let stage = Stage::new();
    let marks: &[(&str, &[u8])] = &[
        ("SCHILY.xattr.trusted.overlay.redirect", b"/../../etc"),
        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ("SCHILY.xattr.trusted.overlay.metacopy", b""),
        ("SCHILY.xattr.user.overlay.opaque", b"y"),
        ("SCHILY.xattr.user.kept", b"1"),
    ];
    let root = stage.accepted(Layer::new().pax(marks).dir("d").pax(marks).file("f", b"x")).await;
    for name in ["d", "f"] {
        let names = crate::compare::xattrs(&root.join(name));
        assert_eq!(names, BTreeMap::from([("user.kept".to_owned(), b"1".to_vec())]), "{name}");
    }
}

#[tokio::test]
async fn the_root_can_be_described_but_not_replaced() {
    let stage = Stage::new();
    for name in [".", "./", "/", "a/.."] {
        stage.refused(Layer::new().symlink(name, &stage.victim()), "replace the layer's root").await;
        stage.refused(Layer::new().link(name, "x"), "replace the layer's root").await;
        stage.refused(Layer::new().device(EntryType::Char, name, 0, 0, &META), "replace the layer's root").await;
    }
    let root =
        stage.accepted(Layer::new().raw(EntryType::Directory, "./", "", &Meta { mode: 0o1711, ..DIR }, b"")).await;
    // A layer with one folder entry for its root and nothing else still counts.
    assert_eq!(fs::metadata(root).unwrap().mode() & 0o7777, 0o1711);
}

#[tokio::test]
async fn broken_archives_are_refused() {
    let stage = Stage::new();
    let cut = |layer: &Layer, keep: usize| {
        let mut bytes = layer.tar();
        bytes.truncate(keep);
        Blob { diff_id: crate::build::digest(&bytes), bytes, kind: "application/vnd.oci.image.layer.v1.tar" }
    };
    let broken = async |blob: Blob, because: &str| {
        let error = stage.load(blob).await.expect_err("refused");
        assert!(error.contains(because), "expected `{because}` in: {error}");
    };
    let layer = Layer::new().file("a", &[b'x'; 2000]);
    broken(cut(&layer, 300), "middle of a header").await;
    broken(cut(&layer, 1000), "middle of a file").await;
    broken(cut(&Layer::new().long_name("name"), 514), "middle of an extension header").await;
    let mut checksum = plain(&layer);
    checksum.bytes[5] ^= 1;
    checksum.diff_id = crate::build::digest(&checksum.bytes);
    broken(checksum, "checksum").await;
    let mut squeezed = gzipped(&layer);
    squeezed.bytes.truncate(60);
    broken(squeezed, "failed to decompress").await;
    stage.refused(Layer::new().raw(EntryType::GNUSparse, "s", "", &META, b""), "sparse").await;
    stage
        .refused(Layer::new().pax(&[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0")]).file("s", b""), "sparse")
        .await;
    stage.refused(Layer::new().raw(EntryType::new(b'V'), "label", "", &META, b""), "type `V`").await;
    stage.refused(Layer::new().pax(&[("uid", b"4294967295")]).file("a", b""), "owner").await;
    stage.refused(Layer::new().pax(&[("size", b"18446744073709551615")]).file("a", b""), "range").await;
    stage.refused(Layer::new().pax(&[("size", b"9000000000000000000")]).file("a", b""), "middle of a file").await;
    stage.refused(Layer::new().file("f", b"x").file("f/below", b"x"), "used as a folder").await;
    let long = vec![b'a'; 300];
    stage
        .refused(Layer::new().long_name(std::str::from_utf8(&long).unwrap()).file("x", b""), "failed to make a file")
        .await;
    let huge = vec![b'a'; 2 << 20];
    stage.refused(Layer::new().long_name(std::str::from_utf8(&huge).unwrap()).file("x", b""), "extension header").await;
}

#[tokio::test]
async fn bombs_are_stopped() {
    let stage = Stage::new();
    let zeros = Layer::new().file("zeros", &vec![0u8; 40 << 20]);
    let tight = Limits { ratio_free_bytes: 1 << 20, ..Limits::default() };
    let error = stage.load_with(zstd(&zeros), tight).await.unwrap_err();
    assert!(error.contains("decompression bomb"), "{error}");
    let small = Limits { layer_bytes_max: 32 << 20, ..Limits::default() };
    let error = stage.load_with(gzipped(&zeros), small).await.unwrap_err();
    assert!(error.contains("more than 33554432 bytes"), "{error}");
    // Few entries that imply many folders.
    let deep = "d/".repeat(1500);
    let mut many = Layer::new();
    for i in 0..7 {
        many = many.long_name(&format!("{i}/{deep}f")).file("x", b"");
    }
    let few = Limits { entries_max: 8_000, ..Limits::default() };
    let error = stage.load_with(gzipped(&many), few).await.unwrap_err();
    assert!(error.contains("more than 8000 entries"), "{error}");
    let root = stage.load(gzipped(&many)).await.expect("deep, but allowed");
    assert!(root.join("0").is_dir());
}

#[tokio::test]
async fn a_full_disk_is_called_so() {
    let stage = Stage::new();
    let root = stage.dir.path().join("store");
    let limits = Limits { disk_reserve_bytes: u64::MAX, ..Limits::default() };
    let store = ImageStore::open_with(&root, RegistryConfig::default(), limits).await.unwrap();
    let archive = archive_of(&[plain(&Layer::new().file("a", b"1"))]);
    let error = store.load(std::io::Cursor::new(archive), &amd64()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DiskFull);
    assert!(chain(&error).contains("no space left for images"), "{}", chain(&error));
    assert_eq!(leftovers(&root), [""; 0]);
}
