//! The same containers where cgroup v2 is all there is: in a mount namespace whose /sys/fs/cgroup is cgroup2 alone.
//! On a hybrid machine that hierarchy has no controllers, so this is about membership, views and killing, not limits.

use std::process::Command;

use skep_runtime::cgroup::Mode;
use skep_runtime::{ExecIo, ExecPlan, Signal};

use crate::node::{Node, read_log};

const INSIDE: &str = "SKEP_TEST_PURE_V2";

#[test]
fn container_lives_in_a_private_view_of_v2() {
    let script = "umount -R -l /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && exec \"$0\" --exact pure_v2::inside --nocapture";
    let myself = std::env::current_exe().expect("this program");
    let status = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", script])
        .arg(myself)
        .env(INSIDE, "1")
        .status()
        .expect("unshare runs");
    assert!(status.success());
}

/// Does nothing unless it is started by the test above.
#[test]
fn inside() {
    if std::env::var_os(INSIDE).is_none() {
        return;
    }
    let node = Node::new();
    assert_eq!(node.cgroups().mode(), Mode::V2);
    let mut plan = node.plan("a", "cat /proc/self/cgroup; cat /sys/fs/cgroup/cgroup.procs; mkdir /sys/fs/cgroup/x 2>/dev/null || echo sealed; sleep 1000");
    plan.cgroup.limits = skep_runtime::cgroup::Limits { memory: Some(64 << 20), ..plan.cgroup.limits };
    let created = node.keeper.create(&plan).expect("creation");
    assert!(created.warnings.iter().any(|warning| warning.contains("memory")), "{:?}", created.warnings);
    let container = node.open("a");
    container.start().expect("start");
    let session = container.exec(&ExecPlan::new(["cat", "/proc/self/cgroup"])).expect("exec");
    let ExecIo::Pipes { stdout, .. } = session.io else { panic!("pipes") };
    let mut text = String::new();
    std::io::Read::read_to_string(&mut std::fs::File::from(stdout), &mut text).expect("output");
    assert_eq!(text.lines().last(), Some("0::/"), "{text}");
    assert_eq!(session.exit.wait().expect("exit code"), 0);
    let cgroup = node.cgroups().open(&plan.cgroup.parent, "a").expect("its cgroup");
    assert!(!cgroup.procs().expect("processes").is_empty());
    while !read_log(&plan.log.path).contains("sealed\n") {
        std::thread::yield_now();
    }
    cgroup.kill().expect("kill");
    let outcome = node.finish(&plan, &container);
    assert_eq!(outcome.code, 137);
    assert!(outcome.log.contains("0::/\n1\n"), "{}", outcome.log);
    assert!(container.signal(Signal::KILL).is_err(), "it is released");
}
