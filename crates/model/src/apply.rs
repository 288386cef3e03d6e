//! Applying changes: the only writes to a [`Cluster`].
//!
//! `apply` is deterministic: every manager applies the same changes in the same order and must end with
//! the same value, so it knows no clock and no chance.

mod claims;
mod contents;
mod tasks;
mod tunnel;

use std::sync::Arc;

use self::contents::Rewrite;
use crate::change::Kind;
use crate::{
    Change, Cluster, Due, Feature, JobStatus, ManagerStatus, NetworkId, Node, NodeId, Rejection, Service, ServiceId,
    ServiceRevision, ServiceSpec, Task, TaskId, Timestamp, Version,
};

impl Cluster {
    /// Applies one change at Raft index `index`.
    ///
    /// A refused change leaves the value as it was.
    /// To apply a list whole or not at all, apply it to a clone: clones share everything.
    pub fn apply(&mut self, change: &Change, index: u64) -> Result<(), Rejection> {
        let version = Version(index);
        self.apply_at(change, version)?;
        self.version = version;
        Ok(())
    }

    fn apply_at(&mut self, change: &Change, version: Version) -> Result<(), Rejection> {
        match change {
            Change::SetClusterConfig { config, expected } => {
                let actual = self.config.as_ref().map(|config| config.meta.version);
                if actual != *expected {
                    let (expected, actual) = (expected.unwrap_or_default(), actual.unwrap_or_default());
                    return Err(out_of_sequence(Kind::Cluster, &config.id, expected, actual));
                }
                let mut config = config.clone();
                config.meta.version = version;
                // The counter moves without a new version of the settings: whoever changes them may have read an older one.
                let taken = self.config.as_ref().map_or(0, |known| known.next_raft_id);
                config.next_raft_id = config.next_raft_id.max(taken);
                self.config = Some(Arc::from(config));
            }
            Change::CreateNode { node } => self.create_node(node, version)?,
            Change::UpdateNodeSpec { node, expected, spec, at } => {
                let node = self.node_mut(*node)?;
                check_version(Kind::Node, &node.id, *expected, node.meta.version)?;
                node.spec = spec.clone();
                (node.meta.version, node.meta.updated_at) = (version, *at);
            }
            Change::ReportNode { node, description, status, at } => {
                let node = self.node_mut(*node)?;
                if let Some(description) = description {
                    node.description = Some((**description).clone());
                }
                node.status = status.clone();
                (node.meta.version, node.meta.updated_at) = (version, *at);
            }
            Change::SetNodeManager { node, manager, at } => self.set_node_manager(*node, manager, *at, version)?,
            Change::RecordCertificate { node, certificate } => {
                let node = self.node_mut(*node)?;
                node.certificate = certificate.clone();
                node.meta.version = version;
            }
            Change::SetNodeTunnel { node, key, endpoint, at } => {
                self.set_node_tunnel(*node, *key, *endpoint, *at, version)?;
            }
            Change::RemoveNode { node } => self.remove_node(*node)?,
            Change::CreateService { service } => self.create_service(service, version)?,
            Change::UpdateService { service, expected, spec, at } => {
                self.update_service(*service, *expected, spec, *at, version)?;
            }
            Change::SetServiceEndpoint { service, endpoint } => {
                let service = self.service_mut(*service)?;
                service.endpoint = endpoint.clone();
                service.meta.version = version;
            }
            Change::SetUpdateStatus { service, status } => {
                let service = self.service_mut(*service)?;
                service.update_status = status.clone();
                service.meta.version = version;
            }
            Change::FollowSchedule { service, expected, due, outcome, message, at } => {
                let service = self.service_mut(*service)?;
                check_version(Kind::Service, &service.id, *expected, service.meta.version)?;
                let job = service.job.get_or_insert_default();
                (job.followed_to, job.message) = (*due, message.clone());
                if *outcome == Due::Run {
                    (job.iteration, job.last_execution) = (job.iteration + 1, *at);
                }
                service.meta.version = version;
            }
            Change::SetRebalancing { service, since } => {
                let service = self.service_mut(*service)?;
                service.rebalancing_since = *since;
                service.meta.version = version;
            }
            Change::RemoveService { service } => {
                let service = self.services.remove(service).ok_or_else(|| not_found(Kind::Service, service))?;
                self.index.services.remove(&service.name().to_lowercase());
            }
            Change::CreateTask { task } => self.create_task(task, version)?,
            Change::SetTaskPending { task, reason, at } => self.set_task_pending(*task, reason, *at, version)?,
            Change::SetTaskWaiting { task, reason, at } => self.set_task_waiting(*task, reason, *at, version)?,
            Change::AssignTask { task, node, at } => self.assign_task(*task, *node, *at, version)?,
            Change::SetTaskDesired { task, desired, at, reason } => {
                self.set_task_desired(*task, *desired, reason, *at, version)?;
            }
            Change::ReportTask { task, node, status } => self.report_task(*task, *node, status, version)?,
            Change::RefreshTask { task, spec, spec_version } => {
                self.refresh_task(*task, spec, *spec_version, version)?
            }
            Change::RemoveTask { task } => {
                let task = self.tasks.remove(task).ok_or_else(|| not_found(Kind::Task, task))?;
                self.index.tasks_of_service.remove(&(task.service, task.id));
                if let Some(node) = task.node {
                    self.index.tasks_of_node.remove(&(node, task.id));
                }
            }
            Change::CreateNetwork { network } => {
                let name = network.spec.name.to_lowercase();
                if self.index.networks.contains_key(&name) {
                    return Err(already_exists(Kind::Network, &network.spec.name));
                }
                self.keep_node_addresses(network)?;
                self.keep_ranges_apart(network)?;
                let mut network = network.clone();
                network.meta.version = version;
                self.index.networks.insert(name, network.id);
                self.networks.insert(network.id, Arc::from(network));
            }
            Change::AssignBlock { network, block, node } => self.assign_block(*network, *block, *node, version)?,
            Change::ReleaseBlock { network, block } => {
                let network = self.networks.get_mut(network).ok_or_else(|| not_found(Kind::Network, network))?;
                let network = Arc::make_mut(network);
                network.blocks.remove(block);
                network.meta.version = version;
            }
            Change::RemoveNetwork { network } => self.remove_network(*network)?,
            Change::CreateSecret { secret } => {
                let name = secret.name.to_lowercase();
                if self.index.secrets.contains_key(&name) {
                    return Err(already_exists(Kind::Secret, &secret.name));
                }
                let mut secret = secret.clone();
                secret.meta.version = version;
                self.index.secrets.insert(name, secret.id);
                self.secrets.insert(secret.id, Arc::from(secret));
            }
            Change::UpdateSecret { secret, expected, labels, digest, data, at } => {
                self.update_secret(*secret, &Rewrite { expected: *expected, labels, digest, data, at: *at }, version)?;
            }
            Change::RemoveSecret { secret } => self.remove_secret(*secret)?,
            Change::CreateConfig { config } => {
                let name = config.name.to_lowercase();
                if self.index.configs.contains_key(&name) {
                    return Err(already_exists(Kind::Config, &config.name));
                }
                let mut config = config.clone();
                config.meta.version = version;
                self.index.configs.insert(name, config.id);
                self.configs.insert(config.id, Arc::from(config));
            }
            Change::UpdateConfig { config, expected, labels, digest, data, at } => {
                self.update_config(*config, &Rewrite { expected: *expected, labels, digest, data, at: *at }, version)?;
            }
            Change::RemoveConfig { config } => self.remove_config(*config)?,
            Change::PutStack { stack } => {
                let mut stack = stack.clone();
                stack.meta.version = version;
                self.stacks.insert(stack.name.clone(), Arc::from(stack));
            }
            Change::RemoveStack { name } => {
                self.stacks.remove(name).ok_or_else(|| not_found(Kind::Stack, name))?;
            }
        }
        Ok(())
    }

