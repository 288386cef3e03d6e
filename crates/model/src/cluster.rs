//! The cluster's whole state as one value.
//!
//! Tables are persistent maps, so that a clone costs nothing and every reader holds its own consistent
//! picture.
//! Only `apply` writes; indexes are kept beside the tables and `check` compares them.

use imbl::{OrdMap, OrdSet};

use crate::change::Kind;
use crate::{
    ClusterConfig, Config, ConfigId, GenericResource, Id, Network, NetworkId, Node, NodeId, Secret, SecretId, Service,
    ServiceId, Stack, Task, TaskId, Version,
};

use std::collections::BTreeSet;
use std::sync::Arc;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cluster {
    /// The Raft index of the last change.
    pub version: Version,
    /// Absent until the first manager has written it.
    pub config: Option<Arc<ClusterConfig>>,
    pub nodes: OrdMap<NodeId, Arc<Node>>,
    pub services: OrdMap<ServiceId, Arc<Service>>,
    pub tasks: OrdMap<TaskId, Arc<Task>>,
    pub networks: OrdMap<NetworkId, Arc<Network>>,
    pub secrets: OrdMap<SecretId, Arc<Secret>>,
    pub configs: OrdMap<ConfigId, Arc<Config>>,
    pub stacks: OrdMap<String, Arc<Stack>>,
    pub(crate) index: Index,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Index {
    pub tasks_of_service: OrdSet<(ServiceId, TaskId)>,
    pub tasks_of_node: OrdSet<(NodeId, TaskId)>,
    /// Names in lower case: uniqueness ignores case, as in Swarm.
    pub services: OrdMap<String, ServiceId>,
    pub networks: OrdMap<String, NetworkId>,
    pub secrets: OrdMap<String, SecretId>,
    pub configs: OrdMap<String, ConfigId>,
}

/// Why a name or id on a command line stands for no object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    #[error("{kind} `{wanted}` not found; {}", way_on(*.kind, .hint.as_deref()))]
    NotFound { kind: Kind, wanted: String, hint: Option<String> },
    #[error("{kind} `{wanted}` is ambiguous: it stands for {}", .candidates.join(", "))]
    Ambiguous { kind: Kind, wanted: String, candidates: Vec<String> },
}

fn way_on(kind: Kind, hint: Option<&str>) -> String {
    match (hint, kind) {
        (Some(hint), _) => format!("did you mean `{hint}`?"),
        (None, Kind::Task) => "`skep service ps SERVICE` lists those of a service".to_owned(),
        (None, _) => format!("`skep {kind} ls` lists what is there"),
    }
}

impl Cluster {
    /// Tasks of a service, by id.
    pub fn tasks_of_service(&self, service: ServiceId) -> impl DoubleEndedIterator<Item = &Arc<Task>> {
        let first = (service, Id::from_u128(0));
        let last = (service, Id::from_u128(u128::MAX));
        self.index.tasks_of_service.range(first..=last).map(|(_, task)| self.indexed_task(*task))
    }

    /// Tasks that were assigned to a node and are not yet forgotten, by id.
    pub fn tasks_of_node(&self, node: NodeId) -> impl Iterator<Item = &Arc<Task>> {
        let first = (node, Id::from_u128(0));
        let last = (node, Id::from_u128(u128::MAX));
        self.index.tasks_of_node.range(first..=last).map(|(_, task)| self.indexed_task(*task))
    }

    /// What no task has of a node's generic resources.
    pub fn free_generic(&self, node: NodeId) -> Vec<GenericResource> {
        let description = self.nodes.get(&node).and_then(|node| node.description.as_ref());
        let mut free = description.map(|description| description.generic.clone()).unwrap_or_default();
        if free.is_empty() {
            return free;
        }
        let taken = self.tasks_of_node(node).filter(|task| task.occupies_node());
        for taken in taken.flat_map(|task| &task.generic) {
            for free in free.iter_mut().filter(|free| free.kind == taken.kind) {
                free.amount = free.amount.saturating_sub(taken.amount);
                free.ids.retain(|id| !taken.ids.contains(id));
            }
        }
        free
    }

