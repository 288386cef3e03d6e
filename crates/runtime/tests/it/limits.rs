//! Limits hold in the kernel, and what breaks them is told.

use skep_runtime::plan::{Resource, Rlimit, Seccomp};
use skep_runtime::{ExecPlan, Signal};

use crate::node::Node;

#[test]
fn memory_limit_kills_and_says_so() {
    let node = Node::new();
    let mut plan = node.plan_of("a", &["dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"]);
    plan.cgroup.limits.memory = Some(32 << 20);
    let outcome = node.run(&plan);
    assert_eq!((outcome.code, outcome.oom_killed), (137, true));
}

#[test]
fn memory_limit_in_reach_does_not_kill() {
    let node = Node::new();
    let mut plan = node.plan("a", "head -c 1000000 /dev/zero | wc -c");
    plan.cgroup.limits.memory = Some(64 << 20);
    let outcome = node.run(&plan);
    assert_eq!((outcome.code, outcome.oom_killed, outcome.log.trim()), (0, false, "1000000"));
}

#[test]
fn memory_limit_too_small_to_start_is_explained() {
    let node = Node::new();
    let mut plan = node.plan("a", "true");
    plan.cgroup.limits.memory = Some(64 << 10);
    // The kernel may still let it through: pages that were charged elsewhere are not charged again.
    if let Err(failure) = node.keeper.create(&plan) {
        assert!(failure.message.contains("memory"), "{failure}");
    }
}

#[test]
fn process_limit_holds() {
    let node = Node::new();
    let mut plan = node.plan("a", "for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done; wait");
    plan.cgroup.limits.pids = Some(4);
    let outcome = node.run(&plan);
    assert_ne!(outcome.code, 0);
    assert!(outcome.log.contains("can't fork"), "{}", outcome.log);
}

#[test]
fn container_sits_in_its_own_cgroup_and_leaves_none() {
    let node = Node::new();
    let plan = node.plan_of("a", &["sleep", "1000"]);
    let container = node.start(&plan);
    let cgroup = node.cgroups().open(&plan.cgroup.parent, "a").expect("its cgroup");
    assert_eq!(cgroup.procs().expect("processes").len(), 1);
    let keeper = node.cgroups().open(&node.config.cgroup_parent, "keeper").expect("the keeper's cgroup");
    assert_eq!(keeper.procs().expect("processes").len(), 2, "the keeper and one warden");
    container.signal(Signal::KILL).expect("kill");
    node.finish(&plan, &container);
    assert!(node.cgroups().open(&plan.cgroup.parent, "a").is_err());
}

#[test]
fn ulimits_are_set_and_impossible_ones_are_refused() {
    let node = Node::new();
    let mut plan = node.plan("a", "ulimit -n; ulimit -Hn");
    plan.rlimits = vec![Rlimit { resource: Resource::Nofile, soft: Some(100), hard: Some(200) }];
    assert_eq!(node.run(&plan).log, "100\n200\n");
    plan.id = "b".to_owned();
    plan.rlimits[0].soft = Some(300);
    assert_eq!(node.create_failure(&plan).message, "failed to set the ulimit `nofile`: invalid argument");
}

#[test]
fn sysctls_are_the_containers_own() {
    let node = Node::new();
    let before = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").expect("the host's");
    let mut plan = node.plan("a", "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shmmni");
    plan.sysctls = vec![
        ("net.ipv4.ip_unprivileged_port_start".to_owned(), "7".to_owned()),
        ("kernel.shmmni".to_owned(), "123".to_owned()),
    ];
    assert_eq!(node.run(&plan).log, "7\n123\n");
    let after = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").expect("the host's");
    assert_eq!(before, after);
    plan.id = "b".to_owned();
    plan.sysctls = vec![("net.no.such".to_owned(), "1".to_owned())];
    let failure = node.create_failure(&plan);
    assert_eq!(failure.message, "failed to set the sysctl `net.no.such` to `1`: no such file or directory");
}

#[test]
fn dockers_filter_refuses_what_it_should_and_nothing_else() {
    let node = Node::new();
    let script = "grep -E 'Seccomp:|NoNewPrivs' /proc/self/status; unshare -m true 2>&1; id -u; sleep 0; ls / | wc -l; dmesg 2>&1 | head -1";
    let mut plan = node.plan("a", script);
    plan.seccomp = Seccomp::docker_default(plan.capabilities).expect("it compiles");
    plan.user = "app".to_owned();
    let log = node.run(&plan).log;
    assert!(log.contains("NoNewPrivs:\t0\nSeccomp:\t2\n"), "{log}");
    assert!(log.contains("unshare: unshare(0x20000): Operation not permitted\n1000\n"), "{log}");
    plan.id = "b".to_owned();
    plan.no_new_privileges = true;
    let log = node.run(&plan).log;
    assert!(log.contains("NoNewPrivs:\t1\nSeccomp:\t2\n"), "{log}");

    // As root the refusal can only come from the filter, and an exec session has the same one.
    let plan = node.plan_of("c", &["sleep", "1000"]);
    let plan = skep_runtime::Plan { seccomp: Seccomp::docker_default(plan.capabilities).expect("it compiles"), ..plan };
    let container = node.start(&plan);
    let session = container.exec(&ExecPlan::new(["grep", "-q", "Seccomp:.2", "/proc/self/status"])).expect("exec");
    assert_eq!(session.exit.wait().expect("exit code"), 0);
}
