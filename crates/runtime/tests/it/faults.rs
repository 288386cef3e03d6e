//! What survives the death of a keeper or a warden, and what does not.

use rustix::net::sockopt::socket_peercred;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, connect, socket};
use rustix::process::{Pid, kill_process};
use skep_runtime::{ClientError, Container, Event, ExecIo, ExecPlan, Keeper, Liveness, SUPERVISOR_LOST, Signal, State};

use crate::node::{Node, kill_9, read_log, wait_exited, wait_gone};

/// The process that answers for a container.
pub fn warden_pid(node: &Node, id: &str) -> i32 {
    let socket = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).expect("a socket");
    let path = node.config.run_dir.join("c").join(id).join("ctl");
    connect(&socket, &SocketAddrUnix::new(path).expect("a short path")).expect("connect");
    socket_peercred(&socket).expect("credentials").pid.as_raw_nonzero().get()
}

#[test]
fn containers_outlive_their_keeper_and_the_next_one_finds_them() {
    let mut node = Node::new();
    let plan = node.plan("old", "trap 'echo bye; exit 4' TERM; echo ready; while :; do sleep 0.05; done");
    let container = node.start(&plan);
    let old = node.keeper.pid();
    kill_9(old);
    assert!(matches!(container.state().expect("state"), State::Running { .. }));
    node.renew_keeper();
    assert_ne!(node.keeper.pid(), old);

    assert_eq!(node.create_failure_of_twin(&plan), "container `old` exists already");
    let session = container.exec(&ExecPlan::new(["true"])).expect("exec still works");
    assert_eq!(session.exit.wait().expect("exit code"), 0);
    assert_eq!(node.run(&node.plan("new", "echo fresh")).log, "fresh\n");
    while !read_log(&plan.log.path).contains("ready") {
        std::thread::yield_now();
    }
    container.stop().expect("stop");
    let outcome = node.finish(&plan, &container);
    assert_eq!((outcome.code, outcome.log.as_str()), (4, "ready\nbye\n"));
}

impl Node {
    /// What a second container of the same name is told; unlike a failed first one, the name stays taken.
    fn create_failure_of_twin(&self, plan: &skep_runtime::Plan) -> String {
        self.keeper.create(plan).expect_err("the name is taken").message
    }
}

#[test]
fn exit_code_waits_for_whoever_asks() {
    let mut node = Node::new();
    let plan = node.plan("a", "exit 42");
    let container = node.start(&plan);
    wait_exited(&container);
    kill_9(node.keeper.pid());
    node.renew_keeper();
    assert_eq!(skep_runtime::list(&node.config.run_dir).expect("list"), [("a".to_owned(), Liveness::Supervised)]);
    assert_eq!(node.finish(&plan, &node.open("a")).code, 42);
}

#[test]
fn lost_warden_ends_its_container_and_no_other() {
    let node = Node::new();
    let (lost, other) = (node.plan_of("lost", &["sleep", "1000"]), node.plan_of("other", &["sleep", "1000"]));
    let container = node.start(&lost);
    let bystander = node.start(&other);
    let State::Running { pid, .. } = container.state().expect("state") else { panic!("running") };
    let events = container.subscribe().expect("subscribe");
    kill_9(warden_pid(&node, "lost"));
    assert!(matches!(events.wait_event(), Err(ClientError::Gone { .. })));
    wait_gone(pid);
    assert!(matches!(Container::open(&node.config.run_dir, "lost"), Err(ClientError::NoWarden { .. })));

    let ended = skep_runtime::recover_lost(&node.config.run_dir, &lost.cgroup.parent).expect("recovery");
    assert_eq!(ended.len(), 1);
    let State::Exited { error, .. } = &ended[0].state else { panic!("exited") };
    assert_eq!((ended[0].id.as_str(), error.as_deref()), ("lost", Some(SUPERVISOR_LOST)));
    assert!(node.cgroups().open(&lost.cgroup.parent, "lost").is_err());
    assert!(matches!(bystander.state().expect("state"), State::Running { .. }));
    assert_eq!(node.run(&node.plan("lost", "exit 1")).code, 1, "the name is free again");
}

