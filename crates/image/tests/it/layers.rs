//! What a layer's archive says, and what its folder then has: seen as a container would, through overlayfs, and
//! compared with what umoci makes of the same image.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde_json::json;
use skep_image::{Image, Loaded};
use tar::EntryType;

use crate::build::{Blob, DIR, Layer, Layout, META, Meta, archive_of, gzipped, plain, zstd};
use crate::compare::{assert_same, listing, xattrs};
use crate::programs::{program, run, scratch};
use crate::pull::{amd64, open};

async fn load(dir: &Path, layers: &[Blob]) -> Image {
    let store = open(dir).await;
    let archive = archive_of(layers);
    let Loaded { image, .. } = store.load(std::io::Cursor::new(archive), &amd64()).await.unwrap().remove(0);
    image
}

/// Mounts the layers as a container gets them, in a mount namespace that ends with the copy, and copies the result.
fn merged(image: &Image, dir: &Path) -> PathBuf {
    let (mount, copy) = (dir.join("mount"), dir.join("merged"));
    for folder in [&mount, &copy] {
        fs::create_dir_all(folder).unwrap();
    }
    // An empty layer on top: overlayfs wants two without an upper one.
    let empty = dir.join("empty");
    fs::create_dir_all(&empty).unwrap();
    let top = image.layers.last().unwrap();
    run(program("chmod", "coreutils").arg("--reference").arg(top).arg(&empty));
    run(program("touch", "coreutils").arg("--reference").arg(top).arg(&empty));
    let lowers: Vec<String> = image.layers.iter().rev().map(|layer| layer.display().to_string()).collect();
    let script = format!(
        "mount -t overlay overlay -o lowerdir={}:{} {} && tar -C {} --xattrs --xattrs-include='*' --acls -cf - . | tar -C {} --xattrs --xattrs-include='*' -xpf -",
        empty.display(),
        lowers.join(":"),
        mount.display(),
        mount.display(),
        copy.display(),
    );
    run(program("unshare", "util-linux").args(["-m", "--propagation", "private", "sh", "-ec", &script]));
    copy
}

fn names(listing: &[String]) -> Vec<&str> {
    listing.iter().filter_map(|line| line.split(' ').next()).filter(|name| !name.is_empty()).collect()
}

fn base() -> Layer {
    Layer::new()
        .dir("./")
        .raw(EntryType::Directory, "etc/", "", &Meta { mode: 0o750, uid: 10, gid: 20, mtime: 1_111_111_111 }, b"")
        .file("etc/passwd", b"root")
        .file("etc/shadow", b"secret")
        .dir("opt/")
        .dir("opt/a/")
        .file("opt/a/one", b"1")
        .file("opt/a/two", b"2")
        .dir("var/")
        .dir("var/cache/")
        .file("var/cache/x", b"x")
        .dir("srv/")
        .file("srv/keep", b"k")
}

#[tokio::test]
async fn deletions_and_opaque_folders_show_what_the_specification_says() {
    let dir = scratch();
    let top = Layer::new()
        .dir("etc/")
        .file("etc/.wh.shadow", b"")
        // Deleted, then there again: empty but for the new.
        .file("opt/.wh.a", b"")
        .dir("opt/a/")
        .file("opt/a/three", b"3")
        // Opaque, with the mark after the content.
        .dir("var/cache/")
        .file("var/cache/new", b"n")
        .file("var/cache/.wh..wh..opq", b"")
        // A whiteout below a deleted folder means nothing; marks of AUFS neither.
        .file(".wh.srv", b"")
        .file("srv/.wh.keep", b"")
        .file(".wh..wh.plnk", b"")
        .file(".wh.missing", b"");
    let image = load(&dir.path().join("store"), &[gzipped(&base()), gzipped(&top)]).await;
    let seen = listing(&merged(&image, dir.path()));
    assert_eq!(names(&seen), ["etc", "etc/passwd", "opt", "opt/a", "opt/a/three", "var", "var/cache", "var/cache/new"]);
}

