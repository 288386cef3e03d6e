//! The chains that pick one of so many backends, made as numbers of backends come into use.

use super::super::family::Family;
use super::expression::{Ct, DESTINATION_PORT, Meta, R0, R8, Rule};
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

    pub fn chain(self, family: Family) -> Chain {
        let destination = || Rule::new().field(family.destination(), R0);
        let rule = match self.pick {
            Pick::Vip => destination()
                .random(self.backends, family.after(R0))
                .map("vip_backends", R0, R8)
                .redirect(family, R8, None),
            Pick::AnyAddress => self.port(family, Rule::new().address(family.unspecified(), R0)),
            Pick::OneAddress => self.port(family, destination()),
        };
        Chain { name: self.name(), hook: None, rules: vec![rule] }
    }

    fn port(self, family: Family, address: Rule) -> Rule {
        let next = family.after(R0);
        address
            .meta(Meta::L4Proto, next)
            .field(DESTINATION_PORT, next + 1)
            .random(self.backends, next + 2)
            .map("port_backends", R0, R8)
            // Only now is it sure that there is a backend, and R0 is free.
            .ct(Ct::Mark, R0)
            .bits(R0, &(!PUBLISHED_MARK).to_ne_bytes(), &PUBLISHED_MARK.to_ne_bytes())
            .set_ct(Ct::Mark, R0)
            .redirect(family, R8, Some(family.after(R8)))
    }
}
