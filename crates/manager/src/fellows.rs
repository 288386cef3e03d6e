//! Connections to the other managers, made when first needed and kept.

use std::collections::BTreeMap;
use std::sync::Mutex;

use skep_api::{Connection, Refusal, RefusalKind, connect_tls};
use skep_identity::{Expect, Tls};
use skep_model::Role;
use skep_store::{Leadership, Store};

/// How this manager reaches the others.
pub struct Fellows {
    store: Store,
    tls: Tls,
    open: Mutex<BTreeMap<String, Connection>>,
}

impl Fellows {
    pub fn new(store: Store, tls: Tls) -> Self {
        Self { store, tls, open: Mutex::default() }
    }

    /// The leader's address, when another manager leads.
    pub fn leader(&self) -> Option<String> {
        match *self.store.leadership().borrow() {
            Leadership::Follower { leader: Some(leader) } => self.addresses().remove(&leader),
            Leadership::Follower { leader: None } | Leadership::Leader { .. } | Leadership::Stopped { .. } => None,
        }
    }

    /// Addresses of all other managers, by Raft id: where they answer, where that is known.
    pub fn addresses(&self) -> BTreeMap<u64, String> {
        let members = self.store.members();
        let mut all = members.voters;
        all.extend(members.learners);
        all.remove(&self.store.raft_id());
        let moved = self.store.moved().into_iter().filter(|(raft_id, _)| all.contains_key(raft_id));
        let moved: Vec<_> = moved.collect();
        all.extend(moved);
        all
    }

    /// A connection to the manager at `address`. It mends itself when it breaks.
    pub async fn connect(&self, address: &str) -> Result<Connection, Refusal> {
        if let Some(connection) = self.lock().get(address) {
            return Ok(connection.clone());
        }
        let connection = connect_tls(address, self.tls.connector(Expect::Role(Role::Manager)))
            .await
            .map_err(|error| Refusal::new(RefusalKind::Unavailable, format!("manager {address}: {error}")))?;
        self.lock().insert(address.to_owned(), connection.clone());
        Ok(connection)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Connection>> {
        self.open.lock().expect("no holder of this lock panics")
    }
}
