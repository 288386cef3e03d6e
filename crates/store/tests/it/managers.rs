//! Managers of one cluster in one process: real certificates, real gRPC over TCP, real disks; and a switch between them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use skep_api::Server;
use skep_identity::{ClusterCa, Credentials, Expect, NodeClock, NodeKey, Tls};
use skep_model::{
    Change, Cluster, ClusterConfig, ClusterId, ClusterSpec, JoinTokenHashes, ManagerStatus, Meta, Node, NodeId,
    NodeSpec, NodeStatus, Rejection, Role, Timestamp,
};
use skep_store::{ChangeMembersError, DataKey, GrpcPeers, Leadership, ProposeError, Store, StoreConfig};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::switch::{Switch, Switched};

/// Longer than anything takes, however slow the machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

const RETRY: Duration = Duration::from_millis(20);

pub struct Managers {
    dir: TempDir,
    ca: ClusterCa,
    pub switch: Arc<Switch>,
    pub running: BTreeMap<u64, Manager>,
    addresses: BTreeMap<u64, String>,
    /// Changes each manager's settings before it is opened.
    pub settings: fn(&mut StoreConfig),
}

pub struct Manager {
    pub store: Store,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<(), skep_api::ServeError>>,
}

impl Managers {
    pub fn new() -> Managers {
        Managers {
            dir: TempDir::new().unwrap(),
            ca: ClusterCa::create(ClusterId::from_u128(1), now()).unwrap(),
            switch: Arc::default(),
            running: BTreeMap::new(),
            addresses: BTreeMap::new(),
            settings: |_| {},
        }
    }

    /// A cluster with voters 1 to `count`, all current.
    pub async fn started(count: u64, settings: fn(&mut StoreConfig)) -> Managers {
        let mut managers = Managers::new();
        managers.settings = settings;
        managers.start(1).await;
        managers.found().await;
        for raft_id in 2..=count {
            managers.join(raft_id).await;
        }
        managers
    }

    /// Makes manager 1 a cluster.
    pub async fn found(&self) {
        let config = ClusterConfig {
            id: ClusterId::from_u128(1),
            meta: Meta::new(now()),
            spec: ClusterSpec::default(),
            ca_certificate: String::new(),
            ca_key: String::new(),
            join_tokens: JoinTokenHashes::default(),
            unlock_key: None,
            level: 0,
            trust: Default::default(),
            next_raft_id: 1,
        };
        let first = vec![Change::SetClusterConfig { config: Box::new(config), expected: None }, self.node(1)];
        self.store(1).initialize(first).await.unwrap();
    }

    /// Starts a manager and lets it vote.
    pub async fn join(&mut self, raft_id: u64) {
        self.start(raft_id).await;
        self.announce(raft_id).await;
        self.add_learner(raft_id).await;
        self.change_members(async |leader| {
            let voters = leader.members().voters.into_keys().chain([raft_id]).collect();
            leader.set_voters(voters).await
        })
        .await;
        self.caught_up(raft_id).await;
    }

    /// Makes a running manager known in the cluster's state.
    pub async fn announce(&self, raft_id: u64) {
        write(&self.store(self.leader().await), self.node(raft_id)).await;
    }

    /// Makes a running manager follow, and waits until it has everything.
    pub async fn add_learner(&self, raft_id: u64) {
        let address = self.addresses[&raft_id].clone();
        self.change_members(async |leader| leader.add_learner(raft_id, address.clone()).await).await;
        self.caught_up(raft_id).await;
    }

    /// Changes the managers at the leader, and again if it stopped leading meanwhile.
    pub async fn change_members(&self, change: impl AsyncFn(Store) -> Result<(), ChangeMembersError>) {
        let changed = async {
            while let Err(error) = change(self.store(self.leader().await)).await {
                eprintln!("not changed: {error}");
                sleep(RETRY).await;
            }
        };
        timeout(PATIENCE, changed).await.expect("the managers change");
    }

    /// Makes this manager lead.
    pub async fn hand_over_to(&self, raft_id: u64) {
        let handed = async {
            loop {
                match self.leader().await {
                    leader if leader == raft_id => return,
                    leader => {
                        if let Err(error) = self.store(leader).hand_over(Some(raft_id)).await {
                            eprintln!("not handed over: {error}");
                        }
                    }
                }
            }
        };
        timeout(PATIENCE, handed).await.expect("it comes to lead");
    }

    pub async fn caught_up(&self, raft_id: u64) {
        let leader = self.store(self.leader().await);
        let wanted = leader.cluster().version;
        let mut watch = self.store(raft_id).watch();
        let came = timeout(PATIENCE, watch.wait_for(|cluster| cluster.version >= wanted)).await;
        assert!(came.is_ok_and(|came| came.is_ok()), "manager {raft_id} never came to {wanted:?}");
    }

    /// The object of a manager's node.
    fn node(&self, raft_id: u64) -> Change {
        let node = Node {
            id: node_id(raft_id),
            meta: Meta::new(now()),
            spec: NodeSpec { role: Role::Manager, ..NodeSpec::default() },
            description: None,
            status: NodeStatus::default(),
            manager: Some(ManagerStatus { raft_id, address: self.addresses[&raft_id].clone() }),
            certificate: Default::default(),
            tunnel: None,
        };
        Change::CreateNode { node: Box::new(node) }
    }

