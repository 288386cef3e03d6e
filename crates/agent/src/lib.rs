//! A worker: session with a manager, one driver task per assigned task, status reports, logs, exec.
//!
//! ```text
//!  manager ◀─ session ─▶ worker ─▶ driver (one a task) ─▶ runtime
//!                          └─▶ network ─▶ overlay, net helper
//! ```
//! The agent runs what it was assigned and goes on doing so while no manager answers.
//! It never forks: the keeper does.

mod describe;
mod leases;
mod network;
mod network_view;
mod node;
mod relay;
mod reporter;
mod session;
mod task;
mod volumes;
mod worker;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::Ipv4Net;
use skep_identity::Tls;
use skep_image::ImageStore;
use skep_overlay::helper::{Helper, HelperConfig, HelperError};
use skep_overlay::{Overlay, RealizeError};
use skep_runtime::cgroup::CgroupHost;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use describe::describe;
pub use node::chain;
pub use reporter::Known;
pub use task::prepare::credentials;
pub use task::template::NodeFacts;
pub use volumes::{Volume, VolumeError, VolumeStore};

use leases::Leases;
use network::{NetworkHandle, NetworkSetup};
use node::{Node, NodeSettings};
use relay::Relay;
use reporter::Reporter;
use session::SessionSetup;
use task::files::SecretStore;
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
    /// `host:port` of managers.
    pub managers: Vec<String>,
    /// The address that others reach this node under; empty leaves it to the connection.
    pub address: String,
    /// The range of the cluster's networks.
    pub pool: Ipv4Net,
    /// Resolvers for names outside the cluster.
    pub upstreams: Vec<SocketAddr>,
    pub images: ImageStore,
    pub volumes: VolumeStore,
    /// Limits that this kernel cannot hold, in words.
    pub warnings: Vec<String>,
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
    Overlay(#[from] RealizeError),
    #[error("failed to start the net helper")]
    Helper(#[from] HelperError),
}

/// A running agent.
pub struct Agent {
    reporter: Reporter,
    network: NetworkHandle,
    node: Arc<Node>,
    connected: watch::Receiver<bool>,
    stop: CancellationToken,
    /// Cancelled before `stop` when the node ceases to be a member.
    leave: CancellationToken,
    session: JoinHandle<()>,
    keeper: JoinHandle<()>,
}

impl Agent {
    /// Opens what the node keeps and starts the session; a manager need not answer yet.
    pub async fn start(config: AgentConfig) -> Result<Self, AgentError> {
        let AgentConfig { data_dir, run_dir, cgroup_parent, keeper_elf, helper, tls, managers, address, pool, .. } =
            config;
        let AgentConfig { upstreams, images, volumes, warnings, seed, .. } = config;
        let identity = tls.identity();
        let containers = data_dir.join("containers");
        std::fs::create_dir_all(&containers).map_err(|source| AgentError::Folder { path: containers, source })?;
        let secrets_dir = run_dir.join("secrets");
        let secrets = SecretStore::open(secrets_dir.clone())
            .map_err(|source| AgentError::Secrets { path: secrets_dir, source })?;
        let description = describe(&[]);
        let platform = description.platforms.first().cloned().unwrap_or_default();
        let facts = NodeFacts {
            id: identity.node_id.to_string(),
            hostname: description.hostname,
            os: platform.os,
            architecture: platform.architecture,
        };
        let config = skep_overlay::Config { run_dir: run_dir.clone(), data_dir: data_dir.clone() };
        let overlay = Overlay::open(&config)?;
        let helper = Helper::start(helper).await?;
        let settings = NodeSettings { data_dir, run_dir, cgroup_parent, keeper_elf, facts };
        let node = Arc::new(Node::new(settings, images, volumes, secrets));
        let network = network::start(NetworkSetup { overlay, helper, pool, upstreams });
        let reporter = Reporter::default();
        let leases = Leases::default();
        let stop = CancellationToken::new();
        let (connected_sender, connected) = watch::channel(false);
        let leave = CancellationToken::new();
        let setup = SessionSetup {
            tls,
            managers,
            address,
            reporter: reporter.clone(),
            leases: leases.clone(),
            warnings,
            connected: connected_sender,
            leave: leave.clone(),
            seed,
        };
        let worker = Worker::new(Arc::clone(&node), network.clone(), reporter.clone(), leases);
        let relay = Relay::new(Arc::clone(&node), identity.node_id);
        let session = tokio::spawn(run(setup, worker, relay, stop.clone()));
        let keeper = tokio::spawn(Arc::clone(&node).mind_keeper(stop.clone()));
        Ok(Self { reporter, network, node, connected, stop, leave, session, keeper })
    }

    /// Whether a session with a manager is open.
    pub fn is_connected(&self) -> bool {
        *self.connected.borrow()
    }

    /// The tasks of this node, those that have ended and are still kept among them.
    pub fn tasks(&self) -> Vec<Known> {
        self.reporter.known()
    }

    /// Stops the agent; containers, names and published ports go on.
    pub async fn stop(self) {
        self.stop.cancel();
        // A part that panicked has said so.
        let _ = self.session.await;
        let _ = self.keeper.await;
    }

    /// Stops every task and removes what the agent put on this machine; named volumes and images stay.
    pub async fn leave(self) -> Result<(), String> {
        self.leave.cancel();
        self.stop.cancel();
        let _ = self.session.await;
        let _ = self.keeper.await;
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
        network.and(keeper).and(secrets)
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
