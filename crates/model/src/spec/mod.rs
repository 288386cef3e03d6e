//! Specs: what a user wrote, with the defaults of the format filled in and nothing else changed.
//!
//! Specs refer to networks, secrets and configs by name, as the user did; the objects made from them
//! carry the ids.

mod container;
mod network;
mod order;
mod policy;
mod service;
mod volume;

pub use container::{
    ConfigRef, ContainerSpec, FileTarget, HealthCheck, HealthTest, Hook, LogDriver, Mount, MountKind, Propagation,
    PullPolicy, SecretRef, Ulimit,
};
pub use network::NetworkSpec;
pub use order::{Concurrency, Dependency, DependencyCondition, Schedule};
pub use policy::{
    Condition, Constraint, ConstraintOp, FailureAction, GenericRequest, Limits, ParseConstraintError, Placement,
    PlacementStrategy, PlatformSpec, Preference, Reservations, Resources, RestartPolicy, Scheduling, UpdateConfig,
    UpdateOrder, VolumePlacement,
};
pub use service::{
    EndpointMode, EndpointSpec, Mode, NetworkAttachment, PROGRESS_DEADLINE, PortProtocol, PortSpec, PublishMode,
    ServiceSpec, SessionAffinity, TaskSpec,
};
pub use volume::VolumeSource;
