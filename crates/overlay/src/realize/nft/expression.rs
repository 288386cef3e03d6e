//! nftables rules as the kernel's expressions (linux/netfilter/nf_tables.h), built one after the other.
//!
//! A rule is a program over registers: load, compare (and stop unless equal), look up, act. Registers here are the
//! 4-byte ones, from [`R0`]; a wider value takes the following ones too, so a concatenated key is loaded side by side.

use std::net::IpAddr;

use super::super::family::{Family, octets};
use crate::netlink::Attributes;

/// The first 4-byte register (`NFT_REG32_00`); the others follow it.
pub const R0: u32 = 8;
pub const R1: u32 = R0 + 1;
pub const R4: u32 = R0 + 4;
/// Behind the longest key that is loaded.
pub const R8: u32 = R0 + 8;
const VERDICT_REGISTER: u32 = 0;

pub const ELEMENT: u16 = 1;
pub const DATA_VALUE: u16 = 1;
pub const DATA_VERDICT: u16 = 2;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;

/// What a rule ends with.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    Accept,
    Drop,
    Goto(String),
}

impl Verdict {
    pub fn write(&self, data: &mut Attributes) {
        let (code, chain) = match self {
            Self::Drop => (0, None),
            Self::Accept => (1, None),
            Self::Goto(chain) => (-4i32 as u32, Some(chain)),
        };
        data.nested(DATA_VERDICT, |verdict| {
            verdict.u32_be(1, code);
            if let Some(chain) = chain {
                verdict.string(2, chain);
            }
        });
    }
}

/// The same rules are written for both families; what differs is here.
impl Family {
    pub fn source(self) -> Field {
        match self {
            Self::V4 => Field(1, 12, 4),
            Self::V6 => Field(1, 8, 16),
        }
    }

    pub fn destination(self) -> Field {
        match self {
            Self::V4 => Field(1, 16, 4),
            Self::V6 => Field(1, 24, 16),
        }
    }

    /// The register behind an address that begins at `register`.
    pub fn after(self, register: u32) -> u32 {
        register + u32::from(self.length()) / 4
    }

    /// The protocol of control messages, and the kind of message that advises another way.
    pub fn redirection(self) -> (u8, u8) {
        match self {
            Self::V4 => (libc::IPPROTO_ICMP as u8, 5),
            Self::V6 => (libc::IPPROTO_ICMPV6 as u8, 137),
        }
    }

