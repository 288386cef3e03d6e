//! Object ids: 25 characters of base 36, as SwarmKit writes them, held as 128 random bits.
//!
//! An id's type names the kind of object that it belongs to, so that a service id cannot be passed
//! for a task id.
//! Ids are drawn from an [`IdSource`] that the caller seeds; this crate knows no randomness.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Digits of an id's text: 36^25 is the first power of 36 above 2^128.
const DIGITS: usize = 25;

/// The id of an object of kind `K`.
pub struct Id<K>(u128, PhantomData<fn() -> K>);

pub type NodeId = Id<kind::Node>;
pub type ServiceId = Id<kind::Service>;
pub type TaskId = Id<kind::Task>;
pub type NetworkId = Id<kind::Network>;
pub type SecretId = Id<kind::Secret>;
pub type ConfigId = Id<kind::Config>;
pub type StackId = Id<kind::Stack>;
pub type ClusterId = Id<kind::Cluster>;

/// Markers for [`Id`]; they have no values.
pub mod kind {
    #[derive(Debug)]
    pub enum Node {}
    #[derive(Debug)]
    pub enum Service {}
    #[derive(Debug)]
    pub enum Task {}
    #[derive(Debug)]
    pub enum Network {}
    #[derive(Debug)]
    pub enum Secret {}
    #[derive(Debug)]
    pub enum Config {}
    #[derive(Debug)]
    pub enum Stack {}
    #[derive(Debug)]
    pub enum Cluster {}
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an id: expected 25 characters of 0-9 and a-z")]
pub struct ParseIdError(String);

impl<K> Id<K> {
    pub const fn from_u128(bits: u128) -> Self {
        Self(bits, PhantomData)
    }

    pub const fn as_u128(self) -> u128 {
        self.0
    }

    /// The first 12 characters, as the command line shows an id without `--no-trunc`.
    pub fn short(&self) -> String {
        self.to_string()[..12].to_owned()
    }
}

/// A stream of ids that look random and are determined by their seed (splitmix64, twice an id).
///
/// The leader seeds one from the operating system; simulations and tests from a number.
#[derive(Debug, Clone)]
pub struct IdSource(u64, u64);

impl IdSource {
    pub fn from_seed(seed: u128) -> Self {
        Self(seed as u64, (seed >> 64) as u64)
    }

    pub fn next_id<K>(&mut self) -> Id<K> {
        let high = splitmix(&mut self.0);
        let low = splitmix(&mut self.1);
        Id::from_u128((u128::from(high) << 64) | u128::from(low ^ high.rotate_left(17)))
    }

    /// A number in `0..bound`, for jitter and for ports; `bound` must not be zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "a range must hold at least one number");
        splitmix(&mut self.0) % bound
    }
}

fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl<K> fmt::Display for Id<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [b'0'; DIGITS];
        let mut rest = self.0;
        for digit in text.iter_mut().rev() {
            *digit = b"0123456789abcdefghijklmnopqrstuvwxyz"[(rest % 36) as usize];
            rest /= 36;
        }
        f.write_str(std::str::from_utf8(&text).expect("base 36 digits are ASCII"))
    }
}

impl<K> FromStr for Id<K> {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let refuse = || ParseIdError(text.to_owned());
        if text.len() != DIGITS {
            return Err(refuse());
        }
        let mut bits = 0u128;
        for byte in text.bytes() {
            let digit = match byte {
                b'0'..=b'9' => byte - b'0',
                b'a'..=b'z' => byte - b'a' + 10,
                _ => return Err(refuse()),
            };
            bits = bits.checked_mul(36).and_then(|b| b.checked_add(u128::from(digit))).ok_or_else(refuse)?;
        }
        Ok(Self::from_u128(bits))
    }
}

impl<K> Clone for Id<K> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<K> Copy for Id<K> {}
impl<K> PartialEq for Id<K> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl<K> Eq for Id<K> {}
impl<K> PartialOrd for Id<K> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<K> Ord for Id<K> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}
impl<K> std::hash::Hash for Id<K> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}
impl<K> fmt::Debug for Id<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl<K> Serialize for Id<K> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
impl<'de, K> Deserialize<'de> for Id<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn text_and_bits_are_the_same_id(bits: u128) {
            let id = ServiceId::from_u128(bits);
            prop_assert_eq!(id.to_string().len(), 25);
            prop_assert_eq!(id.to_string().parse::<ServiceId>(), Ok(id));
        }
    }

    #[test]
    fn text_above_the_largest_id_is_refused() {
        assert!("zzzzzzzzzzzzzzzzzzzzzzzzz".parse::<TaskId>().is_err());
        assert!("short".parse::<TaskId>().is_err());
        assert!("0000000000000000000000-00".parse::<TaskId>().is_err());
    }

    #[test]
    fn the_same_seed_draws_the_same_ids() {
        let (mut a, mut b) = (IdSource::from_seed(7), IdSource::from_seed(7));
        let drawn: Vec<TaskId> = (0..100).map(|_| a.next_id()).collect();
        assert_eq!(drawn, (0..100).map(|_| b.next_id()).collect::<Vec<TaskId>>());
        let distinct: std::collections::BTreeSet<_> = drawn.iter().collect();
        assert_eq!(distinct.len(), 100);
    }
}
