//! The internet checksum (RFC 1071): the ones' complement of the ones' complement sum of 16-bit words.

/// A sum under way. It is taken in the machine's byte order, which the sum does not mind (RFC 1071, section 2 B).
#[derive(Debug, Clone, Copy, Default)]
pub struct Sum(u64);

impl Sum {
    /// Only the last part may have an odd length.
    pub fn add(self, bytes: &[u8]) -> Self {
        let words = bytes.chunks_exact(4);
        let rest = words.remainder();
        // Four bytes at a time into eight: no carry is lost below 16 GiB, and the compiler makes vectors of it.
        let sum: u64 = words.map(|word| u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]))).sum();
        let mut last = [0; 4];
        last[..rest.len()].copy_from_slice(rest);
        Self(self.0 + sum + u64::from(u32::from_ne_bytes(last)))
    }

    /// What a TCP or UDP checksum covers of an IPv4 header: addresses, protocol, and the length of what follows.
    pub fn pseudo_header(ip: &[u8], protocol: u8, length: usize) -> Self {
        let [high, low] = (length as u16).to_be_bytes();
        Self::default().add(&ip[12..20]).add(&[0, protocol, high, low])
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
