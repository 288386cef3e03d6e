//! Cgroups on this machine's kernel, whichever kind it has: limits that hold, processes that die, folders that go.
//!
//! Everything is made below a parent of the test's own, beside what exists, and removed also when a test fails.

#![allow(clippy::unwrap_used, reason = "a test may panic; clippy sees only functions that are tests themselves")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use skep_runtime::cgroup::{Access, Cgroup, CgroupHost, DeviceAccess, DeviceKind, DeviceRule, Limits, Mode, Swap};

struct Group {
    cgroup: Cgroup,
    host: CgroupHost,
    parent: String,
}

impl Group {
    fn new(host: CgroupHost, name: &str, limits: &Limits) -> Self {
        let parent = format!("/skep-test-{}-{name}", std::process::id());
        let cgroup = host.create(&parent, "c1", limits).unwrap();
        Self { cgroup, host, parent }
    }

    fn here(name: &str, limits: &Limits) -> Self {
        Self::new(CgroupHost::detect().unwrap(), name, limits)
    }

    /// The content of a file, from the hierarchy that has it.
    fn file(&self, name: &str) -> Option<String> {
        let text = self.cgroup.paths().find_map(|dir| std::fs::read_to_string(dir.join(name)).ok())?;
        Some(text.trim().to_owned())
    }

    fn is_enforced(&self) -> bool {
        self.cgroup.unenforced().iter().all(|limit| limit.setting == "devices")
    }

    fn is_gone(&self) -> bool {
        !self.cgroup.paths().any(Path::exists)
    }

    /// A shell that waits, is moved in, and then runs `script`.
    fn shell(&self, script: &str) -> Shell {
        let mut shell = Shell::waiting(script);
        self.cgroup.join(shell.pid()).unwrap();
        shell.go();
        shell
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.cgroup.kill().ok();
        self.cgroup.remove().ok();
        for parent in self.cgroup.paths().filter_map(Path::parent) {
            assert!(parent.ends_with(self.parent.trim_start_matches('/')));
            std::fs::remove_dir(parent).ok();
        }
    }
}

struct Shell(Child);

