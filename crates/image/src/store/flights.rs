//! One worker per key: whoever wants the same thing waits for the first and then finds it done.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

/// `V` is what the last worker leaves to those who waited.
pub(crate) struct Flights<K, V> {
    running: Mutex<HashMap<K, Weak<AsyncMutex<V>>>>,
}

impl<K, V> Default for Flights<K, V> {
    fn default() -> Flights<K, V> {
        Flights { running: Mutex::new(HashMap::new()) }
    }
}

impl<K: Eq + Hash, V: Default> Flights<K, V> {
    /// Waits until nobody else works on `key`. The value lives while anybody works or waits.
    pub(crate) async fn turn(&self, key: K) -> OwnedMutexGuard<V> {
        let lock = {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            running.retain(|_, lock| lock.strong_count() > 0);
            match running.get(&key).and_then(Weak::upgrade) {
                Some(lock) => lock,
                None => {
                    let lock = Arc::new(AsyncMutex::default());
                    running.insert(key, Arc::downgrade(&lock));
                    lock
                }
            }
        };
        lock.lock_owned().await
    }
}
