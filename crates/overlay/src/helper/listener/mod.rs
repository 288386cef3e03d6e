//! Published ports, held with real sockets in the node's own network namespace: they answer on the loopback addresses,
//! and over IPv6 for tasks without it, and no other program can take the port unseen. All else is redirected by nftables
//! before it gets here.

mod bind;
mod tcp;
mod udp;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rustix::process::{Resource, getrlimit};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use crate::helper::random;
use crate::plan::balance;
use crate::snapshot::{Listener, Protocol, ServeError};

/// Where a port's connections lead.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Backends {
    addresses: Arc<[SocketAddr]>,
    by_client: bool,
}

impl Backends {
    fn of(listener: &Listener) -> Self {
        Self { addresses: listener.backends.as_slice().into(), by_client: listener.by_client }
    }

    /// All of them, the one first that this client is to be led to.
    fn for_client(&self, client: IpAddr) -> impl Iterator<Item = SocketAddr> + '_ {
        let all = &self.addresses;
        let first = match self.by_client {
            true => {
                let drawn = balance::drawn(all, &balance::Drawn::bytes(&client.to_canonical()));
                all.iter().position(|backend| Some(backend) == drawn).unwrap_or(0)
            }
            false => random::below(all.len().max(1)),
        };
        all.iter().cycle().skip(first).take(all.len()).copied()
    }
}

/// TCP connections of the whole node at one time; a connection has two descriptors.
const CONNECTIONS_MAX: usize = 4096;
/// Kept for everything that is not a proxied connection.
const DESCRIPTORS_RESERVED: usize = 1024;

/// The sockets of all published ports.
pub struct Listeners {
    held: BTreeMap<Key, Held>,
    connections: Arc<Semaphore>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    protocol: Protocol,
    bind: Option<IpAddr>,
    port: u16,
}

impl Key {
    fn of(listener: &Listener) -> Self {
        let Listener { protocol, bind, port, backends: _, by_client: _ } = *listener;
        Self { protocol, bind: bind.filter(|address| !address.is_unspecified()), port }
    }
}

struct Held {
    backends: watch::Sender<Backends>,
    task: JoinHandle<()>,
}

impl Listeners {
    pub fn new() -> Self {
        Self { held: BTreeMap::new(), connections: Arc::new(Semaphore::new(connections_max())) }
    }

    /// Opens and closes sockets until there is one for each. A port that stays keeps its socket and its connections,
    /// one that goes lets its TCP connections come to their end.
    pub async fn serve(&mut self, wanted: &[Listener]) -> Vec<ServeError> {
        let keys: BTreeMap<Key, &Listener> = wanted.iter().map(|listener| (Key::of(listener), listener)).collect();
        let gone: Vec<Key> = self.held.keys().filter(|key| !keys.contains_key(key)).copied().collect();
        for held in gone.iter().filter_map(|key| self.held.remove(key)) {
            held.task.abort();
            // Aborted, and with it its socket is closed: the port may be wanted below.
            let _ = held.task.await;
        }
        let mut errors = Vec::new();
        for (key, listener) in keys {
            let backends = Backends::of(listener);
            if let Some(held) = self.held.get(&key) {
                held.backends.send_replace(backends);
                continue;
            }
            match self.hold(key, backends) {
                Ok(held) => drop(self.held.insert(key, held)),
                Err(error) => {
                    let message = bind::explain(key.protocol, key.bind, key.port, &error);
                    errors.push(ServeError::Listener { listener: listener.clone(), message });
                }
            }
        }
        errors
    }

    fn hold(&self, key: Key, backends: Backends) -> io::Result<Held> {
        let (backends, watched) = watch::channel(backends);
        let task = match key.protocol {
            Protocol::Tcp => {
                tokio::spawn(tcp::serve(bind::tcp(key.bind, key.port)?, watched, Arc::clone(&self.connections)))
            }
            Protocol::Udp => tokio::spawn(udp::serve(bind::udp(key.bind, key.port)?, watched)),
        };
        Ok(Held { backends, task })
    }
}

fn connections_max() -> usize {
    let descriptors = getrlimit(Resource::Nofile).current.map_or(usize::MAX, |count| count as usize);
    (descriptors.saturating_sub(DESCRIPTORS_RESERVED) / 2).clamp(64, CONNECTIONS_MAX)
}
