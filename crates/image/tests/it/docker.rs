//! The same image, unpacked by a real dockerd: its layer folders must equal ours.
//!
//! The daemon runs with folders of its own, in a network and a mount namespace of its own, and starts nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tar::EntryType;

use crate::build::{DIR, Layer, Layout, META, Meta, gzipped};
use crate::compare::{assert_same, listing};
use crate::programs::{program, run, scratch, skopeo_copy};
use crate::pull::{amd64, open};

struct Dockerd {
    child: Child,
    socket: PathBuf,
}

/// A Docker that was unpacked and not installed has its libraries and programs beside it.
fn with_libraries(command: &mut Command, dockerd: &Path) {
    let Some(root) = dockerd.ancestors().nth(3).filter(|root| *root != Path::new("/")) else { return };
    let triplet = format!("{}-linux-gnu", std::env::consts::ARCH);
    let libraries = ["usr/lib", "lib"].map(|folder| root.join(folder).join(&triplet).display().to_string());
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("LD_LIBRARY_PATH", libraries.join(":"));
    command.env("PATH", format!("{0}/usr/sbin:{0}/usr/bin:{path}", root.display()));
}

impl Dockerd {
    fn start(dir: &Path) -> Dockerd {
        // Looked up here, so that a missing one is named.
        let dockerd = program("dockerd", "docker.io").get_program().to_owned();
        let path = |name: &str| dir.join(name).display().to_string();
        let socket = dir.join("docker.sock");
        let log = fs::File::create(dir.join("dockerd.log")).unwrap();
        let mut command = program("unshare", "util-linux");
        command.args(["--net", "--mount", "--propagation", "private", "--"]).arg(&dockerd);
        command.args(["--host", &format!("unix://{}", socket.display()), "--data-root", &path("data")]);
        command.args(["--exec-root", &path("exec"), "--pidfile", &path("pid"), "--storage-driver", "overlay2"]);
        command.args([
            "--bridge=none",
            "--iptables=false",
            "--ip6tables=false",
            "--ip-forward=false",
            "--ip-masq=false",
        ]);
        with_libraries(&mut command, Path::new(&dockerd));
        let child = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let mut dockerd = Dockerd { child, socket };
        while !dockerd.docker().arg("version").output().unwrap().status.success() {
            let ended = dockerd.child.try_wait().unwrap();
            let log = || fs::read_to_string(dir.join("dockerd.log")).unwrap();
            assert!(ended.is_none(), "dockerd ended: {}", log());
        }
        dockerd
    }

    fn docker(&self) -> Command {
        let mut docker = program("docker", "docker.io");
        docker.arg("--host").arg(format!("unix://{}", self.socket.display()));
        docker
    }

