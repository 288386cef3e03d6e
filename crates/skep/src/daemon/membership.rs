//! Becoming a member, being one after a restart, and ceasing to be one.
//!
//! The node's certificate is the commit point: without it nothing else under the data folder counts, and
//! what an interrupted `init` left is made anew.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use skep_agent::{Known, VolumeStore};
use skep_api::{InitRequest, Initialized, LeaveRequest, Left, Refusal, RefusalKind};
use skep_identity::{ClusterCa, Credentials, IdentityDir, JoinToken, UnlockKey};
use skep_image::ImageStore;
use skep_manager::wall_clock;
use skep_model::{
    CertificateRecord, Change, Cluster, ClusterConfig, ClusterSpec, IdSource, JoinTokenHashes, ManagerStatus, Meta,
    Node, NodeSpec, NodeStatus, Role, TrustHistory,
};
use skep_store::{NoPeers, Store};
use tokio::sync::Mutex;

use super::address::{address_towards, advertise_address, default_address, host_port, is_own, listen_address};
use super::autolock::{LOCKED, Vault};
use super::config::NodeConfig;
use super::control_gate::ControlGate;
use super::instance;
use super::joining::tell_leaving;
use super::member::{Member, MemberFile, MemberSetup, open_store, random_seed};
use super::pool::{choose, own_routes};
use super::rebirth::{finish_recovery, kept_folders};

/// Raft numbers count from here, and are never used twice.
const FIRST_RAFT_ID: u64 = 1;

/// The node's membership, and what it is made of.
pub struct Membership {
    pub config: NodeConfig,
    pub images: ImageStore,
    pub volumes: VolumeStore,
    pub warnings: Vec<String>,
    pub(super) vault: Arc<Vault>,
    pub(super) gate: Arc<ControlGate>,
    pub(super) member: Mutex<Option<Member>>,
}

impl Membership {
    pub fn new(
        config: NodeConfig,
        images: ImageStore,
        volumes: VolumeStore,
        warnings: Vec<String>,
        gate: Arc<ControlGate>,
    ) -> Self {
        let vault = Arc::new(Vault::new(&config.data_dir));
        Self { config, images, volumes, warnings, vault, gate, member: Mutex::new(None) }
    }

    /// Goes on as the member that this node was, if it was one.
    pub async fn resume(&self) -> Result<()> {
        let mut member = self.member.lock().await;
        self.resume_as(&mut member).await
    }

    pub(super) async fn resume_as(&self, member: &mut Option<Member>) -> Result<()> {
        if let Some(kept) = finish_recovery(&self.config.data_dir)? {
            tracing::info!(kept = %kept.display(), "finished a recovery that was interrupted");
        }
        if self.vault.is_locked()? {
            self.gate.lock();
            tracing::warn!("{LOCKED}");
            return Ok(());
        }
        let Some(credentials) = self.vault.credentials()? else { return Ok(()) };
        let Some(mut file) = MemberFile::load(&self.config.data_dir)? else { return Ok(()) };
        if !is_own(&file.advertise_address) {
            file.advertise_address = self.new_address(&file).await;
            tracing::warn!(address = file.advertise_address, "this machine has another address now");
            file.store(&self.config.data_dir)?;
        }
        file.listen_address.inspect(|address| self.config.listen_at(*address));
        tracing::info!(node.id = %credentials.identity().node_id, "resuming as a member");
        *member = Some(self.start(&credentials, file).await?);
        Ok(())
    }

    /// Where this node is, whose advertised address went away: the settings' word, or what leads to a manager.
    async fn new_address(&self, file: &MemberFile) -> String {
        if let Some(address) = self.config.advertise_address.clone().filter(|address| is_own(address)) {
            return address;
        }
        for manager in &file.managers {
            if let Some(address) = address_towards(manager).await {
                return address;
            }
        }
        default_address()
    }

    pub async fn stop(&self) {
        if let Some(member) = self.member.lock().await.take() {
            member.stop(&self.gate).await;
        }
        self.images.flush().await;
    }

    /// Looks at the member; `None` while the node is none.
    pub async fn look<T>(&self, at: impl FnOnce(&Member) -> T) -> Option<T> {
        self.member.lock().await.as_ref().map(at)
    }

    /// The tasks of this node.
    pub async fn tasks(&self) -> Vec<Known> {
        self.look(|member| member.agent.tasks()).await.unwrap_or_default()
    }

