//! The cluster's certificate authority: one self-signed root, which signs node certificates itself.
//!
//! A rotation makes a new root, and a certificate of it that the old root signed (a *cross certificate*): who knows
//! only the old root can follow it to the new one.
//!
//! Lives on managers only; its key is kept in the replicated store, never in a file of its own.
//! Deciding *who* gets a certificate (join tokens, roles) is the manager's; this only signs.

use std::fmt;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType,
    SerialNumber,
};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};
use sha2::{Digest, Sha256};
use skep_model::{ClusterId, NodeId, Role, Timestamp};
use time::OffsetDateTime;

use crate::certificate::{self, CertificateError};
use crate::clock::unix_seconds;

/// The one name in every node certificate. TLS wants a name to check; identity is in the subject.
pub(crate) const SERVER_NAME: &str = "skep";

/// How many rotations a node may miss: so many cross certificates are kept, and may stand in a chain.
pub const ROTATIONS_KEPT: usize = 5;

const COMMON_NAME: &str = "skep-ca";
const ROOT_LIFETIME: Duration = Duration::from_secs(20 * 365 * 24 * 3600);
/// Clocks that run behind by up to this still accept a fresh certificate.
pub(crate) const BACKDATE: Duration = Duration::from_secs(3600);

#[derive(Debug, thiserror::Error)]
pub enum CaError {
    #[error("failed to make the cluster's root certificate")]
    CreateRoot(#[source] rcgen::Error),
    #[error("the cluster's CA is not readable: expected a certificate and its key as PEM")]
    Parse(#[source] rcgen::Error),
    #[error("the cluster's CA certificate is not readable")]
    ParseCertificate(#[from] CertificateError),
    #[error("the cluster's CA certificate is not PEM")]
    ParsePem,
    #[error("the CA key does not belong to the CA certificate")]
    KeyMismatch,
    #[error("the certificate request is not readable, or is not signed by its own key")]
    Request(#[source] rcgen::Error),
    #[error("the certificate request's key is not ECDSA P-256")]
    RequestAlgorithm,
    #[error("failed to sign the certificate of node {node}")]
    Sign {
        node: NodeId,
        #[source]
        source: rcgen::Error,
    },
    #[error("the new CA belongs to another cluster")]
    OtherCluster,
    #[error("failed to sign the new CA's certificate")]
    Cross(#[source] rcgen::Error),
    #[error("the system's random source failed")]
    Random,
    #[error("the time {seconds} s after 1970 cannot stand in a certificate")]
    Time { seconds: i64 },
}

/// SHA-256 over the CA certificate's DER: what a join token pins.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CaDigest(pub [u8; 32]);

impl CaDigest {
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        Self(Sha256::digest(certificate).into())
    }

    /// Of the first certificate in `pem`.
    pub fn of_pem(pem: &str) -> Result<Self, CaError> {
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| CaError::ParsePem)?;
        Ok(Self::of(&certificate))
    }
}

/// 64 lower-case hexadecimal digits.
impl fmt::Display for CaDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for CaDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CaDigest({})", crate::base36::encode(&self.0, 50))
    }
}

/// The root certificate and its key.
pub struct ClusterCa {
    cluster_id: ClusterId,
    certificate: CertificateDer<'static>,
    certificate_pem: String,
    not_after_seconds: i64,
    issuer: Issuer<'static, KeyPair>,
}

impl ClusterCa {
    /// A new root for a new cluster: valid for 20 years from one hour before `now`.
    pub fn create(cluster_id: ClusterId, now: Timestamp) -> Result<Self, CaError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(CaError::CreateRoot)?;
        // Roots of one cluster are told apart by name: a chain is looked up by the names in it.
        let serial = random_serial()?;
        let name = format!("{COMMON_NAME} {}", &crate::base36::encode(&random_bytes::<8>()?, 13));
        let mut subject = DistinguishedName::new();
        subject.push(DnType::OrganizationName, cluster_id.to_string());
        subject.push(DnType::CommonName, name);
        let mut params = ca_params(subject, serial);
        (params.not_before, params.not_after) = validity(now, ROOT_LIFETIME)?;
        let certificate = params.self_signed(&key).map_err(CaError::CreateRoot)?;
        Self::from_pem(cluster_id, &certificate.pem(), &key.serialize_pem())
    }

