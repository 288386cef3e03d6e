//! The owner of the node's network: takes in what is asked, and makes the kernel and the net helper follow.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ipnet::Ipv4Net;
use skep_api::{AssignedNetwork, AssignedPeer};
use skep_model::{NetworkAddress, NetworkDriver, NodeId, PortSpec, PublishMode, TaskId, TunnelKey, Twins};
use skep_overlay::helper::Helper;
use skep_overlay::ipam::{Request, Rest};
use skep_overlay::plan::NodeNetwork;
use skep_overlay::snapshot::{Listener, ServeError};
use skep_overlay::{Attachment, Overlay};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::{Attach, Attached, Command, Condition, Fixed, KeepAddresses, NetworkSetup, blocking};
use crate::examine::{collisions, host_routes};
use crate::network_view::{ClusterView, LocalEndpoint, node_network, overlay_network};
use crate::node::{chain, now};
use crate::tunnel::keys::Keys;
use crate::tunnel::{self, OwnTunnel};

/// After a change that could not be realized.
const RETRY: Duration = Duration::from_secs(1);
/// Without a change: what somebody else took from the node's network comes again.
const REPEAT: Duration = Duration::from_secs(30);
/// Between two looks at the machine's own routes.
const COLLISIONS: Duration = Duration::from_secs(10);

/// Before another key is tried to be made, after one that could not be.
const RENEWAL_RETRY: Duration = Duration::from_secs(60 * 60);

/// An answer that is given once the change is realized.
type Reply = Box<dyn FnOnce(&Owner) + Send>;
type Peers = watch::Receiver<BTreeMap<NodeId, AssignedPeer>>;

pub(super) struct Owner {
    overlay: Arc<Overlay>,
    helper: Arc<Helper>,
    pool: Ipv4Net,
    upstreams: Vec<SocketAddr>,
    tunnel: OwnTunnel,
    keys: Keys,
    /// After a disk that did not take the next key.
    renewal_held_until: Instant,
    /// The key that the others are to know, for the session to say.
    told: watch::Sender<TunnelKey>,
    /// For whoever asks for them.
    peers: watch::Sender<BTreeMap<NodeId, AssignedPeer>>,
    /// The longest packet that fits into the tunnel to any of the peers.
    mtu: u16,
    /// The longest that was seen to reach all of them, where that is less.
    path: Option<u16>,
    condition: watch::Sender<Condition>,
    cluster: ClusterView,
    /// Nothing is realized before the first picture of the cluster: it would take down what lives.
    informed: bool,
    /// Sandboxes of an earlier daemon whose drivers have not spoken yet.
    awaited: BTreeSet<TaskId>,
    local: BTreeMap<TaskId, LocalEndpoint>,
    refused: Vec<(Listener, String)>,
    warned: Vec<String>,
    /// Other programs' routes into the cluster's ranges, in words, and when they were looked for.
    collisions: Vec<String>,
    looked_for_collisions: Option<Instant>,
    /// What is wrong as of the last time that all was realized.
    wrong: Vec<String>,
    /// Who waits for what was taken in to be realized.
    waiting: Vec<oneshot::Sender<()>>,
}

impl Owner {
    pub(super) fn new(setup: NetworkSetup) -> Self {
        let NetworkSetup { overlay, helper, pool, upstreams, keys, told, tunnel } = setup;
        Self {
            overlay: Arc::new(overlay),
            helper: Arc::new(helper),
            pool,
            upstreams,
            tunnel,
            keys,
            renewal_held_until: Instant::now(),
            told,
            peers: watch::Sender::new(BTreeMap::new()),
            mtu: tunnel::mtu([].iter()),
            path: None,
            condition: watch::Sender::new(Condition { mtu: tunnel::mtu([].iter()), ..Condition::default() }),
            cluster: ClusterView::default(),
            informed: false,
            awaited: BTreeSet::new(),
            local: BTreeMap::new(),
            refused: Vec::new(),
            warned: Vec::new(),
            collisions: Vec::new(),
            looked_for_collisions: None,
            wrong: Vec::new(),
            waiting: Vec::new(),
        }
    }

    /// What is asked without the owner.
    pub(super) fn shared(&self) -> (Arc<Overlay>, Arc<Helper>, Peers, watch::Receiver<Condition>) {
        let (overlay, helper) = (Arc::clone(&self.overlay), Arc::clone(&self.helper));
        (overlay, helper, self.peers.subscribe(), self.condition.subscribe())
    }

    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut dirty = false;
        loop {
            let pause = if dirty { RETRY } else { REPEAT };
            let pause = self.key_due().map_or(pause, |due| due.min(pause));
            let next = tokio::time::timeout(pause, commands.recv()).await;
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
                // The way to the peers may be another meanwhile.
                Err(_) => self.measure(),
            }
            self.renew_key();
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
                let peers_changed = view.peers != self.cluster.peers;
                self.cluster = view;
                if peers_changed {
                    self.peers.send_replace(self.cluster.peers.clone());
                    self.measure();
                }
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
            Command::SetPath(path) => self.path = path,
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