#[tokio::test]
async fn a_deleted_folder_comes_back_empty_when_only_implied() {
    let dir = scratch();
    let top = Layer::new().file("opt/.wh.a", b"").file("opt/a/b/three", b"3");
    let image = load(&dir.path().join("store"), &[plain(&base()), plain(&top)]).await;
    let seen = listing(&merged(&image, dir.path()));
    let below_opt: Vec<&str> = names(&seen).into_iter().filter(|name| name.starts_with("opt")).collect();
    assert_eq!(below_opt, ["opt", "opt/a", "opt/a/b", "opt/a/b/three"]);
}

#[tokio::test]
async fn an_opaque_root_hides_all_layers_below() {
    let dir = scratch();
    let top = Layer::new().dir("./").file(".wh..wh..opq", b"").file("only", b"x");
    let image = load(&dir.path().join("store"), &[plain(&base()), plain(&top)]).await;
    assert_eq!(image.layers.len(), 1);
    assert!(image.layers[0].join("only").is_file());
}

#[tokio::test]
async fn implied_parents_look_as_they_did_below() {
    let dir = scratch();
    let middle = Layer::new().file("etc/conf.d/x", b"x");
    let top = Layer::new().file("etc/conf.d/y", b"y").file("other/deep/z", b"z");
    let blobs = [gzipped(&base()), gzipped(&middle), gzipped(&top)];
    let image = load(&dir.path().join("store"), &blobs).await;
    let etc = |layer: &Path| fs::metadata(layer.join("etc")).unwrap();
    for layer in &image.layers {
        let meta = etc(layer);
        assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid(), meta.mtime()), (0o750, 10, 20, 1_111_111_111));
    }
    let new = fs::metadata(image.layers[2].join("other/deep")).unwrap();
    assert_eq!((new.mode() & 0o7777, new.uid(), new.mtime()), (0o755, 0, 0));

    // The same layer over another base takes from that one, and neither disturbs the other.
    let other =
        Layer::new().raw(EntryType::Directory, "etc/", "", &Meta { mode: 0o700, uid: 1, gid: 2, mtime: 3 }, b"");
    let second = load(&dir.path().join("other"), &[gzipped(&other), gzipped(&middle)]).await;
    assert_eq!(etc(&second.layers[1]).mode() & 0o7777, 0o700);
    let shared = scratch();
    let store = open(shared.path()).await;
    for base in [base(), other] {
        let archive = archive_of(&[gzipped(&base), gzipped(&middle)]);
        let loaded = store.load(std::io::Cursor::new(archive), &amd64()).await.unwrap();
        let [below, above] = &loaded[0].image.layers[..] else { panic!("two layers") };
        assert_eq!(etc(above).mode(), etc(below).mode());
    }
}

#[tokio::test]
async fn hard_links_reach_into_the_layers_below() {
    let dir = scratch();
    let middle = Layer::new().file("etc/.wh.shadow", b"");
    let top = Layer::new()
        .link("first", "etc/passwd")
        .link("second", "etc/passwd")
        .file("own", b"own")
        .link("third", "own")
        // The target comes later in the same archive.
        .link("early", "late")
        .file("late", b"late");
    let image = load(&dir.path().join("store"), &[plain(&base()), plain(&middle), plain(&top)]).await;
    let layer = &image.layers[2];
    let inode = |name: &str| fs::metadata(layer.join(name)).unwrap().ino();
    assert_eq!(fs::read(layer.join("first")).unwrap(), b"root");
    assert_eq!(fs::metadata(layer.join("first")).unwrap().mtime(), META.mtime as i64);
    assert_eq!(inode("first"), inode("second"));
    assert_eq!(inode("own"), inode("third"));
    assert_eq!(inode("early"), inode("late"));
    assert_eq!(fs::metadata(image.layers[0].join("etc/passwd")).unwrap().nlink(), 1, "layers share no inodes");

    let store = open(&dir.path().join("refused")).await;
    let deleted = Layer::new().link("again", "etc/shadow");
    let archive = archive_of(&[plain(&base()), plain(&middle), plain(&deleted)]);
    let error = store.load(std::io::Cursor::new(archive), &amd64()).await.unwrap_err();
    assert!(crate::protocol::chain(&error).contains("hard link to `etc/shadow`"));
}

const CAPABILITY: &[u8] = &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

