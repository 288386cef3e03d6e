//! At most one: managers that decide, and a world of containers that they only know by hearsay.
//!
//! The world is as bad as the protocol allows: a container ignores its stop signal, a partitioned agent starts what
//! it may, wall clocks jump, and leaders forget what they watched.
//! What must hold in it is not what the cluster says but what runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use skep_model::*;
use skep_orchestrator::Fence;

use crate::sim::{Sim, spec};

const STEP: Duration = Duration::from_millis(500);
/// The leader's patience with a silent node.
const SILENCE: Duration = Duration::from_secs(4);
const GRACE: Duration = Duration::from_secs(10);

/// A container that was started, on whatever node.
#[derive(Debug)]
struct Container {
    /// Of a service's name: slots outlive a service that is made anew.
    slot: (String, Slot),
    ended: Option<TaskState>,
    /// When its agent began to stop it.
    stopping: Option<Duration>,
}

struct World {
    sim: Sim,
    fence: Fence,
    /// True time, which no wall clock in the cluster knows.
    time: Duration,
    /// Nodes that reach no manager, and since when.
    partitioned: BTreeMap<NodeId, Duration>,
    /// What each agent was told last.
    told: BTreeMap<NodeId, Vec<Arc<Task>>>,
    leases: BTreeMap<TaskId, Duration>,
    containers: BTreeMap<TaskId, Container>,
    /// How long containers take to stop when they are asked: none, or all of their grace and then SIGKILL.
    stop_takes: Duration,
}

impl World {
    fn new(nodes: usize) -> Self {
        Self {
            sim: Sim::new(nodes),
            fence: Fence::default(),
            time: Duration::from_secs(1000),
            partitioned: BTreeMap::new(),
            told: BTreeMap::new(),
            leases: BTreeMap::new(),
            containers: BTreeMap::new(),
            stop_takes: Duration::ZERO,
        }
    }

    fn nodes(&self) -> Vec<NodeId> {
        self.sim.cluster.nodes.keys().copied().collect()
    }

    fn run_for(&mut self, span: Duration) {
        let end = self.time + span;
        while self.time < end {
            self.step();
        }
    }

    fn step(&mut self) {
        self.judge_nodes();
        self.sim.managers();
        self.fence.observe(&self.sim.cluster, self.time);
        for end in self.fence.ends(&self.sim.cluster, self.time, self.sim.now) {
            self.sim.apply(end);
        }
        self.sim.managers();
        for node in self.nodes() {
            if !self.partitioned.contains_key(&node) {
                let tasks: Vec<_> = self.sim.cluster.tasks_of_node(node).cloned().collect();
                let granted = tasks.iter().filter(|task| task.is_live() && task.desired == DesiredState::Running);
                self.leases.extend(granted.map(|task| (task.id, self.time + lease::DURATION)));
                self.told.insert(node, tasks);
            }
            for task in self.told.get(&node).cloned().unwrap_or_default() {
                self.drive(node, &task);
            }
        }
        self.check();
        self.time += STEP;
        self.sim.now = self.sim.now.after(STEP);
    }

    fn judge_nodes(&mut self) {
        for node in self.nodes() {
            let silent = self.partitioned.get(&node).is_some_and(|since| self.time >= *since + SILENCE);
            let state = match (silent, self.partitioned.contains_key(&node)) {
                (true, _) => NodeState::Down,
                (false, true) => continue,
                (false, false) => NodeState::Ready,
            };
            if self.sim.cluster.nodes[&node].status.state != state {
                let status = NodeStatus { state, ..NodeStatus::default() };
                self.sim.apply(Change::ReportNode { node, description: None, status, at: self.sim.now });
            }
        }
    }

    /// One step of a task's agent and warden.
    fn drive(&mut self, node: NodeId, task: &Task) {
        let lease = self.leases.get(&task.id).copied().unwrap_or_default();
        let stop = task.desired >= DesiredState::Shutdown;
        let state = match self.containers.get_mut(&task.id) {
            _ if task.status.state.is_terminal() => return,
            None if stop => TaskState::Shutdown,
            None if task.desired == DesiredState::Running && lease >= self.time + lease::LEFT_AT_START_MIN => {
                let slot = (task.service_name.clone(), task.slot);
                self.containers.insert(task.id, Container { slot, ended: None, stopping: None });
                TaskState::Running
            }
            None => TaskState::Ready,
            Some(Container { ended: Some(state), .. }) => *state,
            Some(container) => {
                if stop {
                    container.stopping.get_or_insert(self.time);
                }
                if self.time >= lease + GRACE {
                    container.ended = Some(TaskState::Failed);
                } else if container.stopping.is_some_and(|since| self.time >= since + self.stop_takes) {
                    container.ended = Some(TaskState::Shutdown);
                }
                container.ended.unwrap_or(TaskState::Running)
            }
        };
        if !self.partitioned.contains_key(&node) && task.status.state != state {
            let status = TaskStatus::new(state, self.sim.now, "");
            self.sim.apply(Change::ReportTask { task: task.id, node, status });
        }
    }

    fn check(&self) {
        let mut taken = BTreeSet::new();
        for (task, container) in self.containers.iter().filter(|(_, container)| container.ended.is_none()) {
            assert!(taken.insert(&container.slot), "{:?} has a second container, of task {task}", container.slot);
        }
    }

