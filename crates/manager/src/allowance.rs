//! How fast one source may ask for what costs the whole cluster something: certificates by address, sessions by node.
//!
//! A burst is let through, and then so many a second; who is early waits for its turn, and is refused where that would
//! take too long. What is kept of a source that has been quiet is nothing. Each manager counts for itself.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

/// So many sources are remembered before those that have been quiet are looked for.
const SOURCES_KEPT: usize = 1024;

#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Requests that need not wait.
    pub burst: u32,
    /// Between two requests after a burst.
    pub interval: Duration,
    /// Who would have to wait for longer is refused.
    pub wait_max: Duration,
}

/// One kind of request, source by source.
pub struct Allowance<K> {
    limits: Limits,
    /// Until when each source has used up what it may.
    spent: Mutex<BTreeMap<K, Instant>>,
}

impl<K: Ord + Copy> Allowance<K> {
    pub fn new(limits: Limits) -> Self {
        Self { limits, spent: Mutex::default() }
    }

    /// How long a request of this source is to wait. None: it is refused, and counts for nothing.
    pub fn admit(&self, source: K, now: Instant) -> Option<Duration> {
        let Limits { burst, interval, wait_max } = self.limits;
        let mut spent = self.lock();
        if spent.len() >= SOURCES_KEPT {
            spent.retain(|_, until| *until > now);
        }
        let until = spent.get(&source).copied().unwrap_or(now).max(now);
        let wait = (until - now).saturating_sub(interval * burst.saturating_sub(1));
        if wait > wait_max {
            return None;
        }
        spent.insert(source, until + interval);
        Some(wait)
    }

    /// A request of this source turned out to be worth as many more.
    pub fn charge(&self, source: K, more: u32, now: Instant) {
        let mut spent = self.lock();
        let until = spent.get(&source).copied().unwrap_or(now).max(now);
        spent.insert(source, until + self.limits.interval * more);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<K, Instant>> {
        self.spent.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { burst: 3, interval: Duration::from_secs(1), wait_max: Duration::from_secs(2) };

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn a_burst_passes_then_one_a_second_and_a_flood_is_refused() {
        let (allowance, start) = (Allowance::new(LIMITS), Instant::now());
        let waits = |count: usize| (0..count).map(|_| allowance.admit("a", start)).collect::<Vec<_>>();
        let expected = [Some(0), Some(0), Some(0), Some(1), Some(2), None, None].map(|wait| wait.map(seconds));
        assert_eq!(waits(7), expected);
        assert_eq!(allowance.admit("b", start), Some(seconds(0)), "another source has its own");
        assert_eq!(allowance.admit("a", start + seconds(1)), Some(seconds(2)), "refused ones count for nothing");
        assert_eq!(allowance.admit("a", start + seconds(60)), Some(seconds(0)));
    }

    #[test]
    fn what_is_worth_more_is_paid_by_the_next_and_quiet_sources_are_forgotten() {
        let (allowance, start) = (Allowance::new(LIMITS), Instant::now());
        assert_eq!(allowance.admit(0, start), Some(seconds(0)));
        allowance.charge(0, 3, start);
        assert_eq!(allowance.admit(0, start), Some(seconds(2)));
        for source in 1..SOURCES_KEPT {
            allowance.admit(source, start);
        }
        allowance.admit(SOURCES_KEPT, start + seconds(60));
        assert_eq!(allowance.lock().len(), 1);
    }
}