    fn create_node(&mut self, node: &Node, version: Version) -> Result<(), Rejection> {
        if self.nodes.contains_key(&node.id) {
            return Err(already_exists(Kind::Node, &node.id));
        }
        if let Some(manager) = &node.manager {
            self.take_raft_id(manager.raft_id)?;
        }
        let mut node = node.clone();
        node.meta.version = version;
        self.nodes.insert(node.id, Arc::new(node));
        Ok(())
    }

    fn set_node_manager(
        &mut self,
        id: NodeId,
        manager: &Option<ManagerStatus>,
        at: Timestamp,
        version: Version,
    ) -> Result<(), Rejection> {
        let known = self.nodes.get(&id).ok_or_else(|| not_found(Kind::Node, &id))?;
        let moves_only = |new: &ManagerStatus| known.manager.as_ref().is_some_and(|old| old.raft_id == new.raft_id);
        if let Some(new) = manager
            && !moves_only(new)
        {
            self.take_raft_id(new.raft_id)?;
        }
        let node = self.node_mut(id)?;
        node.manager = manager.clone();
        (node.meta.version, node.meta.updated_at) = (version, at);
        Ok(())
    }

    /// Raft ids come from the cluster's counter, in order, and are never used twice.
    fn take_raft_id(&mut self, id: u64) -> Result<(), Rejection> {
        let config = self.config.as_mut().ok_or_else(|| not_found(Kind::Cluster, &"of this manager"))?;
        if id != config.next_raft_id {
            return Err(out_of_sequence(Kind::Cluster, &config.id, Version(id), Version(config.next_raft_id)));
        }
        Arc::make_mut(config).next_raft_id += 1;
        Ok(())
    }

