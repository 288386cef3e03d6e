//! The chains that pick one of so many backends, made as numbers of backends come into use: a number below that of the
//! slots is part of the key into the map of backends, random or told by the client's address.

use super::super::family::Family;
use super::expression::{Ct, DESTINATION_PORT, Meta, R0, R8, Rule};
use super::ruleset::Chain;
use crate::plan::{Choice, PUBLISHED_MARK};

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

/// The chain that picks one of `slots`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Picker {
    pub pick: Pick,
    pub choice: Choice,
    pub slots: u32,
}

impl Picker {
    pub fn name(self) -> String {
        let prefix = match self.pick {
            Pick::Vip => "vip",
            Pick::AnyAddress => "any",
            Pick::OneAddress => "addr",
        };
        let by = match self.choice {
            Choice::Random => "",
            Choice::ByClient => "client-",
        };
        format!("{prefix}-{by}{}", self.slots)
    }

    pub fn chain(self, family: Family) -> Chain {
        let destination = || Rule::new().field(family.destination(), R0);
        let rule = match self.pick {
            Pick::Vip => self
                .slot(family, destination(), family.after(R0))
                .map("vip_backends", R0, R8)
                .redirect(family, R8, None),
            Pick::AnyAddress => self.port(family, Rule::new().address(family.unspecified(), R0)),
            Pick::OneAddress => self.port(family, destination()),
        };
        Chain { name: self.name(), hook: None, rules: vec![rule] }
    }

    /// The slot's number in `to`, behind the rest of the key.
    fn slot(self, family: Family, key: Rule, to: u32) -> Rule {
        match self.choice {
            Choice::Random => key.random(self.slots, to),
            Choice::ByClient => key.field(family.source(), R8).hash(R8, family.length(), self.slots, to),
        }
    }

    fn port(self, family: Family, address: Rule) -> Rule {
        let next = family.after(R0);
        let key = address.meta(Meta::L4Proto, next).field(DESTINATION_PORT, next + 1);
        self.slot(family, key, next + 2)
            .map("port_backends", R0, R8)
            // Only now is it sure that there is a backend, and R0 is free.
            .ct(Ct::Mark, R0)
            .bits(R0, &(!PUBLISHED_MARK).to_ne_bytes(), &PUBLISHED_MARK.to_ne_bytes())
            .set_ct(Ct::Mark, R0)
            .redirect(family, R8, Some(family.after(R8)))
    }
}
