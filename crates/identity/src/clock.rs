//! The time that certificates are judged by.
//!
//! A machine without a clock chip boots in the past. Until the kernel says that its clock is synchronised, the clock
//! therefore never reads earlier than the latest time that is known to have passed: the start of the node's own
//! certificate, or a time that was stored. A synchronised clock is believed as it is, so that a wrong time which was
//! once believed does no lasting harm.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use skep_model::Timestamp;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const NANOSECONDS: u64 = 1_000_000_000;
/// A clock that reads earlier than what has passed by no more than this is only adjusted, not wrong.
const BEHIND_MIN_SECONDS: i64 = 60;

/// Whether somebody sets this machine's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Synchronised {
    Yes,
    No,
    /// Nobody was asked.
    Unknown,
}

/// The system's clock, corrected by the latest time known to have passed.
pub struct NodeClock {
    /// Added to what the system reads, in seconds: tests of wrong clocks.
    shift_seconds: i64,
    synchronised: fn() -> Synchronised,
    floor_seconds: AtomicI64,
}

/// A clock that is certainly wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockBehind {
    pub reads: Timestamp,
    /// The latest time that has certainly passed.
    pub passed: Timestamp,
}

impl fmt::Display for ClockBehind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (reads, passed) = (date_text(self.reads), date_text(self.passed));
        write!(f, "the clock reads {reads}, but {passed} has passed already; waiting for it to be set (NTP)")
    }
}

impl Default for NodeClock {
    fn default() -> Self {
        Self::new()
    }
}

impl NodeClock {
    /// The system's clock, without knowing who sets it.
    pub fn new() -> Self {
        Self::system(|| Synchronised::Unknown)
    }

    /// The system's clock; `synchronised` is asked at each reading.
    pub fn system(synchronised: fn() -> Synchronised) -> Self {
        Self { shift_seconds: 0, synchronised, floor_seconds: AtomicI64::new(0) }
    }

    /// A clock that is off by so many seconds, for tests; by default nobody sets it.
    pub fn shifted(seconds: i64, synchronised: fn() -> Synchronised) -> Self {
        Self { shift_seconds: seconds, ..Self::system(synchronised) }
    }

    /// That time has passed: unless synchronised, the clock reads it at the earliest. Never moves back.
    pub fn at_least(&self, passed: Timestamp) {
        self.floor_seconds.fetch_max(unix_seconds(passed), Ordering::Relaxed);
    }

    pub fn now(&self) -> Timestamp {
        from_unix_seconds(self.seconds())
    }

    pub fn synchronised(&self) -> Synchronised {
        (self.synchronised)()
    }

    /// What is certainly wrong with this clock; nothing may be issued for time's sake meanwhile.
    pub fn behind(&self) -> Option<ClockBehind> {
        let (system, floor) = (self.system_seconds(), self.floor());
        let behind = self.synchronised() != Synchronised::Yes && system + BEHIND_MIN_SECONDS < floor;
        behind.then(|| ClockBehind { reads: from_unix_seconds(system), passed: from_unix_seconds(floor) })
    }

    /// The time worth storing, so that the next start does not fall behind it: only a clock that is known to be right
    /// may bind its successors.
    pub fn worth_storing(&self) -> Option<Timestamp> {
        let system = self.system_seconds();
        let right = self.synchronised() == Synchronised::Yes && system > self.floor();
        right.then(|| from_unix_seconds(system))
    }

    fn floor(&self) -> i64 {
        self.floor_seconds.load(Ordering::Relaxed)
    }

    fn system_seconds(&self) -> i64 {
        let system = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_secs() as i64);
        system + self.shift_seconds
    }

    fn seconds(&self) -> i64 {
        let system = self.system_seconds();
        match self.synchronised() {
            Synchronised::Yes => system,
            Synchronised::No | Synchronised::Unknown => system.max(self.floor()),
        }
    }
}

impl fmt::Debug for NodeClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeClock({})", date_text(self.now()))
    }
}

impl TimeProvider for NodeClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(to_unix_time(self.seconds()))
    }
}

/// A moment for messages, to the second, in UTC.
pub(crate) fn date_text(time: Timestamp) -> String {
    let date = OffsetDateTime::from_unix_timestamp(unix_seconds(time)).ok();
    date.and_then(|date| date.format(&Rfc3339).ok()).unwrap_or_else(|| format!("{} s after 1970", unix_seconds(time)))
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

    const YEAR: i64 = 365 * 24 * 3600;

    #[test]
    fn never_reads_earlier_than_what_has_passed() {
        let clock = NodeClock::new();
        let future = unix_seconds(clock.now()) + 1_000_000;
        clock.at_least(from_unix_seconds(future));
        clock.at_least(from_unix_seconds(5));
        assert_eq!(unix_seconds(clock.now()), future);
    }

    #[test]
    fn a_clock_that_booted_in_the_past_says_so_until_it_is_set() {
        let now = NodeClock::new().now();
        let clock = NodeClock::shifted(-YEAR, || Synchronised::No);
        assert_eq!(clock.behind(), None, "nothing is known to have passed");
        clock.at_least(now);
        let behind = clock.behind().unwrap();
        assert_eq!(behind.passed, from_unix_seconds(unix_seconds(now)));
        assert!(behind.to_string().contains("waiting for it to be set"), "{behind}");
        assert_eq!(clock.now(), behind.passed);
        assert_eq!(clock.worth_storing(), None);
    }

    #[test]
    fn a_synchronised_clock_is_believed_although_a_later_time_was() {
        let clock = NodeClock::system(|| Synchronised::Yes);
        let stored = clock.worth_storing().unwrap();
        clock.at_least(from_unix_seconds(unix_seconds(stored) + YEAR));
        assert_eq!(clock.behind(), None);
        assert!(unix_seconds(clock.now()) < unix_seconds(stored) + YEAR);
    }
}
