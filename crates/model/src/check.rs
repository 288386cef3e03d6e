//! What holds of every cluster value, whatever changes made it.
//!
//! Tests and simulations call [`Cluster::check`] after each step; [`Cluster::from_tables`] rebuilds the
//! indexes of a value read from a snapshot.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use crate::cluster::Index;
use crate::{
    Cluster, ClusterConfig, Config, DesiredState, Network, Node, Secret, Service, Stack, Task, TaskState, Version,
    lease,
};

/// A broken invariant, in words for a developer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation(pub String);

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Cluster {
    /// Builds a value from its objects, as a snapshot holds them.
    #[expect(clippy::too_many_arguments, reason = "one for each table")]
    pub fn from_tables(
        version: Version,
        config: Option<ClusterConfig>,
        nodes: Vec<Node>,
        services: Vec<Service>,
        tasks: Vec<Task>,
        networks: Vec<Network>,
        secrets: Vec<Secret>,
        configs: Vec<Config>,
        stacks: Vec<Stack>,
    ) -> Self {
        let mut cluster = Self {
            version,
            config: config.map(Arc::new),
            nodes: nodes.into_iter().map(|node| (node.id, Arc::new(node))).collect(),
            services: services.into_iter().map(|service| (service.id, Arc::new(service))).collect(),
            tasks: tasks.into_iter().map(|task| (task.id, Arc::new(task))).collect(),
            networks: networks.into_iter().map(|network| (network.id, Arc::new(network))).collect(),
            secrets: secrets.into_iter().map(|secret| (secret.id, Arc::new(secret))).collect(),
            configs: configs.into_iter().map(|config| (config.id, Arc::new(config))).collect(),
            stacks: stacks.into_iter().map(|stack| (stack.name.clone(), Arc::new(stack))).collect(),
            index: Index::default(),
        };
        cluster.index = cluster.rebuilt_index();
        cluster
    }

    /// Every broken invariant; empty for a sound value.
    pub fn check(&self) -> Vec<Violation> {
        let mut broken = Vec::new();
        if self.index != self.rebuilt_index() {
            broken.push(Violation("an index differs from its table".to_owned()));
        }
        for task in self.tasks.values() {
            let assigned = task.status.state >= TaskState::Assigned && !task.status.state.is_terminal();
            if assigned && task.node.is_none() {
                broken.push(Violation(format!("task {} is {} on no node", task.id, task.status.state.word())));
            }
            if task.networks.len() != task.spec.networks.len() {
                broken.push(Violation(format!("task {} has not all of its networks", task.id)));
            }
            let runs = task.desired == DesiredState::Running && !task.status.state.is_terminal();
            if let Some(holder) = lease::held_up_by(self, task).filter(|_| runs) {
                broken.push(Violation(format!("task {} may run while {} may still run", task.id, holder.id)));
            }
        }
        for network in self.networks.values() {
            // Single addresses may be exceptions to a block.
            let blocks: Vec<_> = network.blocks.keys().filter(|block| block.prefix_len() < 32).collect();
            if blocks.windows(2).any(|pair| pair[0].contains(pair[1]) || pair[1].contains(pair[0])) {
                broken.push(Violation(format!("network {} has overlapping blocks", network.spec.name)));
            }
        }
        broken.extend(self.broken_tunnels());
        broken
    }

    /// The tunnel knows nodes by their keys, and each of them behind its own address.
    fn broken_tunnels(&self) -> Vec<Violation> {
        let mut broken = Vec::new();
        let (mut keys, mut addresses) = (BTreeSet::new(), BTreeSet::new());
        for (node, tunnel) in self.nodes.values().filter_map(|node| Some((node.id, node.tunnel.as_ref()?))) {
            if !keys.insert(tunnel.key) || !addresses.insert(tunnel.address) {
                broken.push(Violation(format!("node {node} has the tunnel key or address of another")));
            }
            if let Some(network) = self.networks.values().find(|network| network.subnet.contains(&tunnel.address)) {
                let (address, name) = (tunnel.address, &network.spec.name);
                broken.push(Violation(format!("node {node} has {address}, which is of network {name}")));
            }
        }
        broken
    }

    fn rebuilt_index(&self) -> Index {
        Index {
            tasks_of_service: self.tasks.values().map(|task| (task.service, task.id)).collect(),
            tasks_of_node: self.tasks.values().filter_map(|task| task.node.map(|node| (node, task.id))).collect(),
            services: self.services.values().map(|service| (service.name().to_lowercase(), service.id)).collect(),
            networks: self.networks.values().map(|network| (network.spec.name.to_lowercase(), network.id)).collect(),
            secrets: self.secrets.values().map(|secret| (secret.name.to_lowercase(), secret.id)).collect(),
            configs: self.configs.values().map(|config| (config.name.to_lowercase(), config.id)).collect(),
        }
    }
}
