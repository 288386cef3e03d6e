//! A worker: session with a manager, one driver task per assigned task, status reports, logs, exec.
//!
//! ```text
//!  manager ◀─ session ─▶ worker ─▶ driver (one a task) ─▶ runtime
//!                          └─▶ network ─▶ overlay, net helper
//! ```
//! The agent runs what it was assigned and goes on doing so while no manager answers.
//! It never forks: the keeper does.

mod describe;
mod drains;
mod examine;
mod leases;
mod managers;
mod network;
mod network_view;
mod node;
mod race;
mod relay;
mod remembered;
mod reporter;
mod session;
mod task;
mod tunnel;
mod volumes;
mod worker;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;
use skep_api::Standing;
use skep_identity::{SealingKey, Tls};
use skep_image::ImageStore;
use skep_model::GenericResource;
use skep_overlay::helper::{Helper, HelperConfig, HelperError};
use skep_overlay::tunnel::DataPlane;
use skep_overlay::{Overlay, RealizeError};
use skep_runtime::cgroup::CgroupHost;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use describe::{describe, own_level};
pub use examine::{Examiner, firewall, host_complaints, host_routes};
pub use network::NetworkHandle;
pub use node::chain;
pub use reporter::Known;
pub use task::prepare::credentials;
pub use task::template::NodeFacts;
pub use tunnel::keys::{KeyFileError, PERIOD as TUNNEL_KEY_PERIOD};
pub use volumes::{Volume, VolumeError, VolumeStore};

use drains::Drains;
use leases::Leases;
use managers::Managers;
use network::NetworkSetup;
use node::{Node, NodeSettings};
use relay::Relay;
use remembered::Remembered;
use reporter::Reporter;
pub use session::ManagersWord;
use session::SessionSetup;
use task::files::SecretStore;
use tunnel::OwnTunnel;
use tunnel::keys::Keys;
use worker::Worker;

/// Where keeper and containers are when the node's settings name no other parent.
pub const CGROUP_PARENT: &str = "/skep";

/// What an agent is started with.
pub struct AgentConfig {
    pub data_dir: PathBuf,
    pub run_dir: PathBuf,
    pub cgroup_parent: String,
    /// The keeper's executable.
    pub keeper_elf: &'static [u8],
    /// How to start the net helper.
    pub helper: HelperConfig,
    pub tls: Tls,
    /// Encrypts what the agent keeps on disk.
    pub sealing_key: SealingKey,
    /// `host:port` of managers, as far as they are known.
    pub managers: Vec<String>,
    /// `host:port` of the manager in this process, which is preferred to all others.
    pub own_manager: Option<String>,
    /// The address that others reach this node under; empty leaves it to the connection.
    pub address: String,
    /// The range of the cluster's networks, until a manager has said it.
    pub pool: Ipv4Net,
    /// Who shall carry the tunnel to other nodes.
    pub data_plane: DataPlane,
    /// The UDP port that other nodes reach this one at.
    pub tunnel_port: u16,
    /// How old its key in the tunnel grows at most.
    pub tunnel_key_rotation: Duration,
    /// Resolvers for names outside the cluster.
    pub upstreams: Vec<SocketAddr>,
    pub images: ImageStore,
    pub volumes: VolumeStore,
    /// Limits that this kernel cannot hold, in words.
    pub warnings: Vec<String>,
    /// Generic resources that its operator configured it to have.
    pub generic: Vec<GenericResource>,
    /// Of this machine's boot and this run folder, and of no other: a copy of the node on another machine has another.
    pub instance: String,
    /// Where what managers say of trust and time goes.
    pub word: watch::Sender<ManagersWord>,
    /// Must be random.
    pub seed: u128,
}

