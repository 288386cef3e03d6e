//! The manager's own refusals in the words of the wire.

use skep_api::{Refusal, RefusalKind};
use skep_store::{ProposeError, ReadError};

use crate::admission;

impl From<admission::Refusal> for Refusal {
    fn from(refusal: admission::Refusal) -> Self {
        let kind = match &refusal {
            admission::Refusal::Invalid(_) => RefusalKind::Invalid,
            admission::Refusal::NotFound(_) => RefusalKind::NotFound,
            admission::Refusal::Conflict(_) => RefusalKind::Conflict,
        };
        Refusal::new(kind, refusal.to_string())
    }
}

/// Why a proposal did not become part of the cluster.
pub fn not_written(error: ProposeError) -> Refusal {
    match error {
        ProposeError::Rejected(rejection) => rejection.into(),
        error => Refusal::new(RefusalKind::Unavailable, error.to_string()),
    }
}

/// Why this manager cannot say what the cluster holds now.
pub fn not_current(error: ReadError) -> Refusal {
    Refusal::new(RefusalKind::Unavailable, error.to_string())
}
