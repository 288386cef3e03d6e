//! `deploy`: how many, where, with what resources, and how they are replaced.

use std::time::Duration;

use super::{At, Strings};
use crate::source::Span;

/// Absent fields were not written; their defaults are the cluster's affair.
#[derive(Debug, Clone, Default)]
pub struct Deploy {
    pub span: Span,
    pub mode: Option<At<Mode>>,
    /// `deploy.replicas`, or `scale`.
    pub replicas: Option<At<u64>>,
    pub endpoint_mode: Option<At<EndpointMode>>,
    /// The service's labels, not its containers'.
    pub labels: Strings,
    pub limits: Resources,
    pub reservations: Resources,
    pub generic_resources: Vec<At<GenericResource>>,
    pub restart_policy: Option<RestartPolicy>,
    pub placement: Placement,
    pub update_config: Option<UpdateConfig>,
    pub rollback_config: Option<UpdateConfig>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Replicated,
    Global,
    ReplicatedJob,
    GlobalJob,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointMode {
    Vip,
    Dnsrr,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Resources {
    /// Billionths of a core.
    pub nano_cpus: Option<At<u64>>,
    /// Bytes.
    pub memory: Option<At<u64>>,
    /// -1 is unlimited.
    pub pids: Option<At<i64>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenericResource {
    pub kind: String,
    pub value: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RestartPolicy {
    pub span: Span,
    pub condition: Option<Condition>,
    pub delay: Option<Duration>,
    pub max_attempts: Option<u64>,
    pub window: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    None,
    OnFailure,
    Any,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Placement {
    pub constraints: Vec<At<String>>,
    /// What to spread over: `node.labels.zone`.
    pub preferences: Vec<At<String>>,
    pub max_replicas_per_node: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct UpdateConfig {
    pub span: Span,
    pub parallelism: Option<u64>,
    pub delay: Option<Duration>,
    pub failure_action: Option<FailureAction>,
    pub monitor: Option<Duration>,
    /// 0.0 to 1.0.
    pub max_failure_ratio: Option<f64>,
    pub order: Option<At<Order>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureAction {
    Pause,
    Continue,
    Rollback,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    StopFirst,
    StartFirst,
}
