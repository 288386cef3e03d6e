//! Numbers, text, times, ids, addresses; and what is optional, listed or shared of anything.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ipnet::{Ipv4Net, Ipv6Net};
use skep_model::{ContentDigest, Id, MemoryBytes, NanoCpus, Timestamp, TunnelKey, Version};

use super::{DecodeError, Element, Field, scalar_field};
use crate::pb;

/// Types that the wire has as they are.
macro_rules! same {
    ($($type:ty),*) => {$(
        impl Element for $type {
            type Proto = $type;

            fn to_element(&self) -> $type {
                self.clone()
            }

            fn from_element(proto: $type, _: &'static str) -> Result<Self, DecodeError> {
                Ok(proto)
            }
        }
        scalar_field!($type);
    )*};
}
same!(bool, u32, u64, i32, i64, f64, String, Bytes);

/// Units: a number with a name around it.
macro_rules! unit {
    ($($type:ident($inner:ty)),*) => {$(
        impl Element for $type {
            type Proto = $inner;

            fn to_element(&self) -> $inner {
                self.0.clone()
            }

            fn from_element(proto: $inner, _: &'static str) -> Result<Self, DecodeError> {
                Ok($type(proto))
            }
        }
        scalar_field!($type);
    )*};
}
unit!(MemoryBytes(u64), NanoCpus(u64), Timestamp(u64), Version(u64), ContentDigest(String));

/// Numbers that the wire has only wider.
macro_rules! narrow {
    ($($type:ty: $expected:literal),*) => {$(
        impl Element for $type {
            type Proto = u32;

            fn to_element(&self) -> u32 {
                u32::from(*self)
            }

            fn from_element(proto: u32, field: &'static str) -> Result<Self, DecodeError> {
                proto.try_into().map_err(|_| wrong(field, proto, $expected))
            }
        }
        scalar_field!($type);
    )*};
}
narrow!(u8: "at most 255", u16: "at most 65535");

/// Types that travel as text.
macro_rules! text {
    ($($type:ty: $expected:literal),*) => {$(
        impl Element for $type {
            type Proto = String;

            fn to_element(&self) -> String {
                self.to_string()
            }

            fn from_element(proto: String, field: &'static str) -> Result<Self, DecodeError> {
                proto.parse().map_err(|_| wrong(field, proto, $expected))
            }
        }
        scalar_field!($type);
    )*};
}
text!(
    IpAddr: "an IP address",
    SocketAddr: "an IP address and a port such as 10.1.0.1:7377",
    Ipv6Addr: "an IPv6 address",
    Ipv4Net: "an IPv4 network such as 10.1.0.0/16",
    Ipv6Net: "an IPv6 network such as fd00:1::/64"
);

fn wrong(field: &'static str, value: impl ToString, expected: &'static str) -> DecodeError {
    DecodeError::Value { field, value: value.to_string(), expected }
}

impl<K> Element for Id<K> {
    type Proto = Bytes;

    fn to_element(&self) -> Bytes {
        Bytes::copy_from_slice(&self.as_u128().to_be_bytes())
    }

    fn from_element(proto: Bytes, field: &'static str) -> Result<Self, DecodeError> {
        if proto.is_empty() {
            return Err(DecodeError::Missing { field });
        }
        let bits: [u8; 16] = proto
            .as_ref()
            .try_into()
            .map_err(|_| wrong(field, format!("{} bytes", proto.len()), "an id of 16 bytes"))?;
        Ok(Id::from_u128(u128::from_be_bytes(bits)))
    }
}

impl<K> Field for Id<K> {
    type Proto = Bytes;

    fn to_field(&self) -> Bytes {
        self.to_element()
    }

    fn from_field(proto: Bytes, field: &'static str) -> Result<Self, DecodeError> {
        Self::from_element(proto, field)
    }
}

impl Element for TunnelKey {
    type Proto = Bytes;

    fn to_element(&self) -> Bytes {
        Bytes::copy_from_slice(&self.0)
    }

    fn from_element(proto: Bytes, field: &'static str) -> Result<Self, DecodeError> {
        let key = proto.as_ref().try_into();
        key.map(TunnelKey).map_err(|_| wrong(field, format!("{} bytes", proto.len()), "a tunnel key of 32 bytes"))
    }
}
scalar_field!(TunnelKey);

impl Element for Duration {
    type Proto = u64;

