//! A node's key, certificates and their hot reload; the cluster's CA; join tokens; the TLS acceptor and connector.
//!
//! ```text
//!  NodeKey ──csr──▶ ClusterCa::issue ──certificate──▶ Credentials ──▶ Tls ──▶ TlsAcceptor / TlsConnector
//!                        ▲                                │                       │
//!                    JoinToken                       IdentityDir            stream + Peer
//! ```
//!
//! Who a peer is stands in its certificate's subject: CN = node id, OU = role, O = cluster id.
//! Whether that node *still* has that role is not known here: whoever serves a request asks the cluster's state.
//!
//! Invariant: a private key never leaves the machine that made it, and never appears in a `Debug` output.
//! Invariant: TLS 1.3 only, no session resumption: each connection proves its certificate anew.

mod base36;
mod ca;
mod certificate;
mod clock;
mod connect;
mod credentials;
mod files;
mod key;
mod pinned;
mod seal;
mod tls;
mod token;

pub use ca::{CaDigest, CaError, ClusterCa};
pub use certificate::{CertificateError, NodeCertificate, Peer, PeerIdentity};
pub use clock::NodeClock;
pub use connect::{
    ClientStream, ConnectError, Expect, HandshakeError, ServerStream, TlsAcceptor, TlsConnector, addresses,
};
pub use credentials::{Credentials, CredentialsError};
pub use files::{FileError, IdentityDir, write_private};
pub use key::{KeyError, NodeKey};
pub use pinned::JoinConnector;
pub use seal::{SealError, SealingKey};
pub use tls::{Tls, TlsChanges};
pub use token::{JoinToken, JoinTokenError, SecretHash};
