//! Root filesystem and mounts, as the container sees them and as the host keeps them.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use skep_runtime::Plan;
use skep_runtime::plan::{Bind, CreateSource, Mount, Tmpfs};

use crate::node::Node;

fn tmpfs(target: &str) -> Tmpfs {
    Tmpfs { target: target.to_owned(), size_bytes: None, mode: None, options: Vec::new() }
}

fn with_mount(mut plan: Plan, mount: Mount) -> Plan {
    plan.mounts.push(mount);
    plan
}

#[test]
fn writes_go_to_the_containers_own_layer() {
    let node = Node::new();
    let plan = node.plan("a", "echo new > /etc/new; rm /etc/plain; ls /etc");
    assert_eq!(node.run(&plan).log, "group\nnew\npasswd\n");
    assert!(node.image().join("etc/plain").exists());
    assert!(!node.image().join("etc/new").exists());
    assert_eq!(fs::read_to_string(plan.rootfs.upper.join("etc/new")).expect("in the upper layer"), "new\n");
}

#[test]
fn layers_stack_topmost_first() {
    let node = Node::new();
    let top = node.path().join("top");
    fs::create_dir_all(top.join("etc")).expect("a layer");
    fs::write(top.join("etc/plain"), "from the top\n").expect("a file");
    let mut plan = node.plan("a", "cat /etc/plain");
    plan.rootfs.lower.insert(0, top);
    assert_eq!(node.run(&plan).log, "from the top\n");
}

#[test]
fn read_only_root_still_has_its_system_mounts() {
    let node = Node::new();
    let mut plan = node.plan("a", "touch /x 2>&1; touch /dev/shm/y && touch /tmp/z && echo ok");
    plan.rootfs.read_only = true;
    plan.mounts.push(Mount::Tmpfs(tmpfs("/tmp")));
    assert_eq!(node.run(&plan).log, "touch: /x: Read-only file system\nok\n");
}

#[test]
fn tmpfs_has_size_mode_and_dockers_flags() {
    let node = Node::new();
    let script = "df -k /scratch | tail -1 | awk '{print $2}'; stat -c %a /scratch; stat -c %a /tmp; grep ' /scratch ' /proc/mounts";
    let mut plan = node.plan("a", script);
    let scratch =
        Tmpfs { size_bytes: Some(1 << 20), mode: Some(0o700), options: vec!["exec".to_owned()], ..tmpfs("/scratch") };
    plan.mounts = vec![Mount::Tmpfs(scratch), Mount::Tmpfs(tmpfs("/tmp"))];
    let log = node.run(&plan).log;
    assert!(log.starts_with("1024\n700\n1777\n"), "{log}");
    assert!(log.contains("rw,nosuid,nodev,relatime"), "{log}");
}

#[test]
fn bind_mount_shows_the_hosts_files_and_can_be_read_only() {
    let node = Node::new();
    let shared = node.path().join("shared");
    fs::create_dir(&shared).expect("a folder");
    fs::write(shared.join("file"), "host\n").expect("a file");
    // The refusal comes from the shell itself: one stream for all, or its place among the lines is a matter of luck.
    let script = "exec 2>&1; cat /mnt/deep/file; echo c > /mnt/deep/made; cat /one; echo no > /ro/x; echo done";
    let mut plan = node.plan("a", script);
    plan.mounts = vec![
        Mount::Bind(Bind::new(&shared, "/mnt/deep")),
        Mount::Bind(Bind::new(shared.join("file"), "/one")),
        Mount::Bind(Bind { read_only: true, ..Bind::new(&shared, "/ro") }),
    ];
    let log = node.run(&plan).log;
    assert!(
        log.starts_with("host\nhost\n") && log.ends_with("done\n") && log.contains("Read-only file system"),
        "{log}"
    );
    assert_eq!(fs::read_to_string(shared.join("made")).expect("made inside"), "c\n");
}

#[test]
fn missing_bind_source_is_refused_or_created() {
    let node = Node::new();
    let source = node.path().join("not/there");
    let bind = Bind::new(&source, "/mnt");
    let failure = node.create_failure(&with_mount(node.plan("a", "true"), Mount::Bind(bind.clone())));
    assert_eq!(failure.message, format!("invalid mount source `{}`: no such file or directory", source.display()));
    assert_eq!(failure.exit_code, 125);
    let bind = Bind { create: CreateSource::Dir, ..bind };
    assert_eq!(node.run(&with_mount(node.plan("b", "touch /mnt/x"), Mount::Bind(bind))).code, 0);
    assert!(source.join("x").exists());
}

#[test]
fn mount_target_cannot_leave_the_root_or_cover_proc() {
    let node = Node::new();
    let outside = node.path().join("outside");
    let shared = node.path().join("shared");
    fs::create_dir(&outside).expect("a folder");
    fs::create_dir(&shared).expect("a folder");
    symlink(&outside, node.image().join("escape")).expect("a link in the image");
    let plan = with_mount(node.plan("a", "ls -d /escape"), Mount::Bind(Bind::new(&shared, "/escape/in")));
    let _ = node.keeper.create(&plan).map(|_| node.open("a").start());
    assert_eq!(fs::read_dir(&outside).expect("the folder").count(), 0, "nothing was made outside");

    symlink("/proc", node.image().join("alias")).expect("a link in the image");
    for target in ["/proc/sys", "/alias/sys", "/proc"] {
        let plan = with_mount(node.plan("b", "true"), Mount::Bind(Bind::new(&shared, target)));
        assert!(node.create_failure(&plan).message.contains("inside /proc"), "{target}");
    }
}

#[test]
fn empty_volume_gets_the_images_content_once() {
    let node = Node::new();
    let data = node.image().join("data");
    fs::create_dir_all(data.join("sub")).expect("image content");
    fs::write(data.join("sub/file"), "image\n").expect("a file");
    fs::hard_link(data.join("sub/file"), data.join("twin")).expect("a hard link");
    symlink("sub/file", data.join("link")).expect("a link");
    fs::set_permissions(data.join("sub/file"), fs::Permissions::from_mode(0o640)).expect("mode");
    fs::set_permissions(&data, fs::Permissions::from_mode(0o2750)).expect("mode");
    std::os::unix::fs::chown(&data, Some(1000), Some(1000)).expect("owner");
    let volume = node.path().join("volume");
    fs::create_dir(&volume).expect("a volume");
    let bind = Bind { copy_up: true, ..Bind::new(&volume, "/data") };
    let plan = with_mount(node.plan("a", "cat /data/link; echo changed > /data/sub/file"), Mount::Bind(bind.clone()));
    assert_eq!(node.run(&plan).log, "image\n");
    let top = fs::metadata(&volume).expect("the volume");
    assert_eq!((top.mode() & 0o7777, top.uid(), top.gid()), (0o2750, 1000, 1000));
    let (file, twin) =
        (fs::metadata(volume.join("sub/file")).expect("copied"), fs::metadata(volume.join("twin")).expect("copied"));
    assert_eq!((file.mode() & 0o777, file.ino()), (0o640, twin.ino()));
    let plan = with_mount(node.plan("b", "cat /data/twin"), Mount::Bind(bind));
    assert_eq!(node.run(&plan).log, "changed\n", "a volume that has content keeps it");
}

#[test]
fn nothing_of_a_container_stays_mounted_on_the_host() {
    let node = Node::new();
    node.run(&node.plan("a", "true"));
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    assert!(!mounts.contains(&node.path().display().to_string()));
}
