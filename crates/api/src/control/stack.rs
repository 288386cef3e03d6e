//! Deploying a stack: all its specs in one request, and what came of each.

use skep_model::{Kind, NetworkSpec, ServiceSpec, Version};

use super::NewContent;
use crate::wire::{enumeration, message};

/// A stack as its user wants it: full names (`counter_web`), the stack's label on everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeployRequest {
    pub name: String,
    pub services: Vec<ServiceSpec>,
    /// Those that the stack makes; external ones are only referred to by the services.
    pub networks: Vec<NetworkSpec>,
    pub secrets: Vec<NewContent>,
    pub configs: Vec<NewContent>,
    pub prune: Prune,
    pub mode: DeployMode,
}

/// Whether services of the stack that are no longer in it are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prune {
    Yes,
    No,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeployMode {
    Apply,
    /// Only say what would change.
    Plan,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployed {
    /// The stack's revision that this deploy made; 0 for a plan.
    pub revision: u64,
    /// The cluster's version after the deploy: a reader at this version sees all of it.
    pub version: Version,
    pub objects: Vec<DeployedObject>,
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeployedObject {
    pub kind: Kind,
    /// In text; empty for what a plan would create.
    pub id: String,
    pub name: String,
    pub action: DeployAction,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeployAction {
    Created,
    Updated,
    Unchanged,
    Removed,
}

message!(DeployRequest = DeployRequest { name, services, networks, secrets, configs, prune, mode });
enumeration!(Prune = Prune { Yes, No });
enumeration!(DeployMode = DeployMode { Apply, Plan });
message!(Deployed = Deployed { revision, version, objects, warnings });
message!(DeployedObject = DeployedObject { kind, id, name, action });
enumeration!(DeployAction = DeployAction { Created, Updated, Unchanged, Removed });
