//! The CAs that a node knows, as one list of certificates.
//!
//! ```text
//!  the issuer's root, older roots still trusted │ cross certificates, newest first │ retired roots, newest first
//!  ── trusted ──────────────────────────────────┴─ only sent along ────────────────┴─ good for renewal only ────
//! ```
//! One list and not three, so that it is one file, replaced as a whole. What it is, each certificate says itself: a
//! root is signed by itself, a cross certificate is not, and whatever follows the first of those is not trusted.

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::certificate;
use crate::credentials::CredentialsError;

#[derive(Debug, Clone, Default)]
pub(crate) struct Trust {
    all: Vec<CertificateDer<'static>>,
    trusted: usize,
}

impl Trust {
    pub fn new(all: Vec<CertificateDer<'static>>) -> Result<Self, CredentialsError> {
        let mut trusted = 0;
        for certificate in &all {
            if !certificate::is_root(certificate)? {
                break;
            }
            trusted += 1;
        }
        match trusted {
            0 => Err(CredentialsError::Missing { missing: "CA certificate" }),
            trusted => Ok(Self { all, trusted }),
        }
    }

    pub fn from_pem(pem: &str) -> Result<Self, CredentialsError> {
        let all = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
        Self::new(all.map_err(|_| CredentialsError::Pem)?)
    }

    pub fn all(&self) -> &[CertificateDer<'static>] {
        &self.all
    }

    pub fn trusted(&self) -> Result<RootCertStore, CredentialsError> {
        store(self.all[..self.trusted].iter())
    }

    /// None while no CA was retired.
    pub fn retired(&self) -> Result<Option<RootCertStore>, CredentialsError> {
        let roots = |certificate: &&CertificateDer<'static>| certificate::is_root(certificate).unwrap_or(false);
        let retired = store(self.all[self.trusted..].iter().filter(roots))?;
        Ok((!retired.is_empty()).then_some(retired))
    }
}

fn store<'a>(roots: impl Iterator<Item = &'a CertificateDer<'static>>) -> Result<RootCertStore, CredentialsError> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone()).map_err(CredentialsError::Authority)?;
    }
    Ok(store)
}
