//! The chains that pick one of so many backends, made as numbers of backends come into use.

use std::net::Ipv4Addr;

use super::expression::{Ct, DESTINATION, DESTINATION_PORT, Meta, R0, R1, R2, R3, R4, R5, Rule};
use super::ruleset::Chain;
use crate::plan::PUBLISHED_MARK;

/// Which map a picking chain looks into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pick {
    /// A service's address; the port stays as it is.
    Vip,
    /// A port published on every address.
    AnyAddress,
    /// A port published on one address.
    OneAddress,
}

/// The chain that picks one of `backends`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Picker {
    pub pick: Pick,
    pub backends: u32,
}

impl Picker {
    pub fn name(self) -> String {
        let prefix = match self.pick {
            Pick::Vip => "vip",
            Pick::AnyAddress => "any",
            Pick::OneAddress => "addr",
        };
        format!("{prefix}-{}", self.backends)
    }

    pub fn chain(self) -> Chain {
        let rule = match self.pick {
            Pick::Vip => Rule::new()
                .field(DESTINATION, R0)
                .random(self.backends, R1)
                .map("vip_backends", R0, R4)
                .redirect(R4, None),
            Pick::AnyAddress => self.port(Rule::new().address(Ipv4Addr::UNSPECIFIED, R0)),
            Pick::OneAddress => self.port(Rule::new().field(DESTINATION, R0)),
        };
        Chain { name: self.name(), hook: None, rules: vec![rule] }
    }

    fn port(self, address: Rule) -> Rule {
        address
            .meta(Meta::L4Proto, R1)
            .field(DESTINATION_PORT, R2)
            .random(self.backends, R3)
            .map("port_backends", R0, R4)
            // Only now is it sure that there is a backend, and R0 is free.
            .ct(Ct::Mark, R0)
            .bits(R0, &(!PUBLISHED_MARK).to_ne_bytes(), &PUBLISHED_MARK.to_ne_bytes())
            .set_ct(Ct::Mark, R0)
            .redirect(R4, Some(R5))
    }
}
