//! A cluster of one manager that listens, and nodes with what they were issued.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::future::BoxFuture;
use skep_api::{
    CaClient, Caller, Connection, Control, IssueRequest, IssuedCertificate, Refusal, RenewRequest, RotateCaRequest,
    RotatedCa, Server, connect_join, connect_tls,
};
use skep_identity::{ClusterCa, Credentials, Expect, JoinConnector, JoinToken, NodeClock, NodeKey, Tls};
use skep_manager::{ImageResolver, Manager, ResolvedImage};
use skep_model::{
    Availability, CertificateRecord, Change, Cluster, ClusterConfig, ClusterId, ClusterSpec, FEATURE_LEVEL,
    JoinTokenHashes, ManagerStatus, Meta, Node, NodeId, NodeSpec, NodeState, NodeStatus, Role, Timestamp, TrustHistory,
};
use skep_store::{DataKey, Store, StoreConfig};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub const LOCAL: Caller = Caller::Local { uid: 0, gid: 0, pid: None };
const MANAGER: NodeId = NodeId::from_u128(1);

pub struct NoRegistry;

impl ImageResolver for NoRegistry {
    fn resolve<'a>(&'a self, _: &'a str, _: Option<&'a str>) -> BoxFuture<'a, Result<ResolvedImage, String>> {
        Box::pin(async { Err("this test has no registry".to_owned()) })
    }
}

pub struct World {
    pub store: Store,
    pub manager: Manager<NoRegistry>,
    pub address: String,
    /// The CA that the cluster began with, with its key.
    pub first_ca: ClusterCa,
    pub worker_token: String,
    own: Credentials,
    tls: Tls,
    stop: CancellationToken,
    _dir: TempDir,
}

impl World {
    pub async fn start(clock: NodeClock) -> Self {
        Self::start_at_level(clock, FEATURE_LEVEL).await
    }

