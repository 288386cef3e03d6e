//! A node that is a member of a cluster: its agent, and on managers the manager and the port.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};
use skep_agent::{Agent, AgentConfig, ManagersWord, VolumeStore};
use skep_identity::{Credentials, Expect, IdentityDir, NodeKey, Tls, write_private};
use skep_image::ImageStore;
use skep_manager::Manager;
use skep_model::{ClusterSpec, GenericResource, Role};
use skep_overlay::helper::HelperConfig;
use skep_store::{GrpcPeers, Leadership, PeerNetwork, Store, StoreConfig};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::address::host_port;
use super::autolock::{self, Vault};
use super::config::NodeConfig;
use super::control_gate::ControlGate;
use super::instance::instance;
use super::known_managers;
use super::node_clock::node_clock;
use super::renewal::{OwnCa, Renewal, RenewalSetup};
use super::resolver::RegistryResolver;

/// The keeper's executable, built beside this one.
static KEEPER: &[u8] = include_bytes!(env!("KEEPER_PATH"));

/// How long a start waits for a leader before it goes on without.
const LEADER_WAIT: Duration = Duration::from_secs(3);

/// What a member keeps beside its certificate: `identity/member.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberFile {
    /// Format of this file.
    pub format: u32,
    /// `host:port` of the managers, newest knowledge first.
    pub managers: Vec<String>,
    /// The address that others reach this node under.
    pub advertise_address: String,
    /// On managers: the Raft id.
    pub raft_id: Option<u64>,
    /// Where to listen, where `init` or `join` was told; the settings' address otherwise.
    #[serde(default)]
    pub listen_address: Option<SocketAddr>,
}

impl MemberFile {
    pub const FORMAT: u32 = 1;

    fn path(data_dir: &Path) -> PathBuf {
        data_dir.join("identity/member.json")
    }

    pub fn load(data_dir: &Path) -> Result<Option<Self>> {
        let path = Self::path(data_dir);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("failed to read {}", path.display())),
        };
        let file: Self = serde_json::from_str(&text).with_context(|| format!("failed to read {}", path.display()))?;
        if file.format != Self::FORMAT {
            return Err(anyhow!(
                "{} has format {}, this version of skep reads {}",
                path.display(),
                file.format,
                Self::FORMAT
            ));
        }
        Ok(Some(file))
    }

    pub fn store(&self, data_dir: &Path) -> Result<()> {
        write_private(&Self::path(data_dir), &self.to_json()).context("failed to write the node's membership")
    }

    /// Changes the file as it is on disk, where there is one; several parts of the daemon do.
    pub fn update(data_dir: &Path, edit: impl FnOnce(&mut Self)) -> Result<()> {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _lock = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(before) = Self::load(data_dir)? else { return Ok(()) };
        let mut after = before.clone();
        edit(&mut after);
        if after == before { Ok(()) } else { after.store(data_dir) }
    }

    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("a member's file is plain data")
    }
}

/// Everything that runs because this node is a member.
pub struct Member {
    pub agent: Agent,
    pub tls: Tls,
    pub file: MemberFile,
    /// `host:port` that this node's own manager is, or would be, reached at.
    pub own_address: String,
    word: watch::Receiver<ManagersWord>,
    renewal: Renewal,
    manager: Option<RunningManager>,
    managers: JoinHandle<()>,
}

struct RunningManager {
    manager: Manager<RegistryResolver>,
    store: Store,
    port: JoinHandle<()>,
    locking: JoinHandle<()>,
    stop: CancellationToken,
}

/// What a member is started with.
pub struct MemberSetup<'a> {
    pub config: &'a NodeConfig,
    pub images: ImageStore,
    pub volumes: VolumeStore,
    pub warnings: Vec<String>,
    pub generic: Vec<GenericResource>,
    pub gate: &'a Arc<ControlGate>,
    pub vault: Arc<Vault>,
}

