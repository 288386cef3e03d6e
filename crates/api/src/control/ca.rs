//! Rotating the cluster's CA.

use std::time::Duration;

use crate::wire::message;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RotateCaRequest {
    /// How long certificates are valid from now on; absent keeps it. At least an hour.
    pub certificate_validity: Option<Duration>,
    /// The new CA, made elsewhere; absent: the manager makes one.
    pub given: Option<GivenCa>,
}

/// A root certificate and its key, as PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct GivenCa {
    pub certificate: String,
    pub key: String,
}

impl std::fmt::Debug for GivenCa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GivenCa").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// The new CA, and the only time that its tokens are shown.
#[derive(Clone, PartialEq, Eq)]
pub struct RotatedCa {
    /// PEM of the root certificate.
    pub certificate: String,
    /// What `Node::certificate.issuer` becomes as the nodes renew.
    pub issuer: String,
    pub worker_token: String,
    pub manager_token: String,
}

impl std::fmt::Debug for RotatedCa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RotatedCa").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

message!(GivenCa = GivenCa { certificate, key });
message!(RotateCaRequest = RotateCaRequest { certificate_validity, given });
message!(RotatedCa = RotatedCa { certificate, issuer, worker_token, manager_token });