    fn indexed_task(&self, task: TaskId) -> &Arc<Task> {
        self.tasks.get(&task).expect("apply removes a task from the indexes when it removes the task")
    }

    pub fn service_named(&self, name: &str) -> Option<&Arc<Service>> {
        self.index.services.get(&name.to_lowercase()).and_then(|id| self.services.get(id))
    }

    pub fn network_named(&self, name: &str) -> Option<&Arc<Network>> {
        self.index.networks.get(&name.to_lowercase()).and_then(|id| self.networks.get(id))
    }

    pub fn secret_named(&self, name: &str) -> Option<&Arc<Secret>> {
        self.index.secrets.get(&name.to_lowercase()).and_then(|id| self.secrets.get(id))
    }

    pub fn config_named(&self, name: &str) -> Option<&Arc<Config>> {
        self.index.configs.get(&name.to_lowercase()).and_then(|id| self.configs.get(id))
    }

    /// Finds a service by whole id, name, or a prefix of its id, in this order, as Docker does.
    pub fn find_service(&self, wanted: &str) -> Result<&Arc<Service>, LookupError> {
        find(Kind::Service, wanted, &self.services, |service| service.name())
    }

    pub fn find_network(&self, wanted: &str) -> Result<&Arc<Network>, LookupError> {
        find(Kind::Network, wanted, &self.networks, |network| &network.spec.name)
    }

    pub fn find_secret(&self, wanted: &str) -> Result<&Arc<Secret>, LookupError> {
        find(Kind::Secret, wanted, &self.secrets, |secret| &secret.name)
    }

    pub fn find_config(&self, wanted: &str) -> Result<&Arc<Config>, LookupError> {
        find(Kind::Config, wanted, &self.configs, |config| &config.name)
    }

    /// Host names may be equal: two nodes of one name make the name ambiguous.
    pub fn find_node(&self, wanted: &str) -> Result<&Arc<Node>, LookupError> {
        find(Kind::Node, wanted, &self.nodes, |node| node.hostname())
    }

    /// Finds a task by id, prefix of it, or `service.slot` of a live task.
    pub fn find_task(&self, wanted: &str) -> Result<&Arc<Task>, LookupError> {
        if let Some((service, _)) = wanted.rsplit_once('.')
            && let Some(service) = self.service_named(service)
        {
            let mut tasks: Vec<_> = self.tasks_of_service(service.id).filter(|task| task.name() == wanted).collect();
            tasks.sort_by_key(|task| (!task.is_live(), std::cmp::Reverse(task.meta.created_at)));
            if let Some(task) = tasks.first() {
                return Ok(task);
            }
        }
        find(Kind::Task, wanted, &self.tasks, |_| "")
    }
}

fn find<'a, K, T>(
    kind: Kind,
    wanted: &str,
    all: &'a OrdMap<Id<K>, Arc<T>>,
    name: impl Fn(&T) -> &str,
) -> Result<&'a Arc<T>, LookupError> {
    if let Some(object) = wanted.parse::<Id<K>>().ok().and_then(|id| all.get(&id)) {
        return Ok(object);
    }
    let named: Vec<_> = all.iter().filter(|(_, object)| name(object).eq_ignore_ascii_case(wanted)).collect();
    let matching = match named.is_empty() {
        true if wanted.is_empty() => Vec::new(),
        true => all.iter().filter(|(id, _)| id.to_string().starts_with(wanted)).collect(),
        false => named,
    };
    match matching.as_slice() {
        [(_, object)] => Ok(object),
        [] => {
            let names: BTreeSet<&str> =
                all.values().map(|object| name(object)).filter(|name| !name.is_empty()).collect();
            let hint = names.into_iter().find(|name| name.contains(wanted) || wanted.contains(*name));
            let hint = hint.filter(|_| !wanted.is_empty()).map(str::to_owned);
            Err(LookupError::NotFound { kind, wanted: wanted.to_owned(), hint })
        }
        several => {
            let candidates = several.iter().map(|(id, object)| format!("{} ({})", id.short(), name(object))).collect();
            Err(LookupError::Ambiguous { kind, wanted: wanted.to_owned(), candidates })
        }
    }
}