impl Member {
    /// Starts the manager (if this node is one), then the agent.
    pub async fn start(setup: MemberSetup<'_>, credentials: &Credentials, file: MemberFile) -> Result<Self> {
        let clock = Arc::new(node_clock(setup.config));
        let tls = Tls::new(credentials, clock).context("failed to use the node's certificate")?;
        let own_address = host_port(&file.advertise_address, setup.config.listen_address().port());
        let manager = match (tls.identity().role, file.raft_id) {
            (Role::Manager, Some(raft_id)) => Some(RunningManager::start(&setup, &tls, raft_id, &file).await?),
            _ => {
                setup.gate.point_to(file.managers.clone());
                None
            }
        };
        let pool = match &manager {
            Some(manager) => manager.store.cluster().config.as_ref().map(|config| config.spec.address_pool),
            None => None,
        };
        let (say, word) = watch::channel(ManagersWord::default());
        let started = async {
            // First what fails without traces.
            let renewal = renewal_setup(&setup, &tls, &file, manager.as_ref(), word.clone())?;
            let renewed = credentials.duplicate()?;
            let agent = Agent::start(agent_config(&setup, &tls, credentials.key(), &file, pool, say)?).await?;
            anyhow::Ok((agent, Renewal::start(renewal, renewed)))
        };
        match started.await {
            Ok((agent, renewal)) => {
                let data_dir = setup.config.data_dir.clone();
                let managers = tokio::spawn(known_managers::keep(agent.managers(), data_dir, Arc::clone(setup.gate)));
                Ok(Self { agent, tls, file, own_address, word, renewal, manager, managers })
            }
            Err(error) => {
                // Nothing goes on unseen: its port and its folder must be free for the next try.
                setup.gate.close();
                if let Some(manager) = manager {
                    manager.stop().await;
                }
                Err(error)
            }
        }
    }

    /// Becomes a manager under the Raft id in its file.
    pub async fn start_manager(&mut self, setup: &MemberSetup<'_>) -> Result<()> {
        if let (None, Some(raft_id)) = (&self.manager, self.file.raft_id) {
            self.manager = Some(RunningManager::start(setup, &self.tls, raft_id, &self.file).await?);
        }
        Ok(())
    }

    /// Is a manager no more.
    pub async fn stop_manager(&mut self, setup: &MemberSetup<'_>) {
        setup.gate.close();
        setup.gate.point_to(self.others());
        if let Some(manager) = self.manager.take() {
            manager.stop().await;
        }
    }

    /// `host:port` of the managers that are not this node.
    pub fn others(&self) -> Vec<String> {
        let managers = self.agent.managers().borrow().clone();
        managers.into_iter().filter(|manager| *manager != self.own_address).collect()
    }

    pub fn store(&self) -> Option<&Store> {
        self.manager.as_ref().map(|manager| &manager.store)
    }

    /// What is wrong with this node's clock or identity, in words for its operator.
    pub fn warnings(&self) -> Vec<String> {
        let behind = self.tls.clock().behind().map(|behind| behind.to_string());
        let ManagersWord { clock, copy, .. } = self.word.borrow().clone();
        behind.into_iter().chain(clock).chain(copy).collect()
    }

    /// Stops what runs in this process; containers go on.
    pub async fn stop(self, gate: &ControlGate) {
        gate.close();
        self.renewal.stop().await;
        self.agent.stop().await;
        // Ends with the agent.
        let _ = self.managers.await;
        if let Some(manager) = self.manager {
            manager.stop().await;
        }
    }

    /// Stops everything, containers too, and removes what the agent put on the machine.
    pub async fn leave(self, gate: &ControlGate) -> Result<()> {
        let Self { agent, manager, managers, renewal, .. } = self;
        gate.close();
        renewal.stop().await;
        let left = agent.leave().await.map_err(|error| anyhow!(error));
        // Ends with the agent.
        let _ = managers.await;
        if let Some(manager) = manager {
            manager.stop().await;
        }
        left.context("this node has left, but not everything was removed; a restart of the machine removes the rest")
    }
}

impl RunningManager {
    async fn start(setup: &MemberSetup<'_>, tls: &Tls, raft_id: u64, file: &MemberFile) -> Result<Self> {
        // First what can fail: an open store must be shut down.
        let listener = TcpListener::bind(setup.config.listen_address()).await;
        let listener = listener.with_context(|| format!("failed to listen on {}", setup.config.listen_address()))?;
        let seed = random_seed()?;
        let peers = Arc::new(GrpcPeers::new(tls.connector(Expect::Role(Role::Manager))));
        let store = open_store(setup.config, &setup.vault, peers, raft_id, &file.advertise_address).await?;
        let (own, version) = (skep_agent::own_level(), env!("CARGO_PKG_VERSION"));
        if let Err(message) = skep_manager::levels::refuse_older(&store.cluster(), own, version) {
            store.shutdown().await;
            return Err(anyhow!(message));
        }
        let resolver = RegistryResolver(setup.images.clone());
        let manager = Manager::start(store.clone(), tls, resolver, seed);
        setup.gate.open(manager.control());
        let stop = CancellationToken::new();
        let locking = tokio::spawn(autolock::watch(Arc::clone(&setup.vault), store.watch(), stop.clone()));
        let server = manager.serve_nodes(skep_api::Server::new());
        let serving = server.serve_tls(listener, tls.acceptor(), stop.clone().cancelled_owned());
        let port = tokio::spawn(async move {
            if let Err(error) = serving.await {
                tracing::error!(error = &error as &dyn std::error::Error, "the cluster's port is closed");
            }
        });
        // Not before the port is open: managers that start together elect their leader over it.
        await_state(&store).await;
        Ok(Self { manager, store, port, locking, stop })
    }

