//! Which address a container gets: decisions only, on a value that `realize::addresses` keeps in a file.
//!
//! Managers give this node blocks of a network; inside them the node decides alone. An address that was released is
//! the last to be given again, and not before [`QUARANTINE_S`]: clients may still have it in a cache, and would reach
//! the wrong container.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

/// Format of [`Addresses`] on disk.
pub const FORMAT: u32 = 1;

/// How long a released address rests, in seconds: twice the longest time that an answer of our resolver may be kept.
pub const QUARANTINE_S: u64 = 60;

/// A container's wish for an address on one network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The network's id.
    pub network: String,
    /// The whole network's range; its first and last address are never given.
    pub subnet: Ipv4Net,
    /// This node's parts of it.
    pub blocks: Vec<Ipv4Net>,
    /// Never given: the gateway, service addresses.
    pub reserved: BTreeSet<Ipv4Addr>,
    /// Given only to who asks for them by name.
    pub kept: BTreeSet<Ipv4Addr>,
    /// Whether a released address must rest, where there is no other.
    pub rest: Rest,
    /// The one that the user asked for (`ipv4_address`). It may lie outside the blocks.
    pub wanted: Option<Ipv4Addr>,
}

/// Whether an address may be given again at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// Not before [`QUARANTINE_S`].
    Must,
    /// Only if every other is in use: addresses of a local network are few, and move with their hardware address.
    Should,
}

/// Why there is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IpamError {
    #[error(
        "network {network} has no free address on this node: {held} of its addresses are in use{}",
        if *resting > 0 { format!(", {resting} were released less than {QUARANTINE_S} s ago") } else { String::new() }
    )]
    Exhausted { network: String, held: usize, resting: usize },
    #[error("{address} on network {network} is taken by container {holder}")]
    Taken { network: String, address: Ipv4Addr, holder: String },
    #[error("{address} cannot be given to a container: it lies outside {subnet} of network {network}, or is reserved")]
    Unusable { network: String, address: Ipv4Addr, subnet: Ipv4Net },
}

/// The addresses in use on this node, and those that rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    format: u32,
    networks: BTreeMap<String, Held>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Held {
    /// By address: the sandbox.
    held: BTreeMap<Ipv4Addr, String>,
    /// When each was released, in seconds of wall-clock time.
    released: BTreeMap<Ipv4Addr, u64>,
}

impl Default for Addresses {
    fn default() -> Self {
        Self { format: FORMAT, networks: BTreeMap::new() }
    }
}

impl Addresses {
    /// The format that it was read in.
    pub fn format(&self) -> u32 {
        self.format
    }

    /// The sandbox's address on the network: the one that it has, or a new one. `now_s` is wall-clock time.
    ///
    /// # Errors
    /// Nothing is changed.
    pub fn allocate(&mut self, sandbox: &str, request: &Request, now_s: u64) -> Result<Ipv4Addr, IpamError> {
        let network = self.networks.entry(request.network.clone()).or_default();
        let has = network.held.iter().find(|(_, holder)| *holder == sandbox).map(|(address, _)| *address);
        if let Some(address) = has.filter(|address| request.wanted.is_none_or(|wanted| wanted == *address)) {
            return Ok(address);
        }
        let address = match request.wanted {
            Some(wanted) => network.claim(wanted, request)?,
            None => network.pick(request, now_s)?,
        };
        if let Some(old) = has {
            network.held.remove(&old);
            network.released.insert(old, now_s);
        }
        network.released.remove(&address);
        network.held.insert(address, sandbox.to_owned());
        Ok(address)
    }

    /// Lets all addresses of a sandbox go; says whether there were any.
    pub fn release(&mut self, sandbox: &str, now_s: u64) -> bool {
        let mut any = false;
        for network in self.networks.values_mut() {
            let gone: Vec<_> = network.held.extract_if(.., |_, holder| holder == sandbox).collect();
            any |= !gone.is_empty();
            network.released.extend(gone.into_iter().map(|(address, _)| (address, now_s)));
        }
        any
    }

