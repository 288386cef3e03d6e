//! The node's network, owned by one task: what the cluster wants of it, what runs here, and the kernel.
//!
//! Every change ends in the same three beats: plan the whole, hold the published ports in the net helper,
//! realize in the kernel.
//! The helper comes first, so that a port that another program has is known before its packets are taken.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;
use skep_api::{AssignedNetwork, AssignedPeer, TunnelPeer};
use skep_model::{NetworkId, NodeId, PortSpec, PublishMode, ServiceId, Task, TaskId};
use skep_overlay::helper::Helper;
use skep_overlay::ipam::Request;
use skep_overlay::plan::NodeNetwork;
use skep_overlay::snapshot::{Listener, ServeError};
use skep_overlay::tunnel::{Carrier, PublicKey};
use skep_overlay::{Attachment, Overlay};
use tokio::sync::{mpsc, oneshot, watch};

use crate::network_view::{ClusterView, LocalEndpoint, container_names, node_network, overlay_network};
use crate::node::{chain, now};
use crate::tunnel::{self, OwnTunnel};

/// After a change that could not be realized.
const RETRY: Duration = Duration::from_secs(1);
/// Without a change: what somebody else took from the node's network comes again.
const REPEAT: Duration = Duration::from_secs(30);

/// A container that wants a place on its task's networks.
#[derive(Debug)]
pub struct Attach {
    pub task: TaskId,
    pub service: ServiceId,
    pub networks: Vec<NetworkId>,
    pub fixed: Vec<Option<Ipv4Addr>>,
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
            fixed: task.spec.networks.iter().map(|attachment| attachment.address).collect(),
            names: container_names(task, &hostname),
            host_ports: task.host_ports.clone(),
        }
    }
}

/// A container's place.
#[derive(Debug, Clone)]
pub struct Attached {
    pub netns: PathBuf,
    pub addresses: Vec<(NetworkId, Ipv4Addr)>,
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
    Teardown(oneshot::Sender<Result<(), String>>),
}

/// Whether a task's addresses stay its own when its sandbox goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeepAddresses {
    Yes,
    No,
}

/// An answer that is given once the change is realized.
type Reply = Box<dyn FnOnce(&Owner) + Send>;

/// Where the network's owner is asked. Clones share it.
#[derive(Clone)]
pub struct NetworkHandle {
    commands: mpsc::Sender<Command>,
    overlay: Arc<Overlay>,
    helper: Arc<Helper>,
    peers: watch::Receiver<BTreeMap<NodeId, AssignedPeer>>,
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
    pub async fn connections(&self, addresses: BTreeSet<Ipv4Addr>) -> usize {
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
    pub tunnel: OwnTunnel,
}

struct Owner {
    overlay: Arc<Overlay>,
    helper: Arc<Helper>,
    pool: Ipv4Net,
    upstreams: Vec<SocketAddr>,
    tunnel: OwnTunnel,
    /// For whoever asks for them.
    peers: watch::Sender<BTreeMap<NodeId, AssignedPeer>>,
    /// The longest packet that fits into the tunnel to any of the peers.
    mtu: u16,
    cluster: ClusterView,
    /// Nothing is realized before the first picture of the cluster: it would take down what lives.
    informed: bool,
    /// Sandboxes of an earlier daemon whose drivers have not spoken yet.
    awaited: BTreeSet<TaskId>,
    local: BTreeMap<TaskId, LocalEndpoint>,
    refused: Vec<(Listener, String)>,
    warned: Vec<String>,
    /// Who waits for what was taken in to be realized.
    waiting: Vec<oneshot::Sender<()>>,
}

/// Starts the owner; it ends when the last handle is dropped.
pub fn start(setup: NetworkSetup) -> NetworkHandle {
    let (sender, commands) = mpsc::channel(256);
    let NetworkSetup { overlay, helper, pool, upstreams, tunnel } = setup;
    let owner = Owner {
        overlay: Arc::new(overlay),
        helper: Arc::new(helper),
        pool,
        upstreams,
        tunnel,
        peers: watch::Sender::new(BTreeMap::new()),
        mtu: tunnel::mtu([].iter()),
        cluster: ClusterView::default(),
        informed: false,
        awaited: BTreeSet::new(),
        local: BTreeMap::new(),
        refused: Vec::new(),
        warned: Vec::new(),
        waiting: Vec::new(),
    };
    let (overlay, helper, peers) = (Arc::clone(&owner.overlay), Arc::clone(&owner.helper), owner.peers.subscribe());
    tokio::spawn(owner.run(commands));
    NetworkHandle { commands: sender, overlay, helper, peers }
}

impl Owner {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut dirty = false;
        loop {
            let next = tokio::time::timeout(if dirty { RETRY } else { REPEAT }, commands.recv()).await;
            let mut replies: Vec<Reply> = Vec::new();
            match next {
                Ok(None) => return,
                Ok(Some(Command::Teardown(done))) => {
                    let torn_down = self.teardown().await;
                    // Whoever asked may not wait any more.
                    let _ = done.send(torn_down);
                    return;
                }
                Ok(Some(first)) => {
                    self.take(first, &mut replies).await;
                    // What is ready is taken together and realized once.
                    while let Ok(command) = commands.try_recv() {
                        if let Command::Teardown(done) = command {
                            let _ = done.send(self.teardown().await);
                            return;
                        }
                        self.take(command, &mut replies).await;
                    }
                }
                Err(_) => {}
            }
            let ready = self.informed && self.awaited.is_empty();
            dirty = ready && !self.realize().await;
            if ready && !dirty {
                // Whoever waits may have been dropped with its session.
                for done in self.waiting.drain(..) {
                    let _ = done.send(());
                }
            }
            replies.into_iter().for_each(|reply| reply(&self));
        }
    }