    async fn stop(self) {
        self.stop.cancel();
        self.manager.stop().await;
        self.store.shutdown().await;
        // It has 3 s to end, and nothing is to be said of it.
        let _ = self.port.await;
        // One that panicked has said so.
        let _ = self.locking.await;
    }
}

/// A manager that was alone leads within a moment; only then its state is current.
async fn await_state(store: &Store) {
    let mut leadership = store.leadership();
    let settled =
        async { leadership.wait_for(|now| !matches!(now, Leadership::Follower { leader: None })).await.is_ok() };
    if tokio::time::timeout(LEADER_WAIT, settled).await.is_err() {
        tracing::warn!("no manager leads yet; this one goes on with the state that it has");
    }
}

/// Opens this manager's replica of the cluster.
pub async fn open_store(
    config: &NodeConfig,
    vault: &Vault,
    peers: Arc<dyn PeerNetwork>,
    raft_id: u64,
    address: &str,
) -> Result<Store> {
    let store = Store::open(StoreConfig { peers, ..store_config(config, vault, raft_id, address)? }).await;
    store.context("failed to open the cluster's state")
}

/// How this manager's replica is opened.
pub fn store_config(config: &NodeConfig, vault: &Vault, raft_id: u64, address: &str) -> Result<StoreConfig> {
    let address = host_port(address, config.listen_address().port());
    Ok(StoreConfig::new(config.data_dir.join("raft"), raft_id, address, vault.data_key()?))
}

fn renewal_setup(
    setup: &MemberSetup<'_>,
    tls: &Tls,
    file: &MemberFile,
    manager: Option<&RunningManager>,
    word: watch::Receiver<ManagersWord>,
) -> Result<RenewalSetup> {
    Ok(RenewalSetup {
        identity: IdentityDir::new(&setup.config.data_dir),
        tls: tls.clone(),
        managers: file.managers.clone(),
        own: manager.map(|running| OwnCa { ca: running.manager.ca(), store: running.store.clone() }),
        word,
        spread: (random_seed()? as u32) as f64 / f64::from(u32::MAX),
    })
}

fn agent_config(
    setup: &MemberSetup<'_>,
    tls: &Tls,
    key: &NodeKey,
    file: &MemberFile,
    pool: Option<ipnet::Ipv4Net>,
    word: watch::Sender<ManagersWord>,
) -> Result<AgentConfig> {
    let config = setup.config;
    let own_manager = file.raft_id.map(|_| config.own_manager());
    let program = std::env::current_exe().context("failed to find this program")?;
    Ok(AgentConfig {
        data_dir: config.data_dir.clone(),
        run_dir: config.run_dir.clone(),
        cgroup_parent: config.cgroup_parent.clone(),
        keeper_elf: KEEPER,
        helper: HelperConfig {
            run_dir: config.run_dir.clone(),
            program,
            args: vec!["net".to_owned(), "--run-dir".to_owned(), config.run_dir.display().to_string()],
            cgroup_parent: Some(config.cgroup_parent.clone()),
        },
        tls: tls.clone(),
        sealing_key: key.sealing_key("assignments"),
        managers: file.managers.clone(),
        own_manager,
        address: file.advertise_address.clone(),
        pool: pool.unwrap_or_else(|| ClusterSpec::default().address_pool),
        data_plane: config.data_plane,
        tunnel_port: config.tunnel_port,
        tunnel_key_rotation: config.tunnel_key_rotation,
        upstreams: upstreams(config),
        images: setup.images.clone(),
        volumes: setup.volumes.clone(),
        warnings: setup.warnings.clone(),
        generic: setup.generic.clone(),
        instance: instance(&config.run_dir)?,
        word,
        seed: random_seed()?,
    })
}

/// The resolvers for names outside the cluster: those of the settings, else the machine's own.
fn upstreams(config: &NodeConfig) -> Vec<SocketAddr> {
    let configured = config.dns_servers.clone();
    let servers = if configured.is_empty() {
        let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let lines = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
        lines.filter_map(|rest| rest.trim().parse::<IpAddr>().ok()).collect()
    } else {
        configured
    };
    servers.into_iter().map(|server| SocketAddr::new(server, 53)).collect()
}

/// 128 bits of the kernel's randomness.
pub fn random_seed() -> Result<u128> {
    let mut bytes = [0u8; 16];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .context("the kernel gave no random bytes")?;
    Ok(u128::from_ne_bytes(bytes))
}
