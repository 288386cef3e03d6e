//! What must not be collected although nothing names it yet: a pull holds its content from before it looks
//! whether that is here, and an `Image` holds it for as long as somebody has it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::layout::LayerKey;
use crate::digest::Digest;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Item {
    Blob(Digest),
    Layer(LayerKey),
}

#[derive(Default)]
pub(crate) struct Leases {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    held: HashMap<Item, usize>,
    /// While a collection runs: what was let go since it began. Its marks may be older than the reference that
    /// was written just before the lease ended.
    released: Option<HashSet<Item>>,
}

/// Held items; let go on drop.
pub(crate) struct Lease {
    leases: Arc<Leases>,
    items: Mutex<HashSet<Item>>,
}

/// A running collection.
pub(crate) struct Collection<'a> {
    leases: &'a Leases,
}

impl Leases {
    pub(crate) fn lease(self: &Arc<Leases>) -> Lease {
        Lease { leases: self.clone(), items: Mutex::default() }
    }

    /// `None` if one runs already.
    pub(crate) fn collect(&self) -> Option<Collection<'_>> {
        let mut state = self.lock();
        if state.released.is_some() {
            return None;
        }
        state.released = Some(HashSet::new());
        Some(Collection { leases: self })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    /// From now on `item` stays, if it is here: look only afterwards.
    pub(crate) fn hold(&self, item: Item) {
        if self.items.lock().unwrap_or_else(PoisonError::into_inner).insert(item) {
            *self.leases.lock().held.entry(item).or_default() += 1;
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let items = std::mem::take(self.items.get_mut().unwrap_or_else(PoisonError::into_inner));
        let mut state = self.leases.lock();
        for item in items {
            if let Some(count) = state.held.get_mut(&item) {
                *count -= 1;
                if *count == 0 {
                    state.held.remove(&item);
                }
            }
            if let Some(released) = &mut state.released {
                released.insert(item);
            }
        }
    }
}

impl Collection<'_> {
    pub(crate) fn is_held(&self, item: Item) -> bool {
        is_held(&self.leases.lock(), item)
    }

    /// Runs `discard` unless `item` is held; nobody can take hold of it meanwhile.
    pub(crate) fn discard<T>(&self, item: Item, discard: impl FnOnce() -> T) -> Option<T> {
        let state = self.leases.lock();
        (!is_held(&state, item)).then(discard)
    }
}

impl Drop for Collection<'_> {
    fn drop(&mut self) {
        self.leases.lock().released = None;
    }
}

fn is_held(state: &State, item: Item) -> bool {
    state.held.contains_key(&item) || state.released.as_ref().is_some_and(|released| released.contains(&item))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_let_go_during_a_collection_outlives_it() {
        let leases = Arc::new(Leases::default());
        let item = Item::Blob(Digest::of(b"x"));
        let (one, two) = (leases.lease(), leases.lease());
        one.hold(item);
        two.hold(item);
        drop(one);
        let collection = leases.collect().unwrap();
        assert!(leases.collect().is_none(), "one at a time");
        drop(two);
        assert_eq!(collection.discard(item, || ()), None);
        drop(collection);
        assert_eq!(leases.collect().unwrap().discard(item, || ()), Some(()));
    }
}