    /// The code of the control message that says that nobody listens.
    fn unreachable_port(self) -> u8 {
        match self {
            Self::V4 => 3,
            Self::V6 => 4,
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub enum Meta {
    Mark = 3,
    IifName = 6,
    OifName = 7,
    L4Proto = 16,
    IifGroup = 21,
    OifGroup = 22,
}

/// A field of the packet: the header that it is in, its offset there and its length, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Field(u32, u32, u32);

/// The first part of an IPv6 destination.
pub const DESTINATION_SCOPE: Field = Field(1, 24, 4);
pub const DESTINATION_PORT: Field = Field(2, 2, 2);
pub const ICMP_TYPE: Field = Field(2, 0, 1);
pub const TCP_FLAGS: Field = Field(2, 13, 1);
/// Of an Ethernet frame; it takes two registers.
pub const HARDWARE_SOURCE: Field = Field(0, 6, 6);

#[derive(Debug, Clone, Copy)]
pub enum Ct {
    State = 0,
    /// One byte: 0 for packets of the side that began, 1 for answers.
    Direction = 1,
    Status = 2,
    Mark = 3,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Membership {
    In,
    NotIn,
}

/// The expressions of one rule.
#[derive(Debug, Clone, Default)]
pub struct Rule(Attributes);

impl Rule {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    fn push(mut self, name: &str, add: impl FnOnce(&mut Attributes)) -> Self {
        self.0.nested(ELEMENT, |expression| {
            expression.string(EXPRESSION_NAME, name).nested(EXPRESSION_DATA, add);
        });
        self
    }

    pub fn meta(self, key: Meta, to: u32) -> Self {
        self.push("meta", |data| {
            data.u32_be(1, to).u32_be(2, key as u32);
        })
    }

    pub fn field(self, Field(base, offset, length): Field, to: u32) -> Self {
        self.push("payload", |data| {
            data.u32_be(1, to).u32_be(2, base).u32_be(3, offset).u32_be(4, length);
        })
    }

    pub fn ct(self, key: Ct, to: u32) -> Self {
        self.push("ct", |data| {
            data.u32_be(1, to).u32_be(2, key as u32);
        })
    }

    pub fn set_meta(self, key: Meta, from: u32) -> Self {
        self.push("meta", |data| {
            data.u32_be(2, key as u32).u32_be(3, from);
        })
    }

    pub fn set_ct(self, key: Ct, from: u32) -> Self {
        self.push("ct", |data| {
            data.u32_be(2, key as u32).u32_be(4, from);
        })
    }

    /// Loads a random slot number below `modulus`, in the machine's byte order.
    pub fn random(self, modulus: u32, to: u32) -> Self {
        self.push("numgen", |data| {
            data.u32_be(1, to).u32_be(2, modulus).u32_be(3, 1);
        })
    }

    /// Loads a number below `modulus`, in the machine's byte order, told by the bytes at `from`: the same on every node.
    pub fn hash(self, from: u32, length: u8, modulus: u32, to: u32) -> Self {
        const SEED: u32 = 0x736b_6570;
        self.push("hash", |data| {
            data.u32_be(1, from).u32_be(2, to).u32_be(3, length.into()).u32_be(4, modulus).u32_be(5, SEED);
        })
    }

    pub fn value(self, bytes: &[u8], to: u32) -> Self {
        self.push("immediate", |data| {
            data.u32_be(1, to).nested(2, |value| {
                value.bytes(DATA_VALUE, bytes);
            });
        })
    }

    /// `register = (register & mask) ^ xor`
    pub fn bits(self, register: u32, mask: &[u8], xor: &[u8]) -> Self {
        self.push("bitwise", |data| {
            data.u32_be(1, register).u32_be(2, register).u32_be(3, mask.len() as u32);
            data.nested(4, |value| {
                value.bytes(DATA_VALUE, mask);
            });
            data.nested(5, |value| {
                value.bytes(DATA_VALUE, xor);
            });
        })
    }

    /// Goes on only if the register begins with `bytes`.
    pub fn equals(self, register: u32, bytes: &[u8]) -> Self {
        self.compare(register, 0, bytes)
    }

    /// Goes on only if the register does not begin with `bytes`.
    pub fn differs(self, register: u32, bytes: &[u8]) -> Self {
        self.compare(register, 1, bytes)
    }

    fn compare(self, register: u32, operator: u32, bytes: &[u8]) -> Self {
        self.push("cmp", |data| {
            data.u32_be(1, register).u32_be(2, operator).nested(3, |value| {
                value.bytes(DATA_VALUE, bytes);
            });
        })
    }

    /// Goes on only if the key that begins at `register` is, or is not, in the set.
    pub fn member(self, set: &str, register: u32, membership: Membership) -> Self {
        self.push("lookup", |data| {
            data.string(1, set).u32_be(2, register);
            if membership == Membership::NotIn {
                data.u32_be(5, 1);
            }
        })
    }

    /// Goes on with the map's value in `to`, if the key that begins at `register` is in it.
    pub fn map(self, map: &str, register: u32, to: u32) -> Self {
        self.push("lookup", |data| {
            data.string(1, map).u32_be(2, register).u32_be(3, to);
        })
    }

    /// Does what the map says for the key that begins at `register`, if it is in it.
    pub fn verdict_map(self, map: &str, register: u32) -> Self {
        self.map(map, register, VERDICT_REGISTER)
    }

    pub fn verdict(self, verdict: Verdict) -> Self {
        self.push("immediate", |data| {
            data.u32_be(1, VERDICT_REGISTER).nested(2, |value| verdict.write(value));
        })
    }

    /// Goes on only if the destination is one of the node's own addresses.
    pub fn destination_is_local(self, scratch: u32) -> Self {
        const ADDRESS_TYPE: u32 = 3;
        const OF_DESTINATION: u32 = 2;
        const LOCAL: u32 = 2;
        self.push("fib", |data| {
            data.u32_be(1, scratch).u32_be(2, ADDRESS_TYPE).u32_be(3, OF_DESTINATION);
        })
        .equals(scratch, &LOCAL.to_ne_bytes())
    }

    /// Rewrites the destination to the address, and the port if given, in these registers.
    pub fn redirect(self, family: Family, address: u32, port: Option<u32>) -> Self {
        const DESTINATION_NAT: u32 = 1;
        self.push("nat", |data| {
            data.u32_be(1, DESTINATION_NAT).u32_be(2, family.number().into()).u32_be(3, address);
            if let Some(port) = port {
                data.u32_be(5, port);
            }
        })
    }

    /// Rewrites the source to the address of the interface that the packet leaves by, with a random port: two
    /// containers that choose the same port at once must not fight for it.
    pub fn masquerade(self) -> Self {
        const RANDOM_FULLY: u32 = 1 << 4;
        self.push("masq", |data| {
            data.u32_be(1, RANDOM_FULLY);
        })
    }

    pub fn reject_with_reset(self) -> Self {
        self.push("reject", |data| {
            data.u32_be(1, 1);
        })
    }

    pub fn reject_as_unreachable_port(self, family: Family) -> Self {
        self.push("reject", |data| {
            data.u32_be(1, 0).u8(2, family.unreachable_port());
        })
    }

    /// Lowers the segment size that a TCP handshake offers to what fits both this packet's way and the way back.
    pub fn clamp_segments(self, scratch: u32) -> Self {
        const FITTING_SEGMENT: u32 = 3;
        const TO_NETWORK: u32 = 1;
        const TCP_OPTION: u32 = 1;
        const SEGMENT: u8 = 2;
        self.push("rt", |data| {
            data.u32_be(1, scratch).u32_be(2, FITTING_SEGMENT);
        })
        .push("byteorder", |data| {
            data.u32_be(1, scratch).u32_be(2, scratch).u32_be(3, TO_NETWORK).u32_be(4, 2).u32_be(5, 2);
        })
        .push("exthdr", |data| {
            data.u8(2, SEGMENT).u32_be(3, 2).u32_be(4, 2).u32_be(6, TCP_OPTION).u32_be(7, scratch);
        })
    }

    pub fn counter(self) -> Self {
        self.push("counter", |data| {
            data.u64_be(1, 0).u64_be(2, 0);
        })
    }

    pub fn protocol(self, protocol: u8, scratch: u32) -> Self {
        self.meta(Meta::L4Proto, scratch).equals(scratch, &[protocol])
    }

    pub fn address(self, address: IpAddr, to: u32) -> Self {
        self.value(&octets(address), to)
    }
}
