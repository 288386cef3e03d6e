//! A Compose project: files merged, variables filled in, every attribute in its type.
//!
//! Names are as written; what a name defaults to (`project_key`) is [`Project::full_name`].
//! Every part that someone may later complain about carries the span of where it was written.

mod deploy;
mod process;
mod resource;
mod service;
mod storage;

use std::collections::BTreeMap;

pub use deploy::{
    Condition, Deploy, EndpointMode, FailureAction, GenericResource, Mode, Order, Placement, Resources, RestartPolicy,
    UpdateConfig,
};
pub use process::{
    DependencyCondition, DependsOn, HealthTest, Healthcheck, Hook, Logging, PullPolicy, Restart, Ulimit,
};
pub use resource::{Content, ContentSource, IpamConfig, Network, Volume};
pub use service::{
    Attachment, Concurrency, Device, Extension, PlacementStrategy, Rebalance, Service, ServiceNetwork, SessionAffinity,
    VolumeRule,
};
pub use storage::{Bind, FileReference, Mount, MountKind, Port, PortMode, Protocol};

use crate::source::{Sources, Span};

/// Labels, environment and other maps of strings, ordered.
pub type Strings = BTreeMap<String, String>;

#[derive(Debug, Clone, Default)]
pub struct Project {
    pub name: String,
    pub services: BTreeMap<String, Service>,
    /// Only those that the files name; a service without networks is attached to `default`.
    pub networks: BTreeMap<String, Network>,
    pub volumes: BTreeMap<String, Volume>,
    pub secrets: BTreeMap<String, Content>,
    pub configs: BTreeMap<String, Content>,
    /// What the spans of this project point into.
    pub sources: Sources,
}

impl Project {
    /// The name of one of the project's networks, volumes, secrets or configs in the world outside.
    pub fn full_name(project: &str, key: &str, name: Option<&str>, external: bool) -> String {
        match name {
            Some(name) => name.to_owned(),
            None if external => key.to_owned(),
            None => format!("{project}_{key}"),
        }
    }
}

/// A value and where it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct At<T> {
    pub span: Span,
    pub value: T,
}
