//! Addresses of networks that are kept for one task: those that services ask for by name.
//!
//! Each is given to the node where its task is as a *single*, a block of one address, unless it lies in a block of that
//! node anyway; no other task is ever given it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::{Cluster, Network, NetworkAttachment, Node, NodeState, ServiceId, Task};

impl Network {
    /// The address that an attachment asks for, by itself or by its twin.
    pub fn wanted_by(&self, attachment: &NetworkAttachment) -> Option<Ipv4Addr> {
        attachment.address.or_else(|| self.twins()?.behind(attachment.address_v6?))
    }

    /// The address that a task asks for on this network.
    pub fn wanted_by_task(&self, task: &Task) -> Option<Ipv4Addr> {
        let at = task.networks.iter().position(|network| *network == self.id)?;
        self.wanted_by(task.spec.networks.get(at)?)
    }

    /// The blocks of one address.
    pub fn singles(&self) -> impl Iterator<Item = Ipv4Net> + '_ {
        self.blocks.keys().copied().filter(|block| block.prefix_len() == 32)
    }
}

impl Cluster {
    /// Whom each address of a network is kept for.
    pub fn kept_addresses(&self, network: &Network) -> BTreeMap<Ipv4Addr, ServiceId> {
        let mut kept = BTreeMap::new();
        for service in self.services.values() {
            let here = service.spec.task.networks.iter().filter(|attachment| {
                attachment.is_fixed() && attachment.network.eq_ignore_ascii_case(&network.spec.name)
            });
            kept.extend(here.filter_map(|attachment| Some((network.wanted_by(attachment)?, service.id))));
        }
        kept
    }

    /// Addresses that a node's agent gives to nobody who does not ask for them by name: kept ones, and those of its
    /// blocks that another node has as singles.
    pub fn reserved_addresses(&self, network: &Network) -> BTreeSet<Ipv4Addr> {
        let mut reserved: BTreeSet<Ipv4Addr> = self.kept_addresses(network).into_keys().collect();
        if network.block_prefix() < 32 {
            reserved.extend(network.singles().map(|single| single.addr()));
        }
        reserved
    }

    /// The task that has an address of a network, or is about to have it, other than those of `apart`.
    ///
    /// One on a node that is lost has it no more: it would be replaced, and could not otherwise.
    pub fn holder_of(&self, network: &Network, address: Ipv4Addr, apart: impl Fn(&Task) -> bool) -> Option<&Task> {
        let lives = |node: &Node| node.status.state != NodeState::Down;
        let holds = |task: &&Task| {
            let has = task.status.addresses.iter().any(|at| at.network == network.id && at.address == address);
            let asks = || network.wanted_by_task(task) == Some(address);
            task.networks.contains(&network.id)
                && task.occupies_node()
                && task.node.and_then(|node| self.nodes.get(&node)).is_some_and(|node| lives(node))
                && (has || asks())
                && !apart(task)
        };
        self.tasks.values().map(|task| &**task).find(holds)
    }
}
