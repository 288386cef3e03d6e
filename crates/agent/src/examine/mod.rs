//! What `skep doctor` asks of a node: its way to every other node, and what is wrong on its own machine.
//!
//! Everything is measured and told; who is to blame for a way that is bad is judged where both ends are known.

mod firewall;
mod host;
mod managers;
mod routes;

use std::path::PathBuf;
use std::sync::Arc;

use skep_api::{Complaint, Examined, ManagerTarget, PeerProbe, TunnelPeer};
use skep_identity::NodeClock;
use skep_model::Timestamp;
use skep_overlay::echo::{self, Way};
use tokio::sync::watch;

pub use firewall::firewall;
pub use host::host_complaints;
pub use routes::{collisions, host_routes};

use crate::network::NetworkHandle;
use crate::session::ManagersWord;

/// Small echoes to each node, and to all of them together at most.
const ROUNDS: u32 = 30;
const ROUNDS_MIN: u32 = 4;
const ECHOES_MAX: u32 = 3000;

/// Examines this node. Clones share it.
#[derive(Clone)]
pub struct Examiner {
    pub network: NetworkHandle,
    pub clock: Arc<NodeClock>,
    pub data_dir: PathBuf,
    /// The UDP port that other nodes reach this one at.
    pub tunnel_port: u16,
    /// Limits of the kernel, in words.
    pub warnings: Arc<[String]>,
    pub word: watch::Receiver<ManagersWord>,
}

impl Examiner {
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Takes a second or two where all is well, some twenty where ways are bad.
    pub async fn examine(&self, managers: Vec<ManagerTarget>) -> Examined {
        let (peers, managers) = tokio::join!(self.peers(), managers::reach(managers));
        let condition = self.network.condition();
        let said = self.warnings.iter().cloned().chain(condition.warnings).chain(self.word.borrow().copy.clone());
        let mut complaints: Vec<_> = said.map(|what| Complaint { what, mend: String::new() }).collect();
        let data_dir = self.data_dir.clone();
        complaints.extend(blocking(move || host_complaints(&data_dir)).await);
        Examined {
            complaints,
            peers,
            managers,
            firewall: blocking(|| firewall("/".as_ref())).await,
            tunnel_port: self.tunnel_port,
            mtu: condition.path.unwrap_or(condition.mtu),
            interface_mtu: condition.mtu,
            clock_synchronised: skep_runtime::clock_is_synchronised(),
        }
    }

    async fn peers(&self) -> Vec<PeerProbe> {
        let before = self.network.peers().await;
        let addresses: Vec<_> = before.iter().map(|peer| peer.address).collect();
        let rounds = ECHOES_MAX / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
        let (rounds, longest) = (rounds.clamp(ROUNDS_MIN, ROUNDS), self.network.condition().mtu);
        let examined =
            blocking(
                move || {
                    if addresses.is_empty() { Ok(Vec::new()) } else { echo::examine(&addresses, rounds, longest) }
                },
            );
        let ways = examined.await.unwrap_or_else(|error| {
            tracing::warn!(%error, "the ways to other nodes could not be probed");
            Vec::new()
        });
        let after = self.network.peers().await;
        let after = |peer: &TunnelPeer| after.iter().find(|now| now.node == peer.node);
        before.iter().zip(ways).filter_map(|(peer, way)| Some(probe(peer, after(peer)?, way))).collect()
    }
}

/// A carrier that was made anew meanwhile counts from nothing.
fn probe(before: &TunnelPeer, after: &TunnelPeer, way: Way) -> PeerProbe {
    let Way { sent, answered, round_trip, passes } = way;
    PeerProbe {
        node: after.node,
        address: after.address,
        endpoint: after.endpoint,
        sent,
        answered,
        round_trip,
        passes,
        received_bytes: after.received_bytes.saturating_sub(before.received_bytes),
        handshake_age: after.handshake_age,
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("an examination does not panic")
}