    /// Releases all sandboxes but those that live, and forgets networks without any.
    pub fn retain(&mut self, living: &BTreeSet<String>, now_s: u64) -> bool {
        let holders = self.networks.values().flat_map(|network| network.held.values());
        let dead: BTreeSet<String> = holders.filter(|holder| !living.contains(*holder)).cloned().collect();
        dead.iter().for_each(|sandbox| {
            self.release(sandbox, now_s);
        });
        let before = self.networks.len();
        let rests = |released: &u64| resting_s(*released, now_s) > 0;
        self.networks.retain(|_, network| !network.held.is_empty() || network.released.values().any(rests));
        !dead.is_empty() || self.networks.len() < before
    }
}

impl Held {
    fn claim(&self, wanted: Ipv4Addr, request: &Request) -> Result<Ipv4Addr, IpamError> {
        let network = || request.network.clone();
        if let Some(holder) = self.held.get(&wanted) {
            return Err(IpamError::Taken { network: network(), address: wanted, holder: holder.clone() });
        }
        if !request.subnet.contains(&wanted) || is_edge(request.subnet, wanted) || request.reserved.contains(&wanted) {
            return Err(IpamError::Unusable { network: network(), address: wanted, subnet: request.subnet });
        }
        Ok(wanted)
    }

    /// One that was never given, else the one that was released first.
    fn pick(&self, request: &Request, now_s: u64) -> Result<Ipv4Addr, IpamError> {
        let usable = |address: &Ipv4Addr| {
            !is_edge(request.subnet, *address)
                && !request.reserved.contains(address)
                && !request.kept.contains(address)
                && !self.held.contains_key(address)
                && request.subnet.contains(address)
        };
        let all = || request.blocks.iter().flat_map(|block| all_of(*block)).filter(usable);
        if let Some(fresh) = all().find(|address| !self.released.contains_key(address)) {
            return Ok(fresh);
        }
        let has_rested = |at: &u64| request.rest == Rest::Should || resting_s(*at, now_s) == 0;
        let rested = all().filter(|address| self.released.get(address).is_some_and(has_rested));
        rested.min_by_key(|address| self.released.get(address)).ok_or_else(|| IpamError::Exhausted {
            network: request.network.clone(),
            held: self.held.len(),
            resting: all().count(),
        })
    }
}

fn all_of(block: Ipv4Net) -> impl Iterator<Item = Ipv4Addr> {
    (u32::from(block.network())..=u32::from(block.broadcast())).map(Ipv4Addr::from)
}

/// Whether it is the first or the last of a subnet, which IPv4 keeps for itself.
fn is_edge(subnet: Ipv4Net, address: Ipv4Addr) -> bool {
    subnet.prefix_len() < 31 && (address == subnet.network() || address == subnet.broadcast())
}