    fn remove_node(&mut self, node: NodeId) -> Result<(), Rejection> {
        if let Some(task) = self.tasks_of_node(node).find(|task| !task.status.state.is_terminal()) {
            return Err(in_use(Kind::Node, &node, format!("task {}", task.name())));
        }
        self.nodes.remove(&node).ok_or_else(|| not_found(Kind::Node, &node))?;
        Ok(())
    }

    fn create_service(&mut self, service: &Service, version: Version) -> Result<(), Rejection> {
        let name = service.name().to_lowercase();
        if self.index.services.contains_key(&name) {
            return Err(already_exists(Kind::Service, &service.name()));
        }
        self.check_references(&service.spec)?;
        self.keep_ports_apart(service)?;
        let mut service = service.clone();
        service.meta.version = version;
        service.spec_version = version;
        service.job = JobStatus::new(&service.spec, service.meta.created_at);
        self.index.services.insert(name, service.id);
        self.services.insert(service.id, Arc::new(service));
        Ok(())
    }

    fn update_service(
        &mut self,
        id: ServiceId,
        expected: Version,
        spec: &Arc<ServiceSpec>,
        at: Timestamp,
        version: Version,
    ) -> Result<(), Rejection> {
        let notes = self.has(Feature::GentleUpdates);
        let service = self.service_mut(id)?;
        check_version(Kind::Service, &id, expected, service.meta.version)?;
        if service.spec == *spec {
            return Ok(());
        }
        (service.meta.version, service.meta.updated_at) = (version, at);
        let only_scaled = ServiceSpec { mode: spec.mode, ..(*service.spec).clone() } == **spec;
        let old = std::mem::replace(&mut service.spec, Arc::clone(spec));
        if only_scaled {
            return Ok(());
        }
        service.job = service.job.take().map(|job| job.updated(&old, spec, at));
        let unfinished = notes && service.update_status.as_ref().is_some_and(|status| !status.state.is_completed());
        service.revisions.push(ServiceRevision {
            spec_version: service.spec_version,
            spec: old,
            replaced_at: at,
            unfinished,
        });
        let excess = service.revisions.len().saturating_sub(Service::REVISIONS_KEPT);
        service.revisions.drain(..excess);
        service.spec_version = version;
        service.update_status = None;
        Ok(())
    }

    /// What a new service refers to is there: it may have gone since the service was checked. An update may
    /// go back to a spec whose contents are gone; its tasks then say so.
    fn check_references(&self, spec: &ServiceSpec) -> Result<(), Rejection> {
        let (task, container) = (&spec.task, &spec.task.container);
        let missing = |kind, name: &String| Err(not_found(kind, name));
        if let Some(gone) = task.networks.iter().find(|used| self.network_named(&used.network).is_none()) {
            return missing(Kind::Network, &gone.network);
        }
        if let Some(gone) = container.secrets.iter().find(|used| self.secret_named(&used.secret).is_none()) {
            return missing(Kind::Secret, &gone.secret);
        }
        if let Some(gone) = container.configs.iter().find(|used| self.config_named(&used.config).is_none()) {
            return missing(Kind::Config, &gone.config);
        }
        Ok(())
    }

