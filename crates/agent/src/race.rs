//! Connecting to one of several managers: the next is tried when one fails, or has not answered soon.
//!
//! A node that is dead says nothing at all; waiting for it alone would take seconds of those that a cluster has to heal.

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use skep_api::{Connection, connect_watched};
use skep_identity::{Expect, Tls};
use skep_model::Role;

use crate::node::chain;

/// After which the next manager is tried beside those that have not answered.
const HEAD_START: Duration = Duration::from_millis(300);
/// How long a manager has to accept a connection. It may be slow, but not that slow.
const CONNECT_MAX: Duration = Duration::from_secs(4);

/// A manager's `host:port`, and what came of the try.
pub type Finish = (String, Result<Connection, String>);
type Try = Pin<Box<dyn Future<Output = Finish> + Send>>;

/// One round over the managers.
pub struct Race {
    tls: Tls,
    untried: VecDeque<String>,
    running: FuturesUnordered<Try>,
}

impl Race {
    pub fn new(tls: Tls, managers: Vec<String>) -> Self {
        Self { tls, untried: managers.into(), running: FuturesUnordered::new() }
    }

    /// The next manager that answered or failed; `None` when all have. May be dropped and called again.
    pub async fn next(&mut self) -> Option<Finish> {
        loop {
            if self.running.is_empty() {
                self.begin()?;
            }
            let next = if self.untried.is_empty() {
                Ok(self.running.next().await)
            } else {
                tokio::time::timeout(HEAD_START, self.running.next()).await
            };
            match next {
                Ok(Some(finish)) => return Some(finish),
                Ok(None) => {}
                Err(_) => {
                    self.begin();
                }
            }
        }
    }

    fn begin(&mut self) -> Option<()> {
        let manager = self.untried.pop_front()?;
        let connector = self.tls.connector(Expect::Role(Role::Manager));
        self.running.push(Box::pin(async move {
            let connected = match tokio::time::timeout(CONNECT_MAX, connect_watched(&manager, connector)).await {
                Ok(connected) => connected.map_err(|error| chain(&error)),
                Err(_) => Err(format!("no connection within {} s", CONNECT_MAX.as_secs())),
            };
            (manager, connected)
        }));
        Some(())
    }
}
