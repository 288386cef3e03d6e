//! A cluster without machines: real reconcile, real scheduler, and agents that do as they are told.

use std::sync::Arc;
use std::time::Duration;

use skep_model::*;
use skep_orchestrator::{addresses, moves, next_wakeup, reconcile};
use skep_scheduler::{next_move, schedule};

/// What a container does once its task may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Runs,
    /// Ends with this code as soon as it has started.
    Exits(i32),
    Rejected,
}

pub struct Sim {
    pub cluster: Cluster,
    pub now: Timestamp,
    pub ids: IdSource,
    pub index: u64,
    pub fate: Box<dyn Fn(&Task) -> Fate>,
}

pub fn spec(name: &str, replicas: u64) -> ServiceSpec {
    ServiceSpec {
        mode: Mode::Replicated { replicas },
        update: UpdateConfig { monitor: Duration::from_secs(1), ..UpdateConfig::default() },
        ..ServiceSpec::new(name, "app:1")
    }
}

impl Sim {
    pub fn new(nodes: usize) -> Self {
        let mut sim = Self {
            cluster: Cluster::default(),
            now: Timestamp(1_700_000_000_000_000_000),
            ids: IdSource::from_seed(42),
            index: 0,
            fate: Box::new(|_| Fate::Runs),
        };
        let config = ClusterConfig {
            id: ClusterId::from_u128(1),
            meta: Meta::new(sim.now),
            spec: ClusterSpec::default(),
            ca_certificate: String::new(),
            ca_key: String::new(),
            join_tokens: JoinTokenHashes::default(),
            next_raft_id: 1,
            unlock_key: None,
            level: FEATURE_LEVEL,
            trust: TrustHistory::default(),
        };
        sim.apply(Change::SetClusterConfig { config: Box::new(config), expected: None });
        for number in 0..nodes {
            sim.join(&format!("n{number}"));
        }
        sim
    }

    pub fn join(&mut self, hostname: &str) -> NodeId {
        let node = Node {
            id: self.ids.next_id(),
            meta: Meta::new(self.now),
            spec: NodeSpec::default(),
            description: Some(NodeDescription { hostname: hostname.to_owned(), ..NodeDescription::default() }),
            status: NodeStatus { state: NodeState::Ready, ..NodeStatus::default() },
            manager: None,
            certificate: Default::default(),
            tunnel: None,
        };
        let id = node.id;
        self.apply(Change::CreateNode { node: Box::new(node) });
        id
    }

    pub fn apply(&mut self, change: Change) {
        self.index += 1;
        self.cluster.apply(&change, self.index).unwrap_or_else(|refusal| panic!("{refusal}: {change:?}"));
        let broken = self.cluster.check();
        assert!(broken.is_empty(), "{broken:?} after {change:?}");
    }

    pub fn create(&mut self, spec: ServiceSpec) -> ServiceId {
        let id = self.ids.next_id();
        let service = Service::new(id, spec, self.now);
        self.apply(Change::CreateService { service: Box::new(service) });
        id
    }

    pub fn update(&mut self, id: ServiceId, edit: impl FnOnce(&mut ServiceSpec)) {
        let service = &self.cluster.services[&id];
        let mut spec = (*service.spec).clone();
        edit(&mut spec);
        let change =
            Change::UpdateService { service: id, expected: service.meta.version, spec: Arc::new(spec), at: self.now };
        self.apply(change);
    }

    /// One round of managers, to its fixpoint, and one step of every agent. True if anything happened.
    pub fn round(&mut self) -> bool {
        let before = self.index;
        self.managers();
        self.agents();
        self.index != before
    }

    /// What the managers decide now, to its fixpoint, and where tasks go.
    pub fn managers(&mut self) {
        for _ in 0..10 {
            let changes = reconcile(&self.cluster, self.now, &mut self.ids);
            if changes.is_empty() {
                break;
            }
            changes.into_iter().for_each(|change| self.apply(change));
        }
        assert_eq!(reconcile(&self.cluster, self.now, &mut self.ids), [], "reconcile has a fixpoint");
        let waits = |task: &Task| task.status.state == TaskState::Pending && task.is_live();
        let pending: Vec<TaskId> = self.cluster.tasks.values().filter(|t| waits(t)).map(|t| t.id).collect();
        let mut placed: Vec<(TaskId, NodeId)> = Vec::new();
        for placement in schedule(&self.cluster, &pending, self.now) {
            match placement {
                skep_scheduler::Placement::Assigned { task, node } => placed.push((task, node)),
                skep_scheduler::Placement::Unplaced { task, reason } => {
                    if self.cluster.tasks[&task].status.error.as_ref() != Some(&reason) {
                        self.apply(Change::SetTaskPending { task, reason: Some(reason), at: self.now });
                    }
                }
            }
        }
        for block in addresses::blocks_for(&self.cluster, &placed, self.now) {
            self.apply(block);
        }
        let rests = placed.is_empty();
        for (task, node) in placed {
            self.apply(Change::AssignTask { task, node, at: self.now });
        }
        if rests {
            self.rebalance();
        }
    }