#[tokio::test]
async fn owners_modes_times_and_attributes_are_exact() {
    let dir = scratch();
    let setuid = Meta { mode: 0o6755, uid: 1000, gid: 50, mtime: 1_500_000_000 };
    let layer = Layer::new()
        .pax(&[("mtime", b"1500000001.123456789"), ("SCHILY.xattr.user.dir", b"with\nnewline")])
        .raw(EntryType::Directory, "d", "", &Meta { mode: 0o1777, ..setuid.clone() }, b"")
        .pax(&[("SCHILY.xattr.security.capability", CAPABILITY), ("mtime", b"1500000002.5")])
        .raw(EntryType::Regular, "d/ping", "", &setuid, b"elf")
        .pax(&[("uid", b"3000000000"), ("gid", b"2999999999"), ("mtime", b"-1.25")])
        .raw(EntryType::Symlink, "d/link", "no/where", &META, b"")
        .long_name(&format!("d/{}", "n".repeat(200)))
        .file("short", b"long")
        .device(EntryType::Char, "d/null", 1, 3, &Meta { mode: 0o666, ..setuid.clone() })
        .device(EntryType::Block, "d/disk", 259, 700_000, &META)
        .raw(EntryType::Fifo, "d/fifo", "", &setuid, b"");
    let image = load(&dir.path().join("store"), &[zstd(&layer)]).await;
    let root = &image.layers[0];
    let meta = |name: &str| fs::symlink_metadata(root.join(name)).unwrap();
    let time = |name: &str| (meta(name).mtime(), meta(name).mtime_nsec());
    assert_eq!(
        (meta("d").mode() & 0o7777, time("d")),
        (0o1777, (1_500_000_001, 123_456_789)),
        "after files were made in it"
    );
    assert_eq!(xattrs(&root.join("d"))["user.dir"], b"with\nnewline");
    assert_eq!((meta("d/ping").mode() & 0o7777, meta("d/ping").uid(), meta("d/ping").gid()), (0o6755, 1000, 50));
    assert_eq!(xattrs(&root.join("d/ping"))["security.capability"], CAPABILITY);
    assert_eq!(
        (meta("d/link").uid(), meta("d/link").gid(), time("d/link")),
        (3_000_000_000, 2_999_999_999, (-2, 750_000_000))
    );
    assert_eq!(fs::read(root.join("d").join("n".repeat(200))).unwrap(), b"long");
    assert_eq!((meta("d/null").mode() & 0o7777, meta("d/null").rdev()), (0o666, rustix::fs::makedev(1, 3)));
    assert_eq!(meta("d/disk").rdev(), rustix::fs::makedev(259, 700_000));
    assert_eq!(meta("d/fifo").mode() & 0o7777, 0o6755);
}

#[tokio::test]
async fn later_entries_of_an_archive_replace_earlier_ones() {
    let dir = scratch();
    let layer = Layer::new()
        .dir("a")
        .dir("a/b")
        .file("a/b/c", b"1")
        .file("a", b"now a file")
        .file("x", b"1")
        .link("y", "x")
        .file("x", b"22")
        .symlink("s", "x")
        .dir("s")
        .dir("kept")
        .file("kept/1", b"1")
        .raw(EntryType::Directory, "kept", "", &Meta { mode: 0o500, ..DIR }, b"");
    let image = load(&dir.path().join("store"), &[plain(&layer)]).await;
    let root = &image.layers[0];
    assert_eq!(fs::read(root.join("a")).unwrap(), b"now a file");
    assert_eq!((fs::read(root.join("x")).unwrap(), fs::read(root.join("y")).unwrap()), (b"22".to_vec(), b"1".to_vec()));
    assert!(fs::symlink_metadata(root.join("s")).unwrap().is_dir());
    assert_eq!(
        (fs::read(root.join("kept/1")).unwrap(), fs::metadata(root.join("kept")).unwrap().mode() & 0o7777),
        (b"1".to_vec(), 0o500)
    );
}