    /// How long until the node needs another key.
    fn key_due(&self) -> Option<Duration> {
        let due = self.keys.due_in(self.known_key(), SystemTime::now())?;
        Some(due.max(self.renewal_held_until.saturating_duration_since(Instant::now())))
    }

    fn known_key(&self) -> Option<TunnelKey> {
        self.cluster.place.and_then(|place| place.key)
    }

    /// Makes the next key if it is time, and has the managers told of it.
    fn renew_key(&mut self) {
        if self.key_due() != Some(Duration::ZERO) {
            return;
        }
        match self.keys.renew() {
            Ok(()) => drop(self.told.send_replace(self.keys.told())),
            Err(error) => {
                self.renewal_held_until = Instant::now() + RENEWAL_RETRY;
                self.warn_once(format!("the tunnel keeps its key for now: {}", chain(&error)));
            }
        }
    }

    fn measure(&mut self) {
        self.mtu = tunnel::mtu(self.cluster.peers.values().filter_map(|peer| peer.endpoint.as_ref()));
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
            requests.push(self.request(assigned, wanted(assigned, fixed)?));
        }
        let now_s = now().0 / 1_000_000_000;
        let overlay = Arc::clone(&self.overlay);
        let made = blocking(move || {
            let addresses = overlay.allocate(&id, &requests, now_s)?;
            let place = |(network, address)| Attachment { network, address };
            let attachments: Vec<_> = networks.into_iter().zip(addresses.iter().copied()).map(place).collect();
            let twin = |at: &Attachment| at.network.twin(at.address).filter(|_| overlay.has_ipv6());
            let twins: Vec<_> = attachments.iter().map(twin).collect();
            let sandbox = overlay.create_sandbox(&id, &attachments)?;
            Ok::<_, skep_overlay::RealizeError>((addresses, twins, sandbox))
        });
        let (given, twins, sandbox) = made.await.map_err(|error| chain(&error))?;
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
        let address = |((network, address), address_v6)| NetworkAddress { network, address, address_v6 };
        let addresses = addresses.into_iter().zip(twins).map(address).collect();
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
            reserved: virtual_ips
                .chain([network.gateway])
                .chain(network.spec.aux_addresses.values().copied())
                .collect(),
            kept: network.reserved.iter().copied().collect(),
            rest: match network.spec.driver() {
                NetworkDriver::Macvlan => Rest::Should,
                NetworkDriver::Overlay | NetworkDriver::Bridge => Rest::Must,
            },
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
        self.wrong.clear();
        self.look_for_collisions().await;
        let done = self.realize_now().await;
        let wrong = std::mem::take(&mut self.wrong);
        let condition = Condition { mtu: self.mtu, path: self.path.filter(|path| *path < self.mtu), warnings: wrong };
        self.condition.send_if_modified(|known| std::mem::replace(known, condition.clone()) != condition);
        done
    }

    /// Another program's routes into the cluster's ranges: whatever else is done, containers there are out of reach.
    async fn look_for_collisions(&mut self) {
        // A router has many routes, and changes come in bursts.
        if self.looked_for_collisions.is_none_or(|at| at.elapsed() >= COLLISIONS) {
            let pool = self.cluster.place.as_ref().map(|place| place.pool);
            let ranges = self.cluster.networks.values().map(|network| network.subnet).chain(pool).collect();
            match blocking(move || host_routes().map(|routes| collisions(&routes, &ranges))).await {
                Ok(found) => self.collisions = found,
                Err(error) => tracing::debug!(error = chain(&error), "this machine's routes could not be listed"),
            }
            self.looked_for_collisions = Some(Instant::now());
        }
        self.collisions.clone().into_iter().for_each(|collision| self.warn_once(collision));
    }

    async fn realize_now(&mut self) -> bool {
        let path = self.path.filter(|path| *path < self.mtu);
        let key = self.keys.used(self.cluster.place.and_then(|place| place.key));
        let mesh = self.tunnel.mesh(key, self.cluster.place.as_ref(), &self.cluster.peers, self.mtu, path);
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
        if !self.wrong.contains(&warning) {
            self.wrong.push(warning.clone());
        }
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

/// The address that is asked for, by itself or by its twin.
fn wanted(network: &AssignedNetwork, fixed: &Fixed) -> Result<Option<Ipv4Addr>, String> {
    let Some(asked) = fixed.address_v6 else { return Ok(fixed.address) };
    let name = &network.spec.name;
    let Some(twins) = network.subnet_v6.map(|v6| Twins { v4: network.subnet, v6 }) else {
        return Err(format!("{asked} cannot be given to a container: network {name} has no IPv6"));
    };
    match (twins.behind(asked), fixed.address) {
        (None, _) => Err(format!(
            "{asked} cannot be given to a container: it must lie in {} of network {name}, at a place that its IPv4 subnet {} \
             has too",
            twins.v6, twins.v4
        )),
        (Some(meant), Some(address)) if meant != address => Err(format!(
            "{asked} and {address} cannot be given to one container: on network {name} the IPv6 address of {address} is \
             {}; leave one of them out",
            twins.of(address).map(|twin| twin.to_string()).unwrap_or_default()
        )),
        (Some(meant), _) => Ok(Some(meant)),
    }
}
