//! The policies of a service: resources, restart, placement, updates.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{MemoryBytes, NanoCpus};

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Resources {
    pub limits: Limits,
    pub reservations: Reservations,
    /// What the scheduler sets aside of things that the kernel does not count: each kind once.
    pub generic: Vec<GenericRequest>,
}

/// So many of a kind of thing that nodes are configured to have: `gpu`, `licence`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct GenericRequest {
    pub kind: String,
    pub amount: u64,
}

/// What a container may use at most; zero processes or bytes are never meant, so absent is unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Limits {
    pub nano_cpus: Option<NanoCpus>,
    pub memory: Option<MemoryBytes>,
    pub pids: Option<u64>,
}

/// What the scheduler sets aside on the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Reservations {
    pub nano_cpus: Option<NanoCpus>,
    pub memory: Option<MemoryBytes>,
}

/// Swarm's restart policy; `delay` is the first pause, and it doubles with each failure in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartPolicy {
    pub condition: Condition,
    pub delay: Duration,
    /// 0 means no limit.
    pub max_attempts: u64,
    /// Restarts older than this do not count against `max_attempts`; 0 counts all.
    pub window: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Condition {
    None,
    OnFailure,
    #[default]
    Any,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self { condition: Condition::Any, delay: Duration::from_secs(5), max_attempts: 0, window: Duration::ZERO }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Placement {
    pub constraints: Vec<Constraint>,
    pub preferences: Vec<Preference>,
    /// 0 means no limit.
    pub max_replicas_per_node: u64,
    /// Platforms that the image exists for; empty means any.
    pub platforms: Vec<PlatformSpec>,
    /// What the cluster does when absent.
    pub strategy: Option<PlacementStrategy>,
    /// Names of services: only nodes that have a task of each.
    pub affinity: Vec<String>,
    /// Names of services: no node that has a task of one, and none of theirs where this one's are.
    pub anti_affinity: Vec<String>,
    /// What a task's named volumes mean for its place; `None` holds it while its node can be waited for.
    pub volumes: Option<VolumePlacement>,
}

/// Which of the nodes that fit is taken first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PlacementStrategy {
    /// The one with the fewest tasks of the service.
    Spread,
    /// The fullest: one node is filled before the next.
    BinPack,
}

/// How far a slot follows the data in its named volumes, which lie on the node where it ran last.
///
/// Without a word, a slot stays on that node for as long as the node is up, not drained, and satisfies the
/// constraints: it waits there for room rather than start empty elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum VolumePlacement {
    /// As Swarm: volumes have no say.
    Free,
    /// The slot waits for that node also while it is down or drained, until it is removed.
    Stay,
}

/// What a service asks of those who place and move its tasks; changing it replaces none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Scheduling {
    /// Of tasks that wait, those of higher priority are placed first.
    pub priority: i32,
    /// Draining and rebalancing leave at least as many tasks serving.
    pub min_available: u64,
    /// Spread its tasks anew when a node begins to take tasks.
    pub rebalance_on_join: bool,
}

/// A platform to match: an empty field matches anything.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PlatformSpec {
    pub os: String,
    pub architecture: String,
    pub variant: String,
}

/// `node.labels.disk == ssd`: the key's case counts, the value's does not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Constraint {
    pub key: String,
    pub op: ConstraintOp,
    pub value: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConstraintOp {
    Equal,
    NotEqual,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseConstraintError {
    #[error("constraint `{0}` has neither `==` nor `!=`; write it as `node.labels.disk == ssd`")]
    NoOperator(String),
    #[error("constraint `{0}` has an empty side; write it as `node.labels.disk == ssd`")]
    EmptySide(String),
    #[error(
        "constraint key `{0}` is not known; use node.id, node.hostname, node.role, node.ip, node.platform.os, \
         node.platform.arch, node.labels.NAME or engine.labels.NAME"
    )]
    UnknownKey(String),
}

impl FromStr for Constraint {
    type Err = ParseConstraintError;

    fn from_str(text: &str) -> Result<Self, ParseConstraintError> {
        let not_equal = text.split_once("!=").map(|sides| (sides, ConstraintOp::NotEqual));
        let equal = text.split_once("==").map(|sides| (sides, ConstraintOp::Equal));
        let ((key, value), op) =
            equal.or(not_equal).ok_or_else(|| ParseConstraintError::NoOperator(text.to_owned()))?;
        let (key, value) = (key.trim(), value.trim());
        if key.is_empty() || value.is_empty() {
            return Err(ParseConstraintError::EmptySide(text.to_owned()));
        }
        const PLAIN: [&str; 6] =
            ["node.id", "node.hostname", "node.role", "node.ip", "node.platform.os", "node.platform.arch"];
        let labelled = ["node.labels.", "engine.labels."].iter().any(|p| key.len() > p.len() && key.starts_with(p));
        if !PLAIN.contains(&key) && !labelled {
            return Err(ParseConstraintError::UnknownKey(key.to_owned()));
        }
        Ok(Self { key: key.to_owned(), op, value: value.to_owned() })
    }
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let op = match self.op {
            ConstraintOp::Equal => "==",
            ConstraintOp::NotEqual => "!=",
        };
        write!(f, "{} {op} {}", self.key, self.value)
    }
}

/// Spread evenly over the values of a node label (`node.labels.zone`, `engine.labels.zone`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preference {
    pub spread: String,
}

/// How a service's tasks are replaced; Swarm's defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UpdateConfig {
    /// Slots replaced at once; 0 means all.
    pub parallelism: u64,
    pub delay: Duration,
    pub failure_action: FailureAction,
    /// How long a new task is watched for failure after it runs.
    pub monitor: Duration,
    /// 0.0 to 1.0.
    pub max_failure_ratio: f64,
    pub order: UpdateOrder,
}

/// A ratio is never NaN: `validate` refuses one outside 0..=1.
impl Eq for UpdateConfig {}

impl Default for UpdateConfig {
    fn default() -> Self {
        Self {
            parallelism: 1,
            delay: Duration::ZERO,
            failure_action: FailureAction::Pause,
            monitor: Duration::from_secs(5),
            max_failure_ratio: 0.0,
            order: UpdateOrder::StopFirst,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum FailureAction {
    #[default]
    Pause,
    Continue,
    Rollback,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum UpdateOrder {
    #[default]
    StopFirst,
    StartFirst,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constraints_are_read_with_either_operator_and_refused_with_a_reason() {
        let parsed: Constraint = "node.labels.disk==ssd".parse().unwrap();
        assert_eq!(parsed.to_string(), "node.labels.disk == ssd");
        let parsed: Constraint = " node.role != manager ".parse().unwrap();
        assert_eq!((parsed.op, parsed.value.as_str()), (ConstraintOp::NotEqual, "manager"));
        for wrong in ["node.role", "node.role ==", "node.colour == red", "node.labels. == x"] {
            assert!(wrong.parse::<Constraint>().is_err(), "{wrong}");
        }
    }
}
