//! Judging the certificate at the other end, and saying what is wrong with it.
//!
//! A server lets every member in, those with a lapsed certificate too: what they may still do is up to who serves
//! them ([`Peer::Lapsed`](crate::Peer::Lapsed)). A client insists on a certificate that is valid now, unless its own
//! clock is known to be set by nobody: a wrong clock must not lock a node out.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore, SignatureScheme,
};
use skep_model::{ClusterId, Timestamp};

use crate::certificate::{NodeCertificate, PeerIdentity};
use crate::clock::{NodeClock, Synchronised, date_text, from_unix_seconds, to_unix_time, unix_seconds};
use crate::credentials::CredentialsError;
use crate::trust::Trust;

/// Why a server is not believed, in words for its operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerProblem {
    #[error("it belongs to another cluster ({found}, this node to {own}): something else has that address now")]
    OtherCluster { found: ClusterId, own: ClusterId },
    #[error(
        "it says that it is of this cluster, but no CA that this node knows vouches for it: either more than {} rotations of the \
         CA were missed, then run `skep leave --force` here and join again with a token; or something answers in its place",
        crate::ca::ROTATIONS_KEPT
    )]
    UnknownCa,
    #[error(
        "its certificate expired on {}, and this node's clock reads {}: check the clocks of both", date_text(*.since),
        date_text(*.now)
    )]
    Expired { since: Timestamp, now: Timestamp },
    #[error(
        "the cluster's CA was rotated after this token was made: `skep join-token worker` on a manager makes a new one"
    )]
    CaRotated,
}

impl PeerProblem {
    pub(crate) fn into_error(self) -> Error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(self))))
    }

    /// The problem that a failed handshake was given up for, if it was one of these.
    pub(crate) fn of(error: &std::io::Error) -> Option<Self> {
        match error.get_ref()?.downcast_ref::<Error>()? {
            Error::InvalidCertificate(CertificateError::Other(OtherError(problem))) => {
                problem.downcast_ref::<PeerProblem>().cloned()
            }
            _ => None,
        }
    }
}

/// The time to judge a chain by that `leaf` heads, when a client's clock reads `now`.
///
/// A start in the future only says that the own clock is behind: the CA signed it. An end in the past counts, unless
/// nobody sets the own clock: it may as well be ahead.
pub(crate) fn judged_at(leaf: &NodeCertificate, now: UnixTime, clock: &NodeClock) -> UnixTime {
    let end = match clock.synchronised() {
        Synchronised::No => unix_seconds(leaf.not_after),
        Synchronised::Yes | Synchronised::Unknown => i64::MAX,
    };
    within(now, unix_seconds(leaf.not_before), end)
}

fn within(now: UnixTime, start: i64, end: i64) -> UnixTime {
    to_unix_time((now.as_secs() as i64).clamp(start, end.max(start)))
}

pub(crate) fn expired(leaf: &NodeCertificate, at: UnixTime) -> Option<PeerProblem> {
    let now = from_unix_seconds(at.as_secs() as i64);
    (now > leaf.not_after).then_some(PeerProblem::Expired { since: leaf.not_after, now })
}

/// Verifies members that connect to this node.
#[derive(Debug)]
pub(crate) struct Members {
    trusted: Arc<dyn ClientCertVerifier>,
    retired: Option<Arc<dyn ClientCertVerifier>>,
}

/// What a verified chain is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Good {
    ForEverything,
    ForRenewal,
}

impl Members {
    pub fn new(trust: &Trust, provider: &Arc<CryptoProvider>) -> Result<Self, CredentialsError> {
        let verifier = |roots: RootCertStore| {
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .build()
                .map_err(CredentialsError::Verifier)
        };
        Ok(Self { trusted: verifier(trust.trusted()?)?, retired: trust.retired()?.map(verifier).transpose()? })
    }

    /// What `chain` is good for at `now`, if it is of this cluster at all.
    pub fn judge(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<Good, Error> {
        let (leaf, rest) = chain.split_first().ok_or(Error::NoCertificatesPresented)?;
        let certificate = read(leaf)?;
        let at = within(now, unix_seconds(certificate.not_before), unix_seconds(certificate.not_after));
        match self.trusted.verify_client_cert(leaf, rest, at) {
            Ok(_) if expired(&certificate, now).is_none() => Ok(Good::ForEverything),
            Ok(_) => Ok(Good::ForRenewal),
            Err(error) => match &self.retired {
                Some(retired) => retired.verify_client_cert(leaf, rest, at).map(|_| Good::ForRenewal),
                None => Err(error),
            },
        }
    }
}

impl ClientCertVerifier for Members {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let whole: Vec<_> = std::iter::once(leaf).chain(chain).cloned().collect();
        self.judge(&whole, now).map(|_| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.trusted.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.trusted.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.trusted.supported_verify_schemes()
    }
}

/// Verifies the members that this node connects to.
#[derive(Debug)]
pub(crate) struct Servers {
    trusted: Arc<WebPkiServerVerifier>,
    own: PeerIdentity,
    clock: Arc<NodeClock>,
}

impl Servers {
    pub fn new(
        trust: &Trust,
        own: PeerIdentity,
        clock: Arc<NodeClock>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, CredentialsError> {
        let trusted = WebPkiServerVerifier::builder_with_provider(Arc::new(trust.trusted()?), provider)
            .build()
            .map_err(CredentialsError::Verifier)?;
        Ok(Self { trusted, own, clock })
    }

    fn problem(&self, leaf: &NodeCertificate, at: UnixTime, error: Error) -> Error {
        let own = self.own.cluster_id;
        if leaf.identity.cluster_id != own {
            return PeerProblem::OtherCluster { found: leaf.identity.cluster_id, own }.into_error();
        }
        match error {
            Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
                PeerProblem::UnknownCa.into_error()
            }
            error => expired(leaf, at).map_or(error, PeerProblem::into_error),
        }
    }
}

impl ServerCertVerifier for Servers {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = read(leaf)?;
        let at = judged_at(&certificate, now, &self.clock);
        let verified = self.trusted.verify_server_cert(leaf, chain, name, ocsp, at);
        verified.map_err(|error| self.problem(&certificate, at, error))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.trusted.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.trusted.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.trusted.supported_verify_schemes()
    }
}

fn read(leaf: &CertificateDer<'_>) -> Result<NodeCertificate, Error> {
    NodeCertificate::read(leaf).map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))
}