#[test]
fn warden_lost_while_no_keeper_runs_is_recovered_by_the_client() {
    let mut node = Node::new();
    let plan = node.plan_of("a", &["sleep", "1000"]);
    let State::Running { pid, .. } = node.start(&plan).state().expect("state") else { panic!("running") };
    kill_9(node.keeper.pid());
    kill_9(warden_pid(&node, "a"));
    let ended = skep_runtime::recover_lost(&node.config.run_dir, &plan.cgroup.parent).expect("recovery");
    assert_eq!(ended.len(), 1);
    wait_gone(pid);
    node.renew_keeper();
    assert_eq!(node.run(&node.plan("a", "exit 2")).code, 2);
}

#[test]
fn warden_lost_after_the_exit_keeps_the_exit_code() {
    let node = Node::new();
    let plan = node.plan("a", "exit 6");
    wait_exited(&node.start(&plan));
    kill_9(warden_pid(&node, "a"));
    let ended = skep_runtime::recover_lost(&node.config.run_dir, &plan.cgroup.parent).expect("recovery");
    let State::Exited { code, error, .. } = &ended[0].state else { panic!("exited") };
    assert_eq!((*code, error.as_deref()), (6, None));
}

#[test]
fn second_keeper_leaves_the_first_alone() {
    let node = Node::new();
    let again = Keeper::ensure(&node.config, b"not even an executable").expect("the first one answers");
    assert_eq!(again.pid(), node.keeper.pid());
}

#[test]
fn fifty_containers_at_once() {
    let node = Node::new();
    let plans: Vec<_> = (0..50).map(|n| node.plan(&format!("c{n}"), &format!("echo {n}; exit {n}"))).collect();
    let codes: Vec<_> = std::thread::scope(|scope| {
        let runs: Vec<_> = plans.iter().map(|plan| scope.spawn(|| node.run(plan))).collect();
        runs.into_iter().map(|run| run.join().expect("a run")).map(|outcome| (outcome.code, outcome.log)).collect()
    });
    for (n, (code, log)) in codes.into_iter().enumerate() {
        assert_eq!((code, log), (n as i32, format!("{n}\n")));
    }
}

#[test]
fn slow_reader_of_exec_output_does_not_stop_the_container() {
    let node = Node::new();
    let plan = node.plan("a", "trap 'exit 0' TERM; while :; do sleep 0.05; done");
    let container = node.start(&plan);
    let session = container.exec(&ExecPlan::new(["yes"])).expect("exec");
    let ExecIo::Pipes { stdout, .. } = session.io else { panic!("pipes") };
    container.signal(Signal::KILL).expect("the warden still listens");
    assert_eq!(session.exit.wait().expect("exit code"), 137);
    drop(stdout);
    assert_eq!(node.finish(&plan, &container).code, 137);
}

#[test]
fn watchers_that_go_as_the_container_ends_take_nobody_elses_place() {
    let node = Node::new();
    let plan = node.plan("a", "exec sleep 1000");
    let container = node.start(&plan);
    let State::Running { pid, .. } = container.state().expect("state") else { panic!("it runs") };
    let warden = Pid::from_raw(warden_pid(&node, "a")).expect("a process number");
    let stays = node.open("a").subscribe().expect("subscribe");
    let goes = node.open("a").subscribe().expect("subscribe");
    // While the warden stands still, all of it becomes ready at once.
    kill_process(warden, rustix::process::Signal::STOP).expect("stop the warden");
    drop(goes);
    kill_9(pid);
    kill_process(warden, rustix::process::Signal::CONT).expect("let the warden go on");
    assert!(matches!(stays.wait_event().expect("the end is told"), Event::Exited { code: 137, .. }));
    assert_eq!(node.finish(&plan, &container).code, 137);
}
