//! A node for one test: rootfs, run folder, keeper, cgroups; all gone when it is dropped.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, PidfdFlags, Signal as Kill, kill_process, pidfd_open};
use skep_runtime::cgroup::{CgroupHost, DeviceAccess, Limits};
use skep_runtime::logs::RotationConfig;
use skep_runtime::plan::{CgroupPlan, LogPlan, Rootfs};
use skep_runtime::{Container, Event, Failure, Keeper, KeeperConfig, Liveness, Plan, Signal, State};

/// The benchmark names a release build here.
fn keeper_elf() -> Vec<u8> {
    let path = std::env::var("SKEP_TEST_KEEPER").unwrap_or_else(|_| env!("CARGO_BIN_EXE_skep-keeper").to_owned());
    fs::read(path).expect("the keeper is built")
}

pub struct Node {
    base: tempfile::TempDir,
    pub config: KeeperConfig,
    pub keeper: Keeper,
}

/// How a container ended, and what it wrote.
#[derive(Debug)]
pub struct Outcome {
    pub code: i32,
    pub oom_killed: bool,
    pub error: Option<String>,
    pub log: String,
}

impl Node {
    pub fn new() -> Node {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("skep-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let base = tempfile::Builder::new().prefix(&name).tempdir().expect("a temporary folder");
        let config = KeeperConfig { run_dir: base.path().join("run"), cgroup_parent: format!("/{name}") };
        make_rootfs(&base.path().join("image"));
        let keeper = Keeper::ensure(&config, &keeper_elf()).expect("the keeper starts");
        Node { base, config, keeper }
    }

    /// A new keeper, after the old one died.
    pub fn renew_keeper(&mut self) {
        self.keeper = Keeper::ensure(&self.config, &keeper_elf()).expect("a new keeper starts");
    }

    pub fn path(&self) -> &Path {
        self.base.path()
    }

    pub fn image(&self) -> PathBuf {
        self.base.path().join("image")
    }

    /// Runs `script` by the shell.
    pub fn plan(&self, id: &str, script: &str) -> Plan {
        self.plan_of(id, &["/bin/sh", "-c", script])
    }

    pub fn plan_of(&self, id: &str, argv: &[&str]) -> Plan {
        let own = self.base.path().join("containers").join(id);
        fs::create_dir_all(&own).expect("the container's folder");
        let rootfs = Rootfs {
            lower: vec![self.image()],
            upper: own.join("upper"),
            work: own.join("work"),
            merged: own.join("merged"),
            read_only: false,
        };
        let parent = format!("{}/containers", self.config.cgroup_parent);
        // A nested machine may not load device programs or allow all of Docker's devices; limits have their own tests.
        let limits = Limits { devices: DeviceAccess::Restricted(Vec::new()), ..Limits::default() };
        let log = LogPlan { path: own.join("log"), rotation: RotationConfig::default() };
        let argv = argv.iter().map(|word| (*word).to_owned()).collect();
        Plan::new(id, argv, rootfs, CgroupPlan { parent, limits }, log)
    }

    pub fn open(&self, id: &str) -> Container {
        Container::open(&self.config.run_dir, id).expect("the container has a warden")
    }

    pub fn create(&self, plan: &Plan) -> Container {
        self.keeper.create(plan).expect("the container is made");
        self.open(&plan.id)
    }

    pub fn start(&self, plan: &Plan) -> Container {
        let container = self.create(plan);
        container.start().expect("the container starts");
        container
    }

    /// From nothing to its end, and away.
    pub fn run(&self, plan: &Plan) -> Outcome {
        let container = self.start(plan);
        self.finish(plan, &container)
    }

    /// Waits for its end and releases it.
    pub fn finish(&self, plan: &Plan, container: &Container) -> Outcome {
        wait_exited(container);
        let State::Exited { code, oom_killed, error, .. } = container.state().expect("a state") else {
            panic!("it has exited")
        };
        let log = read_log(&plan.log.path);
        container.release().expect("release");
        Outcome { code, oom_killed, error, log }
    }

    /// Why `plan` cannot be created.
    pub fn create_failure(&self, plan: &Plan) -> Failure {
        let failure = self.keeper.create(plan).expect_err("creation fails");
        assert!(!self.config.run_dir.join("c").join(&plan.id).exists(), "nothing is left of it");
        failure
    }

    pub fn cgroups(&self) -> CgroupHost {
        CgroupHost::detect().expect("cgroups")
    }
}

pub fn wait_exited(container: &Container) {
    let events = container.subscribe().expect("a subscription");
    loop {
        if let Event::Exited { .. } = events.wait_event().expect("an event") {
            return;
        }
    }
}

/// The texts of a log's entries, joined.
pub fn read_log(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .map(|line| {
            let start = line.find("\"log\":\"").expect("a log field") + 7;
            let end = line.find("\",\"stream\"").expect("a stream field");
            line[start..end].replace("\\n", "\n").replace("\\u0009", "\t").replace("\\r", "\r").replace("\\\"", "\"")
        })
        .collect()
}

/// Waits until a process is gone.
pub fn wait_gone(pid: i32) {
    let Some(pid) = Pid::from_raw(pid) else { return };
    if let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) {
        rustix::event::poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], None).expect("poll");
    }
}