#[tokio::test]
async fn gzip_of_several_members_and_frames_are_read_to_the_end() {
    let dir = scratch();
    let layer = Layer::new().file("a", &[b'x'; 5000]).file("b", b"end");
    let tar = layer.tar();
    let (first, second) = tar.split_at(3000);
    let members = Blob { bytes: [crate::build::gzip(first), crate::build::gzip(second)].concat(), ..gzipped(&layer) };
    let frame = |bytes| ::zstd::encode_all(bytes, 1).unwrap();
    // A skippable frame in front, as zstd:chunked has.
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 9, 9, 9][..], &frame(first), &frame(second)].concat();
    for (name, blob) in [("gzip", members), ("zstd", Blob { bytes: skippable, ..zstd(&layer) })] {
        let image = load(&dir.path().join(name), &[blob]).await;
        assert_eq!(fs::read(image.layers[0].join("b")).unwrap(), b"end", "{name}");
    }
    // Named as gzip, but plain.
    let mislabelled = Blob { kind: "application/vnd.oci.image.layer.v1.tar+gzip", ..plain(&layer) };
    load(&dir.path().join("plain"), &[mislabelled]).await;
}

#[tokio::test]
async fn the_same_tree_as_umoci_makes() {
    let dir = scratch();
    let mut layout = Layout::new();
    let bulk = Layer::new()
        .dir("./")
        .dir("bin/")
        .raw(
            EntryType::Regular,
            "bin/busybox",
            "",
            &Meta { mode: 0o4755, ..META },
            &fs::read("/bin/busybox").expect("apt-get install -y busybox-static"),
        )
        .symlink("bin/sh", "busybox")
        .link("bin/ls", "bin/busybox")
        .raw(EntryType::Directory, "tmp/", "", &Meta { mode: 0o1777, ..DIR }, b"")
        .pax(&[("SCHILY.xattr.security.capability", CAPABILITY), ("mtime", b"1500000002.500000001")])
        .raw(EntryType::Regular, "bin/ping", "", &Meta { mode: 0o755, uid: 5, gid: 6, mtime: 9 }, b"elf")
        .pax(&[("SCHILY.xattr.user.note", b"hello")])
        .file("note", b"n")
        .raw(EntryType::Fifo, "pipe", "", &Meta { mode: 0o620, uid: 1, gid: 2, mtime: 77 }, b"")
        .device(EntryType::Char, "null", 1, 3, &Meta { mode: 0o666, ..META })
        .long_name(&format!("{}/f", "long".repeat(40)))
        .file("x", b"x");
    let changes = Layer::new()
        .dir("etc/")
        .file("etc/.wh.shadow", b"")
        .dir("opt/")
        .file("opt/.wh.a", b"")
        .dir("var/")
        .dir("var/cache/")
        .file("var/cache/.wh..wh..opq", b"")
        .file("var/cache/new", b"n")
        .file("bin/.wh.ls", b"")
        .file("srv/keep", b"changed")
        .symlink("note", "srv/keep");
    let layers = [gzipped(&base()), gzipped(&bulk), gzipped(&changes)];
    layout.image("demo.test/app:v1", "amd64", json!({}), &layers);

    let store = open(&dir.path().join("store")).await;
    let image = store.load(std::io::Cursor::new(layout.archive()), &amd64()).await.unwrap().remove(0).image;
    let ours = listing(&merged(&image, dir.path()));

    // umoci wants a tag without a slash.
    let tagged = dir.path().join("layout");
    let from = format!("oci:{}:demo.test/app:v1", layout.path().display());
    run(program("skopeo", "skopeo").args([
        "--insecure-policy",
        "copy",
        "-q",
        &from,
        &format!("oci:{}:v1", tagged.display()),
    ]));
    let bundle = dir.path().join("bundle");
    run(program("umoci", "umoci").args(["raw", "unpack", "--image", &format!("{}:v1", tagged.display())]).arg(&bundle));
    let mut theirs = listing(&bundle);
    // umoci sets an implied or changed folder's time to that of its own work; ours keeps the archive's.
    let folder = |line: &String| line.contains(" folder");
    let without_time = |line: &String| {
        line.split(' ').enumerate().filter(|(i, _)| *i != 3).map(|(_, word)| word).collect::<Vec<_>>().join(" ")
    };
    let mut ours = ours;
    for lines in [&mut ours, &mut theirs] {
        for line in lines.iter_mut().filter(|line| folder(line)) {
            *line = without_time(line);
        }
    }
    assert_same(&ours, &theirs, "umoci");
}
