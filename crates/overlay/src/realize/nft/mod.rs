//! The node's nftables tables, one for each family: kept as data, changed by the difference, in one transaction each
//! time.
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
use std::io;

pub use expression::{Meta, R0, Rule, Verdict};
pub use message::{Location, list_chains, list_rules, new_rule_first, remove_rule};

use self::content::Content;
use self::picker::Picker;
use super::family::Family;
use super::namespace::Age;
use crate::netlink::{self, Message, NetlinkError, Socket};
use crate::plan::Rules;
use crate::sys;

/// The tables' name, in the node's namespace and in each sandbox's.
pub const TABLE: &str = "skep";

/// See the file's header.
#[derive(Debug)]
pub struct Table {
    family: Family,
    socket: Socket,
    /// What an earlier daemon left is there no more.
    is_known: bool,
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
    pub fn open(family: Family) -> Result<Self, NetlinkError> {
        Ok(Self { family, is_known: false, socket: Socket::open(netlink::Family::Netfilter)?, applied: None })
    }

    /// Makes the kernel's table hold `rules`, and nothing else.
    pub fn apply(&mut self, rules: &Rules) -> Result<Change, NetlinkError> {
        if let Some(applied) = &mut self.applied
            && message::table_handle(self.family, &mut self.socket)? == Some(applied.handle)
        {
            let gone = Content::new(&applied.rules.beyond(rules));
            let mut come = Content::new(&rules.beyond(&applied.rules));
            come.pickers.retain(|picker| !applied.pickers.contains(picker));
            let messages = message::difference(self.family, &gone, &come);
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
        self.socket.transaction(&whole(self.family, &content))?;
        let handle = message::table_handle(self.family, &mut self.socket)?;
        let pickers = content.pickers;
        self.applied = handle.map(|handle| Applied { handle, rules: rules.clone(), pickers });
        Ok(Change::Whole)
    }

    /// Removes the table; nothing happens if there is none.
    pub fn remove(&mut self) -> Result<(), NetlinkError> {
        self.applied = None;
        self.socket.transaction(&[message::new_table(self.family), message::delete_table(self.family)])?;
        self.is_known = true;
        Ok(())
    }

    /// Whether there may be one: an earlier daemon's, as long as nothing is known.
    pub fn may_be_there(&self) -> bool {
        self.applied.is_some() || !self.is_known
    }

    pub fn socket(&mut self) -> &mut Socket {
        &mut self.socket
    }
}

/// Whether this kernel takes a table of the family at all: modules may be missing for one and there for the other. It is
/// tried in a network namespace that ends with the thread, where no packet meets it.
pub fn is_able(family: Family) -> bool {
    let attempt = move || {
        sys::namespace::unshare_network()?;
        let table = Table::open(family).and_then(|mut table| table.apply(&Rules::default()));
        table.map(drop).map_err(io::Error::other)
    };
    let thread = std::thread::Builder::new().name("skep-probe".to_owned()).spawn(attempt);
    let attempted = thread.map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
    match attempted.and_then(|attempt| attempt) {
        Ok(()) => true,
        Err(error) => {
            tracing::debug!(error = &error as &dyn std::error::Error, ?family, "the kernel takes no such table");
            false
        }
    }
}

/// The table from nothing, replacing any that is there.
fn whole(family: Family, content: &Content) -> Vec<Message> {
    let mut messages = afresh(family);
    let chains = ruleset::chains(family);
    messages.extend(chains.iter().map(|chain| message::new_chain(family, chain)));
    messages.extend(content::Set::ALL.into_iter().zip(1..).map(|(set, id)| message::new_set(family, set, id)));
    messages.extend(chains.iter().flat_map(|chain| message::new_rules(family, chain)));
    messages.extend(message::difference(family, &Content::default(), content));
    messages
}

fn afresh(family: Family) -> Vec<Message> {
    vec![message::new_table(family), message::delete_table(family), message::new_table(family)]
}

/// Puts the resolver's table into the network namespace that `socket` was opened in.
pub fn realize_resolver(socket: &mut Socket, age: Age) -> Result<(), NetlinkError> {
    let family = Family::V4;
    let mut messages = match age {
        // Replacing nothing would make the kernel wait, when the socket is closed, until nobody reads the nothing.
        Age::New => vec![message::new_table(family)],
        Age::Old => afresh(family),
    };
    let chains = ruleset::sandbox_chains();
    messages.extend(chains.iter().map(|chain| message::new_chain(family, chain)));
    messages.extend(chains.iter().flat_map(|chain| message::new_rules(family, chain)));
    socket.transaction(&messages)
}