    /// Makes this node the first of a new cluster.
    pub async fn init(&self, mut request: InitRequest) -> Result<Initialized, Refusal> {
        let mut member = self.member.lock().await;
        self.refuse_member(member.as_ref())?;
        if request.force_new_cluster {
            let message = "this node is not a manager of a cluster: there is nothing to make a new cluster of";
            return Err(Refusal::new(RefusalKind::Conflict, message));
        }
        let listen = request.listen_address.as_deref().map(listen_address).transpose().map_err(invalid)?;
        let routes = own_routes().await.map_err(internal)?;
        let pool = choose(request.address_pool, &routes);
        request.address_pool = Some(pool.map_err(|problem| Refusal::new(RefusalKind::Invalid, problem))?);
        let told = request.advertise_address.take().or_else(|| self.config.advertise_address.clone());
        request.advertise_address = told.map(advertise_address).transpose().map_err(invalid)?;
        pool_spec(&request).check_pool().map_err(|problem| Refusal::new(RefusalKind::Invalid, problem))?;
        listen.inspect(|address| self.config.listen_at(*address));
        let (credentials, file, initialized) = self.new_cluster(request, listen).await.map_err(internal)?;
        match self.start(&credentials, file).await {
            Ok(started) => *member = Some(started),
            Err(error) => {
                // A cluster that its user was never told of: the next try makes another.
                for folder in ["identity", "raft"] {
                    remove_if_there(&self.config.data_dir.join(folder)).map_err(internal)?;
                }
                return Err(internal(error));
            }
        }
        Ok(initialized)
    }

    async fn new_cluster(
        &self,
        request: InitRequest,
        listen_address: Option<SocketAddr>,
    ) -> Result<(Credentials, MemberFile, Initialized)> {
        let now = wall_clock();
        let addresses = pool_spec(&request);
        let mut ids = IdSource::from_seed(random_seed()?);
        let (cluster_id, node_id) = (ids.next_id(), ids.next_id());
        let data_dir = &self.config.data_dir;
        // An earlier init may have been cut short; without a certificate it never was.
        remove_if_there(&data_dir.join("raft"))?;
        let ca = ClusterCa::create(cluster_id, now)?;
        let (worker, manager) = (JoinToken::generate(ca.digest())?, JoinToken::generate(ca.digest())?);
        let advertise = request.advertise_address.unwrap_or_else(default_address);
        let port = self.config.listen_address().port();
        let unlock_key = request.autolock.then(UnlockKey::generate).transpose()?.map(|key| key.to_string());
        let spec = ClusterSpec { autolock: request.autolock, ..addresses };
        let validity = spec.node_certificate_validity;
        let join_tokens =
            JoinTokenHashes { worker: worker.secret_hash().to_string(), manager: manager.secret_hash().to_string() };
        let config = ClusterConfig {
            id: cluster_id,
            meta: Meta::new(now),
            spec,
            ca_certificate: ca.certificate_pem().to_owned(),
            ca_key: ca.key_pem(),
            join_tokens,
            next_raft_id: FIRST_RAFT_ID,
            unlock_key: unlock_key.clone(),
            level: skep_agent::own_level(),
            trust: TrustHistory::default(),
        };
        let identity = self.identity();
        let key = identity.key()?;
        let certificate = CertificateRecord { issuer: ca.digest().to_string(), key: key.digest().to_string() };
        let node = Node {
            id: node_id,
            meta: Meta::new(now),
            spec: NodeSpec { role: Role::Manager, labels: request.node_labels, ..NodeSpec::default() },
            description: None,
            status: NodeStatus::default(),
            manager: Some(ManagerStatus { raft_id: FIRST_RAFT_ID, address: host_port(&advertise, port) }),
            certificate,
            tunnel: None,
        };
        let store = open_store(&self.config, &self.vault, Arc::new(NoPeers), FIRST_RAFT_ID, &advertise).await?;
        let first = vec![
            Change::SetClusterConfig { config: Box::new(config), expected: None },
            Change::CreateNode { node: Box::new(node) },
        ];
        let initialized = store.initialize(first).await;
        store.shutdown().await;
        initialized.context("failed to write the new cluster")?;
        let certificate = ca.issue(&key.request()?, node_id, Role::Manager, now, validity)?;
        let credentials = Credentials::new(key, &certificate, ca.certificate_pem())?;
        let managers = vec![host_port(&advertise, port)];
        let file = MemberFile {
            format: MemberFile::FORMAT,
            managers,
            advertise_address: advertise.clone(),
            raft_id: Some(FIRST_RAFT_ID),
            listen_address,
        };
        file.store(data_dir)?;
        identity.store(&credentials)?;
        let initialized = Initialized {
            node: node_id,
            cluster: cluster_id,
            advertise_address: host_port(&advertise, port),
            worker_token: worker.to_string(),
            manager_token: manager.to_string(),
            unlock_key,
        };
        Ok((credentials, file, initialized))
    }

