//! Containers that live by a lease: what its end does, and that nobody has to be there for it.

use std::time::Duration;

use skep_runtime::plan::LeasePlan;
use skep_runtime::{ClientError, Container, LEASE_RAN_OUT, Plan, boottime};

use crate::node::{Node, kill_9, read_log, wait_gone};

const SHORT: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(600);

fn leased(node: &Node, script: &str, stop_grace: Duration) -> Plan {
    let mut plan = node.plan("a", script);
    plan.lease = Some(LeasePlan { stop_grace });
    plan
}

fn renew(container: &Container, by: Duration) {
    container.renew_lease(boottime() + by).expect("it is renewed");
}

/// Starts it and keeps its lease long until it says that it is up; from then on it has `SHORT`, or nothing, left.
fn up(node: &Node, plan: &Plan) -> Container {
    let container = node.create(plan);
    while !is_started(&container) {}
    while !read_log(&plan.log.path).contains("up") {
        // A machine that stops the test for the length of a lease ends the container early, as it should.
        if container.renew_lease(boottime() + SHORT).is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    container
}

fn is_started(container: &Container) -> bool {
    renew(container, SHORT);
    match container.start() {
        Ok(()) => true,
        Err(ClientError::Refused(failure)) => {
            assert_eq!(failure.step, "lease", "{failure:?}");
            false
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_lease_that_nobody_renews_ends_its_container_by_the_stop_signal() {
    let node = Node::new();
    let plan = leased(&node, "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done", LONG);
    let container = up(&node, &plan);
    let outcome = node.finish(&plan, &container);
    assert_eq!(outcome.error.as_deref(), Some(LEASE_RAN_OUT));
    // On a machine that stood still the lease may have ended before the shell had its trap.
    if outcome.log.starts_with("up") {
        assert_eq!((outcome.code, outcome.log.as_str()), (0, "up\nbye\n"));
    }
}

#[test]
fn one_that_does_not_stop_is_killed_after_its_grace() {
    let node = Node::new();
    let plan = leased(&node, "trap '' TERM; echo up; while :; do sleep 0.05; done", Duration::from_millis(50));
    let container = up(&node, &plan);
    let outcome = node.finish(&plan, &container);
    assert_eq!((outcome.code, outcome.error.as_deref()), (137, Some(LEASE_RAN_OUT)));
}

#[test]
fn without_a_lease_it_does_not_start_and_with_one_it_lives() {
    let node = Node::new();
    let plan = leased(&node, "exit 7", LONG);
    let container = node.create(&plan);
    let refused = container.start().expect_err("no lease yet");
    assert!(refused.to_string().contains("has no lease to start with"), "{refused}");
    renew(&container, LONG);
    container.start().expect("it has a lease");
    let outcome = node.finish(&plan, &container);
    assert_eq!((outcome.code, outcome.error), (7, None));

    let plan = node.plan("free", "exit 0");
    let refused = node.create(&plan).renew_lease(boottime()).expect_err("it has none to renew");
    assert!(refused.to_string().contains("does not live by a lease"), "{refused}");
}

#[test]
fn a_lease_is_enforced_without_keeper_and_a_lost_warden_takes_its_container_along() {
    let mut node = Node::new();
    let plan = leased(&node, "echo up; while :; do sleep 0.05; done", LONG);
    let container = node.create(&plan);
    renew(&container, LONG);
    container.start().expect("it starts");
    let skep_runtime::State::Running { pid, .. } = container.state().expect("a state") else { panic!("it runs") };
    kill_9(node.keeper.pid());
    kill_9(crate::faults::warden_pid(&node, "a"));
    // No keeper is there that could end what the warden left.
    wait_gone(pid);
    node.renew_keeper();
}
