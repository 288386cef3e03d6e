//! The first connection of a joining node: it has no certificate, and trusts whoever holds the CA its token names.
//!
//! The server sends its certificate and the cluster's CA; the CA must have the token's digest and must have signed
//! the certificate of a manager. Only then is the stream handed out, and only then is the token's secret sent.

use std::fmt;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::version::TLS13;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use skep_model::Role;
use tokio::net::ToSocketAddrs;

use crate::ca::CaDigest;
use crate::certificate::{NodeCertificate, is_root};
use crate::clock::NodeClock;
use crate::connect::{self, ClientStream, ConnectError, Expect, HandshakeError};
use crate::tls::{ALPN_HTTP2, crypto};
use crate::verify::{PeerProblem, expired, judged_at};

/// Connects, without a certificate, to a manager of the cluster whose CA has a given digest.
#[derive(Debug, Clone)]
pub struct JoinConnector {
    ca: CaDigest,
    clock: Arc<NodeClock>,
}

impl JoinConnector {
    pub fn new(ca: CaDigest, clock: Arc<NodeClock>) -> Self {
        Self { ca, clock }
    }

    pub async fn connect(&self, address: impl ToSocketAddrs + fmt::Display) -> Result<ClientStream, ConnectError> {
        let name = address.to_string();
        let tcp = connect::open(address, &name).await?;
        let stream = connect::handshake(tcp, self.config(), &name).await.map_err(|error| other_ca(error, &name))?;
        let certificate = connect::certificates(&stream).first().map(NodeCertificate::read).transpose().ok().flatten();
        match certificate {
            Some(found) if found.identity.role == Role::Manager => Ok(stream),
            _ => Err(ConnectError::Unexpected {
                address: name,
                found: "no manager".to_owned(),
                expected: Expect::Role(Role::Manager),
            }),
        }
    }

    fn config(&self) -> Arc<ClientConfig> {
        let provider = crypto();
        let verifier = PinnedCa { digest: self.ca, clock: self.clock.clone(), provider: provider.clone() };
        let mut config = ClientConfig::builder_with_details(provider, self.clock.clone())
            .with_protocol_versions(&[&TLS13])
            .expect("ring offers TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        config.alpn_protocols = vec![ALPN_HTTP2.to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        Arc::new(config)
    }
}

/// `UnknownIssuer` is what the verifier below answers when the pinned CA is not in the chain.
fn other_ca(error: ConnectError, name: &str) -> ConnectError {
    if let ConnectError::Handshake { source: HandshakeError::Tls(io), .. } = &error
        && let Some(Error::InvalidCertificate(CertificateError::UnknownIssuer)) =
            io.get_ref().and_then(|inner| inner.downcast_ref::<Error>())
    {
        return ConnectError::OtherCa { address: name.to_owned() };
    }
    error
}

#[derive(Debug)]
struct PinnedCa {
    digest: CaDigest,
    clock: Arc<NodeClock>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedCa {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let at = chain.iter().position(|certificate| CaDigest::of(certificate) == self.digest);
        let at = at.ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let mut roots = RootCertStore::empty();
        roots.add(chain[at].clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        let Ok(certificate) = NodeCertificate::read(leaf) else {
            return Err(Error::InvalidCertificate(CertificateError::BadEncoding));
        };
        let now = judged_at(&certificate, now, &self.clock);
        let verified = verifier
            .verify_server_cert(leaf, chain, name, ocsp, now)
            .map_err(|error| expired(&certificate, now).map_or(error, PeerProblem::into_error))?;
        // The pinned CA vouches for the present one, but is itself retired, and its tokens with it.
        match chain[..at].iter().all(|earlier| is_root(earlier).unwrap_or(false)) {
            true => Ok(verified),
            false => Err(PeerProblem::CaRotated.into_error()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
