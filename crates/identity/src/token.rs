//! Join tokens: `SKEP-1-<digest of the CA>-<secret>`.
//!
//! The digest lets a joining node trust the right cluster before it sends the secret; the secret lets the cluster
//! trust the node. A token does not say which role it grants: the manager compares the secret with the hashes of its
//! worker token and its manager token.

use std::fmt;
use std::str::FromStr;

use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};

use crate::base36::{self, DecodeError};
use crate::ca::CaDigest;

const PREFIX: &str = "SKEP";
const VERSION: &str = "1";
const DIGEST_CHARACTERS: usize = 50;
const SECRET_CHARACTERS: usize = 25;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinTokenError {
    #[error("not a join token: expected `SKEP-1-…`, as `skep swarm join-token worker` prints it")]
    NotAToken,
    #[error("this is a Docker Swarm token; skep's begin with `SKEP-1-` (`skep swarm join-token worker`)")]
    DockerToken,
    #[error("join token format `{0}` is not known to this version of skep, which reads format 1")]
    Version(String),
    #[error("the join token has {found} parts between dashes, expected 4: it was probably cut off when copied")]
    Parts { found: usize },
    #[error("the join token's {part} has {found} characters, expected {expected}: it was probably cut off when copied")]
    Length { part: &'static str, found: usize, expected: usize },
    #[error("the join token's {part} contains `{character}`; only 0-9 and a-z can occur")]
    Character { part: &'static str, character: char },
    #[error("the join token's {part} is no possible value: it was probably mistyped")]
    Value { part: &'static str },
    #[error("the stored hash of a join token is damaged: expected 64 hexadecimal digits")]
    Hash,
    #[error("the system's random source failed")]
    Random,
}

/// A token that lets a node join. Its `Display` is the secret text; its `Debug` is not.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    ca: CaDigest,
    secret: [u8; 16],
}

/// What the cluster keeps of a token's secret: 32 bytes, as 64 lower-case hexadecimal digits in text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SecretHash([u8; 32]);

impl JoinToken {
    /// A token with a fresh secret of 128 bits.
    pub fn generate(ca: CaDigest) -> Result<Self, JoinTokenError> {
        let mut secret = [0u8; 16];
        SystemRandom::new().fill(&mut secret).map_err(|_| JoinTokenError::Random)?;
        Ok(Self { ca, secret })
    }

    /// The CA that a joining node must find at the other end.
    pub fn ca(&self) -> CaDigest {
        self.ca
    }

    pub fn secret_hash(&self) -> SecretHash {
        let tag = hmac::sign(&hash_key(), &self.secret);
        SecretHash(tag.as_ref().try_into().expect("HMAC-SHA-256 has 32 bytes"))
    }

    /// Whether this is the token whose hash was stored; compared in constant time.
    pub fn matches(&self, stored: &SecretHash) -> bool {
        hmac::verify(&hash_key(), &self.secret, &stored.0).is_ok()
    }
}

/// A fixed key: it separates this hash from other uses, and brings ring's constant-time comparison.
fn hash_key() -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, b"skep join token 1")
}

impl fmt::Display for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for SecretHash {
    type Err = JoinTokenError;

    fn from_str(text: &str) -> Result<Self, JoinTokenError> {
        let mut bytes = [0u8; 32];
        if text.len() != 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(JoinTokenError::Hash);
        }
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let digits = std::str::from_utf8(digits).expect("hexadecimal digits are ASCII");
            *byte = u8::from_str_radix(digits, 16).map_err(|_| JoinTokenError::Hash)?;
        }
        Ok(Self(bytes))
    }
}

impl FromStr for JoinToken {
    type Err = JoinTokenError;

    fn from_str(text: &str) -> Result<Self, JoinTokenError> {
        let parts: Vec<&str> = text.trim().split('-').collect();
        match parts[0] {
            PREFIX => {}
            "SWMTKN" => return Err(JoinTokenError::DockerToken),
            _ => return Err(JoinTokenError::NotAToken),
        }
        match parts.get(1) {
            Some(&VERSION) => {}
            Some(other) => return Err(JoinTokenError::Version((*other).to_owned())),
            None => return Err(JoinTokenError::NotAToken),
        }
        let [_, _, digest, secret] = parts[..] else {
            return Err(JoinTokenError::Parts { found: parts.len() });
        };
        Ok(Self {
            ca: CaDigest(number("digest", digest, DIGEST_CHARACTERS)?),
            secret: number("secret", secret, SECRET_CHARACTERS)?,
        })
    }
}

fn number<const N: usize>(part: &'static str, text: &str, expected: usize) -> Result<[u8; N], JoinTokenError> {
    let found = text.chars().count();
    if found != expected {
        return Err(JoinTokenError::Length { part, found, expected });
    }
    base36::decode(text).map_err(|error| match error {
        DecodeError::Character(character) => JoinTokenError::Character { part, character },
        DecodeError::TooLarge => JoinTokenError::Value { part },
    })
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digest = base36::encode(&self.ca.0, DIGEST_CHARACTERS);
        let secret = base36::encode(&self.secret, SECRET_CHARACTERS);
        write!(f, "{PREFIX}-{VERSION}-{digest}-{secret}")
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken({:?}, ..)", self.ca)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> JoinToken {
        JoinToken::generate(CaDigest([7; 32])).unwrap()
    }

    #[test]
    fn a_printed_token_is_read_back() {
        let token = token();
        let text = format!(" {token}\n");
        assert_eq!(text.parse::<JoinToken>(), Ok(token));
    }

    #[test]
    fn only_the_stored_secret_matches() {
        let token = token();
        let stored = token.secret_hash().to_string();
        assert!(token.matches(&stored.parse().unwrap()));
        assert_eq!("xyz".parse::<SecretHash>(), Err(JoinTokenError::Hash));
        assert!(!token.matches(&self::token().secret_hash()));
    }

    #[test]
    fn debug_does_not_show_the_secret() {
        let token = token();
        let text = token.to_string();
        let secret = text.rsplit('-').next().unwrap();
        assert!(!format!("{token:?}").contains(secret));
    }

    #[test]
    fn a_damaged_token_says_what_is_wrong() {
        let text = token().to_string();
        let parse = |text: &str| text.parse::<JoinToken>().unwrap_err();
        assert_eq!(parse("hello"), JoinTokenError::NotAToken);
        assert_eq!(parse("SKEP"), JoinTokenError::NotAToken);
        assert_eq!(parse("SWMTKN-1-a-b"), JoinTokenError::DockerToken);
        assert_eq!(parse("SKEP-2-a-b"), JoinTokenError::Version("2".into()));
        assert_eq!(parse("SKEP-1-abc"), JoinTokenError::Parts { found: 3 });
        let cut = &text[..text.len() - 1];
        assert_eq!(parse(cut), JoinTokenError::Length { part: "secret", found: 24, expected: 25 });
        assert_eq!(parse(&format!("{cut}A")), JoinTokenError::Character { part: "secret", character: 'A' });
    }
}
