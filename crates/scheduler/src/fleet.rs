//! What the scheduler knows of the nodes: what is free on each, and what the service at hand has there.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use skep_model::{
    Availability, Cluster, GenericRequest, MemoryBytes, NanoCpus, Node, NodeId, NodeState, PlacementStrategy,
    PortProtocol, PortSpec, ServiceId, Task, TaskState, Timestamp, Version,
};

use crate::company::{Company, companies};
use crate::filter::Filter;
use crate::loads::Loads;
use crate::platform;

/// A service that failed this often on a node within [`FAILURE_MEMORY`] is placed there last.
const FAILURES_TO_AVOID: u32 = 5;
const FAILURE_MEMORY: Duration = Duration::from_secs(5 * 60);

/// All nodes, by id; elsewhere a node is its position here.
#[derive(Debug)]
pub struct Fleet<'a> {
    pub views: Vec<NodeView<'a>>,
    pub loads: Loads,
    /// Tasks placed so far, of all services.
    pub placed: u64,
    ids: Vec<NodeId>,
    /// Where tasks of the services to place are; a node stands there once for each task.
    occupied: BTreeMap<ServiceId, Vec<usize>>,
    /// Where tasks of these services failed lately, sorted.
    failed: Vec<(ServiceId, Version, usize)>,
    /// Nodes with a standing, in no order.
    standing: Vec<usize>,
    /// Nodes that took a task of the service at hand.
    taken: Vec<usize>,
    /// Nodes that run other processors' images too.
    emulators: Vec<usize>,
    companies: BTreeMap<ServiceId, Company>,
    /// Whether services that do not say are packed.
    packs: bool,
}

#[derive(Debug)]
pub struct NodeView<'a> {
    pub node: &'a Node,
    pub free_cpus: NanoCpus,
    pub free_memory: MemoryBytes,
    pub tasks: u32,
    pub host_ports: BTreeSet<(PortProtocol, u16)>,
    /// What is free of the node's generic resources, where it has any.
    generic: Vec<(&'a str, u64)>,
    pub standing: Standing,
}

/// What a node is to the service at hand; most nodes have none of its tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Standing {
    /// It would run the image by an emulator.
    pub emulates: bool,
    /// Recent failures that count against the node; 0 below the threshold.
    pub failures: u32,
    pub tasks: u32,
}

impl<'a> Fleet<'a> {
    /// The nodes as they are, with the history of `services`.
    pub fn new(cluster: &'a Cluster, services: impl Iterator<Item = ServiceId>, now: Timestamp) -> Self {
        let services: BTreeSet<ServiceId> = services.collect();
        let companies = companies(cluster, &services);
        let minded = companies.values().flat_map(Company::services);
        let known: BTreeSet<ServiceId> = services.iter().copied().chain(minded).collect();
        let emulates =
            |(at, node): (usize, &std::sync::Arc<Node>)| (!platform::emulated(node).is_empty()).then_some(at);
        let mut fleet = Self {
            emulators: cluster.nodes.values().enumerate().filter_map(emulates).collect(),
            packs: cluster.config.as_ref().is_some_and(|config| config.spec.bin_pack),
            views: cluster.nodes.values().map(|node| NodeView::new(node)).collect(),
            loads: Loads::default(),
            placed: 0,
            ids: cluster.nodes.keys().copied().collect(),
            occupied: known.into_iter().map(|service| (service, Vec::new())).collect(),
            failed: Vec::new(),
            standing: Vec::new(),
            taken: Vec::new(),
            companies,
        };
        for task in cluster.tasks.values() {
            if let Some(at) = task.node.and_then(|node| fleet.position(node)) {
                fleet.remember(at, task, now);
            }
        }
        fleet.failed.sort_unstable();
        fleet.loads = Loads::new(fleet.views.iter().map(|view| view.tasks));
        fleet
    }

    fn remember(&mut self, at: usize, task: &Task, now: Timestamp) {
        if task.occupies_node() {
            self.views[at].take(&Filter::new(task));
            if let Some(nodes) = self.occupied.get_mut(&task.service) {
                nodes.push(at);
            }
        }
        let failed = matches!(task.status.state, TaskState::Failed | TaskState::Rejected);
        if failed && now.since(task.status.at) < FAILURE_MEMORY && self.occupied.contains_key(&task.service) {
            self.failed.push((task.service, task.spec_version, at));
        }
    }

    pub fn position(&self, node: NodeId) -> Option<usize> {
        self.ids.binary_search(&node).ok()
    }

