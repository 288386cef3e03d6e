//! Certificates: the first with a join token, later ones with the node's own certificate.

use bytes::Bytes;
use skep_model::{Availability, HostRoute, NodeId, Role};

use crate::rpc::service;
use crate::wire::message;

/// What a joining node sends, over a connection that pinned the token's CA.
#[derive(Clone, PartialEq, Eq)]
pub struct IssueRequest {
    /// The whole token. Its secret decides the role.
    pub token: String,
    /// PKCS#10, DER.
    pub csr: Bytes,
    pub availability: Availability,
    /// The feature level of the node's skep.
    pub level: u32,
    /// Where its machine's packets go without skep: refused if the cluster's ranges collide with them.
    pub routes: Vec<HostRoute>,
}

impl std::fmt::Debug for IssueRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IssueRequest").field("availability", &self.availability).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenewRequest {
    /// PKCS#10, DER.
    pub csr: Bytes,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedCertificate {
    /// PEM.
    pub certificate: String,
    /// PEM of every CA to trust, the issuer first; then what is sent along with the certificate, see
    /// `skep_identity::Credentials::new`.
    pub authorities: String,
    pub node: NodeId,
    pub role: Role,
}

message!(IssueRequest = IssueRequest { token, csr, availability, level, routes });
message!(HostRoute = HostRoute { to, interface, source });
message!(RenewRequest = RenewRequest { csr });
message!(IssuedCertificate = IssuedCertificate { certificate, authorities, node, role });

service! {
    /// The cluster's certificate authority.
    Ca in ca_server::CaServer, ca_client::CaClient, via CaAdapter;
    unary {
        /// A first certificate for a joining node, against a join token.
        [Anyone] issue(IssueRequest) -> IssuedCertificate;
        /// A new certificate for the calling node, with the role that it has now.
        [Renewer] renew(RenewRequest) -> IssuedCertificate;
    }
    down {}
    up {}
    both {}
}
