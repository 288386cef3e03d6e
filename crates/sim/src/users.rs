//! What users do: found the cluster, create, update, scale and remove services, and look after nodes.

use std::sync::Arc;
use std::time::Duration;

use skep_manager::admission::{self, NewContent};
use skep_model::{
    Availability, CertificateRecord, Change, ClusterConfig, ClusterId, ClusterSpec, Condition, FEATURE_LEVEL, IdSource,
    JoinTokenHashes, Labels, ManagerStatus, MemoryBytes, Meta, Mode, NanoCpus, NetworkSpec, Node, NodeDescription,
    NodeResources, NodeSpec, NodeState, NodeStatus, Platform, Role, Service, ServiceSpec, TrustHistory, UpdateOrder,
};

use crate::agent::Agent;
use crate::clock::{MILLI, SECOND, WallClock};
use crate::log::Plan;
use crate::manager::Purpose;
use crate::specs;
use crate::world::{Event, World};

pub const SERVICES_MAX: usize = 6;

impl World {
    /// The first entries: settings, members, a network and a secret.
    pub fn found(&mut self, machines: usize) {
        let mut ids = self.chance.ids();
        let at = WallClock::default().read(0);
        let config = ClusterConfig {
            id: ClusterId::from_u128(1),
            meta: Meta::new(at),
            spec: ClusterSpec::default(),
            ca_certificate: String::new(),
            ca_key: String::new(),
            join_tokens: JoinTokenHashes::default(),
            next_raft_id: 1,
            unlock_key: None,
            level: FEATURE_LEVEL,
            trust: TrustHistory::default(),
        };
        let mut changes = vec![Change::SetClusterConfig { config: Box::new(config), expected: None }];
        for machine in 0..machines {
            let node = new_node(machine, self.managers.len(), at, &mut ids);
            self.agents.push(Agent::new(node.id, describe(machine)));
            changes.push(Change::CreateNode { node: Box::new(node) });
        }
        let empty = skep_model::Cluster::default();
        let back = NetworkSpec { name: "back".to_owned(), ..NetworkSpec::default() };
        if let Ok(network) = admission::network(&empty, back, at, &mut ids) {
            changes.push(Change::CreateNetwork { network: Box::new(network) });
        }
        let key = NewContent {
            name: "key".to_owned(),
            labels: Labels::new(),
            data: b"hush".to_vec(),
            kind: Default::default(),
        };
        if let Ok(secret) = admission::secret(&empty, key, at, &mut ids) {
            changes.push(Change::CreateSecret { secret: Box::new(secret) });
        }
        self.log.append(0, Plan::Any, Arc::new(changes), None);
        assert!(self.log.entries[0].result.is_ok(), "the cluster is founded: {:?}", self.log.entries[0].result);
        for manager in 0..self.managers.len() {
            self.at(manager as u64 * 7 * MILLI, Event::ManagerTick { manager });
        }
        for machine in 0..machines {
            self.at(SECOND + machine as u64 * 13 * MILLI, Event::AgentTick { machine });
        }
        self.at(0, Event::Watch);
        self.at(SECOND, Event::User);
        self.at(10 * SECOND, Event::Fault);
    }

    /// One request, and the plan of the next.
    pub fn user_acts(&mut self) {
        if self.healed.is_some() {
            return;
        }
        let next = self.user_chance.between(SECOND / 2, 8 * SECOND);
        self.after(next, Event::User);
        let asked = self.user_chance.below(self.managers.len() as u64) as usize;
        if !self.managers[asked].up {
            return;
        }
        let services: Vec<Arc<Service>> = self.managers[asked].cluster.services.values().cloned().collect();
        let kind = self.user_chance.below(10);
        let request = match self.user_chance.pick(&services).cloned() {
            _ if kind >= 8 => self.look_after_a_node(asked),
            None => self.create_service(asked),
            Some(_) if services.len() < SERVICES_MAX && kind < 3 => self.create_service(asked),
            Some(service) if kind == 7 => Some(("remove service", Change::RemoveService { service: service.id })),
            Some(service) => self.update_service(asked, &service),
        };
        if let Some((what, change)) = request {
            // Now and then two ask for the same at once, of different managers: one of them comes too late.
            let other = (asked + 1) % self.managers.len();
            if self.user_chance.one_in(5) && self.managers[other].up {
                self.propose(other, Plan::Any, vec![change.clone()], Purpose::User(what));
            }
            self.propose(asked, Plan::Any, vec![change], Purpose::User(what));
        }
    }