    /// What `task` and its equals ask of a node, other services' tasks there included.
    pub fn filter_for<'t>(&self, task: &'t Task) -> Filter<'t> {
        Filter { company: self.company(task.service), ..Filter::new(task) }
    }

    /// The nodes that the tasks of other services allow to a service; `None` where it minds none.
    pub fn company(&self, service: ServiceId) -> Option<BTreeSet<NodeId>> {
        let company = self.companies.get(&service)?;
        let nodes_of = |service: &ServiceId| -> BTreeSet<NodeId> {
            self.occupied.get(service).into_iter().flatten().map(|at| self.ids[*at]).collect()
        };
        let mut allowed: BTreeSet<NodeId> = self.ids.iter().copied().collect();
        for followed in &company.with {
            let nodes = followed.service.as_ref().map(nodes_of).unwrap_or_default();
            if !(followed.mutual && nodes.is_empty()) {
                allowed.retain(|node| nodes.contains(node));
            }
        }
        for avoided in company.without.keys().map(nodes_of) {
            allowed.retain(|node| !avoided.contains(node));
        }
        Some(allowed)
    }

    /// Which tasks keep a service away from a node, or are missing there.
    pub fn company_words(&self, service: ServiceId, at: usize) -> String {
        let Some(company) = self.companies.get(&service) else { return String::new() };
        let is_there = |service: &ServiceId| self.occupied.get(service).is_some_and(|nodes| nodes.contains(&at));
        let missing = company.with.iter().filter(|followed| !followed.service.as_ref().is_some_and(is_there));
        let missing = missing.map(|followed| match followed.service {
            Some(_) => format!("no task of {} is there", followed.name),
            None => format!("there is no service {}", followed.name),
        });
        let avoided = company.without.iter().filter(|(service, _)| is_there(service));
        let avoided = avoided.map(|(_, name)| format!("a task of {name} is there"));
        missing.chain(avoided).collect::<Vec<_>>().join(", ")
    }

    /// Whether tasks of this placement fill one node before the next.
    pub fn packs(&self, placement: &skep_model::Placement) -> bool {
        match placement.strategy {
            Some(PlacementStrategy::BinPack) => true,
            Some(PlacementStrategy::Spread) => false,
            None => self.packs,
        }
    }

    /// Turns to the service and version of `task`: every node's standing becomes its own.
    pub fn begin(&mut self, service: ServiceId, version: Version, filter: &Filter) {
        let of_version = |(service, version, _): &(ServiceId, Version, usize)| (*service, *version);
        let key = (service, version);
        let first = self.failed.partition_point(|failure| of_version(failure) < key);
        let failed = self.failed[first..].iter().take_while(|failure| of_version(failure) == key);
        for at in failed.map(|(.., at)| *at) {
            self.views[at].standing.failures += 1;
            self.standing.push(at);
        }
        for at in &self.standing {
            let failures = &mut self.views[*at].standing.failures;
            // Repeated positions see the whole count, or what it was cut to.
            *failures = if *failures >= FAILURES_TO_AVOID { *failures } else { 0 };
        }
        let platforms = &filter.placement.platforms;
        if !platforms.is_empty() {
            for at in &self.emulators {
                let view = &mut self.views[*at];
                view.standing.emulates = platform::emulates(view.node, platforms);
                self.standing.extend(view.standing.emulates.then_some(*at));
            }
        }
        for at in self.occupied.get(&service).into_iter().flatten() {
            self.views[*at].standing.tasks += 1;
            self.standing.push(*at);
        }
    }

    /// Nodes that are not like any other for the service at hand, each once.
    pub fn with_standing(&self) -> BTreeSet<usize> {
        self.standing.iter().copied().filter(|at| self.views[*at].standing != Standing::default()).collect()
    }

    /// Sets aside on a node what one task of the service at hand needs.
    pub fn take(&mut self, at: usize, filter: &Filter) {
        let nodes = self.views.len();
        let view = &mut self.views[at];
        self.loads.raise(at, view.tasks, nodes);
        view.take(filter);
        view.standing.tasks += 1;
        self.taken.push(at);
        self.placed += 1;
    }

    /// As [`Self::take`], before the nodes are ranked for the service at hand.
    pub fn take_first(&mut self, at: usize, filter: &Filter) {
        self.take(at, filter);
        self.standing.push(at);
    }

    /// Whether no node has a task or a failure of the service at hand, those just placed included.
    pub fn knows_nothing(&self) -> bool {
        self.standing.is_empty() && self.taken.is_empty()
    }

    /// Turns away from `service`, and remembers what its tasks took.
    pub fn end(&mut self, service: ServiceId) {
        for at in self.standing.drain(..).chain(self.taken.iter().copied()) {
            self.views[at].standing = Standing::default();
        }
        self.occupied.entry(service).or_default().append(&mut self.taken);
    }
}

impl<'a> NodeView<'a> {
    fn new(node: &'a Node) -> Self {
        let total = node.description.as_ref().map(|description| description.resources).unwrap_or_default();
        Self {
            node,
            free_cpus: total.nano_cpus,
            free_memory: total.memory,
            tasks: 0,
            host_ports: BTreeSet::new(),
            generic: node
                .description
                .iter()
                .flat_map(|it| &it.generic)
                .map(|it| (it.kind.as_str(), it.amount))
                .collect(),
            standing: Standing::default(),
        }
    }

    fn take(&mut self, filter: &Filter) {
        self.free_cpus.0 = self.free_cpus.0.saturating_sub(filter.cpus.0);
        self.free_memory.0 = self.free_memory.0.saturating_sub(filter.memory.0);
        self.host_ports.extend(filter.ports.iter().copied());
        self.tasks += 1;
        for GenericRequest { kind, amount } in filter.generic {
            for (_, free) in self.generic.iter_mut().filter(|(own, _)| own == kind) {
                *free = free.saturating_sub(*amount);
            }
        }
    }

    pub fn free_generic(&self, kind: &str) -> u64 {
        self.generic.iter().find(|(own, _)| *own == kind).map_or(0, |(_, free)| *free)
    }

    /// How much of the node is set aside, of a thousand parts: of its processors or memory, what is scarcer.
    pub fn fullness(&self) -> u64 {
        let total = self.node.description.as_ref().map(|description| description.resources).unwrap_or_default();
        let share = |total: u64, free: u64| match total {
            0 => 0,
            total => (u128::from(total - free.min(total)) * 1000 / u128::from(total)) as u64,
        };
        share(total.nano_cpus.0, self.free_cpus.0).max(share(total.memory.0, self.free_memory.0))
    }

    pub fn takes_tasks(&self) -> bool {
        self.node.status.state == NodeState::Ready && self.node.spec.availability == Availability::Active
    }
}

/// The port that a host-mode publication takes of its node; none when the node chooses a free one.
pub fn claimed_port(port: &PortSpec) -> Option<(PortProtocol, u16)> {
    (port.published != 0).then_some((port.protocol, port.published))
}
