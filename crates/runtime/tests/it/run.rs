//! Running a command: exit codes, refusals, user, environment, log.

use skep_runtime::plan::{Network, Sharing};
use skep_runtime::{ClientError, Signal, State};

use crate::node::{Node, read_log, wait_exited};

#[test]
fn exit_code_and_output_arrive() {
    let node = Node::new();
    let outcome = node.run(&node.plan("a", "echo out; echo err >&2; exit 7"));
    assert_eq!((outcome.code, outcome.oom_killed, outcome.error), (7, false, None));
    let mut lines: Vec<_> = outcome.log.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["err", "out"]);
}

#[test]
fn command_that_is_not_there_is_127() {
    let node = Node::new();
    let failure = node.create_failure(&node.plan_of("a", &["nope"]));
    assert_eq!(failure.message, "exec: \"nope\": executable file not found in $PATH");
    assert_eq!(failure.exit_code, 127);
    let failure = node.create_failure(&node.plan_of("a", &["/no/such"]));
    assert_eq!(failure.message, "exec: \"/no/such\": stat /no/such: no such file or directory");
    assert_eq!(failure.exit_code, 127);
}

#[test]
fn command_that_cannot_run_is_126() {
    let node = Node::new();
    let failure = node.create_failure(&node.plan_of("a", &["/etc/plain"]));
    assert_eq!((failure.message.as_str(), failure.exit_code), ("exec: \"/etc/plain\": permission denied", 126));
    let failure = node.create_failure(&node.plan_of("a", &["/etc"]));
    assert_eq!((failure.message.as_str(), failure.exit_code), ("exec: \"/etc\": is a directory", 126));

    // Only execve itself can tell that this one is no program.
    let plan = node.plan_of("b", &["broken"]);
    let container = node.create(&plan);
    let Err(ClientError::Refused(failure)) = container.start() else { panic!("it cannot start") };
    assert_eq!((failure.message.as_str(), failure.exit_code), ("exec broken: exec format error", 126));
    let outcome = node.finish(&plan, &container);
    assert_eq!((outcome.code, outcome.error.as_deref()), (126, Some("exec broken: exec format error")));
}

#[test]
fn unknown_user_is_refused_in_dockers_words() {
    let node = Node::new();
    let mut plan = node.plan("a", "true");
    plan.user = "ghost".to_owned();
    let failure = node.create_failure(&plan);
    assert_eq!(failure.message, "unable to find user ghost: no matching entries in passwd file");
    assert_eq!(failure.exit_code, 125);
}

#[test]
fn user_groups_home_and_working_directory_come_from_the_container() {
    let node = Node::new();
    let mut plan =
        node.plan("a", "id -u; id -G; echo $HOME; pwd; echo hi > /dev/stdout; grep CapEff /proc/self/status");
    plan.user = "app".to_owned();
    plan.cwd = "/srv/made/here".to_owned();
    plan.groups = vec!["3000".to_owned()];
    let outcome = node.run(&plan);
    let expected = "1000\n1000 2000 3000\n/home/app\n/srv/made/here\nhi\nCapEff:\t0000000000000000\n";
    assert_eq!((outcome.log.as_str(), outcome.code), (expected, 0));
}

#[test]
fn environment_is_dockers() {
    let node = Node::new();
    let mut plan = node.plan_of("a", &["env"]);
    plan.env = vec!["GREETING=hello world".to_owned(), "EMPTY=".to_owned()];
    plan.hostname = Some("box".to_owned());
    let outcome = node.run(&plan);
    let expected = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nHOSTNAME=box\n\
                    GREETING=hello world\nEMPTY=\nHOME=/root\n";
    assert_eq!(outcome.log, expected);
}

#[test]
fn default_container_is_confined() {
    let node = Node::new();
    let plan = node.plan(
        "a",
        "exec 2>&1; hostname; echo pid $$; grep -E 'Cap(Inh|Prm|Eff|Bnd|Amb)' /proc/self/status; ls -A /proc/acpi /sys/firmware; \
         cat /proc/kcore | wc -c; touch /proc/sys/kernel/x 2>&1; ls /dev | tr '\\n' ' '; echo; ls /proc/self/fd | tr '\\n' ' '; \
         ip -o link | wc -l; mkdir /sys/fs/cgroup/x 2>/dev/null || echo sealed",
    );
    let outcome = node.run(&plan);
    let log = outcome.log;
    assert!(log.starts_with("localhost\npid 1\n"), "{log}");
    for set in [
        "CapInh:\t0000000000000000",
        "CapPrm:\t00000000a80425fb",
        "CapEff:\t00000000a80425fb",
        "CapBnd:\t00000000a80425fb",
        "CapAmb:\t0000000000000000",
    ] {
        assert!(log.contains(set), "{set} in {log}");
    }
    assert!(log.contains("sealed"), "{log}");
    let core = if std::path::Path::new("/proc/kcore").exists() { "core " } else { "" };
    assert!(
        log.contains(&format!("\n{core}fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero")),
        "{log}"
    );
}

#[test]
fn signals_reach_the_command() {
    let node = Node::new();
    let plan = node.plan("a", "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.05; done");
    let container = node.start(&plan);
    while !read_log(&plan.log.path).contains("ready") {
        std::thread::yield_now();
    }
    container.stop().expect("stop");
    let outcome = node.finish(&plan, &container);
    assert_eq!((outcome.code, outcome.log.as_str()), (3, "ready\nbye\n"));

    let plan = node.plan_of("b", &["sleep", "1000"]);
    let container = node.start(&plan);
    container.signal(Signal::KILL).expect("kill");
    assert_eq!(node.finish(&plan, &container).code, 137);
}