pub fn kill_9(pid: i32) {
    kill_process(Pid::from_raw(pid).expect("a pid"), Kill::KILL).expect("kill");
    wait_gone(pid);
}

fn make_rootfs(image: &Path) {
    for folder in ["bin", "etc", "tmp", "proc", "sys", "dev", "home/app"] {
        fs::create_dir_all(image.join(folder)).expect("a folder of the image");
    }
    fs::copy("/bin/busybox", image.join("bin/busybox")).expect("busybox-static is installed");
    let list = Command::new("/bin/busybox").arg("--list").output().expect("busybox runs");
    for applet in String::from_utf8_lossy(&list.stdout).lines().filter(|applet| *applet != "busybox") {
        symlink("busybox", image.join("bin").join(applet)).expect("an applet's link");
    }
    fs::write(image.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n")
        .expect("passwd");
    fs::write(image.join("etc/group"), "root:x:0:\napp:x:1000:\nextra:x:2000:app\n").expect("group");
    fs::write(image.join("etc/plain"), "no program\n").expect("a plain file");
    fs::write(image.join("bin/broken"), "\x7fELF but not really").expect("a broken program");
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(image.join("bin/broken"), fs::Permissions::from_mode(0o755)).expect("mode");
    fs::set_permissions(image.join("tmp"), fs::Permissions::from_mode(0o1777)).expect("mode");
}

impl Drop for Node {
    /// Best effort in each step, so that a later one still runs when the test failed in the middle.
    fn drop(&mut self) {
        for (id, liveness) in skep_runtime::list(&self.config.run_dir).unwrap_or_default() {
            if liveness == Liveness::Supervised
                && let Ok(container) = Container::open(&self.config.run_dir, &id)
            {
                container.signal(Signal::KILL).ok();
                wait_exited(&container);
                container.release().ok();
            }
        }
        skep_runtime::recover_lost(&self.config.run_dir, &format!("{}/containers", self.config.cgroup_parent)).ok();
        if let Ok(keeper) = Keeper::ensure(&self.config, &[]) {
            // A warden that has just been released may still be on its way out.
            while keeper.stop().is_err()
                && rustix::process::test_kill_process(Pid::from_raw(keeper.pid()).expect("a pid")).is_ok()
            {
                std::thread::yield_now();
            }
            wait_gone(keeper.pid());
        }
        let name = self.config.cgroup_parent.trim_start_matches('/');
        if let Ok(group) = self.cgroups().open("", name) {
            group.remove().ok();
        }
    }
}
