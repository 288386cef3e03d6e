//! A root that a cluster is given in the place of one of its own making: looked at for everything that nodes will ask
//! of it, before it signs anything. Two proofs end the look: what it signs is believed by who knows it, and by who
//! knows the present CA alone.

use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use skep_model::{NodeId, Role, Timestamp};
use x509_parser::prelude::X509Certificate;

use crate::ca::{CaError, ClusterCa, ROTATIONS_KEPT};
use crate::certificate::{self, CertificateError};
use crate::clock::{date_text, from_unix_seconds, to_unix_time, unix_seconds};
use crate::key::NodeKey;
use crate::tls::crypto;

/// Why a root is not taken; for whoever brings it.
#[derive(Debug, thiserror::Error)]
pub enum GivenCaError {
    #[error("the CA certificate is not PEM: expected one block `BEGIN CERTIFICATE`")]
    NotPem,
    #[error("there are {count} certificates: give the root alone")]
    Several { count: usize },
    #[error("the CA certificate cannot be used")]
    Certificate(#[from] CertificateError),
    #[error("the CA certificate is no root: it is signed by another (`{issuer}`); nodes trust roots only")]
    NoRoot { issuer: String },
    #[error("the CA certificate may not sign others: it lacks `CA:TRUE` among its basic constraints")]
    NoAuthority,
    #[error("the CA certificate's key usage lacks the signing of certificates (keyCertSign)")]
    NoSigning,
    #[error(
        "the CA certificate allows {allowed} CAs below it (pathlen), and the rotations that a node may miss need \
         {ROTATIONS_KEPT}; leave pathlen out"
    )]
    ShortPath { allowed: u32 },
    #[error("the CA certificate expired on {}", date_text(*.0))]
    Expired(Timestamp),
    #[error("the CA certificate is valid from {} on", date_text(*.0))]
    NotYet(Timestamp),
    #[error(
        "the CA key is not one that skep signs with: expected ECDSA P-256 or P-384, Ed25519, or RSA of 2048 bits or more, \
         unencrypted, in a PEM block `BEGIN PRIVATE KEY`; `openssl pkcs8 -topk8 -nocrypt -in KEY` makes one of other blocks"
    )]
    Key,
    #[error("the CA key does not belong to the CA certificate")]
    KeyMismatch,
    #[error(
        "the CA certificate has the name (`{name}`) of one that this cluster has or had; nodes tell CAs by their names"
    )]
    NameTaken { name: String },
    #[error("what this CA signs would not be believed")]
    NotBelieved(#[source] rustls::Error),
    #[error("who knows only the present CA would not believe what this one signs")]
    NotFollowed(#[source] rustls::Error),
    #[error("failed to sign with the CA")]
    Sign(#[source] CaError),
}

/// How long what is signed as a proof is valid.
const PROOF: Duration = Duration::from_secs(3600);

/// The root of these files, for the cluster whose present CA is `present` and which knows the CAs `known` (PEM) too.
pub fn adopt(
    (certificate_pem, key_pem): (&str, &str),
    present: &ClusterCa,
    known: &[String],
    now: Timestamp,
) -> Result<ClusterCa, GivenCaError> {
    let all = CertificateDer::pem_slice_iter(certificate_pem.as_bytes()).collect::<Result<Vec<_>, _>>();
    let all = all.map_err(|_| GivenCaError::NotPem)?;
    let root = match all.as_slice() {
        [] => return Err(GivenCaError::NotPem),
        [root] => root,
        several => return Err(GivenCaError::Several { count: several.len() }),
    };
    let parsed = certificate::parse(root)?;
    check(&parsed, now)?;
    // Written again in each certificate that names its issuer.
    certificate::name_of(parsed.subject())?;
    let known =
        known.iter().map(|pem| CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| GivenCaError::NotPem));
    for other in known.chain([Ok(present.certificate().clone())]) {
        if certificate::parse(&other?)?.subject().as_raw() == parsed.subject().as_raw() {
            return Err(GivenCaError::NameTaken { name: parsed.subject().to_string() });
        }
    }
    PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|_| GivenCaError::Key)?;
    let ca = match ClusterCa::from_pem(present.cluster_id(), certificate_pem, key_pem) {
        Ok(ca) => ca,
        Err(CaError::KeyMismatch) => return Err(GivenCaError::KeyMismatch),
        Err(CaError::Parse(_)) => return Err(GivenCaError::Key),
        Err(error) => return Err(GivenCaError::Sign(error)),
    };
    prove(&ca, present, now)?;
    Ok(ca)
}

fn check(root: &X509Certificate<'_>, now: Timestamp) -> Result<(), GivenCaError> {
    if root.subject().as_raw() != root.issuer().as_raw() {
        return Err(GivenCaError::NoRoot { issuer: root.issuer().to_string() });
    }
    let constraints = root.basic_constraints().ok().flatten().map(|found| found.value);
    let constraints = constraints.filter(|found| found.ca).ok_or(GivenCaError::NoAuthority)?;
    if let Some(allowed) = constraints.path_len_constraint.filter(|allowed| (*allowed as usize) < ROTATIONS_KEPT) {
        return Err(GivenCaError::ShortPath { allowed });
    }
    if root.key_usage().ok().flatten().is_some_and(|usage| !usage.value.key_cert_sign()) {
        return Err(GivenCaError::NoSigning);
    }
    let (start, end) = (root.validity().not_before.timestamp(), root.validity().not_after.timestamp());
    match unix_seconds(now) {
        second if second > end => Err(GivenCaError::Expired(from_unix_seconds(end))),
        second if second < start => Err(GivenCaError::NotYet(from_unix_seconds(start))),
        _ => Ok(()),
    }
}

fn prove(ca: &ClusterCa, present: &ClusterCa, now: Timestamp) -> Result<(), GivenCaError> {
    let request = NodeKey::generate().and_then(|key| key.request()).map_err(|_| GivenCaError::Sign(CaError::Random))?;
    let leaf = ca.issue(&request, NodeId::from_u128(0), Role::Worker, now, PROOF).map_err(GivenCaError::Sign)?;
    let cross = present.cross_sign(ca, now).map_err(GivenCaError::Sign)?;
    let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).expect("it was written as PEM just now");
    let (leaf, cross) = (der(&leaf), der(&cross));
    believe(ca.certificate(), &leaf, &[], now).map_err(GivenCaError::NotBelieved)?;
    believe(present.certificate(), &leaf, &[cross], now).map_err(GivenCaError::NotFollowed)
}

fn believe(
    root: &CertificateDer<'static>,
    leaf: &CertificateDer<'_>,
    between: &[CertificateDer<'_>],
    now: Timestamp,
) -> Result<(), rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone())?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), crypto()).build();
    let verifier = verifier.map_err(|error| rustls::Error::General(error.to_string()))?;
    verifier.verify_client_cert(leaf, between, to_unix_time(unix_seconds(now))).map(|_| ())
}
