//! The node's network, owned by one task: what the cluster wants of it, what runs here, and the kernel.
//!
//! Every change ends in the same three beats: plan the whole, hold the published ports in the net helper,
//! realize in the kernel.
//! The helper comes first, so that a port that another program has is known before its packets are taken.

mod owner;
mod path;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use ipnet::Ipv4Net;
use skep_api::{AssignedPeer, TunnelPeer};
use skep_model::{NetworkAddress, NetworkAttachment, NetworkId, NodeId, PortSpec, ServiceId, Task, TaskId, TunnelKey};
use skep_overlay::Overlay;
use skep_overlay::helper::Helper;
use skep_overlay::tunnel::{Carrier, PublicKey};
use tokio::sync::{mpsc, oneshot, watch};

use self::owner::Owner;
use crate::network_view::{ClusterView, container_names};
use crate::node::chain;
use crate::tunnel::keys::Keys;
use crate::tunnel::{self, OwnTunnel};

/// A container that wants a place on its task's networks.
#[derive(Debug)]
pub struct Attach {
    pub task: TaskId,
    pub service: ServiceId,
    pub networks: Vec<NetworkId>,
    pub fixed: Vec<Fixed>,
    pub names: Vec<String>,
    pub host_ports: Vec<PortSpec>,
    /// Its container lives already: it keeps what it has, whatever became of a port meanwhile.
    pub adopted: bool,
}

impl Attach {
    pub fn of(task: &Task, hostname: String) -> Self {
        Self {
            adopted: false,
            task: task.id,
            service: task.service,
            networks: task.networks.clone(),
            fixed: task.spec.networks.iter().map(Fixed::of).collect(),
            names: container_names(task, &hostname),
            host_ports: task.host_ports.clone(),
        }
    }
}

/// The address that a task's spec asks for, told by itself or by its twin.
#[derive(Debug, Clone, Copy, Default)]
pub struct Fixed {
    pub address: Option<Ipv4Addr>,
    pub address_v6: Option<Ipv6Addr>,
}

impl Fixed {
    fn of(attachment: &NetworkAttachment) -> Self {
        Self { address: attachment.address, address_v6: attachment.address_v6 }
    }
}

/// A container's place.
#[derive(Debug, Clone)]
pub struct Attached {
    pub netns: PathBuf,
    pub addresses: Vec<NetworkAddress>,
    /// Of the first network with a way out.
    pub gateway: Option<Ipv4Addr>,
    pub host_ports: Vec<PortSpec>,
}

enum Command {
    SetCluster(ClusterView),
    Expect(BTreeSet<TaskId>),
    Attach(Attach, oneshot::Sender<Result<Attached, String>>),
    SetServing {
        task: TaskId,
        serving: bool,
        done: oneshot::Sender<()>,
    },
    Detach {
        task: TaskId,
        keep: KeepAddresses,
        done: oneshot::Sender<()>,
    },
    /// Answered once what was taken in before is realized.
    InForce(oneshot::Sender<()>),
    OthersServe {
        service: ServiceId,
        task: TaskId,
        reply: oneshot::Sender<bool>,
    },
    /// The longest packet that was seen to reach every peer, where that is less than [`Condition::mtu`].
    SetPath(Option<u16>),
    Teardown(oneshot::Sender<Result<(), String>>),
}

/// Whether a task's addresses stay its own when its sandbox goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeepAddresses {
    Yes,
    No,
}

/// Where the network's owner is asked. Clones share it.
#[derive(Clone)]
pub struct NetworkHandle {
    commands: mpsc::Sender<Command>,
    overlay: Arc<Overlay>,
    helper: Arc<Helper>,
    peers: watch::Receiver<BTreeMap<NodeId, AssignedPeer>>,
    condition: watch::Receiver<Condition>,
}

/// A handle that does not keep the owner from ending.
struct WeakHandle {
    commands: mpsc::WeakSender<Command>,
    overlay: Weak<Overlay>,
    helper: Weak<Helper>,
    peers: watch::Receiver<BTreeMap<NodeId, AssignedPeer>>,
    condition: watch::Receiver<Condition>,
}

impl WeakHandle {
    fn upgrade(&self) -> Option<NetworkHandle> {
        let (peers, condition) = (self.peers.clone(), self.condition.clone());
        let (overlay, helper) = (self.overlay.upgrade()?, self.helper.upgrade()?);
        Some(NetworkHandle { commands: self.commands.upgrade()?, overlay, helper, peers, condition })
    }
}

/// How the node's network is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Condition {
    /// The longest packet that the node's own interfaces let through to any peer, within the tunnel.
    pub mtu: u16,
    /// The longest that was seen to reach every peer, where that is less.
    pub path: Option<u16>,
    /// What is wrong now, in words.
    pub warnings: Vec<String>,
}

impl NetworkHandle {
    /// Tasks that may have a container from an earlier daemon: nothing is realized before each of those
    /// that has a sandbox is attached or detached, or they would lose their network for a moment.
    pub async fn expect(&self, tasks: BTreeSet<TaskId>) {
        self.send(Command::Expect(tasks)).await;
    }