    async fn take(&mut self, command: Command, replies: &mut Vec<Reply>) {
        match command {
            Command::SetCluster(view) => {
                if view.peers != self.cluster.peers {
                    self.peers.send_replace(view.peers.clone());
                    self.mtu = tunnel::mtu(view.peers.values().filter_map(|peer| peer.endpoint.as_ref()));
                }
                self.cluster = view;
                self.informed = true;
            }
            Command::Expect(tasks) => {
                let found: BTreeSet<String> = self.overlay.sandboxes().into_iter().map(|sandbox| sandbox.id).collect();
                self.awaited = tasks.into_iter().filter(|task| found.contains(&task.to_string())).collect();
            }
            Command::Attach(attach, reply) => {
                self.awaited.remove(&attach.task);
                let ports = if attach.adopted { Vec::new() } else { self.ports_of(&attach) };
                let task = attach.task;
                let attached = self.attach(attach).await;
                if attached.is_err() {
                    self.local.remove(&task);
                }
                replies.push(Box::new(move |owner| {
                    let taken = ports.iter().find_map(|port| owner.refusal(port));
                    let outcome = attached.and_then(|attached| taken.map_or(Ok(attached), Err));
                    let _ = reply.send(outcome);
                }));
            }
            Command::SetServing { task, serving, done } => {
                if let Some(endpoint) = self.local.get_mut(&task) {
                    (endpoint.serving, endpoint.withdrawn) = (serving, !serving);
                }
                // Whoever asked may have been dropped with its task.
                replies.push(Box::new(move |_| {
                    let _ = done.send(());
                }));
            }
            Command::Detach { task, keep, done } => {
                self.awaited.remove(&task);
                self.detach(task, keep).await;
                // Whoever asked may have been dropped with its task.
                replies.push(Box::new(move |_| {
                    let _ = done.send(());
                }));
            }
            Command::InForce(done) => self.waiting.push(done),
            Command::OthersServe { service, task, reply } => {
                let endpoint = self.cluster.endpoints.get(&service);
                // Whoever asked may have been dropped with its task.
                let _ = reply.send(endpoint.is_some_and(|it| it.backends.iter().any(|backend| backend.task != task)));
            }
            Command::Teardown(done) => {
                let _ = done.send(self.teardown().await);
            }
        }
    }

    /// Every port of this node that the task's service asks for.
    fn ports_of(&self, attach: &Attach) -> Vec<PortSpec> {
        let endpoint = self.cluster.endpoints.get(&attach.service);
        let ingress = endpoint.iter().flat_map(|endpoint| endpoint.ports.iter());
        let ingress = ingress.filter(|port| port.mode == PublishMode::Ingress);
        ingress.chain(&attach.host_ports).cloned().collect()
    }

    fn refusal(&self, port: &PortSpec) -> Option<String> {
        let (_, message) = self.refused.iter().find(|(listener, _)| {
            listener.port == port.published && listener.protocol.to_string() == port.protocol.word()
        })?;
        Some(format!(
            "published port {}/{} cannot be used on this node: {message}",
            port.published,
            port.protocol.word()
        ))
    }