    /// Opens a manager, where it was if it was there before.
    pub async fn start(&mut self, raft_id: u64) {
        let at = self.addresses.get(&raft_id).map_or("127.0.0.1:0", String::as_str).to_owned();
        let listener = TcpListener::bind(at).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        self.addresses.insert(raft_id, address.clone());
        let tls = self.tls(raft_id, Role::Manager);
        let mut config =
            StoreConfig::new(self.folder(raft_id), raft_id, address, DataKey::from_bytes([raft_id as u8; 32]));
        config.segment_bytes = 256 * 1024;
        let grpc = GrpcPeers::new(tls.connector(Expect::Role(Role::Manager)));
        config.peers = Arc::new(Switched { from: raft_id, switch: Arc::clone(&self.switch), inner: grpc });
        (self.settings)(&mut config);
        let store = Store::open(config).await.unwrap();
        let (stop, stopped) = oneshot::channel();
        let server = Server::new().peer(store.peer_service());
        let serving = tokio::spawn(server.serve_tls(listener, tls.acceptor(), async {
            // The sender dropped is the same as told to stop.
            let _ = stopped.await;
        }));
        self.running.insert(raft_id, Manager { store, stop, serving });
    }

    /// Stops a manager in order.
    pub async fn stop(&mut self, raft_id: u64) {
        let Manager { store, stop, serving } = self.running.remove(&raft_id).unwrap();
        store.shutdown().await;
        drop(stop);
        serving.await.unwrap().unwrap();
        drop(store);
    }

    /// Cuts a manager off without a word, and returns when it is down: like a lost power, since nobody hears what it
    /// says on its way.
    pub async fn kill(&mut self, raft_id: u64) {
        self.switch.isolate(raft_id);
        self.stop(raft_id).await;
    }

    pub async fn restart(&mut self, raft_id: u64) {
        self.start(raft_id).await;
        self.switch.heal();
    }

    pub fn tls(&self, raft_id: u64, role: Role) -> Tls {
        let key = NodeKey::generate().unwrap();
        let day = Duration::from_secs(86_400);
        let certificate = self.ca.issue(&key.request().unwrap(), node_id(raft_id), role, now(), day).unwrap();
        let credentials = Credentials::new(key, &certificate, self.ca.certificate_pem()).unwrap();
        Tls::new(&credentials, Arc::new(NodeClock::new())).unwrap()
    }

    pub fn store(&self, raft_id: u64) -> Store {
        self.running[&raft_id].store.clone()
    }

    pub fn stores(&self) -> Vec<Store> {
        self.running.values().map(|manager| manager.store.clone()).collect()
    }

    pub fn address(&self, raft_id: u64) -> &str {
        &self.addresses[&raft_id]
    }

    pub fn folder(&self, raft_id: u64) -> PathBuf {
        self.dir.path().join(raft_id.to_string())
    }

    /// Who leads, when somebody does and is not cut off.
    pub async fn leader(&self) -> u64 {
        self.leader_among(&self.running.keys().copied().collect::<Vec<_>>()).await
    }

    /// As [`Managers::leader`], of these.
    pub async fn leader_among(&self, managers: &[u64]) -> u64 {
        let leading = managers.iter().map(|raft_id| Box::pin(leads(self.store(*raft_id))));
        timeout(PATIENCE, futures::future::select_all(leading)).await.expect("a leader").0
    }

    pub async fn shutdown(mut self) {
        self.switch.heal();
        for raft_id in self.running.keys().copied().collect::<Vec<_>>() {
            self.stop(raft_id).await;
        }
    }
}

/// Makes a change that creates something, whatever happens to the leader meanwhile.
pub async fn write(store: &Store, change: Change) -> Arc<Cluster> {
    let written = async {
        let mut uncertain = false;
        loop {
            match store.propose(vec![change.clone()]).await {
                Ok(written) => return written.cluster,
                Err(ProposeError::Rejected(Rejection::AlreadyExists { .. })) if uncertain => return store.cluster(),
                Err(ProposeError::Rejected(rejection)) => panic!("{rejection}"),
                Err(error) => {
                    uncertain |= matches!(error, ProposeError::Unknown);
                    eprintln!("not written: {error}");
                    sleep(RETRY).await;
                }
            }
        }
    };
    timeout(PATIENCE, written).await.expect("writes pass")
}

/// Returns when this manager leads.
async fn leads(store: Store) -> u64 {
    let mut leadership = store.leadership();
    loop {
        if matches!(*leadership.borrow_and_update(), Leadership::Leader { .. }) {
            // One that was cut off does not know yet, and gets no answer to this.
            if store.propose_here(vec![]).await.is_ok() {
                return store.raft_id();
            }
            sleep(RETRY).await;
        } else if leadership.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

pub fn node_id(raft_id: u64) -> NodeId {
    NodeId::from_u128(u128::from(raft_id))
}

fn now() -> Timestamp {
    let passed = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    Timestamp(passed.as_nanos() as u64)
}
