//! The internet checksum (RFC 1071): the ones' complement of the ones' complement sum of 16-bit words.

/// A sum under way. It is taken in the machine's byte order, which the sum does not mind (RFC 1071, section 2 B).
#[derive(Debug, Clone, Copy, Default)]
pub struct Sum(u64);

impl Sum {
    /// Only the last part may have an odd length.
    pub fn add(self, bytes: &[u8]) -> Self {
        // Eight bytes at a time into sixteen, which keep the carries, and in two chains that do not wait for each other.
        let (mut even, mut odd) = (u128::from(self.0), 0u128);
        let blocks = bytes.chunks_exact(16);
        let rest = blocks.remainder();
        for block in blocks {
            let (first, second) = block.split_at(8);
            even += u128::from(u64::from_ne_bytes(first.try_into().unwrap_or_default()));
            odd += u128::from(u64::from_ne_bytes(second.try_into().unwrap_or_default()));
        }
        let mut last = [0; 16];
        last[..rest.len()].copy_from_slice(rest);
        let sum = even + odd + (u128::from_ne_bytes(last) & u128::from(u64::MAX)) + (u128::from_ne_bytes(last) >> 64);
        Self(folded(folded(sum)) as u64)
    }

    /// What a checksum of TCP, UDP or ICMPv6 covers of an IP header: addresses, protocol, and the length of what follows.
    pub fn pseudo_header(ip: &[u8], protocol: u8, length: usize) -> Self {
        let [high, low] = (length as u16).to_be_bytes();
        let addresses = if ip[0] >> 4 == 6 { &ip[8..40] } else { &ip[12..20] };
        Self::default().add(addresses).add(&[0, protocol, high, low])
    }

    /// The folded sum, as two bytes of a packet.
    pub fn folded(self) -> [u8; 2] {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        (sum as u16).to_ne_bytes()
    }

    /// The checksum, as two bytes of a packet.
    pub fn checksum(self) -> [u8; 2] {
        (!u16::from_ne_bytes(self.folded())).to_ne_bytes()
    }
}

/// A ones' complement sum of 64-bit words is one of 16-bit words too, so carries go back in at the low end.
fn folded(sum: u128) -> u128 {
    (sum & u128::from(u64::MAX)) + (sum >> 64)
}
