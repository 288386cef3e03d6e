//! The lease that a container lives by, where its plan asks for one.
//!
//! ```text
//! (start refused) ──renewed──▶ Held ──until──▶ Ending: stop signal ──until + grace──▶ Ended: SIGKILL
//! ```
//! All times are CLOCK_BOOTTIME, which counts a suspended machine's sleep too, and both deadlines come from the end
//! of the lease: a warden that was itself stopped, or slept through them, makes up for it at once.
//! What ran out while the container ran is not given back: its end has begun.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use crate::plan::LeasePlan;

/// The error of a container that ended because its lease had.
pub const LEASE_RAN_OUT: &str = "its lease ran out: no manager could be reached in time";

pub struct Lease {
    stop_grace: Duration,
    /// Since boot; zero until the first renewal.
    until: Duration,
    stage: Stage,
    /// Readable at the next deadline, which may lie in the past.
    timer: OwnedFd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Held,
    Ending,
    Ended,
}

/// What is to be done to the container now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    Nothing,
    Stop,
    Kill,
}

impl Lease {
    pub fn new(plan: &LeasePlan) -> Result<Lease, Errno> {
        let timer = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        Ok(Lease { stop_grace: plan.stop_grace, until: Duration::ZERO, stage: Stage::Held, timer })
    }

    pub fn timer(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }

    /// Whether the container may be started at `now`.
    pub fn is_held(&self, now: Duration) -> bool {
        self.stage == Stage::Held && now < self.until
    }

    pub fn has_run_out(&self) -> bool {
        self.stage > Stage::Held
    }

    /// Extends the lease; an end that lies before the present one changes nothing.
    /// False when it has run out over a container that `runs`.
    pub fn renew(&mut self, until: Duration, now: Duration, runs: bool) -> Result<bool, Errno> {
        if self.has_run_out() || (runs && now >= self.until) {
            return Ok(false);
        }
        if until > self.until {
            self.until = until;
            self.arm(until)?;
        }
        Ok(true)
    }

    /// What the time asks for; called whenever the timer is readable. A container that does not run just cannot start.
    pub fn due(&mut self, now: Duration, runs: bool) -> Due {
        let kill_at = self.until.saturating_add(self.stop_grace);
        let due = match self.stage {
            _ if !runs || now < self.until => Due::Nothing,
            Stage::Held | Stage::Ending if now >= kill_at => Due::Kill,
            Stage::Held => Due::Stop,
            Stage::Ending | Stage::Ended => Due::Nothing,
        };
        let next = match (self.stage, due) {
            (_, Due::Kill) => None,
            (_, Due::Stop) | (Stage::Ending, Due::Nothing) => Some(kill_at),
            (_, Due::Nothing) => (now < self.until).then_some(self.until),
        };
        self.stage = match due {
            Due::Nothing => self.stage,
            Due::Stop => Stage::Ending,
            Due::Kill => Stage::Ended,
        };
        // Settling a timer that exists for a time that fits cannot fail.
        let _ = self.arm(next.unwrap_or(Duration::ZERO));
        due
    }

    /// Zero takes the timer back.
    fn arm(&self, at: Duration) -> Result<(), Errno> {
        let seconds = i64::try_from(at.as_secs()).unwrap_or(i64::MAX);
        let at = Timespec { tv_sec: seconds, tv_nsec: at.subsec_nanos().into() };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: at };
        timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &once).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        // Far ahead, so that no timer of a test fires.
        Duration::from_secs((1 << 30) + seconds)
    }

    fn lease() -> Lease {
        Lease::new(&LeasePlan { stop_grace: Duration::from_secs(10) }).expect("a timer")
    }

    #[test]
    fn a_container_starts_only_within_its_lease() {
        let mut lease = lease();
        assert!(!lease.is_held(at(0)));
        assert!(lease.renew(at(15), at(0), false).expect("a timer"));
        assert!(lease.is_held(at(14)) && !lease.is_held(at(15)));
        assert_eq!(lease.due(at(20), false), Due::Nothing, "nothing runs");
        assert!(lease.renew(at(40), at(25), false).expect("a timer"), "and nothing is lost");
        assert!(lease.is_held(at(30)));
    }

    #[test]
    fn a_renewed_lease_never_shortens_and_one_that_ran_out_is_not_renewed() {
        let mut lease = lease();
        for (until, runs) in [(at(15), false), (at(12), true), (at(25), true)] {
            assert!(lease.renew(until, at(0), runs).expect("a timer"));
        }
        assert_eq!(lease.due(at(24), true), Due::Nothing);
        assert!(!lease.renew(at(99), at(25), true).expect("a timer"), "too late, though nobody has looked yet");
        assert_eq!(lease.due(at(25), true), Due::Stop);
        assert!(!lease.renew(at(99), at(26), true).expect("a timer"));
        assert_eq!(lease.due(at(34), true), Due::Nothing);
        assert_eq!(lease.due(at(35), true), Due::Kill);
        assert_eq!(lease.due(at(36), true), Due::Nothing);
        assert!(lease.has_run_out());
    }

    #[test]
    fn who_slept_through_the_grace_kills_at_once() {
        let mut lease = lease();
        lease.renew(at(15), at(0), false).expect("a timer");
        assert_eq!(lease.due(at(3600), true), Due::Kill);
    }
}
