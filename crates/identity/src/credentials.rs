//! What a member of a cluster needs for TLS: its key, its certificate, and the CAs that it trusts.

use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use skep_model::Timestamp;

use crate::ca::BACKDATE;
use crate::certificate::{self, CertificateError, NodeCertificate, PeerIdentity};
use crate::clock::{from_unix_seconds, unix_seconds};
use crate::key::{KeyError, NodeKey};
use crate::trust::Trust;

const PEM_END: &str = "-----END CERTIFICATE-----";

#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    #[error("the certificate file is not PEM")]
    Pem,
    #[error("the certificate file holds no {missing}")]
    Missing { missing: &'static str },
    #[error("the node's certificate is not usable")]
    Certificate(#[from] CertificateError),
    #[error("the node's certificate was issued for another key than the node's")]
    KeyMismatch,
    #[error("the node's key is not usable")]
    Key(#[source] KeyError),
    #[error("the CA certificate cannot be trusted")]
    Authority(#[source] rustls::Error),
    #[error("the node's key and certificate cannot be used for TLS")]
    Tls(#[source] rustls::Error),
    #[error("the trusted CAs cannot be used for TLS")]
    Verifier(#[source] rustls::client::VerifierBuilderError),
}

/// A node's key and certificate, and the CAs that it trusts.
#[derive(Debug)]
pub struct Credentials {
    key: NodeKey,
    chain_pem: String,
    leaf: CertificateDer<'static>,
    trust: Trust,
    certificate: NodeCertificate,
}

impl Credentials {
    /// `certificate_pem`: what the CA issued. `authorities_pem`: one or more CAs to trust, the issuer first; then,
    /// from the first certificate on that is not signed by itself, what is sent along with the own certificate: those
    /// that lead from retired CAs to the trusted ones, and the retired CAs, which are good for renewal only.
    pub fn new(key: NodeKey, certificate_pem: &str, authorities_pem: &str) -> Result<Self, CredentialsError> {
        let joiner = if certificate_pem.ends_with('\n') { "" } else { "\n" };
        Self::from_chain(key, format!("{certificate_pem}{joiner}{authorities_pem}"))
    }

    /// The same certificate with other authorities, as in [`new`](Self::new).
    pub fn with_authorities(&self, authorities_pem: &str) -> Result<Self, CredentialsError> {
        let key = NodeKey::from_pem(&self.key.to_pem()).map_err(CredentialsError::Key)?;
        let own = self.chain_pem.find(PEM_END).map_or(0, |at| at + PEM_END.len());
        Self::new(key, &self.chain_pem[..own], authorities_pem)
    }

    /// Whether these are the authorities that it has.
    pub fn has_authorities(&self, authorities_pem: &str) -> Result<bool, CredentialsError> {
        Ok(Trust::from_pem(authorities_pem)?.all() == self.trust.all())
    }

    /// `chain_pem`: the node's certificate, then the CAs.
    pub(crate) fn from_chain(key: NodeKey, chain_pem: String) -> Result<Self, CredentialsError> {
        let mut chain = CertificateDer::pem_slice_iter(chain_pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| CredentialsError::Pem)?
            .into_iter();
        let leaf = chain.next().ok_or(CredentialsError::Missing { missing: "certificate" })?;
        let trust = Trust::new(chain.collect())?;
        if certificate::parse(&leaf)?.public_key().raw != key.public_key_der() {
            return Err(CredentialsError::KeyMismatch);
        }
        Ok(Self { certificate: NodeCertificate::read(&leaf)?, key, chain_pem, leaf, trust })
    }

    /// The same once more, for a second holder; not `Clone`, so that no copy of a key is made in passing.
    pub fn duplicate(&self) -> Result<Self, CredentialsError> {
        let key = NodeKey::from_pem(&self.key.to_pem()).map_err(CredentialsError::Key)?;
        Self::from_chain(key, self.chain_pem.clone())
    }

    pub fn identity(&self) -> PeerIdentity {
        self.certificate.identity
    }

    pub fn certificate(&self) -> &NodeCertificate {
        &self.certificate
    }

    pub fn key(&self) -> &NodeKey {
        &self.key
    }

    /// When to renew: between 50 % and 80 % of the certificate's life. `spread` in 0..=1 picks the point, so that a
    /// thousand nodes which joined together do not renew together.
    pub fn renew_at(&self, spread: f64) -> Timestamp {
        let start = unix_seconds(self.certificate.not_before) + BACKDATE.as_secs() as i64;
        let lifetime = (unix_seconds(self.certificate.not_after) - start).max(0) as f64;
        let part = 0.5 + 0.3 * spread.clamp(0.0, 1.0);
        from_unix_seconds(start + (lifetime * part) as i64)
    }

    /// How long the certificate is still valid at `now`; zero once it expired.
    pub fn remaining(&self, now: Timestamp) -> Duration {
        let seconds = unix_seconds(self.certificate.not_after) - unix_seconds(now);
        Duration::from_secs(seconds.max(0) as u64)
    }

    pub(crate) fn chain_pem(&self) -> &str {
        &self.chain_pem
    }

    /// The certificate, then the CAs: a joining node finds the CA that its token pins in here.
    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        let mut chain = vec![self.leaf.clone()];
        chain.extend(self.trust.all().iter().cloned());
        chain
    }

    pub(crate) fn trust(&self) -> &Trust {
        &self.trust
    }
}