#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error("failed to prepare the folder `{}`", path.display())]
    Folder {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("failed to mount the memory file system for secrets at `{}`", path.display())]
    Secrets {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    TunnelKey(#[from] KeyFileError),
    #[error(transparent)]
    Overlay(#[from] RealizeError),
    #[error("failed to start the net helper")]
    Helper(#[from] HelperError),
}

/// A running agent.
pub struct Agent {
    reporter: Reporter,
    network: NetworkHandle,
    examiner: Examiner,
    node: Arc<Node>,
    connected: watch::Receiver<bool>,
    managers: watch::Receiver<Vec<String>>,
    standing: watch::Receiver<Option<Standing>>,
    remembered: Remembered,
    stop: CancellationToken,
    /// Cancelled before `stop` when the node ceases to be a member.
    leave: CancellationToken,
    session: JoinHandle<()>,
    keeper: JoinHandle<()>,
    remembering: JoinHandle<()>,
}

impl Agent {
    /// Opens what the node keeps and starts the session; a manager need not answer yet.
    pub async fn start(config: AgentConfig) -> Result<Self, AgentError> {
        let AgentConfig { data_dir, run_dir, cgroup_parent, keeper_elf, helper, tls, address, pool, .. } = config;
        let AgentConfig { sealing_key, managers, own_manager, upstreams, images, volumes, warnings, generic, .. } =
            config;
        let AgentConfig { instance, word, seed, data_plane, tunnel_port, tunnel_key_rotation, .. } = config;
        let identity = tls.identity();
        let containers = data_dir.join("containers");
        std::fs::create_dir_all(&containers).map_err(|source| AgentError::Folder { path: containers, source })?;
        let secrets_dir = run_dir.join("secrets");
        let secrets = SecretStore::open(secrets_dir.clone())
            .map_err(|source| AgentError::Secrets { path: secrets_dir, source })?;
        let remembered = Remembered::new(&data_dir, sealing_key);
        let last = remembered.load().unwrap_or_else(|error| {
            tracing::warn!(error = chain(&error), "the last assignments are lost: this node waits for a manager");
            None
        });
        let description = describe(&[], &[]);
        let platform = description.platforms.first().cloned().unwrap_or_default();
        let facts = NodeFacts {
            id: identity.node_id.to_string(),
            hostname: description.hostname,
            os: platform.os,
            architecture: platform.architecture,
        };
        let config = skep_overlay::Config { run_dir: run_dir.clone(), data_dir: data_dir.clone(), data_plane };
        let keys = Keys::load(&data_dir, tunnel_key_rotation)?;
        let (told, hears) = watch::channel(keys.told());
        let own_tunnel = OwnTunnel { told: hears, port: tunnel_port };
        let overlay = Overlay::open(&config)?;
        let helper = Helper::start(helper).await?;
        let settings = NodeSettings { data_dir, run_dir, cgroup_parent, keeper_elf, facts };
        let node = Arc::new(Node::new(settings, images, volumes, secrets));
        let network =
            network::start(NetworkSetup { overlay, helper, pool, upstreams, keys, told, tunnel: own_tunnel.clone() });
        let reporter = Reporter::default();
        let leases = Leases::default();
        let drains = Drains::default();
        let stop = CancellationToken::new();
        let (connected_sender, connected) = watch::channel(false);
        let (standing_sender, standing) = watch::channel(None);
        let leave = CancellationToken::new();
        let managers = Managers::new(own_manager, managers);
        let known_managers = managers.watch();
        let examiner = Examiner {
            network: network.clone(),
            clock: Arc::clone(tls.clock()),
            data_dir: node.settings.data_dir.clone(),
            tunnel_port,
            warnings: warnings.clone().into(),
            word: word.subscribe(),
        };
        let setup = SessionSetup {
            tls,
            managers,
            address,
            tunnel: own_tunnel,
            reporter: reporter.clone(),
            leases: leases.clone(),
            drains: drains.clone(),
            network: network.clone(),
            warnings,
            generic,
            instance,
            word,
            connected: connected_sender,
            standing: standing_sender,
            leave: leave.clone(),
            seed,
        };
        let worker = Worker::new(Arc::clone(&node), network.clone(), reporter.clone(), leases, drains, last.clone());
        // Ends with the worker, which ends with the session.
        let keeping = remembered.clone().keep(last, worker.pictures(), reporter.clone(), stop.clone());
        let remembering = tokio::spawn(keeping);
        let relay = Relay::new(Arc::clone(&node), identity.node_id, examiner.clone());
        let session = tokio::spawn(run(setup, worker, relay, stop.clone()));
        let keeper = tokio::spawn(Arc::clone(&node).mind_keeper(stop.clone()));
        let managers = known_managers;
        Ok(Self {
            reporter,
            network,
            examiner,
            node,
            connected,
            managers,
            standing,
            remembered,
            stop,
            leave,
            session,
            keeper,
            remembering,
        })
    }

    /// `host:port` of the managers that this node knows, whenever that changes: to be kept for the next start.
    pub fn managers(&self) -> watch::Receiver<Vec<String>> {
        self.managers.clone()
    }

    /// What the cluster holds of this node, whenever that changes; `None` until a manager has told it.
    pub fn standing(&self) -> watch::Receiver<Option<Standing>> {
        self.standing.clone()
    }

    /// Whether a session with a manager is open.
    pub fn is_connected(&self) -> bool {
        *self.connected.borrow()
    }

    /// The tasks of this node, those that have ended and are still kept among them.
    pub fn tasks(&self) -> Vec<Known> {
        self.reporter.known()
    }

    /// This node's network, to be asked.
    pub fn network(&self) -> NetworkHandle {
        self.network.clone()
    }

    /// What this node finds out about itself.
    pub fn examiner(&self) -> Examiner {
        self.examiner.clone()
    }

    /// Stops the agent; containers, names and published ports go on.
    pub async fn stop(self) {
        self.stop.cancel();
        // A part that panicked has said so.
        let _ = self.session.await;
        let _ = self.keeper.await;
        let _ = self.remembering.await;
    }

    /// Stops every task and removes what the agent put on this machine; named volumes and images stay.
    pub async fn leave(self) -> Result<(), String> {
        self.leave.cancel();
        self.stop.cancel();
        let _ = self.session.await;
        let _ = self.keeper.await;
        let _ = self.remembering.await;
        let forgotten = self.remembered.remove();
        let forgotten = forgotten.map_err(|error| format!("the last assignments were not removed: {error}"));
        // Each part goes whatever becomes of the others: nobody comes back for the rest.
        let network = self.network.teardown().await;
        let node = Arc::clone(&self.node);
        let (keeper, secrets) = tokio::task::spawn_blocking(move || {
            let stopped = node.keeper().and_then(|keeper| keeper.stop()).map_err(|error| chain(&error));
            remove_cgroups(&node.settings.cgroup_parent);
            let closed = node.secrets.clone().close();
            (stopped, closed.map_err(|error| format!("the secrets' file system was not unmounted: {error}")))
        })
        .await
        .expect("leaving does not panic");
        network.and(keeper).and(secrets).and(forgotten)
    }
}

async fn run(setup: SessionSetup, mut worker: Worker, relay: Relay, stop: CancellationToken) {
    let leave = setup.leave.clone();
    session::run(setup, &mut worker, &relay, stop).await;
    if leave.is_cancelled() {
        worker.stop_all().await;
    }
}

/// The cgroups that keeper, helper and containers were in, and the parent if it was made for them. One that still holds a
/// process stays: it is the parent's owner who put it there.
fn remove_cgroups(parent: &str) {
    let Ok(host) = CgroupHost::detect() else { return };
    for part in ["c", "keeper", "net"] {
        if let Ok(cgroup) = host.open(parent, part)
            && let Err(error) = cgroup.remove()
        {
            tracing::warn!(parent, part, error = chain(&error), "a cgroup was not removed");
        }
    }
    if parent == CGROUP_PARENT
        && let Ok(cgroup) = host.open("", parent.trim_start_matches('/'))
    {
        cgroup.remove_if_empty();
    }
}
