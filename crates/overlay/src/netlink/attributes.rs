//! Netlink messages as bytes: a type, flags, a fixed header and attributes, nested where the protocol says so.
//!
//! Layout: `struct nlattr` (linux/netlink.h): u16 length, u16 type, value, padded to 4 bytes; lengths and types are
//! in the machine's order. Values are in whatever order the subsystem asks: nftables in network order, routing in the
//! machine's.

const NESTED: u16 = 1 << 15;
const TYPE_MASK: u16 = 0x3fff;
const HEADER: usize = 4;

/// One request: the netlink header's type and flags, and what follows it.
#[derive(Debug, Clone)]
pub struct Message {
    pub kind: u16,
    pub flags: u16,
    pub body: Attributes,
}

impl Message {
    /// `header` is the family's fixed header (`struct ifinfomsg`, `struct nfgenmsg`, …).
    pub fn new(kind: u16, flags: u16, header: &[u8]) -> Self {
        let mut body = Attributes::default();
        body.raw(header);
        Self { kind, flags, body }
    }

    /// The message with `add`'s attributes after those that it has.
    pub fn with(mut self, add: impl FnOnce(&mut Attributes)) -> Self {
        add(&mut self.body);
        self
    }
}

/// A growing list of attributes.
#[derive(Debug, Clone, Default)]
pub struct Attributes(Vec<u8>);

impl Attributes {
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Bytes without an attribute header, padded.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self.pad()
    }

    pub fn bytes(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let length = u16::try_from(HEADER + value.len()).expect("every value built here is far below 64 KiB");
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.pad()
    }

    pub fn u8(&mut self, kind: u16, value: u8) -> &mut Self {
        self.bytes(kind, &[value])
    }

    /// In the machine's order.
    pub fn u16(&mut self, kind: u16, value: u16) -> &mut Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// In the machine's order: routing, generic netlink.
    pub fn u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// In network order: netfilter.
    pub fn u32_be(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub fn u64_be(&mut self, kind: u16, value: u64) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// With the closing NUL that the kernel expects.
    pub fn string(&mut self, kind: u16, value: &str) -> &mut Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    pub fn nested(&mut self, kind: u16, add: impl FnOnce(&mut Self)) -> &mut Self {
        let mut inner = Self::default();
        add(&mut inner);
        self.bytes(kind | NESTED, &inner.0)
    }

    fn pad(&mut self) -> &mut Self {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }
}

/// The attributes in `bytes` as (type without flags, value); stops at the first malformed one.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let header = bytes.get(..HEADER)?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & TYPE_MASK;
        let value = bytes.get(HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// A string value up to its NUL; bytes that are not UTF-8 are replaced.
pub fn read_string(value: &[u8]) -> String {
    let end = value.iter().position(|&byte| byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

/// A value of 2 bytes in the machine's order; none if it is shorter.
pub fn read_u16(value: &[u8]) -> Option<u16> {
    value.get(..2).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes)
}

/// A value of 8 bytes in the machine's order; none if it is shorter.
pub fn read_u64(value: &[u8]) -> Option<u64> {
    value.get(..8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_ne_bytes)
}

/// A value of 4 bytes in the machine's order; none if it is shorter.
pub fn read_u32(value: &[u8]) -> Option<u32> {
    value.get(..4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_padding_and_nesting_aside() {
        let mut list = Attributes::default();
        list.string(1, "abc").nested(2, |inner| {
            inner.u8(7, 9).u32(8, 0x0102_0304);
        });
        let read: Vec<_> = attributes(list.as_bytes()).collect();
        assert_eq!(read.len(), 2);
        assert_eq!(read_string(read[0].1), "abc");
        let inner: Vec<_> = attributes(read[1].1).collect();
        assert_eq!(inner[0], (7, &[9u8][..]));
        assert_eq!(read_u32(inner[1].1), Some(0x0102_0304));
    }

    #[test]
    fn a_torn_attribute_ends_the_list() {
        assert_eq!(attributes(&[8, 0, 1, 0, 1]).count(), 0);
        assert_eq!(attributes(&[0, 0, 0, 0]).count(), 0);
    }
}
