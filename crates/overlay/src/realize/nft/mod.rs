//! The node's nftables table: kept as data, changed by the difference, in one transaction each time.
//!
//! The first change after a start replaces the whole table in one transaction, so nothing of what an earlier daemon
//! left is trusted and no packet sees it half-done. When a difference is refused, or the table is gone (`nft flush
//! ruleset`), the same is done again.

mod content;
mod expression;
mod message;
mod picker;
mod ruleset;

use std::collections::BTreeSet;

pub use expression::{Meta, R0, Rule, Verdict};
pub use message::{Location, list_chains, list_rules, new_rule_first, remove_rule};

use self::content::Content;
use self::picker::Picker;
use super::namespace::Age;
use crate::netlink::{Family, Message, NetlinkError, Socket};
use crate::plan::Rules;

/// The table's name, in the node's namespace and in each sandbox's.
pub const TABLE: &str = "skep";

/// See the file's header.
#[derive(Debug)]
pub struct Table {
    socket: Socket,
    applied: Option<Applied>,
}

/// What the kernel has.
#[derive(Debug)]
struct Applied {
    /// By which our table is told from one that was made since.
    handle: u64,
    rules: Rules,
    pickers: BTreeSet<Picker>,
}

/// How much one change touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    None,
    Difference { messages: usize },
    Whole,
}

impl Table {
    /// A table of the calling thread's network namespace.
    pub fn open() -> Result<Self, NetlinkError> {
        Ok(Self { socket: Socket::open(Family::Netfilter)?, applied: None })
    }

    /// Makes the kernel's table hold `rules`, and nothing else.
    pub fn apply(&mut self, rules: &Rules) -> Result<Change, NetlinkError> {
        if let Some(applied) = &mut self.applied
            && message::table_handle(&mut self.socket)? == Some(applied.handle)
        {
            let gone = Content::new(&applied.rules.beyond(rules));
            let mut come = Content::new(&rules.beyond(&applied.rules));
            come.pickers.retain(|picker| !applied.pickers.contains(picker));
            let messages = message::difference(&gone, &come);
            if messages.is_empty() {
                return Ok(Change::None);
            }
            match self.socket.transaction(&messages) {
                Ok(()) => {
                    applied.rules = rules.clone();
                    applied.pickers.append(&mut come.pickers);
                    return Ok(Change::Difference { messages: messages.len() });
                }
                // Somebody changed the table: what we believed about it is worth nothing.
                Err(error @ NetlinkError::Refused { .. }) => {
                    tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        "nftables table differs from what we left"
                    );
                }
                Err(error) => return Err(error),
            }
        }
        self.applied = None;
        let content = Content::new(rules);
        self.socket.transaction(&whole(&content))?;
        let handle = message::table_handle(&mut self.socket)?;
        let pickers = content.pickers;
        self.applied = handle.map(|handle| Applied { handle, rules: rules.clone(), pickers });
        Ok(Change::Whole)
    }

    /// Removes the table; nothing happens if there is none.
    pub fn remove(&mut self) -> Result<(), NetlinkError> {
        self.applied = None;
        self.socket.transaction(&[message::new_table(), message::delete_table()])
    }

    pub fn socket(&mut self) -> &mut Socket {
        &mut self.socket
    }
}

/// The table from nothing, replacing any that is there.
fn whole(content: &Content) -> Vec<Message> {
    let mut messages = vec![message::new_table(), message::delete_table(), message::new_table()];
    let chains = ruleset::chains();
    messages.extend(chains.iter().map(message::new_chain));
    messages.extend(content::Set::ALL.into_iter().zip(1..).map(|(set, id)| message::new_set(set, id)));
    messages.extend(chains.iter().flat_map(message::new_rules));
    messages.extend(message::difference(&Content::default(), content));
    messages
}

/// Puts the resolver's table into the network namespace that `socket` was opened in.
pub fn realize_resolver(socket: &mut Socket, age: Age) -> Result<(), NetlinkError> {
    let mut messages = match age {
        // Replacing nothing would make the kernel wait, when the socket is closed, until nobody reads the nothing.
        Age::New => vec![message::new_table()],
        Age::Old => vec![message::new_table(), message::delete_table(), message::new_table()],
    };
    let chains = ruleset::sandbox_chains();
    messages.extend(chains.iter().map(message::new_chain));
    messages.extend(chains.iter().flat_map(message::new_rules));
    socket.transaction(&messages)
}