    /// Nanoseconds; durations above 584 years become that.
    fn to_element(&self) -> u64 {
        u64::try_from(self.as_nanos()).unwrap_or(u64::MAX)
    }

    fn from_element(proto: u64, _: &'static str) -> Result<Self, DecodeError> {
        Ok(Duration::from_nanos(proto))
    }
}
scalar_field!(Duration);

impl Element for Ipv4Addr {
    type Proto = u32;

    fn to_element(&self) -> u32 {
        self.to_bits()
    }

    fn from_element(proto: u32, _: &'static str) -> Result<Self, DecodeError> {
        Ok(Ipv4Addr::from_bits(proto))
    }
}
scalar_field!(Ipv4Addr);

impl<T: Element> Field for Option<T> {
    type Proto = Option<T::Proto>;

    fn to_field(&self) -> Self::Proto {
        self.as_ref().map(Element::to_element)
    }

    fn from_field(proto: Self::Proto, field: &'static str) -> Result<Self, DecodeError> {
        proto.map(|proto| T::from_element(proto, field)).transpose()
    }
}

impl<T: Element> Field for Vec<T> {
    type Proto = Vec<T::Proto>;

    fn to_field(&self) -> Self::Proto {
        self.iter().map(Element::to_element).collect()
    }

    fn from_field(proto: Self::Proto, field: &'static str) -> Result<Self, DecodeError> {
        proto.into_iter().map(|proto| T::from_element(proto, field)).collect()
    }
}

impl Field for BTreeMap<String, String> {
    type Proto = BTreeMap<String, String>;

    fn to_field(&self) -> Self::Proto {
        self.clone()
    }

    fn from_field(proto: Self::Proto, _: &'static str) -> Result<Self, DecodeError> {
        Ok(proto)
    }
}

impl Field for BTreeMap<String, Ipv4Addr> {
    type Proto = BTreeMap<String, u32>;

    fn to_field(&self) -> Self::Proto {
        self.iter().map(|(name, address)| (name.clone(), address.to_element())).collect()
    }

    fn from_field(proto: Self::Proto, _: &'static str) -> Result<Self, DecodeError> {
        Ok(proto.into_iter().map(|(name, address)| (name, Ipv4Addr::from_bits(address))).collect())
    }
}

/// Words that may be absent as a whole: absent and empty differ.
impl Element for Vec<String> {
    type Proto = pb::Words;

    fn to_element(&self) -> pb::Words {
        pb::Words { words: self.clone() }
    }

    fn from_element(proto: pb::Words, _: &'static str) -> Result<Self, DecodeError> {
        Ok(proto.words)
    }
}

impl Element for (String, String) {
    type Proto = pb::NameValue;

    fn to_element(&self) -> pb::NameValue {
        let (name, value) = self;
        pb::NameValue { name: name.clone(), value: value.clone() }
    }

    fn from_element(proto: pb::NameValue, _: &'static str) -> Result<Self, DecodeError> {
        let pb::NameValue { name, value } = proto;
        Ok((name, value))
    }
}

/// A request or reply without content.
impl Element for () {
    type Proto = pb::Nothing;

    fn to_element(&self) -> pb::Nothing {
        pb::Nothing {}
    }

    fn from_element(pb::Nothing {}: pb::Nothing, _: &'static str) -> Result<Self, DecodeError> {
        Ok(())
    }
}

impl Field for Arc<[u8]> {
    type Proto = Bytes;

    fn to_field(&self) -> Bytes {
        Bytes::copy_from_slice(self)
    }

    fn from_field(proto: Bytes, _: &'static str) -> Result<Self, DecodeError> {
        Ok(Arc::from(proto.as_ref()))
    }
}

/// A value behind a pointer is on the wire what the value is.
macro_rules! pointer {
    ($($pointer:ident),*) => {$(
        impl<T: Element> Element for $pointer<T> {
            type Proto = T::Proto;

            fn to_element(&self) -> Self::Proto {
                T::to_element(self)
            }

            fn from_element(proto: Self::Proto, field: &'static str) -> Result<Self, DecodeError> {
                T::from_element(proto, field).map($pointer::new)
            }
        }

        impl<T: Field> Field for $pointer<T> {
            type Proto = T::Proto;

            fn to_field(&self) -> Self::Proto {
                T::to_field(self)
            }

            fn from_field(proto: Self::Proto, field: &'static str) -> Result<Self, DecodeError> {
                T::from_field(proto, field).map($pointer::new)
            }
        }
    )*};
}
pointer!(Arc, Box);
