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
//! Invariant: a certificate that expired, or whose CA was retired, is good for renewal and nothing else.
//! Invariant: TLS 1.3 only, no session resumption: each connection proves its certificate anew.

mod base36;
mod ca;
mod certificate;
mod clock;
mod connect;
mod credentials;
mod dial;
mod files;
mod given;
mod key;
mod lock;
mod pinned;
mod seal;
mod tls;
mod token;
mod trust;
mod verify;

pub use ca::{CaDigest, CaError, ClusterCa, ROTATIONS_KEPT};
pub use certificate::{CertificateError, NodeCertificate, Peer, PeerIdentity};
pub use clock::{ClockBehind, NodeClock, Synchronised};
pub use connect::{
    ClientStream, ConnectError, Expect, HandshakeError, ServerStream, TlsAcceptor, TlsConnector, addresses,
};
pub use credentials::{Credentials, CredentialsError};
pub use files::{FileError, IdentityDir, write_private};
pub use given::{GivenCaError, adopt};
pub use key::{KeyDigest, KeyError, NodeKey};
pub use lock::{LockError, LockedKeys, ManagerKeys, UnlockKey, UnlockKeyError};
pub use pinned::JoinConnector;
pub use seal::{SealError, SealingKey};
pub use tls::{Tls, TlsChanges};
pub use token::{JoinToken, JoinTokenError, SecretHash};
pub use verify::PeerProblem;