    /// `next`'s certificate (PEM) with this CA's signature: who trusts this CA trusts `next` with it.
    pub fn cross_sign(&self, next: &ClusterCa, now: Timestamp) -> Result<String, CaError> {
        if next.cluster_id != self.cluster_id {
            return Err(CaError::OtherCluster);
        }
        let parsed = certificate::parse(&next.certificate)?;
        let mut params = ca_params(certificate::name_of(parsed.subject())?, random_serial()?);
        (params.not_before, params.not_after) = validity(now, ROOT_LIFETIME)?;
        params.not_after = params.not_after.min(date(next.not_after_seconds)?);
        let certificate = params.signed_by(next.issuer.key(), &self.issuer).map_err(CaError::Cross)?;
        Ok(certificate.pem())
    }

    /// Of the cluster, what [`certificate_pem`](Self::certificate_pem) and [`key_pem`](Self::key_pem) gave.
    pub fn from_pem(cluster_id: ClusterId, certificate_pem: &str, key_pem: &str) -> Result<Self, CaError> {
        let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes()).map_err(|_| CaError::ParsePem)?;
        let key = KeyPair::from_pem(key_pem).map_err(CaError::Parse)?;
        let not_after_seconds = {
            let parsed = certificate::parse(&certificate)?;
            if parsed.public_key().raw != key.subject_public_key_info() {
                return Err(CaError::KeyMismatch);
            }
            parsed.validity().not_after.timestamp()
        };
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(CaError::Parse)?;
        Ok(Self { cluster_id, certificate_pem: certificate_pem.to_owned(), certificate, not_after_seconds, issuer })
    }

    /// A certificate (PEM) for the key in `request` (PKCS#10, DER): valid for `lifetime` from `now` on, and from one hour
    /// before it for clocks that are behind; never longer than the CA. What the request says about its subject is ignored.
    pub fn issue(
        &self,
        request: &[u8],
        node_id: NodeId,
        role: Role,
        now: Timestamp,
        lifetime: Duration,
    ) -> Result<String, CaError> {
        let mut request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(request))
            .map_err(CaError::Request)?;
        if request.public_key.algorithm() != &PKCS_ECDSA_P256_SHA256 {
            return Err(CaError::RequestAlgorithm);
        }
        request.params = self.node_params(node_id, role, now, lifetime)?;
        let certificate = request.signed_by(&self.issuer).map_err(|source| CaError::Sign { node: node_id, source })?;
        Ok(certificate.pem())
    }

    fn node_params(
        &self,
        node_id: NodeId,
        role: Role,
        now: Timestamp,
        lifetime: Duration,
    ) -> Result<CertificateParams, CaError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let subject = [
            (DnType::OrganizationName, self.cluster_id.to_string()),
            (DnType::OrganizationalUnitName, certificate::unit_of(role).to_owned()),
            (DnType::CommonName, node_id.to_string()),
        ];
        for (kind, value) in subject {
            params.distinguished_name.push(kind, value);
        }
        params.subject_alt_names =
            vec![SanType::DnsName(SERVER_NAME.try_into().expect("the fixed server name is ASCII"))];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(random_serial()?);
        (params.not_before, params.not_after) = validity(now, lifetime)?;
        params.not_after = params.not_after.min(date(self.not_after_seconds)?);
        Ok(params)
    }

    pub fn cluster_id(&self) -> ClusterId {
        self.cluster_id
    }

    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The private key, PKCS#8 PEM. Only for the encrypted store.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    pub fn digest(&self) -> CaDigest {
        CaDigest::of(&self.certificate)
    }
}

fn ca_params(subject: DistinguishedName, serial: SerialNumber) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = subject;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(ROTATIONS_KEPT as u8));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.serial_number = Some(serial);
    params
}

impl fmt::Debug for ClusterCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterCa")
            .field("cluster_id", &self.cluster_id)
            .field("digest", &self.digest())
            .finish_non_exhaustive()
    }
}

fn validity(now: Timestamp, lifetime: Duration) -> Result<(OffsetDateTime, OffsetDateTime), CaError> {
    let now = unix_seconds(now);
    Ok((date(now - BACKDATE.as_secs() as i64)?, date(now + lifetime.as_secs() as i64)?))
}

fn date(seconds: i64) -> Result<OffsetDateTime, CaError> {
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| CaError::Time { seconds })
}

/// 127 random bits: a positive number, as RFC 5280 §4.1.2.2 wants it.
fn random_serial() -> Result<SerialNumber, CaError> {
    let mut bytes = random_bytes::<16>()?;
    bytes[0] &= 0x7f;
    Ok(SerialNumber::from_slice(&bytes))
}

fn random_bytes<const N: usize>() -> Result<[u8; N], CaError> {
    let mut bytes = [0u8; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| CaError::Random)?;
    Ok(bytes)
}
