//! Which of many owners an address belongs to: the one with the longest prefix that holds it.
//!
//! IPv4 addresses have a place among IPv6's (RFC 4291, section 2.5.5.2), which nobody else is given.
//! Prefixes are flattened once into intervals without overlap, so that a lookup is one binary search over few bytes.

use std::net::IpAddr;

use ipnet::IpNet;

/// See the file's header. Each entry is an interval's first address and its owner; it ends where the next begins.
#[derive(Debug, Clone)]
pub struct Ranges<T>(Vec<(u128, Option<T>)>);

impl<T> Default for Ranges<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Copy + PartialEq> Ranges<T> {
    /// Of two equal prefixes the later counts.
    pub fn new(prefixes: impl IntoIterator<Item = (IpNet, T)>) -> Self {
        let mut prefixes: Vec<_> = prefixes.into_iter().collect();
        // A prefix comes right after those that it lies inside.
        prefixes.sort_by_key(|(prefix, _)| (place(prefix.network()), prefix.prefix_len()));
        let mut ranges = Self(Vec::with_capacity(prefixes.len() * 2));
        let mut open: Vec<(u128, T)> = Vec::new();
        for (prefix, owner) in prefixes {
            let first = place(prefix.network());
            ranges.close(&mut open, |last| last < first);
            ranges.begin(first, Some(owner));
            open.push((place(prefix.broadcast()), owner));
        }
        ranges.close(&mut open, |_| true);
        ranges
    }

    pub fn owner(&self, address: IpAddr) -> Option<T> {
        let after = self.0.partition_point(|(first, _)| *first <= place(address));
        self.0.get(after.checked_sub(1)?)?.1
    }

    /// Ends the innermost prefixes as long as they are `over`, and lets those around them go on.
    fn close(&mut self, open: &mut Vec<(u128, T)>, over: impl Fn(u128) -> bool) {
        while let Some((last, _)) = open.pop_if(|(last, _)| over(*last)) {
            if let Some(next) = last.checked_add(1) {
                self.begin(next, open.last().map(|(_, owner)| *owner));
            }
        }
    }

    fn begin(&mut self, first: u128, owner: Option<T>) {
        // Of what begins at one address, the last is the innermost that is open.
        self.0.pop_if(|(other, _)| *other == first);
        if self.0.last().and_then(|(_, before)| *before) != owner {
            self.0.push((first, owner));
        }
    }
}

fn place(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_ipv6_mapped()),
        IpAddr::V6(address) => u128::from(address),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use ipnet::{Ipv4Net, Ipv6Net};
    use proptest::prelude::*;

    use super::*;

    fn address(v6: bool, last: u32) -> IpAddr {
        let v6 = v6.then(|| Ipv6Addr::from(0xfd12 << 112 | u128::from(last)).into());
        v6.unwrap_or(Ipv4Addr::from(last).into())
    }

    fn range(v6: bool, last: u32, length: u8) -> IpNet {
        match address(v6, last) {
            IpAddr::V4(first) => Ipv4Net::new(first, length).unwrap().trunc().into(),
            IpAddr::V6(first) => Ipv6Net::new(first, 96 + length).unwrap().trunc().into(),
        }
    }

    proptest! {
        #[test]
        fn the_longest_prefix_owns(
            prefixes in prop::collection::vec((0u32..64, 24u8..=32, 0u8..9), 0..20),
            high in any::<bool>(),
            v6 in any::<bool>(),
            low in 0u32..320,
        ) {
            // All within a few hundred addresses at either end of the space, so that they nest and touch.
            let base = if high { u32::MAX - 255 } else { 0 };
            let prefixes: Vec<_> = prefixes
                .into_iter()
                .map(|(low, length, owner)| (range(v6, base | (low * 4), length), owner))
                .collect();
            let address = address(v6, base.wrapping_add(low));
            let holding = prefixes.iter().filter(|(prefix, _)| prefix.contains(&address));
            let longest = holding.max_by_key(|(prefix, _)| prefix.prefix_len()).map(|(_, owner)| *owner);
            prop_assert_eq!(Ranges::new(prefixes.clone()).owner(address), longest);
        }
    }
}
