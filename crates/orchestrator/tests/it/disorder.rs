//! Smallest cases of what the simulation found: updates that overtake each other, nodes that come and go, wrong clocks.

use std::time::Duration;

use skep_model::*;

use crate::sim::{Fate, Sim, spec};

const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);

fn live_in_slot(sim: &Sim, service: ServiceId, number: u64) -> Vec<TaskId> {
    let tasks = sim.cluster.tasks_of_service(service);
    tasks.filter(|task| task.slot == Slot::Replica(number) && task.is_live()).map(|task| task.id).collect()
}

fn set_node(sim: &mut Sim, node: NodeId, edit: impl FnOnce(&mut NodeSpec)) {
    let node = sim.cluster.nodes[&node].clone();
    let mut spec = node.spec.clone();
    edit(&mut spec);
    sim.apply(Change::UpdateNodeSpec { node: node.id, expected: node.meta.version, spec, at: sim.now });
}

fn set_state(sim: &mut Sim, node: NodeId, state: NodeState) {
    let status = NodeStatus { state, ..NodeStatus::default() };
    sim.apply(Change::ReportNode { node, description: None, status, at: sim.now });
}

fn nowhere() -> Constraint {
    "node.labels.disk == none".parse().unwrap()
}

#[test]
fn updates_that_overtake_each_other_leave_two_tasks_in_a_slot_and_no_history() {
    let mut sim = Sim::new(1);
    let mut web = spec("web", 1);
    web.update.order = UpdateOrder::StartFirst;
    let id = sim.create(web);
    sim.settle();
    for number in 0..20 {
        sim.update(id, |spec| {
            spec.task.container.image = format!("app:{number}");
            spec.task.placement.constraints = vec![nowhere()];
        });
        sim.settle();
        assert_eq!(live_in_slot(&sim, id, 1).len(), 2, "the one that serves and the one that cannot be placed");
    }
    assert_eq!(sim.running(id).len(), 1);
    assert_eq!(sim.cluster.tasks.len(), 2, "what never ran is not kept");
}

#[test]
fn of_two_old_tasks_that_run_in_a_slot_the_older_stops() {
    let mut sim = Sim::new(1);
    let node = *sim.cluster.nodes.keys().next().unwrap();
    let mut web = spec("web", 2);
    (web.update.order, web.update.parallelism) = (UpdateOrder::StartFirst, 2);
    let id = sim.create(web);
    sim.settle();
    set_node(&mut sim, node, |spec| spec.availability = Availability::Pause);
    sim.update(id, |spec| spec.task.container.image = "app:2".into());
    sim.settle();
    // The next update replaces one slot at a time and does not get past the first.
    sim.update(id, |spec| {
        spec.update.parallelism = 1;
        spec.task.container.image = "app:3".into();
        spec.task.placement.constraints = vec![nowhere()];
    });
    sim.settle();
    set_node(&mut sim, node, |spec| spec.availability = Availability::Active);
    sim.settle();
    let images: Vec<_> = sim.running(id).iter().map(|task| (task.slot, task.spec.container.image.clone())).collect();
    assert_eq!(images, [(Slot::Replica(1), "app:1".to_owned()), (Slot::Replica(2), "app:2".to_owned())]);
}

#[test]
fn a_global_task_that_failed_while_its_node_was_away_returns_with_the_node() {
    let mut sim = Sim::new(2);
    let mut everywhere = spec("agent", 0);
    everywhere.mode = Mode::Global;
    let id = sim.create(everywhere);
    sim.settle();
    let task = sim.running(id)[0].clone();
    let node = task.node.unwrap();
    set_state(&mut sim, node, NodeState::Down);
    sim.settle();
    let status = TaskStatus::new(TaskState::Failed, sim.now, "exited");
    sim.apply(Change::ReportTask { task: task.id, node, status });
    set_state(&mut sim, node, NodeState::Ready);
    sim.run_for(MINUTE);
    assert_eq!(sim.running(id).len(), 2);
}

#[test]
fn a_global_task_that_was_done_does_not_return_with_its_node() {
    let mut sim = Sim::new(1);
    let mut once = spec("once", 0);
    (once.mode, once.task.restart.condition) = (Mode::Global, Condition::OnFailure);
    let id = sim.create(once);
    sim.settle();
    let (task, node) = (sim.running(id)[0].id, sim.running(id)[0].node.unwrap());
    set_state(&mut sim, node, NodeState::Down);
    sim.settle();
    sim.apply(Change::ReportTask { task, node, status: TaskStatus::new(TaskState::Complete, sim.now, "exited") });
    set_state(&mut sim, node, NodeState::Ready);
    sim.run_for(MINUTE);
    assert_eq!(sim.cluster.tasks_of_service(id).count(), 1);
}

#[test]
fn what_could_not_be_prepared_on_a_node_that_is_drained_is_not_tried_there_again() {
    let mut sim = Sim::new(1);
    let mut everywhere = spec("agent", 0);
    everywhere.mode = Mode::Global;
    sim.fate = Box::new(|_| Fate::Rejected);
    let id = sim.create(everywhere);
    sim.settle();
    let node = *sim.cluster.nodes.keys().next().unwrap();
    set_node(&mut sim, node, |spec| spec.availability = Availability::Drain);
    let before = sim.index;
    sim.run_for(HOUR);
    assert!(sim.index - before < 5, "{} writes for a task that cannot be", sim.index - before);
    sim.fate = Box::new(|_| Fate::Runs);
    set_node(&mut sim, node, |spec| spec.availability = Availability::Active);
    sim.run_for(MINUTE);
    assert_eq!(sim.running(id).len(), 1);
}

