//! When a write is in force on every node: what a task that is to stop waits for, so that nobody is led to it any more.
//!
//! ```text
//! agent ─ Settle ─▶ its manager ─┬▶ own sessions: the picture that each was given, applied?
//!                                └▶ every other manager: the same of theirs
//!       ◀─ Settled ─────────────┘   (2 s at most: a node that is silent holds nobody up for longer)
//! ```
//! Sessions that a write does not concern are not given a picture for it, and are not waited for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::future::join_all;
use skep_api::{RosterClient, SettledRequest};
use skep_model::{NodeId, Version};
use skep_store::Store;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::fanout::Fanout;
use crate::fellows::Fellows;

/// A silent node is waited for this long.
const SETTLE_MAX: Duration = Duration::from_secs(2);

/// How far one session's agent is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Taken {
    /// The cluster's version that the assignments of `sent` were made from, or found to be the same as.
    pub picture: Version,
    /// The revision that the agent was sent last.
    pub sent: u64,
    /// The revision that it has applied.
    pub applied: u64,
}

/// All sessions of this manager whose agents say what they have applied.
pub struct Settling {
    store: Store,
    fanout: Arc<Fanout>,
    fellows: Arc<Fellows>,
    sessions: Mutex<HashMap<NodeId, watch::Receiver<Taken>>>,
}

impl Settling {
    pub fn new(store: Store, fanout: Arc<Fanout>, fellows: Arc<Fellows>) -> Self {
        Self { store, fanout, fellows, sessions: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NodeId, watch::Receiver<Taken>>> {
        self.sessions.lock().expect("no holder of this lock panics")
    }

    /// A session has begun; it tells through what is returned, and is forgotten with it.
    pub fn follow(&self, node: NodeId) -> watch::Sender<Taken> {
        let (sender, receiver) = watch::channel(Taken::default());
        let mut sessions = self.lock();
        sessions.retain(|_, session| session.has_changed().is_ok());
        sessions.insert(node, receiver);
        sender
    }

    /// Returns when every agent has applied what it is to have as of now, or has been silent for too long.
    pub async fn everywhere(&self) {
        let version = self.store.cluster().version;
        let others = self.fellows.addresses().into_values().map(|address| self.there(address, version));
        tokio::join!(self.here(version), join_all(others));
    }

    async fn there(&self, manager: String, version: Version) {
        let asked = async {
            let client = RosterClient::new(self.fellows.connect(&manager).await?);
            client.settled(SettledRequest { version: version.0 }).await
        };
        match timeout(SETTLE_MAX, asked).await {
            Ok(Err(refusal)) => tracing::debug!(manager, %refusal, "its nodes are not waited for"),
            Err(_) => tracing::debug!(manager, "did not say that its nodes have applied a change"),
            Ok(Ok(())) => {}
        }
    }

    /// The same of this manager's own sessions, as of a version that it may not have heard of yet.
    pub async fn here(&self, version: Version) {
        if timeout(SETTLE_MAX, self.sessions_settled(version)).await.is_err() {
            tracing::debug!(version = version.0, "not every node has said that it applied a change");
        }
    }

    async fn sessions_settled(&self, version: Version) {
        self.fanout.published(version).await;
        let sessions: Vec<_> = self.lock().iter().map(|(node, session)| (*node, session.clone())).collect();
        let settled = sessions.into_iter().map(|(node, mut session)| async move {
            let Some(picture) = self.fanout.given(node) else { return };
            // A session that ends is followed by one whose agent begins with the whole.
            let Ok(taken) = session.wait_for(|taken| taken.picture >= picture).await.map(|taken| *taken) else {
                return;
            };
            let _ = session.wait_for(|now| now.applied >= taken.sent).await;
        });
        join_all(settled).await;
    }
}
