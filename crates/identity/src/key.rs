//! A node's private key: ECDSA P-256, made on the node, used for its whole membership.

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls::pki_types::PrivateKeyDer;

use crate::seal::SealingKey;

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("failed to make a private key")]
    Generate(#[source] rcgen::Error),
    #[error("the node's private key is not readable: expected an ECDSA P-256 key as PKCS#8 PEM")]
    Parse(#[source] rcgen::Error),
    #[error("failed to write a certificate request")]
    Request(#[source] rcgen::Error),
}

/// A node's private key.
pub struct NodeKey {
    pair: KeyPair,
}

impl NodeKey {
    pub fn generate() -> Result<Self, KeyError> {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(KeyError::Generate)?;
        Ok(Self { pair })
    }

    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        let pair = KeyPair::from_pem_and_sign_algo(pem, &PKCS_ECDSA_P256_SHA256).map_err(KeyError::Parse)?;
        Ok(Self { pair })
    }

    /// PKCS#8 as PEM. Only for the node's own disk.
    pub fn to_pem(&self) -> String {
        self.pair.serialize_pem()
    }

    /// A certificate signing request (PKCS#10, DER) that proves possession of the key and asks for nothing else:
    /// the CA alone decides the subject.
    pub fn request(&self) -> Result<Vec<u8>, KeyError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let request = params.serialize_request(&self.pair).map_err(KeyError::Request)?;
        Ok(request.der().to_vec())
    }

    /// A key for files of this node, a different one for each `purpose`.
    pub fn sealing_key(&self, purpose: &'static str) -> SealingKey {
        SealingKey::new(self, purpose)
    }

    pub(crate) fn pkcs8(&self) -> Vec<u8> {
        self.pair.serialize_der()
    }

    pub(crate) fn public_key_der(&self) -> Vec<u8> {
        self.pair.subject_public_key_info()
    }

    pub(crate) fn to_rustls(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.pkcs8().into())
    }
}

impl std::fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NodeKey(..)")
    }
}
