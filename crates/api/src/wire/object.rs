//! Any object of the cluster, and what all of them carry.

use std::sync::Arc;

use skep_model::{ClusterConfig, Config, Kind, Meta, Network, Node, Secret, Service, Stack, Task};

use super::{choice, message};

/// One object of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Object {
    Cluster(Arc<ClusterConfig>),
    Node(Arc<Node>),
    Service(Arc<Service>),
    Task(Arc<Task>),
    Network(Arc<Network>),
    Secret(Arc<Secret>),
    Config(Arc<Config>),
    Stack(Arc<Stack>),
}

impl Object {
    pub fn kind(&self) -> Kind {
        match self {
            Object::Cluster(_) => Kind::Cluster,
            Object::Node(_) => Kind::Node,
            Object::Service(_) => Kind::Service,
            Object::Task(_) => Kind::Task,
            Object::Network(_) => Kind::Network,
            Object::Secret(_) => Kind::Secret,
            Object::Config(_) => Kind::Config,
            Object::Stack(_) => Kind::Stack,
        }
    }
}

choice!(Object = Object in object { Cluster, Node, Service, Task, Network, Secret, Config, Stack });
message!(Meta = Meta { version, created_at, updated_at });
