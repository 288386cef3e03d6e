//! The time that certificates are judged by.
//!
//! A machine without a clock chip boots in the past. Its clock therefore never reads earlier than the latest
//! time that is proven to have passed: the start of its own certificate, or a time that it stored.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use skep_model::Timestamp;

const NANOSECONDS: u64 = 1_000_000_000;

/// The later of the system's clock and the latest time known to have passed.
#[derive(Debug, Default)]
pub struct NodeClock {
    floor_seconds: AtomicI64,
}

impl NodeClock {
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on the clock reads `passed` at the earliest. Never moves back.
    pub fn at_least(&self, passed: Timestamp) {
        self.floor_seconds.fetch_max(unix_seconds(passed), Ordering::Relaxed);
    }

    pub fn now(&self) -> Timestamp {
        from_unix_seconds(self.seconds())
    }

    fn seconds(&self) -> i64 {
        let system = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_secs() as i64);
        system.max(self.floor_seconds.load(Ordering::Relaxed))
    }
}

impl TimeProvider for NodeClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(to_unix_time(self.seconds()))
    }
}

pub(crate) fn to_unix_time(seconds: i64) -> UnixTime {
    UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds.max(0) as u64))
}

pub(crate) fn unix_seconds(time: Timestamp) -> i64 {
    (time.0 / NANOSECONDS) as i64
}

pub(crate) fn from_unix_seconds(seconds: i64) -> Timestamp {
    Timestamp(seconds.max(0) as u64 * NANOSECONDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_reads_earlier_than_what_has_passed() {
        let clock = NodeClock::new();
        let future = unix_seconds(clock.now()) + 1_000_000;
        clock.at_least(from_unix_seconds(future));
        clock.at_least(from_unix_seconds(5));
        assert_eq!(unix_seconds(clock.now()), future);
    }
}
