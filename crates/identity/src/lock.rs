//! Autolock: a manager's keys in one file that only the cluster's unlock key opens.
//!
//! ```text
//! file = magic [8] · format u16 · locked at u64 · key id [8] · salt [16] · sealed (data key [32] · node key PEM)
//! ```
//! Integers are little-endian. One file for both keys, replaced as a whole: a crash while the unlock key changes never
//! leaves one of them behind the old key and one behind the new. While it is there, it counts, and keys in the clear
//! beside it are what a crash left.

use std::fmt;
use std::str::FromStr;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf;
use ring::rand::{SecureRandom, SystemRandom};
use skep_model::Timestamp;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::base36::{self, DecodeError};
use crate::clock::unix_seconds;
use crate::key::{KeyError, NodeKey};

const PREFIX: &str = "SKEPKEY";
const VERSION: &str = "1";
const CHARACTERS: usize = 50;

const MAGIC: [u8; 8] = *b"SKEPLCK\n";
const FORMAT: u16 = 1;
const HEADER: usize = 8 + 2 + 8 + 8 + 16;
/// Each file has a key of its own, from its salt.
const NONCE: [u8; 12] = [0; 12];

/// What opens locked managers: 256 random bits. Its `Display` is the secret text; its `Debug` is not.
#[derive(Clone, PartialEq, Eq)]
pub struct UnlockKey([u8; 32]);

/// What a manager keeps secret on its own disk.
pub struct ManagerKeys {
    /// What Raft's log and snapshots are encrypted with.
    pub data_key: [u8; 32],
    pub node_key: NodeKey,
}

/// A locked file, read and not opened.
#[derive(Debug, Clone)]
pub struct LockedKeys {
    bytes: Vec<u8>,
    locked_at: Timestamp,
    key_id: [u8; 8],
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnlockKeyError {
    #[error("not an unlock key: expected `SKEPKEY-1-…`, as `skep swarm unlock-key` prints it")]
    NotAKey,
    #[error("this is a Docker Swarm unlock key; skep's begin with `SKEPKEY-1-` (`skep swarm unlock-key`)")]
    DockerKey,
    #[error("unlock key format `{0}` is not known to this version of skep, which reads format 1")]
    Version(String),
    #[error(
        "the unlock key has {found} characters behind its last dash, expected {CHARACTERS}: it was probably cut off when copied"
    )]
    Length { found: usize },
    #[error("the unlock key contains `{0}`; only 0-9 and a-z can occur")]
    Character(char),
    #[error("the unlock key is no possible value: it was probably mistyped")]
    Value,
    #[error("the system's random source failed")]
    Random,
}

#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error(
        "this key does not unlock this manager; it was locked with another one on {locked_at}. If the unlock key was \
         changed while this manager was down, it needs the one from before"
    )]
    WrongKey { locked_at: String },
    #[error("the locked keys are damaged: {detail}")]
    Damaged { detail: &'static str },
    #[error("the locked keys have format {found}; this version of skep reads format {FORMAT}")]
    Format { found: u16 },
    #[error("the node's key in the locked file is not usable")]
    Key(#[from] KeyError),
    #[error("the system's random source failed")]
    Random,
}

impl UnlockKey {
    pub fn generate() -> Result<Self, UnlockKeyError> {
        let mut bytes = [0; 32];
        SystemRandom::new().fill(&mut bytes).map_err(|_| UnlockKeyError::Random)?;
        Ok(Self(bytes))
    }

    /// A public name of the key, to tell a wrong key from a damaged file.
    fn id(&self) -> [u8; 8] {
        self.expand(b"skep unlock key id", &[])
    }

    fn file_key(&self, salt: &[u8]) -> LessSafeKey {
        let key: [u8; 32] = self.expand(b"skep locked keys", salt);
        LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &key).expect("a ChaCha20 key has 32 bytes"))
    }

    fn expand<const N: usize>(&self, label: &[u8], context: &[u8]) -> [u8; N] {
        struct Length(usize);
        impl hkdf::KeyType for Length {
            fn len(&self) -> usize {
                self.0
            }
        }
        let mut out = [0; N];
        hkdf::Salt::new(hkdf::HKDF_SHA256, b"skep autolock")
            .extract(&self.0)
            .expand(&[label, context], Length(N))
            .and_then(|okm| okm.fill(&mut out))
            .expect("HKDF-SHA256 gives up to 8160 bytes");
        out
    }
}

impl ManagerKeys {
    /// The bytes of a file that only `key` opens.
    pub fn lock(&self, key: &UnlockKey, now: Timestamp) -> Result<LockedKeys, LockError> {
        let mut salt = [0; 16];
        SystemRandom::new().fill(&mut salt).map_err(|_| LockError::Random)?;
        let key_id = key.id();
        let mut bytes = MAGIC.to_vec();
        bytes.extend(FORMAT.to_le_bytes());
        bytes.extend(now.0.to_le_bytes());
        bytes.extend(key_id);
        bytes.extend(salt);
        let mut sealed = self.data_key.to_vec();
        sealed.extend(self.node_key.to_pem().as_bytes());
        key.file_key(&salt)
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(NONCE), Aad::from(&bytes), &mut sealed)
            .expect("two keys are far below ChaCha20's 256 GiB");
        bytes.extend(sealed);
        Ok(LockedKeys { bytes, locked_at: now, key_id })
    }
}