/// How many seconds a released address still rests. A release in the future means that the clock was set back (a
/// board without a clock chip): better early than never.
fn resting_s(released_s: u64, now_s: u64) -> u64 {
    match now_s.checked_sub(released_s) {
        Some(rested) => QUARANTINE_S.saturating_sub(rested),
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(block: &str) -> Request {
        Request {
            network: "n".into(),
            subnet: "10.64.0.0/24".parse().unwrap(),
            blocks: vec![block.parse().unwrap()],
            reserved: BTreeSet::from(["10.64.0.1".parse().unwrap()]),
            kept: BTreeSet::new(),
            rest: Rest::Must,
            wanted: None,
        }
    }

    fn ip(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 64, 0, last)
    }

    #[test]
    fn a_sandbox_keeps_its_address_and_neither_edge_nor_gateway_is_given() {
        let mut addresses = Addresses::default();
        assert_eq!(addresses.allocate("a", &request("10.64.0.0/30"), 0), Ok(ip(2)));
        assert_eq!(addresses.allocate("a", &request("10.64.0.0/30"), 9), Ok(ip(2)));
        assert_eq!(addresses.allocate("b", &request("10.64.0.0/30"), 0), Ok(ip(3)));
        let full = addresses.allocate("c", &request("10.64.0.0/30"), 0).unwrap_err().to_string();
        assert_eq!(full, "network n has no free address on this node: 2 of its addresses are in use");
        assert_eq!(addresses.allocate("d", &request("10.64.0.252/30"), 0), Ok(ip(252)), "a block's edge is no edge");
    }

    #[test]
    fn released_addresses_rest_and_the_longest_rested_comes_first() {
        let mut addresses = Addresses::default();
        let block = request("10.64.0.4/31");
        assert_eq!(addresses.allocate("a", &block, 0), Ok(ip(4)));
        assert!(addresses.release("a", 100));
        assert_eq!(addresses.allocate("b", &block, 100), Ok(ip(5)), "a fresh one first");
        assert!(addresses.release("b", 101));
        let error = addresses.allocate("c", &block, 159).unwrap_err();
        assert_eq!(error, IpamError::Exhausted { network: "n".into(), held: 0, resting: 2 });
        assert_eq!(addresses.clone().allocate("c", &block, 5), Ok(ip(4)), "a clock that was set back blocks nothing");
        assert_eq!(addresses.allocate("c", &block, 161), Ok(ip(4)));
        assert_eq!(addresses.allocate("d", &block, 161), Ok(ip(5)));
    }

    #[test]
    fn an_address_asked_for_is_given_or_refused_with_the_reason() {
        let mut addresses = Addresses::default();
        let wants = |last| Request { wanted: Some(ip(last)), ..request("10.64.0.0/26") };
        assert_eq!(addresses.allocate("a", &request("10.64.0.0/26"), 0), Ok(ip(2)));
        assert_eq!(addresses.allocate("a", &wants(200), 0), Ok(ip(200)), "outside the blocks, and it moves");
        let taken = addresses.allocate("b", &wants(200), 0).unwrap_err().to_string();
        assert_eq!(taken, "10.64.0.200 on network n is taken by container a");
        assert!(matches!(addresses.allocate("b", &wants(1), 0), Err(IpamError::Unusable { .. })));
        assert!(matches!(addresses.allocate("b", &wants(255), 0), Err(IpamError::Unusable { .. })));
    }

    #[test]
    fn a_kept_address_goes_to_who_asks_for_it_alone_and_where_addresses_are_few_they_need_not_rest() {
        let mut addresses = Addresses::default();
        let block = Request { kept: BTreeSet::from([ip(4)]), ..request("10.64.0.4/31") };
        assert_eq!(addresses.allocate("a", &block, 0), Ok(ip(5)));
        assert!(matches!(addresses.allocate("b", &block, 0), Err(IpamError::Exhausted { .. })));
        assert_eq!(addresses.allocate("b", &Request { wanted: Some(ip(4)), ..block.clone() }, 0), Ok(ip(4)));
        addresses.release("a", 1);
        assert!(matches!(addresses.allocate("c", &block, 2), Err(IpamError::Exhausted { .. })));
        assert_eq!(addresses.allocate("c", &Request { rest: Rest::Should, ..block }, 2), Ok(ip(5)));
    }

    #[test]
    fn what_no_longer_lives_is_released_and_empty_networks_are_forgotten() {
        let mut addresses = Addresses::default();
        assert_eq!(addresses.allocate("a", &request("10.64.0.0/26"), 0), Ok(ip(2)));
        assert!(!addresses.retain(&BTreeSet::from(["a".to_owned()]), 0));
        assert!(addresses.retain(&BTreeSet::new(), 0));
        assert!(addresses.retain(&BTreeSet::new(), 60));
        assert_eq!(addresses, Addresses::default());
    }

    proptest! {
        /// No two living sandboxes ever share an address, and none is given again before it has rested.
        #[test]
        fn addresses_are_unique_and_rest(steps in prop::collection::vec((0u8..12, any::<bool>(), 0u64..40), 1..80)) {
            let mut addresses = Addresses::default();
            let (mut held, mut released) = (BTreeMap::<String, Ipv4Addr>::new(), BTreeMap::<Ipv4Addr, u64>::new());
            let mut now_s = 0;
            for (sandbox, start, pass_s) in steps {
                let sandbox = sandbox.to_string();
                now_s += pass_s;
                if !start {
                    addresses.release(&sandbox, now_s);
                    released.extend(held.remove(&sandbox).map(|address| (address, now_s)));
                } else if let Ok(address) = addresses.allocate(&sandbox, &request("10.64.0.0/29"), now_s)
                    && held.insert(sandbox, address) != Some(address)
                {
                    prop_assert!(released.remove(&address).is_none_or(|at| now_s >= at + QUARANTINE_S));
                }
                let distinct: BTreeSet<_> = held.values().collect();
                prop_assert_eq!(distinct.len(), held.len());
            }
        }
    }
}
