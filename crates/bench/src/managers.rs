//! Three managers' stores as processes of their own, for row B11: mutual TLS between all, each on a folder of its own.
//!
//! Only the store and its port: no agent, no orchestrator, so that what is measured is replication. The clients are a
//! fourth manager as far as certificates go, which no store replicates to.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use skep_api::{PEER_PROTOCOL, PeerClient, PeerLink, ProposeReply, ProposeRequest, connect_tls};
use skep_identity::{ClusterCa, Credentials, Expect, IdentityDir, NodeClock, Tls};
use skep_model::{
    Change, ClusterConfig, ClusterSpec, Id, JoinTokenHashes, ManagerStatus, Meta, Node, NodeId, NodeSpec, NodeStatus,
    Role, Timestamp,
};
use skep_store::{DataKey, GrpcPeers, Store, StoreConfig};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

use crate::content::put;

const MANAGERS: u64 = 3;
/// The first manager is made the leader.
const LEADER: u64 = 1;
/// Whom the clients write as.
const CLIENT: u64 = MANAGERS + 1;
const PORT: u64 = 7400;
/// What a process says when it can be written to.
const READY: &str = "ready";

/// The three processes; they end when this is dropped.
pub struct Managers {
    folder: PathBuf,
    _processes: Vec<Child>,
}

impl Managers {
    /// Makes a cluster in `folder` and starts it.
    pub async fn start(folder: &Path) -> Result<Managers> {
        make_certificates(folder)?;
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut processes = Vec::new();
        // The leader last: it adds the others, which must answer by then.
        for raft_id in (LEADER..=MANAGERS).rev() {
            let mut command = Command::new(&program);
            command.arg("manager").arg(folder).arg(raft_id.to_string());
            // Its standard input ends with this process, whatever becomes of it.
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
            let mut process = command.spawn().context("cannot start a manager")?;
            let output = process.stdout.take().context("its output is piped")?;
            let line = BufReader::new(output).lines().next_line().await.context("cannot read a manager's output")?;
            if line.as_deref() != Some(READY) {
                bail!("manager {raft_id} did not start");
            }
            processes.push(process);
        }
        Ok(Managers { folder: folder.to_owned(), _processes: processes })
    }

    /// A connection of its own to the leader.
    pub async fn connect(&self) -> Result<Client> {
        let connector = tls(&self.folder, CLIENT)?.connector(Expect::Role(Role::Manager));
        Ok(Client(PeerClient::new(connect_tls(&address(LEADER), connector).await?)))
    }
}

pub struct Client(PeerClient);

impl Client {
    /// Creates a config of `bytes` bytes; returns once a majority has it on disk.
    pub async fn put(&mut self, number: u64, bytes: usize) -> Result<()> {
        let link = PeerLink { protocol: PEER_PROTOCOL, from: CLIENT, to: LEADER };
        let changes = skep_api::encode_changes(&[put(number, bytes)]).into();
        match self.0.propose_once(ProposeRequest { link, changes }).await? {
            ProposeReply::Committed(_) => Ok(()),
            other => bail!("a write was answered by {other:?}"),
        }
    }
}

/// One manager's process: serves until its standard input ends.
pub async fn serve(folder: &Path, raft_id: u64) -> Result<()> {
    let tls = tls(folder, raft_id)?;
    let listener = TcpListener::bind(address(raft_id)).await.context("cannot listen")?;
    let dir = own_folder(folder, raft_id).join("raft");
    let mut config = StoreConfig::new(dir, raft_id, address(raft_id), DataKey::generate()?);
    config.peers = Arc::new(GrpcPeers::new(tls.connector(Expect::Role(Role::Manager))));
    let store = Store::open(config).await?;
    let server = skep_api::Server::new().peer(store.peer_service());
    let serving = tokio::spawn(server.serve_tls(listener, tls.acceptor(), std::future::pending()));
    if raft_id == LEADER {
        store.initialize(first_changes()).await?;
        for other in LEADER + 1..=MANAGERS {
            store.add_learner(other, address(other)).await?;
        }
        store.set_voters((LEADER..=MANAGERS).collect::<BTreeSet<u64>>()).await?;
    }
    println!("{READY}");
    let mut end = Vec::new();
    tokio::io::stdin().read_to_end(&mut end).await.context("cannot wait for the end")?;
    serving.abort();
    store.shutdown().await;
    Ok(())
}

/// A cluster's authority, and for each manager a folder with its key and certificate.
fn make_certificates(folder: &Path) -> Result<()> {
    let now = now();
    let ca = ClusterCa::create(Id::from_u128(1), now)?;
    for raft_id in LEADER..=CLIENT {
        let own = own_folder(folder, raft_id);
        std::fs::create_dir_all(&own).with_context(|| format!("cannot create {}", own.display()))?;
        let identity = IdentityDir::new(&own);
        let key = identity.key()?;
        let validity = ClusterSpec::default().node_certificate_validity;
        let certificate = ca.issue(&key.request()?, node_id(raft_id), Role::Manager, now, validity)?;
        identity.store(&Credentials::new(key, &certificate, ca.certificate_pem())?)?;
    }
    Ok(())
}

fn tls(folder: &Path, raft_id: u64) -> Result<Tls> {
    let credentials = IdentityDir::new(&own_folder(folder, raft_id)).load()?.context("it has a certificate")?;
    Ok(Tls::new(&credentials, Arc::new(NodeClock::new()))?)
}

fn first_changes() -> Vec<Change> {
    let now = now();
    let config = ClusterConfig {
        id: Id::from_u128(1),
        meta: Meta::new(now),
        spec: ClusterSpec::default(),
        ca_certificate: String::new(),
        ca_key: String::new(),
        join_tokens: JoinTokenHashes::default(),
        next_raft_id: LEADER,
        unlock_key: None,
        level: skep_model::FEATURE_LEVEL,
        trust: Default::default(),
    };
    let node = |raft_id: u64| Node {
        id: node_id(raft_id),
        meta: Meta::new(now),
        spec: NodeSpec { role: Role::Manager, ..NodeSpec::default() },
        description: None,
        status: NodeStatus::default(),
        manager: Some(ManagerStatus { raft_id, address: address(raft_id) }),
        certificate: Default::default(),
        tunnel: None,
    };
    let nodes = (LEADER..=CLIENT).map(|raft_id| Change::CreateNode { node: Box::new(node(raft_id)) });
    std::iter::once(Change::SetClusterConfig { config: Box::new(config), expected: None }).chain(nodes).collect()
}

fn node_id(raft_id: u64) -> NodeId {
    Id::from_u128(u128::from(raft_id))
}

fn address(raft_id: u64) -> String {
    format!("127.0.0.1:{}", PORT + raft_id)
}

fn own_folder(folder: &Path, raft_id: u64) -> PathBuf {
    folder.join(raft_id.to_string())
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