    async fn attach(&mut self, attach: Attach) -> Result<Attached, String> {
        let id = attach.task.to_string();
        let mut networks = Vec::new();
        let mut requests = Vec::new();
        for (network, fixed) in attach.networks.iter().zip(&attach.fixed) {
            let assigned = self.cluster.networks.get(network);
            let assigned = assigned.ok_or_else(|| format!("the node was not told of network {network}"))?;
            networks.push(overlay_network(assigned));
            requests.push(self.request(assigned, *fixed));
        }
        let now_s = now().0 / 1_000_000_000;
        let overlay = Arc::clone(&self.overlay);
        let made = blocking(move || {
            let addresses = overlay.allocate(&id, &requests, now_s)?;
            let place = |(network, address)| Attachment { network, address };
            let attachments: Vec<_> = networks.into_iter().zip(addresses.iter().copied()).map(place).collect();
            let sandbox = overlay.create_sandbox(&id, &attachments)?;
            Ok::<_, skep_overlay::RealizeError>((addresses, sandbox))
        });
        let (given, sandbox) = made.await.map_err(|error| chain(&error))?;
        let addresses: Vec<_> = attach.networks.iter().copied().zip(given).collect();
        let gateway = attach
            .networks
            .iter()
            .filter_map(|id| self.cluster.networks.get(id))
            .find(|n| !n.spec.internal)
            .map(|n| n.gateway);
        let names = attach.networks.iter().map(|network| (*network, attach.names.clone())).collect();
        let host_ports = attach.host_ports;
        // An adopted one that the cluster counts as running serves on, also until its next health check.
        let known = self.cluster.endpoints.get(&attach.service).filter(|_| attach.adopted);
        let serving = known.is_some_and(|endpoint| endpoint.backends.iter().any(|known| known.task == attach.task));
        let (service, ports) = (attach.service, host_ports.clone());
        let endpoint = LocalEndpoint {
            service,
            addresses: addresses.clone(),
            names,
            serving,
            withdrawn: false,
            host_ports: ports,
        };
        self.local.insert(attach.task, endpoint);
        Ok(Attached { netns: sandbox.netns, addresses, gateway, host_ports })
    }

    /// What the address book is asked for: service addresses and the gateway are never a container's.
    fn request(&self, network: &AssignedNetwork, wanted: Option<Ipv4Addr>) -> Request {
        let services = self.cluster.endpoints.values().flat_map(|endpoint| endpoint.networks.iter());
        let virtual_ips = services.filter(|on| on.network == network.id).filter_map(|on| on.virtual_ip);
        Request {
            network: network.id.to_string(),
            subnet: network.subnet,
            blocks: network.blocks.clone(),
            reserved: virtual_ips.chain([network.gateway]).collect(),
            wanted,
        }
    }

    async fn detach(&mut self, task: TaskId, keep: KeepAddresses) {
        self.local.remove(&task);
        let (overlay, id, now_s) = (Arc::clone(&self.overlay), task.to_string(), now().0 / 1_000_000_000);
        let removed = blocking(move || {
            overlay.remove_sandbox(&id)?;
            if keep == KeepAddresses::No { overlay.release(&id, now_s) } else { Ok(()) }
        });
        if let Err(error) = removed.await {
            tracing::warn!(task.id = %task, error = chain(&error), "a task's network namespace was not removed");
        }
    }

    /// False when something failed and must be tried again.
    async fn realize(&mut self) -> bool {
        let mesh = self.tunnel.mesh(self.cluster.place.as_ref(), &self.cluster.peers, self.mtu);
        let mut wanted = node_network(&self.cluster, &self.local, self.pool, &self.upstreams, mesh);
        let planned = self.overlay.plan(&wanted);
        for problem in &planned.problems {
            self.warn_once(problem.to_string());
        }
        match self.helper.apply(planned.snapshot).await {
            Ok(errors) => self.leave_out_refused(&mut wanted, errors),
            // Names and localhost are late; the kernel's part does not wait for them.
            Err(error) => self.warn_once(format!("the net helper does not serve: {}", chain(&error))),
        }
        let overlay = Arc::clone(&self.overlay);
        match blocking(move || overlay.apply(&wanted)).await {
            Ok(applied) => {
                applied.warnings.iter().for_each(|warning| self.warn_once(warning.to_string()));
                true
            }
            Err(error) => {
                self.warn_once(format!("the node's network could not be changed: {}", chain(&error)));
                false
            }
        }
    }

    /// A port that another program has stays that program's.
    fn leave_out_refused(&mut self, wanted: &mut NodeNetwork, errors: Vec<ServeError>) {
        self.refused.clear();
        for error in errors {
            match error {
                ServeError::Listener { listener, message } => self.refused.push((listener, message)),
                ServeError::Resolver { sandbox, message } => {
                    self.warn_once(format!("container {sandbox} has no resolver: {message}"))
                }
                ServeError::Tunnel { message } => self.warn_once(format!("no way to other nodes: {message}")),
            }
        }
        for (listener, message) in self.refused.clone() {
            self.warn_once(format!("published port {}/{}: {message}", listener.port, listener.protocol));
            wanted.published.retain(|port| {
                (port.protocol, port.published, port.bind) != (listener.protocol, listener.port, listener.bind)
            });
        }
    }

    fn warn_once(&mut self, warning: String) {
        if !self.warned.contains(&warning) {
            tracing::warn!(warning, "network");
            self.warned.push(warning);
        }
    }

    async fn teardown(&mut self) -> Result<(), String> {
        let stopped = self.helper.stop().await.map_err(|error| chain(&error));
        let overlay = Arc::clone(&self.overlay);
        stopped.and(blocking(move || overlay.teardown()).await.map_err(|error| chain(&error)))
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("work on the network does not panic")
}
