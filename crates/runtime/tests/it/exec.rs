//! More processes in a running container.

use std::fs::File;
use std::io::{Read, Write};

use skep_runtime::{ClientError, Container, ExecIo, ExecPlan, Plan, Signal};

use crate::node::Node;

fn sleeper(node: &Node) -> (Plan, Container) {
    let mut plan = node.plan_of("box", &["sleep", "1000"]);
    plan.env = vec!["KEPT=yes".to_owned(), "CHANGED=no".to_owned()];
    let container = node.start(&plan);
    (plan, container)
}

/// Runs to the end; exit code, standard output, standard error.
fn run(container: &Container, plan: &ExecPlan) -> (i32, String, String) {
    let session = container.exec(plan).expect("exec");
    let ExecIo::Pipes { stdin, stdout, stderr } = session.io else { panic!("pipes") };
    drop(stdin);
    let read = |fd| {
        let mut text = String::new();
        File::from(fd).read_to_string(&mut text).expect("output");
        text
    };
    let (out, err) = (read(stdout), read(stderr));
    (session.exit.wait().expect("exit code"), out, err)
}

#[test]
fn streams_and_exit_code_are_separate() {
    let node = Node::new();
    let (_, container) = sleeper(&node);
    let result = run(&container, &ExecPlan::new(["sh", "-c", "echo out; echo err >&2; exit 9"]));
    assert_eq!(result, (9, "out\n".to_owned(), "err\n".to_owned()));
}

#[test]
fn process_is_inside_and_as_confined_as_the_first() {
    let node = Node::new();
    let (_, container) = sleeper(&node);
    let mut plan = ExecPlan::new([
        "sh",
        "-c",
        "cat /proc/1/cmdline | tr '\\0' ' '; echo; hostname; echo $KEPT $CHANGED; grep CapBnd /proc/self/status; \
         for ns in pid mnt net ipc uts; do test $(readlink /proc/1/ns/$ns) = $(readlink /proc/self/ns/$ns) || echo $ns differs; done; \
         cat /proc/1/cgroup > /tmp/a; cat /proc/self/cgroup > /tmp/b; cmp /tmp/a /tmp/b && echo same cgroups",
    ]);
    plan.env = vec!["CHANGED=yes".to_owned()];
    let (code, out, err) = run(&container, &plan);
    assert_eq!(err, "");
    assert_eq!(out, "sleep 1000 \nlocalhost\nyes yes\nCapBnd:\t00000000a80425fb\nsame cgroups\n");
    assert_eq!(code, 0);
}

#[test]
fn user_and_working_directory_can_be_chosen() {
    let node = Node::new();
    let (_, container) = sleeper(&node);
    let plan = ExecPlan {
        user: Some("app".to_owned()),
        cwd: Some("/home".to_owned()),
        ..ExecPlan::new(["sh", "-c", "id -u; pwd; echo $HOME"])
    };
    assert_eq!(run(&container, &plan).1, "1000\n/home\n/home/app\n");
}

#[test]
fn privileged_process_has_every_capability() {
    let node = Node::new();
    let (_, container) = sleeper(&node);
    let own = std::fs::read_to_string("/proc/self/status").expect("status");
    let own = own.lines().find(|line| line.starts_with("CapPrm")).expect("capabilities");
    let plan = ExecPlan { privileged: true, ..ExecPlan::new(["grep", "CapPrm", "/proc/self/status"]) };
    assert_eq!(run(&container, &plan).1.trim_end(), own);
}

#[test]
fn input_arrives_and_its_end_too() {
    let node = Node::new();
    let (_, container) = sleeper(&node);
    let plan = ExecPlan { stdin: true, ..ExecPlan::new(["wc", "-c"]) };
    let session = container.exec(&plan).expect("exec");
    let ExecIo::Pipes { stdin: Some(stdin), stdout, .. } = session.io else { panic!("pipes with input") };
    let mut stdin = File::from(stdin);
    stdin.write_all(b"twelve bytes").expect("write");
    drop(stdin);
    let mut out = String::new();
    File::from(stdout).read_to_string(&mut out).expect("output");
    assert_eq!(out.trim(), "12");
    assert_eq!(session.exit.wait().expect("exit code"), 0);
}

#[test]
fn terminal_has_a_size_and_takes_signals_by_key() {
    let node = Node::new();
    let (_, container) = sleeper(&node);
    let plan = ExecPlan { tty: true, ..ExecPlan::new(["sh", "-c", "read x; stty size; echo ready; sleep 1000"]) };
    let session = container.exec(&plan).expect("exec");
    session.io.resize(40, 120).expect("resize");
    let ExecIo::Terminal(terminal) = session.io else { panic!("a terminal") };
    let mut terminal = File::from(terminal);
    terminal.write_all(b"\n").expect("write");
    let mut seen = Vec::new();
    let mut buffer = [0; 256];
    while !String::from_utf8_lossy(&seen).contains("ready") {
        let read = terminal.read(&mut buffer).expect("output");
        seen.extend_from_slice(&buffer[..read]);
    }
    assert!(String::from_utf8_lossy(&seen).contains("40 120"), "{}", String::from_utf8_lossy(&seen));
    terminal.write_all(b"\x03").expect("ctrl-c");
    assert_eq!(session.exit.wait().expect("exit code"), 130);
}

#[test]
fn refusals_carry_dockers_exit_codes() {
    let node = Node::new();
    let (plan, container) = sleeper(&node);
    let refusal = |argv: &[&str], user: Option<&str>| {
        let plan = ExecPlan { user: user.map(str::to_owned), ..ExecPlan::new(argv.iter().copied()) };
        match container.exec(&plan) {
            Err(ClientError::Refused(failure)) => (failure.exit_code, failure.message),
            other => panic!("refused, not {other:?}"),
        }
    };
    assert_eq!(refusal(&["nope"], None).0, 127);
    assert_eq!(refusal(&["/etc/plain"], None).0, 126);
    assert_eq!(refusal(&["broken"], None).0, 126);
    assert_eq!(refusal(&["true"], Some("ghost")).1, "unable to find user ghost: no matching entries in passwd file");

    container.signal(Signal::KILL).expect("kill");
    crate::node::wait_exited(&container);
    assert_eq!(refusal(&["true"], None).1, format!("container `{}` is not running", plan.id));
}

#[test]
fn session_can_be_signalled_and_dies_with_its_container() {
    let node = Node::new();
    let (_, container) = sleeper(&node);
    let first = container.exec(&ExecPlan::new(["sleep", "1000"])).expect("exec");
    let second = container.exec(&ExecPlan::new(["sleep", "1000"])).expect("exec");
    assert_eq!(second.exit.try_wait().expect("no event yet"), None);
    container.signal_exec(first.id, Signal::TERM).expect("signal");
    assert_eq!(first.exit.wait().expect("exit code"), 143);
    container.signal(Signal::KILL).expect("kill");
    assert_eq!(second.exit.wait().expect("exit code"), 137);
}
