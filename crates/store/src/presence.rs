//! What each manager has on its disk for certain, remembered by the others.
//!
//! A manager that was restored from an old image of its disk does not know it, and its vote could elect a leader
//! without what a majority acknowledged. The others know: the leader from its followers' answers, everybody else from
//! the leader. Only committed entries count, which no manager ever takes back; so whoever has less than is remembered
//! of it has lost some. It is kept in memory only: writing it would cost more than it protects.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use skep_api::Acknowledged;

#[derive(Debug, Default)]
pub(crate) struct Presence {
    managers: Mutex<BTreeMap<u64, Held>>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Held {
    /// The term that this manager led, and the last entry that was acknowledged to it then; committed or not.
    matched: Option<(u64, u64)>,
    certain: Option<u64>,
}

impl Presence {
    /// A follower acknowledged everything up to `index` to this manager as the leader of `term`.
    pub(crate) fn matched(&self, raft_id: u64, term: u64, index: u64) {
        let mut managers = self.managers();
        let held = managers.entry(raft_id).or_default();
        // What was acknowledged in an earlier term may have been replaced since.
        held.matched = held.matched.max(Some((term, index)));
    }

    /// Whether that follower acknowledged entry `index` in this term.
    pub(crate) fn has_matched(&self, raft_id: u64, term: u64, index: u64) -> bool {
        let matched = self.managers().get(&raft_id).and_then(|held| held.matched);
        matched.is_some_and(|(in_term, last)| in_term == term && last >= index)
    }

    /// In `term`, which this manager leads, everything up to `committed` is committed.
    pub(crate) fn committed(&self, term: u64, committed: u64) {
        for held in self.managers().values_mut() {
            if let Some((in_term, last)) = held.matched
                && in_term == term
            {
                held.certain = held.certain.max(Some(last.min(committed)));
            }
        }
    }

    pub(crate) fn learn(&self, known: Acknowledged) {
        let mut managers = self.managers();
        let held = managers.entry(known.raft_id).or_default();
        held.certain = held.certain.max(Some(known.index));
    }

    /// Forgets whoever is no manager any more.
    pub(crate) fn keep(&self, members: &BTreeSet<u64>) {
        self.managers().retain(|raft_id, _| members.contains(raft_id));
    }

    pub(crate) fn of(&self, raft_id: u64) -> Option<u64> {
        self.managers().get(&raft_id).and_then(|held| held.certain)
    }

    pub(crate) fn all(&self) -> Vec<Acknowledged> {
        let managers = self.managers();
        let certain = managers.iter().filter_map(|(raft_id, held)| Some((*raft_id, held.certain?)));
        certain.map(|(raft_id, index)| Acknowledged { raft_id, index }).collect()
    }

    fn managers(&self) -> MutexGuard<'_, BTreeMap<u64, Held>> {
        self.managers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_committed_is_certain() {
        let presence = Presence::default();
        presence.matched(2, 5, 10);
        assert_eq!(presence.of(2), None);
        presence.committed(5, 7);
        assert_eq!(presence.of(2), Some(7));
        presence.committed(6, 12);
        assert_eq!(presence.of(2), Some(7), "10 was acknowledged in a term that ended");
        presence.matched(2, 6, 8);
        assert!(presence.has_matched(2, 6, 8) && !presence.has_matched(2, 6, 10));
        presence.learn(Acknowledged { raft_id: 3, index: 4 });
        presence.learn(Acknowledged { raft_id: 3, index: 2 });
        assert_eq!(presence.all().len(), 2);
        assert_eq!(presence.of(3), Some(4));
        presence.keep(&BTreeSet::from([3]));
        assert_eq!(presence.of(2), None);
    }
}
