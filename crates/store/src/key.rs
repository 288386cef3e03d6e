//! The data key that everything on disk is encrypted with, and the keys derived from it.
//!
//! One random 32-byte key per manager. It never encrypts anything itself: each log segment and each
//! snapshot file gets a key of its own by HKDF-SHA256, so that no two files share a nonce space.
//! Where the data key is kept, and whether it is wrapped (autolock), is the identity's business.

use std::fmt;

use ring::aead::{self, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf;
use ring::rand::{SecureRandom, SystemRandom};

/// Bytes that sealing adds to a message.
pub(crate) const TAG_LEN: usize = 16;

/// A manager's key for its files: 32 random bytes.
#[derive(Clone)]
pub struct DataKey([u8; 32]);

/// The kernel gave no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("the kernel's random generator failed")]
pub struct NoRandomness;

/// What a derived key is for; a domain of its own in the derivation.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Purpose {
    /// A log segment, by its sequence number.
    Segment(u64),
    /// A snapshot file, by the random salt in its header.
    Snapshot([u8; 16]),
    /// A backup, by the random salt in its header.
    Backup([u8; 16]),
}

/// A derived key: seals and opens the messages of one file.
pub(crate) struct FileKey {
    key: LessSafeKey,
    /// Seeds the checksums of one segment, so that bytes which a recycled file still holds from an
    /// earlier segment never pass for records of this one.
    pub(crate) salt: u32,
}

/// A message did not open: altered, or sealed with another key or context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("does not decrypt")]
pub(crate) struct NotAuthentic;

struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

impl DataKey {
    /// A fresh key from the kernel's random generator.
    pub fn generate() -> Result<DataKey, NoRandomness> {
        let mut bytes = [0; 32];
        fill_random(&mut bytes)?;
        Ok(DataKey(bytes))
    }

    /// The key from its stored bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> DataKey {
        DataKey(bytes)
    }

    /// The bytes, for the one who stores the key.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// A public name of the key, written into each file, to tell a wrong key from a damaged file.
    pub fn id(&self) -> [u8; 8] {
        let mut id = [0; 8];
        self.expand(&[b"skep key id"], &mut id);
        id
    }

    pub(crate) fn derive(&self, purpose: Purpose) -> FileKey {
        let (label, context): (&[u8], Vec<u8>) = match purpose {
            Purpose::Segment(seq) => (b"skep log segment", seq.to_le_bytes().to_vec()),
            Purpose::Snapshot(salt) => (b"skep snapshot", salt.to_vec()),
            Purpose::Backup(salt) => (b"skep backup", salt.to_vec()),
        };
        let mut key = [0; 32];
        self.expand(&[label, b" key ", &context], &mut key);
        let mut salt = [0; 4];
        self.expand(&[label, b" salt ", &context], &mut salt);
        let key = UnboundKey::new(&CHACHA20_POLY1305, &key).expect("a ChaCha20 key has 32 bytes");
        FileKey { key: LessSafeKey::new(key), salt: u32::from_le_bytes(salt) }
    }

    fn expand(&self, info: &[&[u8]], out: &mut [u8]) {
        hkdf::Salt::new(hkdf::HKDF_SHA256, b"skep at rest")
            .extract(&self.0)
            .expand(info, Length(out.len()))
            .and_then(|okm| okm.fill(out))
            .expect("HKDF-SHA256 gives up to 8160 bytes");
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey(..)")
    }
}

impl FileKey {
    /// Encrypts `message` in place and appends the tag.
    pub(crate) fn seal(&self, nonce: [u8; NONCE_LEN], aad: &[u8], message: &mut Vec<u8>, from: usize) {
        let tag = self
            .key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), aead::Aad::from(aad), &mut message[from..])
            .expect("a message is far below ChaCha20's 256 GiB");
        message.extend_from_slice(tag.as_ref());
    }

    /// Decrypts `sealed` (message and tag) in place and returns the message.
    pub(crate) fn open<'a>(
        &self,
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        sealed: &'a mut [u8],
    ) -> Result<&'a mut [u8], NotAuthentic> {
        self.key
            .open_in_place(Nonce::assume_unique_for_key(nonce), aead::Aad::from(aad), sealed)
            .map_err(|_| NotAuthentic)
    }
}

/// Random bytes from the kernel.
pub(crate) fn fill_random(bytes: &mut [u8]) -> Result<(), NoRandomness> {
    SystemRandom::new().fill(bytes).map_err(|_| NoRandomness)
}

/// Key ids in messages: 16 hexadecimal digits.
pub(crate) fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}