impl LockedKeys {
    pub(crate) fn read(bytes: Vec<u8>) -> Result<Self, LockError> {
        let damaged = |detail| LockError::Damaged { detail };
        if bytes.len() < HEADER || bytes[..8] != MAGIC {
            return Err(damaged("the file does not start as one does"));
        }
        let found = u16::from_le_bytes([bytes[8], bytes[9]]);
        if found != FORMAT {
            return Err(LockError::Format { found });
        }
        let locked_at = Timestamp(u64::from_le_bytes(bytes[10..18].try_into().expect("eight bytes")));
        let key_id = bytes[18..26].try_into().expect("eight bytes");
        Ok(Self { bytes, locked_at, key_id })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether `key` is the one that it was locked with.
    pub fn is_locked_with(&self, key: &UnlockKey) -> bool {
        key.id() == self.key_id
    }

    pub fn unlock(&self, key: &UnlockKey) -> Result<ManagerKeys, LockError> {
        if !self.is_locked_with(key) {
            return Err(LockError::WrongKey { locked_at: when(self.locked_at) });
        }
        let (header, sealed) = self.bytes.split_at(HEADER);
        let mut sealed = sealed.to_vec();
        let opened = key
            .file_key(&header[26..])
            .open_in_place(Nonce::assume_unique_for_key(NONCE), Aad::from(header), &mut sealed)
            .map_err(|_| LockError::Damaged { detail: "they do not decrypt, though the key is right" })?;
        let (data_key, pem) =
            opened.split_first_chunk::<32>().ok_or(LockError::Damaged { detail: "they are cut short" })?;
        let pem = str::from_utf8(pem).map_err(|_| LockError::Damaged { detail: "the node's key is not PEM" })?;
        Ok(ManagerKeys { data_key: *data_key, node_key: NodeKey::from_pem(pem)? })
    }
}

fn when(at: Timestamp) -> String {
    let at = OffsetDateTime::from_unix_timestamp(unix_seconds(at)).ok();
    at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_else(|| "an unknown date".to_owned())
}

impl FromStr for UnlockKey {
    type Err = UnlockKeyError;

    fn from_str(text: &str) -> Result<Self, UnlockKeyError> {
        let mut parts = text.trim().splitn(3, '-');
        match parts.next() {
            Some(PREFIX) => {}
            Some("SWMKEY") => return Err(UnlockKeyError::DockerKey),
            _ => return Err(UnlockKeyError::NotAKey),
        }
        match parts.next() {
            Some(VERSION) => {}
            Some(other) => return Err(UnlockKeyError::Version(other.to_owned())),
            None => return Err(UnlockKeyError::NotAKey),
        }
        let digits = parts.next().unwrap_or_default();
        let found = digits.chars().count();
        if found != CHARACTERS {
            return Err(UnlockKeyError::Length { found });
        }
        base36::decode(digits).map(Self).map_err(|error| match error {
            DecodeError::Character(character) => UnlockKeyError::Character(character),
            DecodeError::TooLarge => UnlockKeyError::Value,
        })
    }
}

impl fmt::Display for UnlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}-{VERSION}-{}", base36::encode(&self.0, CHARACTERS))
    }
}

impl fmt::Debug for UnlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UnlockKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printed_key_is_read_back_and_a_damaged_one_says_what_is_wrong() {
        let key = UnlockKey::generate().unwrap();
        let text = key.to_string();
        assert_eq!(format!(" {text}\n").parse::<UnlockKey>(), Ok(key.clone()));
        assert!(!format!("{key:?}").contains(text.rsplit('-').next().unwrap()));
        let parse = |text: &str| text.parse::<UnlockKey>().unwrap_err();
        assert_eq!(parse("hello"), UnlockKeyError::NotAKey);
        assert_eq!(parse("SWMKEY-1-abc"), UnlockKeyError::DockerKey);
        assert_eq!(parse("SKEPKEY-2-a"), UnlockKeyError::Version("2".into()));
        let cut = &text[..text.len() - 1];
        assert_eq!(parse(cut), UnlockKeyError::Length { found: 49 });
        assert_eq!(parse(&format!("{cut}A")), UnlockKeyError::Character('A'));
    }

    #[test]
    fn only_the_key_that_locked_opens_and_only_what_is_whole() {
        let (key, other) = (UnlockKey::generate().unwrap(), UnlockKey::generate().unwrap());
        let keys = ManagerKeys { data_key: [7; 32], node_key: NodeKey::generate().unwrap() };
        let locked = keys.lock(&key, Timestamp(1_700_000_000_000_000_000)).unwrap();
        let read = LockedKeys::read(locked.bytes().to_vec()).unwrap();
        let opened = read.unlock(&key).unwrap();
        assert_eq!(opened.data_key, keys.data_key);
        assert_eq!(opened.node_key.to_pem(), keys.node_key.to_pem());
        let wrong = read.unlock(&other).map(|_| ()).unwrap_err().to_string();
        assert!(wrong.contains("2023-11-14T22:13:20Z") && wrong.contains("from before"), "{wrong}");
        for at in 0..locked.bytes().len() {
            let mut damaged = locked.bytes().to_vec();
            damaged[at] ^= 1;
            let opened = LockedKeys::read(damaged).and_then(|read| read.unlock(&key));
            assert!(opened.is_err(), "byte {at}");
        }
    }
}
