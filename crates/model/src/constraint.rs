//! Whether a node satisfies placement constraints: Swarm's language, exactly.

use std::borrow::Cow;
use std::net::IpAddr;

use crate::{Constraint, ConstraintOp, Node, Role};

impl Node {
    /// Whether a node satisfies all constraints; a label that is not there only satisfies `!=`.
    pub fn satisfies(&self, constraints: &[Constraint]) -> bool {
        constraints.iter().all(|constraint| {
            let matches = match constraint.key.as_str() {
                "node.ip" => address_matches(&self.status.address, &constraint.value),
                key => self.constraint_value(key).is_some_and(|value| value.eq_ignore_ascii_case(&constraint.value)),
            };
            matches == (constraint.op == ConstraintOp::Equal)
        })
    }

    /// What the node has under a constraint's key, compared without regard to ASCII case; nothing under
    /// `node.ip`, which is compared as an address.
    pub fn constraint_value(&self, key: &str) -> Option<Cow<'_, str>> {
        let platform = || self.description.as_ref().and_then(|description| description.platforms.first());
        Some(match key {
            "node.id" => self.id.to_string().into(),
            "node.hostname" => self.hostname().into(),
            "node.role" => match self.spec.role {
                Role::Worker => "worker".into(),
                Role::Manager => "manager".into(),
            },
            "node.platform.os" => platform()?.os.as_str().into(),
            "node.platform.arch" => platform()?.architecture.as_str().into(),
            _ => {
                let labels = key.strip_prefix("node.labels.").map(|name| (name, &self.spec.labels));
                let engine = || {
                    let name = key.strip_prefix("engine.labels.")?;
                    Some((name, &self.description.as_ref()?.engine_labels))
                };
                let (name, labels) = labels.or_else(engine)?;
                labels.get(name)?.as_str().into()
            }
        })
    }
}

/// An exact address, or a range in CIDR form.
fn address_matches(address: &str, wanted: &str) -> bool {
    let Ok(address) = address.parse::<IpAddr>() else { return false };
    match wanted.split_once('/') {
        None => wanted.parse() == Ok(address),
        Some((base, bits)) => match (base.parse::<IpAddr>(), bits.parse::<u32>()) {
            (Ok(IpAddr::V4(base)), Ok(bits @ 0..=32)) => match address {
                IpAddr::V4(address) => {
                    let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
                    address.to_bits() & mask == base.to_bits() & mask
                }
                IpAddr::V6(_) => false,
            },
            (Ok(IpAddr::V6(base)), Ok(bits @ 0..=128)) => match address {
                IpAddr::V6(address) => {
                    let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
                    address.to_bits() & mask == base.to_bits() & mask
                }
                IpAddr::V4(_) => false,
            },
            _ => false,
        },
    }
}