    /// The next move of each service that is spread anew, as the leader makes it.
    fn rebalance(&mut self) {
        let asked: Vec<Arc<Service>> =
            self.cluster.services.values().filter(|service| moves::is_asked(service)).cloned().collect();
        for service in asked {
            let cluster = self.cluster.clone();
            let Some(tasks) = moves::movable(&cluster, &service, self.now) else { continue };
            let changes = match next_move(&cluster, &service, &tasks, self.now) {
                Some(step) => {
                    let task = &cluster.tasks[&step.task];
                    assert_ne!(task.node, Some(step.to), "a move goes elsewhere");
                    let name = moves::name_of(&cluster, step.to);
                    let made = moves::replace(&cluster, &service, task, &name, self.now, &mut self.ids);
                    let (mut changes, made) = made.expect("a task is made");
                    changes.push(Change::AssignTask { task: made, node: step.to, at: self.now });
                    changes
                }
                None if service.rebalancing_since.is_some() && moves::is_settled(&cluster, &service) => {
                    vec![Change::SetRebalancing { service: service.id, since: None }]
                }
                None => Vec::new(),
            };
            changes.into_iter().for_each(|change| self.apply(change));
        }
    }

    fn agents(&mut self) {
        let up = |cluster: &Cluster, node| cluster.nodes.get(&node).is_some_and(|n| n.status.state == NodeState::Ready);
        let tasks: Vec<Arc<Task>> = self.cluster.tasks.values().cloned().collect();
        for task in tasks {
            let Some(node) = task.node.filter(|node| up(&self.cluster, *node)) else { continue };
            if task.status.state.is_terminal() {
                continue;
            }
            let fate = (self.fate)(&task);
            let next = match (task.desired, task.status.state) {
                (DesiredState::Shutdown | DesiredState::Remove, _) => Some(TaskState::Shutdown),
                (_, TaskState::Assigned) if fate == Fate::Rejected => Some(TaskState::Rejected),
                (_, TaskState::Assigned) => Some(TaskState::Ready),
                (DesiredState::Running, TaskState::Ready) => Some(TaskState::Running),
                (_, TaskState::Running) => match fate {
                    Fate::Exits(0) => Some(TaskState::Complete),
                    Fate::Exits(_) => Some(TaskState::Failed),
                    Fate::Runs | Fate::Rejected => None,
                },
                _ => None,
            };
            if let Some(state) = next {
                let mut status = TaskStatus::new(state, self.now, "");
                let started = task.status.container.as_ref().and_then(|container| container.started_at);
                let started_at = if state == TaskState::Running { Some(self.now) } else { started };
                status.container = Some(ContainerStatus { started_at, ..ContainerStatus::default() });
                self.apply(Change::ReportTask { task: task.id, node, status });
            }
        }
    }

    /// Rounds until nothing happens any more at this time.
    pub fn settle(&mut self) {
        for _ in 0..200 {
            if !self.round() {
                return;
            }
        }
        panic!("no rest after 200 rounds");
    }

    /// Settles, then lets time pass to each wake-up until `span` is over.
    pub fn run_for(&mut self, span: Duration) {
        let end = self.now.after(span);
        for _ in 0..10_000 {
            self.settle();
            match next_wakeup(&self.cluster, self.now) {
                Some(at) if at <= end => self.now = at,
                _ => break,
            }
        }
        self.now = end;
        self.settle();
    }

    pub fn running(&self, service: ServiceId) -> Vec<Arc<Task>> {
        let live =
            self.cluster.tasks_of_service(service).filter(|t| t.is_live() && t.status.state == TaskState::Running);
        live.cloned().collect()
    }
}