impl Shell {
    fn waiting(script: &str) -> Self {
        let script = format!("read go; {script}");
        let child = Command::new("sh")
            .args(["-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        Self(child.unwrap())
    }

    fn pid(&self) -> i32 {
        self.0.id() as i32
    }

    fn go(&mut self) {
        self.0.stdin.take().unwrap().write_all(b"go\n").unwrap();
    }

    /// The first line it prints: it has come so far.
    fn line(&mut self) -> String {
        use std::io::{BufRead, BufReader};
        let mut line = String::new();
        BufReader::new(self.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    fn signal(mut self) -> Option<i32> {
        use std::os::unix::process::ExitStatusExt;
        self.0.wait().unwrap().signal()
    }

    /// Exit code and what it said.
    fn end(mut self) -> (Option<i32>, String) {
        let (mut out, mut err) = (String::new(), String::new());
        use std::io::Read;
        self.0.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        self.0.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        let code = self.0.wait().unwrap().code();
        (code, out + &err)
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// The machine's cgroup2 mount as a pure v2 host, if there is one: here its controllers may be few, but everything else
/// is the real thing.
fn v2_host() -> Option<CgroupHost> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = mounts.lines().find(|line| line.contains(" - cgroup2 "))?;
    Some(CgroupHost::v2_at(PathBuf::from(line.split(' ').nth(4).unwrap())))
}

#[test]
fn a_process_over_its_memory_limit_is_killed_and_counted() {
    let limits = Limits { memory: Some(16 << 20), memory_swap: Swap::Total(16 << 20), ..Limits::default() };
    let group = Group::here("oom", &limits);
    if !group.is_enforced() {
        return; // no memory controller here
    }
    assert_eq!(group.cgroup.oom_kills(), 0);
    // tail keeps its last line in memory, and this one never ends.
    let signal = group.shell("exec tail /dev/zero").signal();
    assert_eq!(signal, Some(9));
    assert_eq!(group.cgroup.oom_kills(), 1);
    assert_eq!(group.cgroup.stats().memory_limit, Some(16 << 20));
}

#[test]
fn forks_beyond_the_pids_limit_fail() {
    let group = Group::here("pids", &Limits { pids: Some(4), ..Limits::default() });
    if !group.is_enforced() {
        return;
    }
    let (code, said) = group.shell("for i in 1 2 3 4 5 6; do sleep 1000 & done").end_after_kill(&group);
    assert!(said.contains("fork"), "{code:?} {said}");
}

#[test]
fn limits_reach_the_files_of_this_kernel() {
    let limits = Limits {
        memory: Some(64 << 20),
        memory_reservation: Some(32 << 20),
        cpu_shares: Some(512),
        cpuset_cpus: Some("0".to_owned()),
        pids: Some(7),
        ..Limits::from_nano_cpus(500_000_000)
    };
    let group = Group::here("files", &limits);
    if !group.is_enforced() {
        return;
    }
    let expected: &[(&str, &str)] = match group.host.mode() {
        Mode::V2 => &[
            ("memory.max", "67108864"),
            ("memory.low", "33554432"),
            ("cpu.max", "50000 100000"),
            ("cpu.weight", "59"),
            ("cpuset.cpus", "0"),
            ("pids.max", "7"),
        ],
        Mode::V1 | Mode::Hybrid => &[
            ("memory.limit_in_bytes", "67108864"),
            ("memory.memsw.limit_in_bytes", "134217728"),
            ("memory.soft_limit_in_bytes", "33554432"),
            ("cpu.cfs_quota_us", "50000"),
            ("cpu.cfs_period_us", "100000"),
            ("cpu.shares", "512"),
            ("cpuset.cpus", "0"),
            ("pids.max", "7"),
        ],
    };
    for (file, value) in expected {
        // Swap accounting is an option of its own.
        if let Some(content) = group.file(file) {
            assert_eq!(content, *value, "{file}");
        } else {
            assert!(file.contains("memsw"), "{file} is missing");
        }
    }
}

#[test]
fn memory_limits_can_be_raised_and_lowered_while_it_runs() {
    let limits = |megabytes: u64| Limits { memory: Some(megabytes << 20), ..Limits::default() };
    let mut group = Group::here("update", &limits(32));
    if !group.is_enforced() {
        return;
    }
    // On v1 the order of memory and memsw must follow the direction.
    for megabytes in [128, 16, 64] {
        group.cgroup.apply(&limits(megabytes)).unwrap();
        assert_eq!(group.cgroup.stats().memory_limit, Some(megabytes << 20));
    }
}

#[test]
fn a_container_made_again_under_the_same_name_finds_a_fresh_cgroup() {
    let group = Group::here("again", &Limits { pids: Some(9), ..Limits::default() });
    let again = group.host.create(&group.parent, "c1", &Limits::default()).unwrap();
    assert_ne!(group.file("pids.max").as_deref(), Some("9"));
    let shell = group.shell("sleep 1000");
    let error = group.host.create(&group.parent, "c1", &Limits::default()).unwrap_err();
    assert!(error.to_string().contains("has processes in it"), "{error}");
    drop((shell, again));
}

fn kill_reaches_all(group: &Group) {
    let mut shell = group.shell("sleep 1000 & sleep 1000 & echo ready; wait");
    assert_eq!(shell.line(), "ready");
    let adopted = group.host.open(&group.parent, "c1").unwrap();
    assert_eq!(adopted.procs().unwrap().len(), 3);
    adopted.kill().unwrap();
    assert_eq!(shell.signal(), Some(9));
    adopted.remove().unwrap();
    assert!(group.is_gone());
    assert!(group.host.open(&group.parent, "c1").is_err());
    adopted.remove().expect("removing twice is fine");
}

#[test]
fn kill_ends_every_process_and_remove_leaves_nothing() {
    kill_reaches_all(&Group::here("kill", &Limits::default()));
}

#[test]
fn kill_ends_every_process_on_v2() {
    if let Some(host) = v2_host() {
        kill_reaches_all(&Group::new(host, "kill2", &Limits::default()));
    }
}

fn freeze_stops_and_kill_still_works(group: &Group) {
    let mut shell = group.shell("echo ready; while :; do :; done");
    assert_eq!(shell.line(), "ready");
    group.cgroup.freeze().unwrap();
    let frozen_at = group.cgroup.stats().cpu_usage_ns;
    assert_eq!(group.cgroup.stats().cpu_usage_ns, frozen_at);
    group.cgroup.thaw().unwrap();
    group.cgroup.freeze().unwrap();
    group.cgroup.kill().unwrap();
    assert_eq!(shell.signal(), Some(9), "killed out of the freeze");
}

#[test]
fn a_frozen_container_can_be_thawed_and_killed() {
    freeze_stops_and_kill_still_works(&Group::here("freeze", &Limits::default()));
}

#[test]
fn a_frozen_container_can_be_thawed_and_killed_on_v2() {
    if let Some(host) = v2_host() {
        freeze_stops_and_kill_still_works(&Group::new(host, "freeze2", &Limits::default()));
    }
}

/// `/dev/kmsg`'s numbers are on nobody's list; `/dev/null`'s are on Docker's.
fn only_listed_devices_open(group: &Group, opened: bool) {
    if !group.cgroup.unenforced().is_empty() {
        assert_eq!(group.cgroup.unenforced()[0].setting, "devices");
        return; // bpf(2) or the parent's devices forbid it: said, not hidden
    }
    let dir = tempfile::tempdir().unwrap();
    let node = dir.path().join("kmsg");
    let script = format!(
        "mknod {0} c 1 11 && echo made; head -c0 /dev/null && echo null; head -c0 {0} && echo kmsg",
        node.display()
    );
    let (_, said) = group.shell(&script).end();
    assert!(said.contains("made"), "any node may be made: {said}");
    assert!(said.contains("null"), "{said}");
    assert_eq!(said.lines().any(|line| line == "kmsg"), opened, "{said}");
}

fn kmsg() -> Limits {
    let access = Access::parse("rw").unwrap();
    let rule = DeviceRule::allow(DeviceKind::Char, Some(1), Some(11), access);
    Limits { devices: DeviceAccess::Restricted(vec![rule]), ..Limits::default() }
}

#[test]
fn only_listed_devices_can_be_used() {
    only_listed_devices_open(&Group::here("devices", &Limits::default()), false);
    only_listed_devices_open(&Group::here("devices-own", &kmsg()), true);
    let all = Limits { devices: DeviceAccess::Unrestricted, ..Limits::default() };
    only_listed_devices_open(&Group::here("devices-all", &all), true);
}

#[test]
fn only_listed_devices_can_be_used_on_v2() {
    let Some(host) = v2_host() else { return };
    only_listed_devices_open(&Group::new(host.clone(), "devices2", &Limits::default()), false);
    only_listed_devices_open(&Group::new(host, "devices2-own", &kmsg()), true);
}

#[test]
fn a_limit_without_its_controller_is_reported() {
    let Some(host) = v2_host() else { return };
    let missing = host.missing_controllers().unwrap();
    if !missing.iter().any(|controller| controller.name == "memory") {
        return; // this machine's cgroup2 has it
    }
    let group = Group::new(host, "missing", &Limits { memory: Some(1 << 20), ..Limits::default() });
    let said: Vec<_> = group.cgroup.unenforced().iter().map(ToString::to_string).collect();
    assert!(said.iter().any(|line| line.starts_with("memory.max = 1048576 is not enforced")), "{said:?}");
    assert_eq!(group.cgroup.stats().memory_usage, None, "unknown is not 0");
}

#[test]
fn pure_v2_hands_out_a_descriptor_to_be_born_into() {
    let v1_or_hybrid = CgroupHost::detect().unwrap().mode() != Mode::V2;
    let group = Group::here("fd", &Limits::default());
    assert_eq!(group.cgroup.dir_fd().is_none(), v1_or_hybrid);
    if let Some(host) = v2_host() {
        assert!(Group::new(host, "fd2", &Limits::default()).cgroup.dir_fd().is_some());
    }
}

impl Shell {
    /// For a script whose children hold its pipes open: kills them once the script itself is done.
    fn end_after_kill(mut self, group: &Group) -> (Option<i32>, String) {
        use std::io::Read;
        self.0.wait().unwrap();
        group.cgroup.kill().unwrap();
        let mut err = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        (self.0.wait().unwrap().code(), err)
    }
}
