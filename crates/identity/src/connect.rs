//! Opening and accepting connections: TCP, the TLS handshake, and who is at the other end.
//!
//! Carries bytes only; what a peer may ask for is decided by who serves the request.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::time_provider::TimeProvider;
use skep_model::{NodeId, Role};
use tokio::net::{TcpStream, ToSocketAddrs};
use tokio::time::timeout;

use crate::ca::SERVER_NAME;
use crate::certificate::{CertificateError, NodeCertificate, Peer, PeerIdentity};
use crate::dial::dial;
use crate::tls::Tls;
use crate::verify::{Good, PeerProblem};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Also bounds how long a stranger can hold a socket open without proving anything.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

pub type ServerStream = tokio_rustls::server::TlsStream<TcpStream>;
pub type ClientStream = tokio_rustls::client::TlsStream<TcpStream>;

#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    #[error("no TLS handshake within {} s", HANDSHAKE_TIMEOUT.as_secs())]
    TimedOut,
    #[error("the TLS handshake failed")]
    Tls(#[source] io::Error),
    #[error("the peer's certificate names no member")]
    Certificate(#[from] CertificateError),
    #[error("the peer belongs to another cluster")]
    OtherCluster,
}

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("failed to connect to {address}")]
    Tcp {
        address: String,
        #[source]
        source: io::Error,
    },
    #[error("no answer from {address} within {} s", CONNECT_TIMEOUT.as_secs())]
    TimedOut { address: String },
    #[error("{address} could not prove that it belongs to this cluster")]
    Handshake {
        address: String,
        #[source]
        source: HandshakeError,
    },
    #[error("{address} is not trusted: {problem}")]
    Distrusted { address: String, problem: PeerProblem },
    #[error("{address} is {found}, expected {expected}")]
    Unexpected { address: String, found: String, expected: Expect },
    #[error(
        "{address} does not hold the CA that the join token names: the token is of another cluster or long outdated, or something between here and there answers in its place"
    )]
    OtherCa { address: String },
}

/// Whom a connection must find at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    Role(Role),
    /// This node, whatever its role.
    Node(NodeId),
}

impl Expect {
    pub(crate) fn accepts(self, found: PeerIdentity) -> bool {
        match self {
            Expect::Role(role) => found.role == role,
            Expect::Node(node_id) => found.node_id == node_id,
        }
    }
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expect::Role(Role::Manager) => f.write_str("a manager"),
            Expect::Role(Role::Worker) => f.write_str("a worker"),
            Expect::Node(id) => write!(f, "node {id}"),
        }
    }
}

/// Turns accepted TCP connections into TLS streams of known peers.
#[derive(Debug, Clone)]
pub struct TlsAcceptor {
    tls: Tls,
}

impl TlsAcceptor {
    pub(crate) fn new(tls: Tls) -> Self {
        Self { tls }
    }

    /// The stream and who is there. A peer without a certificate is [`Peer::Anonymous`], one whose certificate expired
    /// or is of a retired CA [`Peer::Lapsed`]; one with a certificate of a CA that is not this cluster's is refused.
    pub async fn accept(&self, tcp: TcpStream) -> Result<(ServerStream, Peer), HandshakeError> {
        let current = self.tls.current();
        tcp.set_nodelay(true).map_err(HandshakeError::Tls)?;
        let handshake = tokio_rustls::TlsAcceptor::from(current.server).accept(tcp);
        let stream = timeout(HANDSHAKE_TIMEOUT, handshake)
            .await
            .map_err(|_| HandshakeError::TimedOut)?
            .map_err(HandshakeError::Tls)?;
        let peer = match stream.get_ref().1.peer_certificates() {
            None => Peer::Anonymous,
            Some(chain) => {
                let identity = member(chain, current.identity)?;
                let now = self.tls.clock().current_time().expect("a node's clock always reads something");
                match current.members.judge(chain, now) {
                    Ok(Good::ForEverything) => Peer::Node(identity),
                    // Between handshake and here nothing but the time can have changed.
                    Ok(Good::ForRenewal) | Err(_) => Peer::Lapsed(identity),
                }
            }
        };
        Ok((stream, peer))
    }
}

/// Opens TLS connections with the node's certificate.
#[derive(Debug, Clone)]
pub struct TlsConnector {
    tls: Tls,
    expect: Expect,
}

impl TlsConnector {
    pub(crate) fn new(tls: Tls, expect: Expect) -> Self {
        Self { tls, expect }
    }

    /// Connects to `address`. The stream is returned only if the other end is whom this connector expects.
    pub async fn connect(
        &self,
        address: impl ToSocketAddrs + fmt::Display,
    ) -> Result<(ClientStream, PeerIdentity), ConnectError> {
        let name = address.to_string();
        let tcp = open(address, &name).await?;
        let current = self.tls.current();
        let stream = handshake(tcp, current.client, &name).await?;
        let found = member(certificates(&stream), current.identity)
            .map_err(|source| ConnectError::Handshake { address: name.clone(), source })?;
        if !self.expect.accepts(found) {
            return Err(ConnectError::Unexpected { address: name, found: describe(found), expected: self.expect });
        }
        Ok((stream, found))
    }
}

pub(crate) async fn open(address: impl ToSocketAddrs, name: &str) -> Result<TcpStream, ConnectError> {
    let failed = |source| ConnectError::Tcp { address: name.to_owned(), source };
    let tcp = timeout(CONNECT_TIMEOUT, dial(address))
        .await
        .map_err(|_| ConnectError::TimedOut { address: name.to_owned() })?
        .map_err(failed)?;
    tcp.set_nodelay(true).map_err(failed)?;
    Ok(tcp)
}

pub(crate) async fn handshake(
    tcp: TcpStream,
    config: std::sync::Arc<rustls::ClientConfig>,
    name: &str,
) -> Result<ClientStream, ConnectError> {
    let failed = |source| ConnectError::Handshake { address: name.to_owned(), source };
    let server_name = ServerName::try_from(SERVER_NAME).expect("the fixed server name is valid");
    timeout(HANDSHAKE_TIMEOUT, tokio_rustls::TlsConnector::from(config).connect(server_name, tcp))
        .await
        .map_err(|_| failed(HandshakeError::TimedOut))?
        .map_err(|error| match PeerProblem::of(&error) {
            Some(problem) => ConnectError::Distrusted { address: name.to_owned(), problem },
            None => failed(HandshakeError::Tls(error)),
        })
}

pub(crate) fn certificates(stream: &ClientStream) -> &[CertificateDer<'static>] {
    stream.get_ref().1.peer_certificates().unwrap_or_default()
}

/// Local and remote address of the TCP connection under `stream`.
pub fn addresses(stream: &ServerStream) -> io::Result<(SocketAddr, SocketAddr)> {
    let tcp = stream.get_ref().0;
    Ok((tcp.local_addr()?, tcp.peer_addr()?))
}

/// Whom a chain that the handshake verified stands for, if it is one of `own`'s cluster.
fn member(chain: &[CertificateDer<'_>], own: PeerIdentity) -> Result<PeerIdentity, HandshakeError> {
    let leaf = chain.first().ok_or(CertificateError::Malformed)?;
    let found = NodeCertificate::read(leaf)?.identity;
    if found.cluster_id != own.cluster_id {
        return Err(HandshakeError::OtherCluster);
    }
    Ok(found)
}

fn describe(found: PeerIdentity) -> String {
    let role = match found.role {
        Role::Manager => "manager",
        Role::Worker => "worker",
    };
    format!("{role} {}", found.node_id)
}
