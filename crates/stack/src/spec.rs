//! A stack as its files ask for it, in the model's terms.

use std::collections::BTreeSet;
use std::sync::Arc;

use skep_model::{ContentKind, Labels, NetworkSpec, ServiceSpec};

/// Every list is in the order of its names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StackSpec {
    pub name: String,
    pub services: Vec<ServiceSpec>,
    /// Those that a service is attached to; the others are not made, as in Docker.
    pub networks: Vec<NetworkSpec>,
    pub secrets: Vec<ContentSpec>,
    pub configs: Vec<ContentSpec>,
    /// What the stack uses and the cluster must already have.
    pub external: External,
}

/// A secret or config that the stack brings.
#[derive(Clone, PartialEq, Eq)]
pub struct ContentSpec {
    pub name: String,
    pub labels: Labels,
    pub data: Arc<[u8]>,
    pub kind: ContentKind,
}

impl std::fmt::Debug for ContentSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A secret's bytes must not reach a log by way of a debug format.
        let Self { name, labels, data, kind } = self;
        write!(f, "ContentSpec {{ name: {name:?}, labels: {labels:?}, {kind:?}, {} bytes }}", data.len())
    }
}

/// Names of objects that the files declare `external`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct External {
    pub networks: BTreeSet<String>,
    pub secrets: BTreeSet<String>,
    pub configs: BTreeSet<String>,
}