    fn create_service(&mut self, asked: usize) -> Option<(&'static str, Change)> {
        self.names += 1;
        let spec = specs::service(format!("s{}", self.names), &mut self.user_chance);
        let at = self.managers[asked].wall.read(self.now);
        let mut ids = self.user_chance.ids();
        let service = admission::service(&self.managers[asked].cluster, spec, at, &mut ids).ok()?;
        Some(("create service", Change::CreateService { service: Box::new(service) }))
    }

    fn update_service(&mut self, asked: usize, service: &Service) -> Option<(&'static str, Change)> {
        let at = self.managers[asked].wall.read(self.now);
        let chance = &mut self.user_chance;
        let mut spec: ServiceSpec = (*service.spec).clone();
        match chance.below(4) {
            0 => {
                if let Mode::Replicated { replicas } = &mut spec.mode {
                    *replicas = chance.below(7);
                }
            }
            1 => spec = service.previous_spec()?.clone(),
            2 => spec.task.force_update += 1,
            _ => {
                spec.task.container.image = specs::image(chance).to_owned();
                if !spec.mode.is_job() {
                    (spec.update, spec.rollback) = (specs::update(chance), specs::update(chance));
                }
                if spec.task.at_most_one {
                    (spec.update.order, spec.rollback.order) = (UpdateOrder::StopFirst, UpdateOrder::StopFirst);
                }
            }
        }
        let change = admission::service_update(&self.managers[asked].cluster, service, spec, at).ok()?;
        Some(("update service", change))
    }

    fn look_after_a_node(&mut self, asked: usize) -> Option<(&'static str, Change)> {
        let at = self.managers[asked].wall.read(self.now);
        let cluster = Arc::clone(&self.managers[asked].cluster);
        let nodes: Vec<&Arc<Node>> = cluster.nodes.values().collect();
        let node = self.user_chance.pick(&nodes)?;
        if let Some(machine) = (self.managers.len()..self.agents.len())
            .find(|machine| !self.log.state().nodes.contains_key(&self.agents[*machine].node))
            && self.user_chance.one_in(2)
        {
            return Some(("join", self.join_again(machine, at)));
        }
        if self.user_chance.one_in(4) {
            let removable = node.manager.is_none() && node.status.state == NodeState::Down;
            return removable.then(|| ("remove node", Change::RemoveNode { node: node.id }));
        }
        let mut spec = node.spec.clone();
        match self.user_chance.below(6) {
            0 => spec.availability = Availability::Drain,
            1 => spec.availability = Availability::Pause,
            2 => drop(spec.labels.insert("disk".to_owned(), specs::disk(&mut self.user_chance).to_owned())),
            _ => spec.availability = Availability::Active,
        }
        Some(("update node", Change::UpdateNodeSpec { node: node.id, expected: node.meta.version, spec, at }))
    }

    /// A machine that was removed is a new node.
    fn join_again(&mut self, machine: usize, at: skep_model::Timestamp) -> Change {
        let mut ids = self.user_chance.ids();
        let node = new_node(machine, self.managers.len(), at, &mut ids);
        let before = &self.agents[machine];
        let (up, epoch, power, wall) = (before.up, before.epoch + 1, before.power + 1, before.wall);
        self.agents[machine] = Agent { up, epoch, power, wall, ..Agent::new(node.id, describe(machine)) };
        Change::CreateNode { node: Box::new(node) }
    }
}

fn new_node(machine: usize, managers: usize, at: skep_model::Timestamp, ids: &mut IdSource) -> Node {
    let manages = machine < managers;
    let status = ManagerStatus { raft_id: machine as u64 + 1, address: format!("10.0.0.{}:7377", machine + 1) };
    let disk = if machine.is_multiple_of(2) { "ssd" } else { "hdd" };
    Node {
        id: ids.next_id(),
        meta: Meta::new(at),
        spec: NodeSpec {
            role: if manages { Role::Manager } else { Role::Worker },
            labels: Labels::from([("disk".to_owned(), disk.to_owned())]),
            ..NodeSpec::default()
        },
        description: None,
        status: NodeStatus::default(),
        manager: manages.then_some(status),
        certificate: CertificateRecord::default(),
        tunnel: None,
    }
}

fn describe(machine: usize) -> NodeDescription {
    let platform = Platform { os: "linux".to_owned(), architecture: "amd64".to_owned(), variant: String::new() };
    NodeDescription {
        hostname: format!("n{machine}"),
        platforms: vec![platform],
        resources: NodeResources { nano_cpus: NanoCpus(4_000_000_000), memory: MemoryBytes(2 << 30) },
        level: FEATURE_LEVEL,
        ..NodeDescription::default()
    }
}

/// Whether a policy may leave a slot without a running task for good.
pub fn may_rest(service: &Service) -> bool {
    let restart = service.spec.task.restart;
    restart.condition != Condition::Any || restart.max_attempts > 0
}

pub fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
