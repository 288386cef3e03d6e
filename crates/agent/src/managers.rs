//! The managers that a node knows, in the order in which it tries them.
//!
//! The machine's own manager comes first; the others in random order, so that sessions spread over all managers; the
//! one whose session just ended comes last.

use skep_model::IdSource;
use tokio::sync::watch;

pub struct Managers {
    /// The manager of this machine.
    own: Option<String>,
    /// `host:port` of all.
    known: watch::Sender<Vec<String>>,
    /// The one that the last session was with.
    last: Option<String>,
}

impl Managers {
    pub fn new(own: Option<String>, known: Vec<String>) -> Self {
        Self { own, known: watch::Sender::new(known), last: None }
    }

    /// What is known, whenever it changes.
    pub fn watch(&self) -> watch::Receiver<Vec<String>> {
        self.known.subscribe()
    }

    /// Every manager once, in the order to try them in.
    pub fn round(&self, random: &mut IdSource) -> Vec<String> {
        let known = self.known.borrow().clone();
        let mut others: Vec<String> = known.into_iter().filter(|manager| Some(manager) != self.own.as_ref()).collect();
        for end in (1..others.len()).rev() {
            others.swap(end, random.below(end as u64 + 1) as usize);
        }
        let mut round: Vec<String> = self.own.iter().cloned().chain(others).collect();
        // A stable sort: only the last one moves.
        round.sort_by_key(|manager| Some(manager) == self.last.as_ref());
        round
    }

    /// A session was opened with this one.
    pub fn opened(&mut self, manager: &str) {
        self.last = Some(manager.to_owned());
    }

    /// What a manager tells of the managers. The address of the session is kept beside: it is known to lead to one.
    pub fn told(&mut self, mut managers: Vec<String>) {
        if managers.is_empty() {
            return;
        }
        let proven = self.last.iter().filter(|last| Some(*last) != self.own.as_ref());
        let proven: Vec<String> = proven.filter(|last| !managers.contains(last)).cloned().collect();
        managers.extend(proven);
        self.known.send_if_modified(|known| std::mem::replace(known, managers.clone()) != managers);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn the_own_manager_comes_first_and_the_lost_one_last() {
        let mut managers = Managers::new(Some("own".to_owned()), names(&["a", "own", "b"]));
        let mut random = IdSource::from_seed(1);
        let round = managers.round(&mut random);
        assert_eq!(round[0], "own");
        assert_eq!(BTreeSet::from_iter(round), BTreeSet::from_iter(names(&["own", "a", "b"])));
        managers.opened("own");
        assert_eq!(managers.round(&mut random)[2], "own");
        managers.opened("a");
        let round = managers.round(&mut random);
        assert_eq!(round, names(&["own", "b", "a"]));
    }

    #[test]
    fn sessions_spread_over_the_managers() {
        let managers = Managers::new(None, names(&["a", "b", "c"]));
        let mut random = IdSource::from_seed(1);
        let first: Vec<String> = (0..300).map(|_| managers.round(&mut random).swap_remove(0)).collect();
        for name in ["a", "b", "c"] {
            let count = first.iter().filter(|first| *first == name).count();
            assert!((60..140).contains(&count), "{name} was first {count} times of 300");
        }
    }

    #[test]
    fn what_is_told_replaces_what_was_known_but_for_the_address_in_use() {
        let mut managers = Managers::new(None, names(&["old", "gone"]));
        let mut watched = managers.watch();
        managers.opened("old");
        managers.told(names(&["a", "b"]));
        assert!(watched.has_changed().unwrap());
        assert_eq!(*watched.borrow_and_update(), names(&["a", "b", "old"]));
        managers.told(names(&["a", "b"]));
        managers.told(Vec::new());
        assert!(!watched.has_changed().unwrap());
        managers.opened("b");
        managers.told(names(&["a", "b"]));
        assert_eq!(*watched.borrow_and_update(), names(&["a", "b"]));
    }
}