    fn running(&self) -> usize {
        self.containers.values().filter(|container| container.ended.is_none()).count()
    }

    fn partition(&mut self, node: NodeId) {
        self.partitioned.entry(node).or_insert(self.time);
    }
}

fn single(name: &str, replicas: u64) -> ServiceSpec {
    let mut spec = spec(name, replicas);
    spec.task.at_most_one = true;
    spec.task.restart.delay = Duration::ZERO;
    spec
}

#[test]
fn a_lost_nodes_task_is_replaced_after_its_lease_and_not_before() {
    let mut world = World::new(2);
    let id = world.sim.create(single("db", 1));
    world.run_for(STEP * 4);
    let first = world.sim.running(id)[0].clone();
    world.partition(first.node.unwrap());
    world.run_for(lease::DURATION + GRACE);
    assert!(world.sim.running(id).is_empty(), "nobody can know yet that the first is gone");
    world.run_for(SILENCE + Duration::from_secs(6));
    assert_eq!(world.sim.running(id).len(), 1);
    assert_eq!(world.sim.cluster.tasks[&first.id].status.state, TaskState::Orphaned);
    world.partitioned.clear();
    world.run_for(STEP * 4);
    assert_eq!((world.running(), world.sim.running(id).len()), (1, 1));
}

#[test]
fn a_node_that_is_back_in_time_does_not_make_its_slot_wait() {
    let mut world = World::new(2);
    let id = world.sim.create(single("db", 1));
    world.run_for(STEP * 4);
    let node = world.sim.running(id)[0].node.unwrap();
    world.partition(node);
    world.run_for(SILENCE + STEP * 4);
    world.partitioned.clear();
    world.run_for(STEP * 6);
    assert_eq!(world.sim.running(id).len(), 1);
}

#[test]
fn a_nodes_return_fills_its_global_slot_whatever_the_restart_policy() {
    let mut world = World::new(2);
    let mut spec = single("agent", 0);
    spec.mode = Mode::Global;
    spec.task.restart.condition = Condition::None;
    let id = world.sim.create(spec);
    world.run_for(STEP * 4);
    let node = world.sim.running(id)[0].node.unwrap();
    world.partition(node);
    world.run_for(Duration::from_secs(60));
    assert_eq!(world.running(), 1);
    world.partitioned.clear();
    world.run_for(STEP * 6);
    assert_eq!((world.running(), world.sim.running(id).len()), (2, 2));
}

#[test]
fn a_service_made_anew_waits_for_what_the_old_one_left() {
    let mut world = World::new(2);
    let id = world.sim.create(single("db", 1));
    world.run_for(STEP * 4);
    world.partition(world.sim.running(id)[0].node.unwrap());
    world.sim.apply(Change::RemoveService { service: id });
    let anew = world.sim.create(single("db", 1));
    world.run_for(lease::DURATION);
    assert!(world.sim.running(anew).is_empty());
    world.run_for(Duration::from_secs(30));
    assert_eq!(world.sim.running(anew).len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn whatever_happens_no_slot_ever_has_two_containers(
        events in proptest::collection::vec((0u8..10, 0u8..4, 0u64..60), 1..16)
    ) {
        let mut world = World::new(3);
        let mut id = world.sim.create(single("db", 2));
        let mut global = single("agent", 0);
        global.mode = Mode::Global;
        let global = world.sim.create(global);
        let nodes = world.nodes();
        for (event, which, number) in events {
            let node = nodes[usize::from(which) % nodes.len()];
            match event {
                0 | 1 => world.partition(node),
                2 => drop(world.partitioned.remove(&node)),
                3 => world.sim.update(id, |spec| spec.mode = Mode::Replicated { replicas: number % 4 }),
                4 => world.sim.update(id, |spec| spec.task.container.image = format!("app:{number}")),
                5 => {
                    let availability = [Availability::Active, Availability::Drain][number as usize % 2];
                    let spec = NodeSpec { availability, ..NodeSpec::default() };
                    let expected = world.sim.cluster.nodes[&node].meta.version;
                    world.sim.apply(Change::UpdateNodeSpec { node, expected, spec, at: world.sim.now });
                }
                // A new leader, whose clock is anything.
                6 => {
                    world.fence = Fence::default();
                    world.sim.now = Timestamp(1_700_000_000_000_000_000 + number * 60_000_000_000);
                }
                7 => world.stop_takes = if number % 2 == 0 { Duration::ZERO } else { GRACE },
                8 => {
                    world.sim.apply(Change::RemoveService { service: id });
                    id = world.sim.create(single("db", 2));
                }
                _ => world.sim.update(global, |spec| spec.task.force_update += 1),
            }
            world.run_for(Duration::from_secs(number));
        }
        // Healed and left alone, every slot is filled.
        world.partitioned.clear();
        world.sim.update(id, |spec| spec.mode = Mode::Replicated { replicas: 2 });
        for node in nodes {
            let expected = world.sim.cluster.nodes[&node].meta.version;
            let change = Change::UpdateNodeSpec { node, expected, spec: NodeSpec::default(), at: world.sim.now };
            world.sim.apply(change);
        }
        world.run_for(Duration::from_secs(200));
        prop_assert_eq!((world.sim.running(id).len(), world.sim.running(global).len()), (2, 3));
        prop_assert_eq!(world.running(), 5);
    }
}
