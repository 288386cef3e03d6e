//! Where a job stands: how often it ran, and when it was last due.

use serde::{Deserialize, Serialize};

use crate::{ServiceSpec, Timestamp};

/// A job's runs. Each task of a job carries the number of the run that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct JobStatus {
    /// The number of the last run; 0 before the first, which a schedule makes possible.
    pub iteration: u64,
    /// When it began.
    pub last_execution: Timestamp,
    /// Up to when the schedule was followed: the next run is due after this.
    pub followed_to: Timestamp,
    /// What became of the last time that was due, in words; empty without a schedule.
    pub message: String,
}

impl JobStatus {
    /// Of a service that was just made. Without a schedule its first run begins at once.
    pub(crate) fn new(spec: &ServiceSpec, at: Timestamp) -> Option<Self> {
        let iteration = u64::from(spec.schedule.is_none());
        let status = JobStatus { iteration, last_execution: at, followed_to: at, message: String::new() };
        spec.mode.is_job().then_some(status)
    }

    /// After the spec changed from `old` to `new`: runs again, or follows the new schedule from now on.
    pub(crate) fn updated(self, old: &ServiceSpec, new: &ServiceSpec, at: Timestamp) -> Self {
        if new.schedule.is_none() {
            return JobStatus { iteration: self.iteration + 1, last_execution: at, ..JobStatus::default() };
        }
        let followed_to = if old.schedule == new.schedule { self.followed_to } else { at };
        JobStatus { followed_to, ..self }
    }
}