    /// Folders of the image's layers, base first.
    fn layers(&self, image: &str) -> Vec<PathBuf> {
        let data = run(self.docker().args(["image", "inspect", "--format", "{{json .GraphDriver.Data}}", image]));
        let data: Value = serde_json::from_str(&data).unwrap();
        let below = data["LowerDir"].as_str().unwrap_or_default().rsplit(':').filter(|dir| !dir.is_empty());
        below.chain(data["UpperDir"].as_str()).map(PathBuf::from).collect()
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        // In order, so that its containerd ends and its mounts go.
        if let Some(pid) = rustix::process::Pid::from_raw(self.child.id() as i32) {
            let _ended_already = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        self.child.wait().expect("our own child");
    }
}

/// Everything below the root; without the times that both set to their own time of work.
fn comparable(layer: &Path) -> Vec<String> {
    let whiteout = |line: &String| line.contains(" device 20000 0 ");
    let without_time = |line: String| {
        let words = line.split(' ').enumerate().filter(|(i, _)| *i != 3).map(|(_, word)| word);
        words.collect::<Vec<_>>().join(" ")
    };
    let lines = listing(layer).into_iter().filter(|line| !line.starts_with(' '));
    lines.map(|line| if whiteout(&line) { without_time(line) } else { line }).collect()
}

const CAPABILITY: &[u8] = &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

#[tokio::test]
async fn the_same_layers_as_docker_makes() {
    let setuid = Meta { mode: 0o4755, uid: 0, gid: 7, mtime: 5 };
    let base = Layer::new()
        .dir("./")
        .raw(EntryType::Directory, "etc/", "", &Meta { mode: 0o2750, uid: 10, gid: 20, mtime: 1_111_111_111 }, b"")
        .file("etc/shadow", b"secret")
        .raw(EntryType::Directory, "bin/", "", &DIR, b"")
        .raw(EntryType::Regular, "bin/su", "", &setuid, b"elf")
        .symlink("bin/sh", "su")
        // Archivers repeat the target's metadata. Where they do not, Docker sets what the link says, which clears
        // file capabilities on the way; ours and umoci's leave the target as it is.
        .raw(EntryType::Link, "bin/ls", "bin/su", &setuid, b"")
        .pax(&[("SCHILY.xattr.security.capability", CAPABILITY), ("mtime", b"1500000002.500000001")])
        .raw(EntryType::Regular, "bin/ping", "", &Meta { mode: 0o755, uid: 5, gid: 6, mtime: 9 }, b"elf")
        .pax(&[("SCHILY.xattr.user.note", b"hello")])
        .file("note", b"n")
        .raw(EntryType::Directory, "tmp/", "", &Meta { mode: 0o1777, ..DIR }, b"")
        .raw(EntryType::Fifo, "pipe", "", &Meta { mode: 0o620, uid: 1, gid: 2, mtime: 77 }, b"")
        .raw(EntryType::Directory, "dev/", "", &DIR, b"")
        .device(EntryType::Char, "dev/null", 1, 3, &Meta { mode: 0o666, ..META })
        .device(EntryType::Block, "dev/disk", 8, 1, &Meta { mode: 0o660, uid: 0, gid: 6, mtime: 3 })
        .dir("opt/")
        .dir("opt/a/")
        .file("opt/a/one", b"1")
        .dir("var/")
        .dir("var/cache/")
        .file("var/cache/x", b"x")
        .dir("long/")
        .long_name(&format!("long/{}", "n".repeat(180)))
        .file("x", b"x");
    let changes = Layer::new()
        .dir("./")
        .raw(EntryType::Directory, "etc/", "", &Meta { mode: 0o700, uid: 3, gid: 4, mtime: 1_222_222_222 }, b"")
        .file("etc/.wh.shadow", b"")
        .file("etc/new", b"")
        .dir("opt/")
        .raw(EntryType::Regular, "opt/.wh.a", "", &Meta { uid: 8, gid: 9, ..META }, b"")
        .dir("var/")
        .dir("var/cache/")
        .file("var/cache/.wh..wh..opq", b"")
        .file("var/cache/new", b"n")
        .symlink("note", "etc/new");
    let mut layout = Layout::new();
    layout.image("v1", "amd64", json!({ "Cmd": ["/bin/sh"] }), &[gzipped(&base), gzipped(&changes)]);
    let dir = scratch();
    let archive = dir.path().join("image.tar");
    let from = format!("oci:{}:v1", layout.path().display());
    skopeo_copy(&[&from, &format!("docker-archive:{}:demo.test/app:v1", archive.display())]);

    let store = open(&dir.path().join("store")).await;
    let image = store.load(fs::File::open(&archive).unwrap(), &amd64()).await.unwrap().remove(0).image;
    let dockerd = Dockerd::start(dir.path());
    run(dockerd.docker().args(["load", "--quiet", "--input"]).arg(&archive));
    let theirs = dockerd.layers("demo.test/app:v1");
    assert_eq!(theirs.len(), image.layers.len());
    for (ours, theirs) in image.layers.iter().zip(&theirs) {
        assert_same(&comparable(ours), &comparable(theirs), "docker");
    }
    let id = run(dockerd.docker().args(["image", "inspect", "--format", "{{.Id}}", "demo.test/app:v1"]));
    assert_eq!(id.trim(), image.id.to_string());
}
