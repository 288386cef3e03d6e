//! Encryption of a node's own files, with keys that follow from the node's private key.
//!
//! A sealed file can be read only where the node's key is: a stolen backup of the other folders, or a disk of which the
//! identity folder was wiped, tells nothing.
//! Each sealing takes a key of its own (HKDF-SHA256 with a random salt), so that no nonce is ever used twice.

use std::fmt;

use ring::aead::{self, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf;
use ring::rand::{SecureRandom, SystemRandom};

use crate::key::NodeKey;

const SALT_LEN: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    #[error("the kernel's random generator failed")]
    NoRandomness,
    #[error("it was written with another key, or is damaged")]
    NotAuthentic,
}

/// Seals and opens one kind of file of one node.
#[derive(Clone)]
pub struct SealingKey {
    secret: hkdf::Prk,
    purpose: &'static str,
}

impl SealingKey {
    pub(crate) fn new(key: &NodeKey, purpose: &'static str) -> Self {
        let secret = hkdf::Salt::new(hkdf::HKDF_SHA256, b"skep node file").extract(&key.pkcs8());
        Self { secret, purpose }
    }

    /// Encrypts `message`; `context` is not part of the result and must be the same to open it.
    pub fn seal(&self, context: &[u8], message: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut salt = [0; SALT_LEN];
        SystemRandom::new().fill(&mut salt).map_err(|_| SealError::NoRandomness)?;
        let mut sealed = message.to_vec();
        let tag = self
            .file_key(&salt)
            .seal_in_place_separate_tag(only_nonce(), aead::Aad::from(context), &mut sealed)
            .expect("a file is far below ChaCha20's 256 GiB");
        sealed.extend_from_slice(tag.as_ref());
        Ok([&salt[..], &sealed].concat())
    }

    /// What [`seal`](Self::seal) was given.
    pub fn open(&self, context: &[u8], sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let (salt, sealed) = sealed.split_at_checked(SALT_LEN).ok_or(SealError::NotAuthentic)?;
        let mut message = sealed.to_vec();
        let length = self
            .file_key(salt)
            .open_in_place(only_nonce(), aead::Aad::from(context), &mut message)
            .map_err(|_| SealError::NotAuthentic)?
            .len();
        message.truncate(length);
        Ok(message)
    }

    fn file_key(&self, salt: &[u8]) -> LessSafeKey {
        let mut key = [0; 32];
        self.secret
            .expand(&[self.purpose.as_bytes(), b" ", salt], hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut key))
            .expect("HKDF-SHA256 gives 32 bytes at once");
        LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &key).expect("a ChaCha20 key has 32 bytes"))
    }
}

/// Each key seals one message.
fn only_nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealingKey({})", self.purpose)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_key_purpose_and_context_open_a_file() {
        let node = NodeKey::generate().unwrap();
        let key = node.sealing_key("assignments");
        let sealed = key.seal(b"1", b"hush").unwrap();
        assert!(!sealed.windows(4).any(|window| window == b"hush"));
        assert_ne!(sealed, key.seal(b"1", b"hush").unwrap(), "no two files share a key");
        let reloaded = NodeKey::from_pem(&node.to_pem()).unwrap().sealing_key("assignments");
        assert_eq!(reloaded.open(b"1", &sealed).as_deref(), Ok(&b"hush"[..]));

        let refused = Err(SealError::NotAuthentic);
        assert_eq!(key.open(b"2", &sealed), refused);
        assert_eq!(node.sealing_key("other").open(b"1", &sealed), refused);
        assert_eq!(NodeKey::generate().unwrap().sealing_key("assignments").open(b"1", &sealed), refused);
        assert_eq!(key.open(b"1", &sealed[..sealed.len() - 1]), refused);
        assert_eq!(key.open(b"1", b""), refused);
    }
}
