//! Who answers this manager, and whether the leader still speaks to it.
//!
//! Raft's own knowledge does not say it: a follower keeps the name of a leader that died, and a manager without a
//! leader does not know who is missing. A leader asks everybody all the time, a voter without a leader asks for votes;
//! what comes of it is noted here.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// What came of asking the other managers since this one was started.
#[derive(Debug)]
pub(crate) struct Contacts {
    /// How long a manager may be silent before it counts as missing.
    patience: Duration,
    peers: Mutex<BTreeMap<u64, Contact>>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Contact {
    /// The first of the questions in a row that it did not answer.
    failing_since: Option<Instant>,
    /// When it last spoke as the leader.
    led: Option<Instant>,
}

impl Contacts {
    pub(crate) fn new(patience: Duration) -> Contacts {
        Contacts { patience, peers: Mutex::default() }
    }

    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }

    pub(crate) fn answered(&self, raft_id: u64) {
        self.peers().entry(raft_id).or_default().failing_since = None;
    }

    pub(crate) fn failed(&self, raft_id: u64, now: Instant) {
        self.peers().entry(raft_id).or_default().failing_since.get_or_insert(now);
    }

    pub(crate) fn heard_leader(&self, raft_id: u64, now: Instant) {
        let mut peers = self.peers();
        let led = peers.entry(raft_id).or_default().led.replace(now);
        if led.is_none_or(|at| now.duration_since(at) >= self.patience) {
            // With a leader there is nobody to ask: what failed before says nothing of later.
            peers.values_mut().for_each(|contact| contact.failing_since = None);
        }
    }

    /// Whether this manager led, and spoke, a short while ago.
    pub(crate) fn leads(&self, raft_id: u64, now: Instant) -> bool {
        let led = self.peers().get(&raft_id).and_then(|contact| contact.led);
        led.is_some_and(|at| now.duration_since(at) < self.patience)
    }

    /// Since when a manager does not answer, if that is long enough to count.
    pub(crate) fn missing_since(&self, raft_id: u64, now: Instant) -> Option<Instant> {
        let since = self.peers().get(&raft_id).and_then(|contact| contact.failing_since);
        since.filter(|at| now.duration_since(*at) >= self.patience)
    }

    fn peers(&self) -> MutexGuard<'_, BTreeMap<u64, Contact>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_counted_from_the_first_question_without_answer() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let contacts = Contacts::new(Duration::from_secs(1));
        contacts.heard_leader(2, at(0));
        assert!(contacts.leads(2, at(900)) && !contacts.leads(3, at(0)) && !contacts.leads(2, at(1000)));
        assert_eq!(contacts.missing_since(2, at(2000)), None, "nobody asked it");
        contacts.failed(2, at(2000));
        contacts.failed(3, at(2000));
        contacts.failed(2, at(2600));
        contacts.answered(3);
        assert_eq!(contacts.missing_since(2, at(2999)), None);
        assert_eq!(contacts.missing_since(2, at(3000)), Some(at(2000)));
        assert_eq!(contacts.missing_since(3, at(3000)), None);
        contacts.heard_leader(3, at(3000));
        assert_eq!(contacts.missing_since(2, at(3000)), None, "a new leader, a new beginning");
    }
}