    fn assign_block(
        &mut self,
        id: NetworkId,
        block: ipnet::Ipv4Net,
        node: NodeId,
        version: Version,
    ) -> Result<(), Rejection> {
        if !self.nodes.contains_key(&node) {
            return Err(not_found(Kind::Node, &node));
        }
        let network = self.networks.get_mut(&id).ok_or_else(|| not_found(Kind::Network, &id))?;
        let taken = |reason: String| Rejection::BlockTaken { network: network.spec.name.clone(), reason };
        if !network.subnet.contains(&block) {
            return Err(taken(format!("{block} lies outside {}", network.subnet)));
        }
        let is_single = |block: &ipnet::Ipv4Net| block.prefix_len() == 32;
        let overlaps = |other: &ipnet::Ipv4Net, holder: NodeId| match is_single(other) == is_single(&block) {
            true => other.contains(&block) || block.contains(other),
            // A single is an exception to another node's block.
            false => is_single(&block) && holder == node && other.contains(&block),
        };
        if let Some((overlap, _)) = network.blocks.iter().find(|(other, holder)| overlaps(other, **holder)) {
            return Err(taken(format!("{block} overlaps {overlap}, which a node holds")));
        }
        let network = Arc::make_mut(network);
        network.blocks.insert(block, node);
        network.meta.version = version;
        Ok(())
    }

    fn remove_network(&mut self, id: NetworkId) -> Result<(), Rejection> {
        let network = self.networks.get(&id).ok_or_else(|| not_found(Kind::Network, &id))?;
        let name = network.spec.name.clone();
        let uses =
            |service: &&Arc<Service>| service.spec.task.networks.iter().any(|n| n.network.eq_ignore_ascii_case(&name));
        if let Some(service) = self.services.values().find(uses) {
            return Err(in_use(Kind::Network, &name, format!("service {}", service.name())));
        }
        let attached = |task: &&Arc<Task>| task.networks.contains(&id) && task.occupies_node();
        if let Some(task) = self.tasks.values().find(attached) {
            return Err(in_use(Kind::Network, &name, format!("task {}", task.name())));
        }
        self.networks.remove(&id);
        self.index.networks.remove(&name.to_lowercase());
        Ok(())
    }

    fn node_mut(&mut self, id: NodeId) -> Result<&mut Node, Rejection> {
        self.nodes.get_mut(&id).map(Arc::make_mut).ok_or_else(|| not_found(Kind::Node, &id))
    }

    fn service_mut(&mut self, id: ServiceId) -> Result<&mut Service, Rejection> {
        self.services.get_mut(&id).map(Arc::make_mut).ok_or_else(|| not_found(Kind::Service, &id))
    }

    fn task_mut(&mut self, id: TaskId) -> Result<&mut Task, Rejection> {
        self.tasks.get_mut(&id).map(Arc::make_mut).ok_or_else(|| not_found(Kind::Task, &id))
    }
}

fn check_version(kind: Kind, id: &dyn std::fmt::Display, expected: Version, actual: Version) -> Result<(), Rejection> {
    match expected == actual {
        true => Ok(()),
        false => Err(out_of_sequence(kind, id, expected, actual)),
    }
}

fn out_of_sequence(kind: Kind, id: &dyn std::fmt::Display, expected: Version, actual: Version) -> Rejection {
    Rejection::OutOfSequence { kind, id: id.to_string(), expected: expected.0, actual: actual.0 }
}

fn not_found(kind: Kind, id: &dyn std::fmt::Display) -> Rejection {
    Rejection::NotFound { kind, id: id.to_string() }
}

fn already_exists(kind: Kind, name: &dyn std::fmt::Display) -> Rejection {
    Rejection::AlreadyExists { kind, name: name.to_string() }
}

fn in_use(kind: Kind, name: &dyn std::fmt::Display, user: String) -> Rejection {
    Rejection::InUse { kind, name: name.to_string(), user }
}

fn backwards(task: &Task, wanted: &str) -> Rejection {
    Rejection::Backwards {
        task: task.id.to_string(),
        state: task.status.state.word().to_owned(),
        wanted: wanted.to_owned(),
    }
}