    pub async fn set_cluster(&self, view: ClusterView) {
        self.send(Command::SetCluster(view)).await;
    }

    /// Addresses, a network namespace and the published ports of a task; the error is the task's.
    pub async fn attach(&self, attach: Attach) -> Result<Attached, String> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Attach(attach, reply)).await;
        answer.await.unwrap_or_else(|_| Err("the node's network is shutting down".to_owned()))
    }

    /// Takes a container into the maps, or out of them.
    pub async fn set_serving(&self, task: TaskId, serving: bool) {
        let (done, answer) = oneshot::channel();
        self.send(Command::SetServing { task, serving, done }).await;
        // The owner ends only with the daemon; containers then stay as they are.
        let _ = answer.await;
    }

    pub async fn detach(&self, task: TaskId) {
        self.detach_with(task, KeepAddresses::No).await;
    }

    /// Takes away what is left of the place of a container that is gone, and is to be made again: it will have the
    /// same addresses, which other nodes know already.
    pub async fn vacate(&self, task: TaskId) {
        self.detach_with(task, KeepAddresses::Yes).await;
    }

    async fn detach_with(&self, task: TaskId, keep: KeepAddresses) {
        let (done, answer) = oneshot::channel();
        self.send(Command::Detach { task, keep, done }).await;
        // As above.
        let _ = answer.await;
    }

    /// Waits until the picture that was set last is what the kernel and the helper have.
    pub async fn in_force(&self) {
        let (done, answer) = oneshot::channel();
        self.send(Command::InForce(done)).await;
        // As above.
        let _ = answer.await;
    }

    /// Whether a task of the service other than `task` takes requests.
    pub async fn others_serve(&self, service: ServiceId, task: TaskId) -> bool {
        let (reply, answer) = oneshot::channel();
        self.send(Command::OthersServe { service, task, reply }).await;
        answer.await.unwrap_or(false)
    }

    /// How many TCP connections to these addresses have not ended.
    ///
    /// Asked again and again, so not of the owner, who would look at the whole node each time.
    pub async fn connections(&self, addresses: BTreeSet<IpAddr>) -> usize {
        let overlay = Arc::clone(&self.overlay);
        blocking(move || overlay.connections(&addresses)).await.unwrap_or_else(|error| {
            tracing::debug!(error = chain(&error), "connections could not be counted");
            0
        })
    }

    /// Removes every trace from the kernel; the owner ends.
    pub async fn teardown(&self) -> Result<(), String> {
        let (done, answer) = oneshot::channel();
        self.send(Command::Teardown(done)).await;
        answer.await.unwrap_or(Ok(()))
    }

    /// Who carries the tunnel to other nodes.
    pub fn carrier(&self) -> &'static str {
        match self.overlay.carrier() {
            Carrier::Kernel => "kernel",
            Carrier::Userspace => "userspace",
        }
    }

    fn downgrade(&self) -> WeakHandle {
        let Self { commands, overlay, helper, peers, condition } = self;
        let (overlay, helper) = (Arc::downgrade(overlay), Arc::downgrade(helper));
        let (peers, condition) = (peers.clone(), condition.clone());
        WeakHandle { commands: commands.downgrade(), overlay, helper, peers, condition }
    }

    pub fn condition(&self) -> Condition {
        self.condition.borrow().clone()
    }

    /// The other nodes in the tunnel.
    pub async fn peers(&self) -> Vec<TunnelPeer> {
        let peers = self.peers.borrow().clone();
        let mut stats = self.overlay.tunnel_stats(&self.helper).await.unwrap_or_else(|error| {
            tracing::debug!(error = chain(&error), "who carries the tunnel does not tell of it");
            BTreeMap::new()
        });
        let stats_of = |peer: &AssignedPeer| stats.remove(&PublicKey::from_bytes(peer.key.0)).unwrap_or_default();
        peers.values().map(stats_of).zip(peers.values()).map(|(stats, peer)| tunnel::told(peer, stats)).collect()
    }

    async fn send(&self, command: Command) {
        // As above: a closed channel is a daemon that stops.
        let _ = self.commands.send(command).await;
    }
}

/// What the owner needs.
pub struct NetworkSetup {
    pub overlay: Overlay,
    pub helper: Helper,
    /// The range of the cluster's networks.
    pub pool: Ipv4Net,
    pub upstreams: Vec<SocketAddr>,
    pub keys: Keys,
    /// Where the key that others are to know is said.
    pub told: watch::Sender<TunnelKey>,
    pub tunnel: OwnTunnel,
}

/// Starts the owner; it ends when the last handle is dropped.
pub fn start(setup: NetworkSetup) -> NetworkHandle {
    let (sender, commands) = mpsc::channel(256);
    let owner = Owner::new(setup);
    let (overlay, helper, peers, condition) = owner.shared();
    tokio::spawn(owner.run(commands));
    let handle = NetworkHandle { commands: sender, overlay, helper, peers, condition };
    tokio::spawn(path::watch(handle.downgrade()));
    handle
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("work on the network does not panic")
}