#[test]
fn a_restart_does_not_wait_for_a_clock_that_was_set_back() {
    let mut sim = Sim::new(1);
    sim.fate = Box::new(|task| if task.failures_before == 0 { Fate::Exits(1) } else { Fate::Runs });
    let id = sim.create(spec("web", 1));
    sim.settle();
    assert_eq!(sim.running(id).len(), 0, "waits for its delay");
    sim.now = Timestamp(sim.now.0 - 5 * HOUR.as_nanos() as u64);
    sim.run_for(2 * MINUTE);
    assert_eq!(sim.running(id).len(), 1);
}

#[test]
fn a_restart_that_is_placed_after_the_clock_was_set_back_does_not_wait_for_it() {
    let mut sim = Sim::new(1);
    let node = *sim.cluster.nodes.keys().next().unwrap();
    let id = sim.create(spec("web", 1));
    sim.settle();
    set_node(&mut sim, node, |spec| spec.availability = Availability::Pause);
    let task = sim.running(id)[0].clone();
    sim.apply(Change::ReportTask { task: task.id, node, status: TaskStatus::new(TaskState::Failed, sim.now, "") });
    sim.settle();
    sim.now = Timestamp(sim.now.0 - 5 * HOUR.as_nanos() as u64);
    // Written anew, with a time that looks right.
    set_node(&mut sim, node, |spec| spec.availability = Availability::Active);
    sim.run_for(2 * MINUTE);
    assert_eq!(sim.running(id).len(), 1);
}

#[test]
fn ends_that_a_wrong_clock_dates_hours_ahead_are_followed_by_restarts_in_time() {
    for state in [TaskState::Failed, TaskState::Rejected] {
        let mut sim = Sim::new(1);
        let id = sim.create(spec("web", 1));
        sim.settle();
        let task = sim.running(id)[0].clone();
        let status = TaskStatus::new(state, sim.now.after(5 * HOUR), "");
        sim.apply(Change::ReportTask { task: task.id, node: task.node.unwrap(), status });
        sim.settle();
        assert_eq!(sim.running(id).len(), 0, "the policy's delay still holds");
        sim.run_for(2 * MINUTE);
        assert_eq!(sim.running(id).len(), 1, "{state:?}");
    }
}

#[test]
fn an_update_does_not_wait_for_a_clock_that_was_set_back() {
    let mut sim = Sim::new(1);
    let mut web = spec("web", 3);
    web.update.delay = Duration::from_secs(10);
    let id = sim.create(web);
    sim.settle();
    sim.update(id, |spec| spec.task.container.image = "app:2".into());
    sim.settle();
    sim.now = Timestamp(sim.now.0 - 5 * HOUR.as_nanos() as u64);
    sim.run_for(5 * MINUTE);
    assert!(sim.running(id).iter().all(|task| task.spec.container.image == "app:2"));
    assert_eq!(sim.cluster.services[&id].update_status.as_ref().unwrap().state, UpdateState::Completed);
}

#[test]
fn a_rollback_keeps_the_task_that_served_all_along() {
    let mut sim = Sim::new(1);
    let mut web = spec("web", 1);
    (web.update.order, web.update.failure_action) = (UpdateOrder::StartFirst, FailureAction::Rollback);
    sim.fate = Box::new(|task| if task.spec.container.image == "app:2" { Fate::Rejected } else { Fate::Runs });
    let id = sim.create(web);
    sim.settle();
    let served = sim.running(id)[0].id;
    sim.update(id, |spec| spec.task.container.image = "app:2".into());
    sim.run_for(5 * MINUTE);
    assert_eq!(sim.cluster.services[&id].update_status.as_ref().unwrap().state, UpdateState::RollbackCompleted);
    assert_eq!(live_in_slot(&sim, id, 1), [served]);
}

#[test]
fn a_slot_whose_new_task_was_lost_first_is_filled_when_the_old_one_ends() {
    let mut sim = Sim::new(2);
    let mut web = spec("web", 1);
    web.update.order = UpdateOrder::StartFirst;
    let id = sim.create(web);
    sim.settle();
    let old = sim.running(id)[0].clone();
    set_node(&mut sim, old.node.unwrap(), |spec| spec.availability = Availability::Pause);
    sim.update(id, |spec| spec.task.container.image = "app:2".into());
    sim.round();
    let new = *live_in_slot(&sim, id, 1).iter().find(|task| **task != old.id).unwrap();
    let now = sim.now;
    let paused = UpdateStatus {
        state: UpdateState::Paused,
        started_at: now,
        completed_at: None,
        message: "".into(),
        progress: None,
    };
    sim.apply(Change::SetUpdateStatus { service: id, status: Some(paused) });
    let node = sim.cluster.tasks[&new].node.unwrap();
    set_node(&mut sim, node, |spec| spec.availability = Availability::Drain);
    sim.settle();
    assert_eq!(live_in_slot(&sim, id, 1), [old.id]);
    set_node(&mut sim, old.node.unwrap(), |spec| spec.availability = Availability::Active);
    sim.fate = Box::new(move |task| if task.id == old.id { Fate::Exits(1) } else { Fate::Runs });
    sim.run_for(MINUTE);
    let images: Vec<_> = sim.running(id).iter().map(|task| task.spec.container.image.clone()).collect();
    assert_eq!(images, ["app:1"], "a paused update does not go on because a task ended");
}
