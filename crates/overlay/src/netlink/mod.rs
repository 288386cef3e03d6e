//! Netlink itself: messages as bytes, and a blocking socket that sends them many at a time.
//!
//! Written here and not taken from the rtnetlink and netfilter crates, because (a) of the nftables expressions that
//! the ruleset needs (nat, masquerade, reject, fib, numgen, ct) those know none, so most would be bytes anyway; and
//! (b) everything is answered by the kernel within the call, so one send of fifty requests and one read beats fifty
//! round trips through an executor, and needs none.

mod attributes;
mod socket;

pub use attributes::{Attributes, Message, attributes, read_string, read_u16, read_u32, read_u64};
pub use socket::{Family, NetlinkError, Socket};