#[test]
fn init_reaps_and_passes_signals_on() {
    let node = Node::new();
    let mut plan =
        node.plan("a", "echo $$ $PPID; trap 'exit 5' TERM; (sleep 0 &); echo ready; while :; do sleep 0.05; done");
    plan.init = true;
    let container = node.start(&plan);
    while !read_log(&plan.log.path).contains("ready") {
        std::thread::yield_now();
    }
    container.stop().expect("stop");
    let outcome = node.finish(&plan, &container);
    assert_eq!((outcome.code, outcome.log.as_str()), (5, "2 1\nready\n"));
}

#[test]
fn terminal_is_a_terminal_and_takes_input() {
    let node = Node::new();
    let mut plan =
        node.plan("a", "test -t 0 && test -c /dev/console && echo tty $TERM; read line; echo got $line; stty size");
    plan.tty = true;
    plan.open_stdin = true;
    let container = node.create(&plan);
    container.resize(33, 101).expect("resize");
    container.start().expect("start");
    let stdin = container.stdin().expect("stdin");
    rustix::io::write(&stdin, b"words\n").expect("write");
    let outcome = node.finish(&plan, &container);
    assert!(outcome.log.contains("tty xterm"), "{}", outcome.log);
    assert!(outcome.log.contains("got words"), "{}", outcome.log);
    assert!(outcome.log.contains("33 101"), "{}", outcome.log);
}

#[test]
fn created_container_waits_and_can_be_killed() {
    let node = Node::new();
    let plan = node.plan("a", "echo never");
    let container = node.create(&plan);
    assert!(matches!(container.state().expect("state"), State::Created { .. }));
    assert!(container.release().is_err(), "it has not exited");
    container.signal(Signal::KILL).expect("kill");
    wait_exited(&container);
    let outcome = node.finish(&plan, &container);
    assert_eq!((outcome.code, outcome.log.as_str()), (137, ""));
}

#[test]
fn log_is_rotated() {
    let node = Node::new();
    let mut plan = node.plan("a", "i=0; while [ $i -lt 500 ]; do echo line $i; i=$((i+1)); done");
    plan.log.rotation.max_size = 4096;
    plan.log.rotation.max_files = 2;
    node.run(&plan);
    let folder = plan.log.path.parent().expect("a folder");
    let mut logs: Vec<_> = std::fs::read_dir(folder)
        .expect("the folder")
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("log"))
        .map(|entry| (entry.file_name().into_string().expect("a name"), entry.metadata().expect("metadata").len()))
        .collect();
    logs.sort();
    let names: Vec<_> = logs.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["log", "log.1"]);
    assert!(logs.iter().all(|(_, size)| *size <= 4096), "{logs:?}");
    assert!(read_log(&plan.log.path).ends_with("line 499\n"));
}

#[test]
fn shared_namespaces_are_the_hosts_and_leave_no_process_behind() {
    let node = Node::new();
    let mut plan =
        node.plan("a", "for ns in pid ipc uts; do readlink /proc/self/ns/$ns; done; (sleep 1000 &) ; echo ready");
    plan.pid = Sharing::Host;
    plan.ipc = Sharing::Host;
    plan.hostname = None;
    let container = node.create(&plan);
    let cgroup = node.cgroups().open(&plan.cgroup.parent, "a").expect("its cgroup");
    container.start().expect("start");
    let outcome = node.finish(&plan, &container);
    let host = |kind: &str| std::fs::read_link(format!("/proc/self/ns/{kind}")).expect("a link").display().to_string();
    assert_eq!(outcome.log, format!("{}\n{}\n{}\nready\n", host("pid"), host("ipc"), host("uts")));
    assert!(cgroup.procs().expect("processes").is_empty(), "the orphan went with its container");
}

#[test]
fn network_namespace_comes_by_path() {
    let node = Node::new();
    let other = node.start(&node.plan_of("other", &["sleep", "1000"]));
    let State::Running { pid, .. } = other.state().expect("state") else { panic!("running") };
    let mut plan = node.plan("a", "readlink /proc/self/ns/net; cat /proc/sys/net/ipv4/ip_unprivileged_port_start");
    plan.network = Network::Path(format!("/proc/{pid}/ns/net").into());
    let expected = std::fs::read_link(format!("/proc/{pid}/ns/net")).expect("a link").display().to_string();
    assert_eq!(node.run(&plan).log, format!("{expected}\n0\n"));
}

#[test]
fn privileged_container_sees_the_hosts_devices_unmasked() {
    let node = Node::new();
    let mut plan = node.plan("a", "test -c /dev/kmsg && ls /sys/firmware | wc -l; mkdir /sys/fs/cgroup/memory/inner && rmdir /sys/fs/cgroup/memory/inner && echo writable; grep CapEff /proc/self/status");
    plan.privileged = true;
    plan.cgroup.limits.devices = skep_runtime::cgroup::DeviceAccess::Unrestricted;
    let log = node.run(&plan).log;
    let own = std::fs::read_to_string("/proc/self/status").expect("status");
    let own = own.lines().find(|line| line.starts_with("CapEff")).expect("capabilities");
    assert!(log.contains("writable\n") && log.contains(own), "{log}");
}
