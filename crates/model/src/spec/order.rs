//! When a service's tasks may start: after what they depend on, or at a time.

use serde::{Deserialize, Serialize};

/// Another service that a service's tasks wait for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dependency {
    /// Its name in the cluster.
    pub service: String,
    pub condition: DependencyCondition,
    /// `false`: it may be missing.
    pub required: bool,
    /// Wait before each restart too, and not only before the first start of a revision.
    pub restart: bool,
}

/// What is waited for, of every slot that the other service should fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DependencyCondition {
    /// Its container was started.
    Started,
    /// It runs, which with a health check means: it is healthy.
    Healthy,
    /// It ended with exit code 0.
    Completed,
}

/// When a job runs by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// As [`crate::Cron`] reads it.
    pub cron: String,
    /// `Europe/Berlin`; empty is UTC.
    pub timezone: String,
    pub concurrency: Concurrency,
}

/// What becomes of a run that is due while the last one goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Concurrency {
    /// It is left out.
    #[default]
    Forbid,
    /// Both run.
    Allow,
    /// The last one is stopped.
    Replace,
}

impl Concurrency {
    pub fn word(self) -> &'static str {
        match self {
            Concurrency::Forbid => "forbid",
            Concurrency::Allow => "allow",
            Concurrency::Replace => "replace",
        }
    }
}
