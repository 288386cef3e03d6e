//! A cluster to place tasks in, built step by step.

use std::collections::BTreeMap;
use std::sync::Arc;

use skep_model::*;
use skep_scheduler::{Placement, schedule};

pub const NOW: Timestamp = Timestamp(1_800_000_000_000_000_000);

/// Builds a cluster step by step; every step is a change, as in production.
pub struct Lab {
    pub cluster: Cluster,
    pub ids: IdSource,
    index: u64,
}

impl Lab {
    pub fn new() -> Self {
        Self { cluster: Cluster::default(), ids: IdSource::from_seed(11), index: 0 }
    }

    pub fn apply(&mut self, change: Change) {
        self.index += 1;
        self.cluster.apply(&change, self.index).unwrap();
        assert_eq!(self.cluster.check(), []);
    }

    pub fn node(&mut self, hostname: &str, edit: impl FnOnce(&mut Node)) -> NodeId {
        let mut node = Node {
            id: self.ids.next_id(),
            meta: Meta::new(NOW),
            spec: NodeSpec::default(),
            description: Some(NodeDescription {
                hostname: hostname.to_owned(),
                platforms: vec![Platform { os: "linux".into(), architecture: "amd64".into(), variant: String::new() }],
                resources: NodeResources { nano_cpus: NanoCpus(2_000_000_000), memory: MemoryBytes(4 << 30) },
                ..NodeDescription::default()
            }),
            status: NodeStatus { state: NodeState::Ready, ..NodeStatus::default() },
            manager: None,
            certificate: Default::default(),
            tunnel: None,
        };
        edit(&mut node);
        let id = node.id;
        self.apply(Change::CreateNode { node: Box::new(node) });
        id
    }

    pub fn service(&mut self, name: &str, edit: impl FnOnce(&mut TaskSpec)) -> ServiceId {
        let mut task = TaskSpec::new("nginx");
        edit(&mut task);
        let spec = ServiceSpec { task, ..ServiceSpec::new(name, "nginx") };
        let service = Service::new(self.ids.next_id(), spec, NOW);
        let id = service.id;
        self.apply(Change::CreateService { service: Box::new(service) });
        id
    }

    pub fn tasks(&mut self, service: ServiceId, count: u64, ports: &[PortSpec]) -> Vec<TaskId> {
        let of = Arc::clone(&self.cluster.services[&service]);
        (1..=count)
            .map(|slot| {
                let id = self.ids.next_id();
                self.apply(Change::CreateTask {
                    task: Box::new(Task {
                        id,
                        meta: Meta::new(NOW),
                        service,
                        service_name: of.name().to_owned(),
                        slot: Slot::Replica(slot),
                        spec: Arc::new(of.spec.task.clone()),
                        spec_version: of.spec_version,
                        networks: Vec::new(),
                        host_ports: ports.to_vec(),
                        node: None,
                        desired: DesiredState::Running,
                        status: TaskStatus::new(TaskState::Pending, NOW, ""),
                        not_before: None,
                        failures_before: 0,
                        iteration: None,
                        running_since: None,
                        withdrawn: false,
                        generic: Vec::new(),
                        stop_reason: None,
                        service_labels: Default::default(),
                        home: None,
                    }),
                });
                id
            })
            .collect()
    }

    /// Schedules, applies, and counts tasks by host name; the reasons of the others come second.
    pub fn place(&mut self, tasks: &[TaskId]) -> (BTreeMap<String, usize>, Vec<String>) {
        let (mut placed, mut reasons) = (BTreeMap::new(), Vec::new());
        for placement in schedule(&self.cluster, tasks, NOW) {
            match placement {
                Placement::Assigned { task, node } => {
                    self.apply(Change::AssignTask { task, node, at: NOW });
                    *placed.entry(self.cluster.nodes[&node].hostname().to_owned()).or_default() += 1;
                }
                Placement::Unplaced { reason, .. } => reasons.push(reason),
            }
        }
        (placed, reasons)
    }
}