    pub async fn start_at_level(clock: NodeClock, level: u32) -> Self {
        let dir = TempDir::new().unwrap();
        let first_ca = ClusterCa::create(ClusterId::from_u128(100), days_ago(400)).unwrap();
        let token = |ca: &ClusterCa| JoinToken::generate(ca.digest()).unwrap();
        let (worker, manager) = (token(&first_ca), token(&first_ca));
        let key = NodeKey::generate().unwrap();
        let certificate = first_ca.issue(&key.request().unwrap(), MANAGER, Role::Manager, now(), VALIDITY).unwrap();
        let record = CertificateRecord { issuer: first_ca.digest().to_string(), key: key.digest().to_string() };
        let own = Credentials::new(key, &certificate, first_ca.certificate_pem()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let config = StoreConfig::new(dir.path(), 1, address.clone(), DataKey::from_bytes([3; 32]));
        let store = Store::open(config).await.unwrap();
        let config = ClusterConfig { level, ..cluster_config(&first_ca, &worker, &manager) };
        let first = vec![
            Change::SetClusterConfig { config: Box::new(config), expected: None },
            Change::CreateNode { node: Box::new(manager_node(&address, record)) },
        ];
        store.initialize(first).await.unwrap();
        let tls = Tls::new(&own, Arc::new(clock)).unwrap();
        let manager = Manager::start(store.clone(), &tls, NoRegistry, 7);
        let stop = CancellationToken::new();
        let serving =
            manager.serve_nodes(Server::new()).serve_tls(listener, tls.acceptor(), stop.clone().cancelled_owned());
        tokio::spawn(async move { serving.await.unwrap() });
        let worker_token = worker.to_string();
        Self { store, manager, address, first_ca, worker_token, own, tls, stop, _dir: dir }
    }

    pub async fn stop(self) {
        self.stop.cancel();
        self.manager.stop().await;
        self.store.shutdown().await;
    }

    pub fn cluster(&self) -> Arc<Cluster> {
        self.store.cluster()
    }

    /// A node that joins with a token.
    pub async fn join(&self, token: &str) -> Result<Credentials, Refusal> {
        let key = NodeKey::generate().unwrap();
        let parsed: JoinToken = token.parse().unwrap();
        let connector = JoinConnector::new(parsed.ca(), Arc::new(NodeClock::new()));
        let connection = connect_join(&self.address, connector).await.map_err(|error| words(&error))?;
        let csr = Bytes::from(key.request().unwrap());
        let request = IssueRequest {
            token: token.to_owned(),
            csr,
            availability: Availability::Active,
            level: FEATURE_LEVEL,
            routes: Vec::new(),
        };
        let issued = CaClient::new(connection).issue(request).await?;
        Ok(Credentials::new(key, &issued.certificate, &issued.authorities).unwrap())
    }

    pub async fn connect(&self, node: &Credentials) -> Result<Connection, Refusal> {
        let tls = Tls::new(node, Arc::new(NodeClock::new())).unwrap();
        let connector = tls.connector(Expect::Role(Role::Manager));
        connect_tls(&self.address, connector).await.map_err(|error| words(&error))
    }

    /// A new certificate for `node`, asked for with `key`.
    pub async fn renew_with(&self, node: &Credentials, key: &NodeKey) -> Result<IssuedCertificate, Refusal> {
        let csr = Bytes::from(key.request().unwrap());
        CaClient::new(self.connect(node).await?).renew(RenewRequest { csr }).await
    }

    pub async fn renew(&self, node: &Credentials) -> Result<Credentials, Refusal> {
        let issued = self.renew_with(node, node.key()).await?;
        Ok(Credentials::new(copy(node.key()), &issued.certificate, &issued.authorities).unwrap())
    }

    /// The manager renews as its daemon does: from its own replica.
    pub async fn renew_manager(&self) {
        let csr = self.own.key().request().unwrap();
        let issued = self.manager.ca().renew_own(self.own.identity(), &csr).await.unwrap();
        let own = Credentials::new(copy(self.own.key()), &issued.certificate, &issued.authorities).unwrap();
        self.tls.replace(&own).unwrap();
    }

    pub async fn rotate(&self) -> RotatedCa {
        let request = RotateCaRequest { certificate_validity: None, given: None };
        self.manager.control().rotate_ca(LOCAL, request).await.unwrap()
    }

    /// What the leader writes once its managers have told this build's level.
    pub async fn raise_level(&self) {
        let config = self.cluster().config.as_deref().cloned().unwrap();
        let expected = Some(config.meta.version);
        let config = Box::new(ClusterConfig { level: FEATURE_LEVEL, ..config });
        self.store.propose(vec![Change::SetClusterConfig { config, expected }]).await.unwrap();
    }

    pub async fn until(&self, what: impl FnMut(&Arc<Cluster>) -> bool) {
        let mut watch = self.store.watch();
        tokio::time::timeout(Duration::from_secs(60), watch.wait_for(what)).await.unwrap().unwrap();
    }

    /// What the managers write of a node that is gone; the store's watch over silence has its own tests.
    pub async fn is_down(&self, node: NodeId) {
        let status = NodeStatus { state: NodeState::Down, ..NodeStatus::default() };
        self.store.propose(vec![Change::ReportNode { node, description: None, status, at: now() }]).await.unwrap();
    }
}

const VALIDITY: Duration = Duration::from_secs(90 * 86_400);

fn cluster_config(ca: &ClusterCa, worker: &JoinToken, manager: &JoinToken) -> ClusterConfig {
    ClusterConfig {
        id: ca.cluster_id(),
        meta: Meta::new(now()),
        spec: ClusterSpec::default(),
        ca_certificate: ca.certificate_pem().to_owned(),
        ca_key: ca.key_pem(),
        join_tokens: JoinTokenHashes {
            worker: worker.secret_hash().to_string(),
            manager: manager.secret_hash().to_string(),
        },
        next_raft_id: 1,
        unlock_key: None,
        level: FEATURE_LEVEL,
        trust: TrustHistory::default(),
    }
}

fn manager_node(address: &str, certificate: CertificateRecord) -> Node {
    Node {
        id: MANAGER,
        meta: Meta::new(now()),
        spec: NodeSpec { role: Role::Manager, ..NodeSpec::default() },
        description: None,
        status: NodeStatus::default(),
        manager: Some(ManagerStatus { raft_id: 1, address: address.to_owned() }),
        certificate,
        tunnel: None,
    }
}

/// `node`'s certificate of `ca` as it was long ago: expired.
pub fn expired(ca: &ClusterCa, node: &Credentials) -> Credentials {
    let (identity, request) = (node.identity(), node.key().request().unwrap());
    let certificate = ca.issue(&request, identity.node_id, identity.role, days_ago(365), VALIDITY).unwrap();
    Credentials::new(copy(node.key()), &certificate, ca.certificate_pem()).unwrap()
}

fn copy(key: &NodeKey) -> NodeKey {
    NodeKey::from_pem(&key.to_pem()).unwrap()
}

fn words(error: &dyn std::error::Error) -> Refusal {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        words = format!("{words}: {cause}");
        source = cause.source();
    }
    Refusal::new(skep_api::RefusalKind::Unavailable, words)
}

pub fn now() -> Timestamp {
    Timestamp(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64)
}

pub fn days_ago(days: u64) -> Timestamp {
    Timestamp(now().0 - days * 86_400_000_000_000)
}
