//! What belongs to a service's process: health, restarts, limits of the kernel, dependencies.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Strings;
use crate::source::Span;

/// Absent fields keep the image's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Healthcheck {
    pub span: Span,
    pub test: Option<HealthTest>,
    pub interval: Option<Duration>,
    pub timeout: Option<Duration>,
    pub retries: Option<u32>,
    pub start_period: Option<Duration>,
    pub start_interval: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HealthTest {
    /// `disable: true`, or a test of `NONE`.
    Disabled,
    /// `["CMD", …]`
    Exec(Vec<String>),
    /// A string, or `["CMD-SHELL", …]`.
    Shell(String),
}

/// A command that is run in the container at a certain time of its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    pub span: Span,
    pub command: Vec<String>,
    pub user: Option<String>,
    pub working_dir: Option<String>,
    /// On top of the container's own; `None` is what nobody has set.
    pub environment: BTreeMap<String, Option<String>>,
    pub privileged: bool,
}

/// `restart`, in the words of `docker run`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    No,
    Always,
    OnFailure { max_attempts: Option<u64> },
    UnlessStopped,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ulimit {
    pub span: Span,
    /// -1 is unlimited, here and in `hard`.
    pub soft: i64,
    pub hard: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logging {
    pub span: Span,
    pub driver: Option<String>,
    pub options: Strings,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DependsOn {
    pub span: Span,
    pub condition: DependencyCondition,
    /// Restart the service when what it depends on is updated.
    pub restart: bool,
    /// `false`: it may be missing.
    pub required: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DependencyCondition {
    Started,
    Healthy,
    CompletedSuccessfully,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullPolicy {
    Always,
    Never,
    Missing,
    Build,
    /// `daily`, `weekly`, `every_12h`: when the last pull is older.
    Every(String),
}
