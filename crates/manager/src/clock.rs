//! The wall clock of a manager, read in one place.

use std::time::{SystemTime, UNIX_EPOCH};

use skep_model::Timestamp;

/// Now. A clock before 1970 reads as 1970.
pub fn wall_clock() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