    /// Leaves the cluster and removes what skep put on this machine.
    pub async fn leave(&self, request: LeaveRequest) -> Result<Left, Refusal> {
        let mut member = self.member.lock().await;
        let Some(present) = member.as_ref() else {
            if self.vault.is_locked().map_err(internal)? {
                return self.leave_locked(request).await;
            }
            return Err(Refusal::new(RefusalKind::Conflict, "this node is not part of a cluster"));
        };
        let alone = |store: &Store| store.members().voters.len() <= 1;
        let losing = present.store().filter(|store| alone(store)).map(|store| store.cluster());
        let losing = losing.filter(|cluster| loses(cluster));
        if let Some(cluster) = losing.filter(|_| !request.force) {
            let message = format!(
                "this node is the cluster's only manager: the cluster ends with it, and so do its {} services; remove them \
                 first, or repeat with --force",
                cluster.services.len()
            );
            return Err(Refusal::new(RefusalKind::Conflict, message));
        }
        let untold = match tell_leaving(present).await {
            Err(refusal) if refusal.kind == RefusalKind::Conflict && !request.force => return Err(refusal),
            told => told.err().map(|refusal| refusal.message),
        };
        let left = match member.take() {
            Some(member) => member.leave(&self.gate).await,
            None => Ok(()),
        };
        self.erase(request.remove_volumes).await.map_err(internal)?;
        left.map_err(internal)?;
        self.left(untold)
    }

    pub(super) fn left(&self, untold: Option<String>) -> Result<Left, Refusal> {
        let kept = self.volumes.list().map_err(|error| internal(error.into()))?;
        Ok(Left { kept_volumes: kept.into_iter().map(|volume| volume.name).collect(), untold })
    }

    pub(super) async fn erase(&self, volumes: bool) -> Result<()> {
        let data_dir = &self.config.data_dir;
        // With the certificate gone the node is no member any more, whatever is still to be removed.
        for folder in ["identity", "raft", "net", "containers", "agent"] {
            remove_if_there(&data_dir.join(folder))?;
        }
        self.config.listen_as_set();
        instance::forget(&self.config.run_dir)?;
        self.vault.forget();
        // Without their key nobody can read them any more.
        for folder in kept_folders(data_dir)? {
            remove_if_there(&folder)?;
        }
        for image in self.images.list()? {
            self.images.remove(&image.reference)?;
        }
        self.images.gc(&skep_image::Roots::default()).await?;
        if volumes {
            for volume in self.volumes.list()? {
                self.volumes.remove(&volume.name)?;
            }
        }
        Ok(())
    }

    pub(super) async fn start(&self, credentials: &Credentials, file: MemberFile) -> Result<Member> {
        Member::start(self.setup(), credentials, file).await
    }

    pub(super) fn setup(&self) -> MemberSetup<'_> {
        MemberSetup {
            config: &self.config,
            images: self.images.clone(),
            volumes: self.volumes.clone(),
            warnings: self.warnings.clone(),
            generic: self.config.generic_resources.clone(),
            gate: &self.gate,
            vault: Arc::clone(&self.vault),
        }
    }

    pub(super) async fn lock(&self) -> tokio::sync::MutexGuard<'_, Option<Member>> {
        self.member.lock().await
    }

    pub(super) fn identity(&self) -> IdentityDir {
        IdentityDir::new(&self.config.data_dir)
    }

    pub(super) fn refuse_member(&self, member: Option<&Member>) -> Result<(), Refusal> {
        match member {
            Some(_) => {
                let message = "this node is already part of a cluster; `skep info` shows which, `skep leave` leaves it";
                Err(Refusal::new(RefusalKind::Conflict, message))
            }
            None => self.refuse_locked(),
        }
    }
}

/// Whether anything ends with this manager beside itself.
fn loses(cluster: &Cluster) -> bool {
    !cluster.services.is_empty() || cluster.nodes.len() > 1
}

pub(super) fn invalid(error: anyhow::Error) -> Refusal {
    Refusal::new(RefusalKind::Invalid, format!("{error:#}"))
}

pub(super) fn internal(error: anyhow::Error) -> Refusal {
    Refusal::new(RefusalKind::Internal, format!("{error:#}"))
}

pub(super) fn remove_if_there(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("failed to remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// The settings of a new cluster as far as they are of its addresses.
fn pool_spec(request: &InitRequest) -> ClusterSpec {
    let defaults = ClusterSpec::default();
    ClusterSpec {
        address_pool: request.address_pool.unwrap_or(defaults.address_pool),
        subnet_prefix: request.subnet_prefix.unwrap_or(defaults.subnet_prefix),
        ..defaults
    }
}
