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
use crate::certificate::NodeCertificate;
use crate::clock::{NodeClock, to_unix_time, unix_seconds};
use crate::connect::{self, ClientStream, ConnectError, Expect, HandshakeError};
use crate::tls::{ALPN_HTTP2, crypto};

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
        let verifier = PinnedCa { digest: self.ca, provider: provider.clone() };
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
        let root = chain
            .iter()
            .find(|certificate| CaDigest::of(certificate) == self.digest)
            .ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let mut roots = RootCertStore::empty();
        roots.add(root.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        verifier.verify_server_cert(leaf, chain, name, ocsp, not_before_start(leaf, now))
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

/// A joining machine without a clock chip may live in the past. The token pins the CA, and the CA signed when this
/// certificate begins, so "not valid yet" could only say that the own clock is behind.
fn not_before_start(leaf: &CertificateDer<'_>, now: UnixTime) -> UnixTime {
    match NodeCertificate::read(leaf) {
        Ok(certificate) => {
            let start = to_unix_time(unix_seconds(certificate.not_before));
            if now.as_secs() < start.as_secs() { start } else { now }
        }
        Err(_) => now,
    }
}
