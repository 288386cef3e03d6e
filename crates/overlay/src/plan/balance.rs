//! Which backend a connection leads to, where a service asks for more than any of them.
//!
//! A client that is to stay with its backend is told by its address: that chooses one of [`SLOTS`], and each slot
//! belongs to the backend that draws the highest number for it. So all nodes choose alike without a word between them,
//! and a backend that comes or goes moves its own share of the clients and nobody else's.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::digest;

/// How many parts clients are divided into: enough that ten backends have shares of about the same size, few enough that
/// an address costs no more than some kilobytes of the kernel's memory.
pub const SLOTS: u32 = 256;

/// What a service asks of the choice of its backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Balance {
    pub choice: Choice,
    /// This node's own backends are taken alone, as long as one of them serves.
    pub local_first: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Choice {
    #[default]
    Random,
    /// All connections of one address lead to one backend.
    ByClient,
}

/// Where connections lead. Nobody there: they are rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Led<T> {
    pub choice: Choice,
    pub to: Vec<T>,
}

impl<T: Drawn> Led<T> {
    /// The backends by slot; one slot each where chance chooses.
    pub fn slots(&self) -> Vec<&T> {
        match self.choice {
            Choice::Random => self.to.iter().collect(),
            Choice::ByClient => (0..SLOTS).filter_map(|slot| drawn(&self.to, &slot.to_be_bytes())).collect(),
        }
    }
}

/// What can draw a number for a slot.
pub trait Drawn {
    /// The same on every node.
    fn bytes(&self) -> Vec<u8>;
}

impl Drawn for IpAddr {
    fn bytes(&self) -> Vec<u8> {
        match self {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        }
    }
}

impl Drawn for SocketAddr {
    fn bytes(&self) -> Vec<u8> {
        self.ip().bytes()
    }
}

/// The one that draws the highest number for `key`.
pub fn drawn<'a, T: Drawn>(backends: &'a [T], key: &[u8]) -> Option<&'a T> {
    backends.iter().max_by_key(|backend| digest(&[key, &backend.bytes()].concat()))
}

impl Balance {
    /// Those of `backends` that connections on this node lead to; `here` are its own containers.
    pub(super) fn chosen(self, backends: impl Iterator<Item = Ipv4Addr>, here: &BTreeSet<Ipv4Addr>) -> Vec<Ipv4Addr> {
        let all: BTreeSet<_> = backends.collect();
        let local: Vec<_> = all.intersection(here).copied().collect();
        if self.local_first && !local.is_empty() { local } else { all.into_iter().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn led(last: impl Iterator<Item = u8>) -> Led<IpAddr> {
        Led { choice: Choice::ByClient, to: last.map(|last| Ipv4Addr::new(10, 64, 0, last).into()).collect() }
    }

    #[test]
    fn a_backend_that_goes_moves_its_own_clients_alone() {
        let before = led(1..=10);
        let after = led((1..=10).filter(|last| *last != 4));
        let gone: IpAddr = Ipv4Addr::new(10, 64, 0, 4).into();
        for (was, is) in before.slots().into_iter().zip(after.slots()) {
            assert!(*was == gone || was == is, "{was} became {is}");
        }
    }

    #[test]
    fn shares_are_of_about_the_same_size() {
        let led = led(1..=10);
        let slots = led.slots();
        assert_eq!(slots.len(), SLOTS as usize);
        for backend in &led.to {
            let share = slots.iter().filter(|slot| **slot == backend).count();
            assert!((10..=50).contains(&share), "{backend} has {share} of {SLOTS}");
        }
    }
}
