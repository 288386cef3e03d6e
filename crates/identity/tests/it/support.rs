//! A cluster's CA with members, and a server that says whom it saw.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use skep_identity::{ClusterCa, Credentials, HandshakeError, NodeClock, NodeKey, Peer, Tls, TlsAcceptor};
use skep_model::{ClusterId, NodeId, Role, Timestamp};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub const DAY: Duration = Duration::from_secs(24 * 3600);

pub fn now() -> Timestamp {
    let passed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp(passed.as_nanos() as u64)
}

pub fn days_ago(days: u32) -> Timestamp {
    Timestamp(now().0 - (DAY * days).as_nanos() as u64)
}

pub fn ca(cluster: u128) -> ClusterCa {
    ClusterCa::create(ClusterId::from_u128(cluster), days_ago(200)).unwrap()
}

pub fn member_since(ca: &ClusterCa, node: u128, role: Role, since: Timestamp) -> Credentials {
    let key = NodeKey::generate().unwrap();
    let request = key.request().unwrap();
    let certificate = ca.issue(&request, NodeId::from_u128(node), role, since, 90 * DAY).unwrap();
    Credentials::new(key, &certificate, ca.certificate_pem()).unwrap()
}

pub fn member(ca: &ClusterCa, node: u128, role: Role) -> Credentials {
    member_since(ca, node, role, now())
}

/// A cluster whose CA was rotated: the CAs from the first to the present one.
pub struct Rotations {
    pub cas: Vec<ClusterCa>,
    /// Newest first, as they are sent.
    crosses: Vec<String>,
}

impl Rotations {
    pub fn new(rotations: usize) -> Self {
        let mut cas = vec![ca(1)];
        let mut crosses = Vec::new();
        for _ in 0..rotations {
            let next = ca(1);
            crosses.insert(0, cas.last().unwrap().cross_sign(&next, days_ago(100)).unwrap());
            cas.push(next);
        }
        Self { cas, crosses }
    }

    pub fn present(&self) -> &ClusterCa {
        self.cas.last().unwrap()
    }

    /// What its members know once the rotations are over.
    pub fn authorities(&self) -> String {
        let retired = self.cas.iter().rev().skip(1).map(|ca| ca.certificate_pem().to_owned());
        let kept = skep_identity::ROTATIONS_KEPT;
        std::iter::once(self.present().certificate_pem().to_owned())
            .chain(self.crosses.iter().take(kept).cloned())
            .chain(retired.take(kept))
            .collect()
    }

    pub fn member(&self, node: u128, role: Role) -> Credentials {
        member(self.present(), node, role).with_authorities(&self.authorities()).unwrap()
    }
}

pub fn tls(credentials: &Credentials) -> Tls {
    Tls::new(credentials, Arc::new(NodeClock::new())).unwrap()
}

/// A server for one connection: says `hello`, and returns whom it saw.
pub async fn serve_one(acceptor: TlsAcceptor) -> Result<(SocketAddr, JoinHandle<Result<Peer, HandshakeError>>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.map_err(HandshakeError::Tls)?;
        let (mut stream, peer) = acceptor.accept(tcp).await?;
        stream.write_all(b"hello").await.map_err(HandshakeError::Tls)?;
        stream.shutdown().await.map_err(HandshakeError::Tls)?;
        Ok(peer)
    });
    Ok((address, server))
}

pub async fn read_all(mut stream: impl AsyncReadExt + Unpin) -> std::io::Result<String> {
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}
