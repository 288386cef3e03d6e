//! A cluster's CA with members, and daemons that serve until they are dropped.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use skep_api::{Connection, Server, connect_tls};
use skep_identity::{ClusterCa, Credentials, Expect, NodeClock, NodeKey, Tls};
use skep_model::{ClusterId, NodeId, Role, Timestamp};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub struct Daemon {
    pub address: SocketAddr,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<(), skep_api::ServeError>>,
}

pub struct Members {
    pub ca: ClusterCa,
}

impl Members {
    pub fn new(cluster: u128) -> Result<Self> {
        Ok(Self { ca: ClusterCa::create(ClusterId::from_u128(cluster), now())? })
    }

    pub fn tls(&self, node: u128, role: Role) -> Result<Tls> {
        self.tls_since(node, role, now())
    }

    /// With a certificate that expired a day ago.
    pub fn expired(&self, node: u128, role: Role) -> Result<Tls> {
        self.tls_since(node, role, Timestamp(now().0 - Duration::from_secs(2 * 86_400).as_nanos() as u64))
    }

    fn tls_since(&self, node: u128, role: Role, since: Timestamp) -> Result<Tls> {
        let key = NodeKey::generate()?;
        let node_id = NodeId::from_u128(node);
        let certificate = self.ca.issue(&key.request()?, node_id, role, since, Duration::from_secs(86_400))?;
        let credentials = Credentials::new(key, &certificate, self.ca.certificate_pem())?;
        Ok(Tls::new(&credentials, Arc::new(NodeClock::new()))?)
    }

    pub async fn connect(&self, node: u128, role: Role, daemon: &Daemon) -> Result<Connection> {
        let connector = self.tls(node, role)?.connector(Expect::Role(Role::Manager));
        Ok(connect_tls(&daemon.address.to_string(), connector).await?)
    }
}

impl Daemon {
    pub async fn start(server: Server, tls: &Tls, address: &str) -> Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(server.serve_tls(listener, tls.acceptor(), async {
            // The sender dropped is the same as told to stop.
            let _ = stopped.await;
        }));
        Ok(Self { address, stop, serving })
    }

    pub async fn stop(self) -> Result<()> {
        drop(self.stop);
        self.serving.await??;
        Ok(())
    }
}

pub fn now() -> Timestamp {
    let passed = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    Timestamp(passed.as_nanos() as u64)
}
