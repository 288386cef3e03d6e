//! A network: one address range of the cluster, carved into blocks that nodes hand out addresses from.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::{Meta, NetworkId, NetworkSpec, NodeId};

/// Prefix length of the block that a node gets of a network: 64 addresses.
const BLOCK_PREFIX: u8 = 26;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    pub id: NetworkId,
    pub meta: Meta,
    pub spec: NetworkSpec,
    /// The whole range: the user's, or one that the allocator chose from the cluster's pool.
    pub subnet: Ipv4Net,
    /// The address that every node's bridge answers under.
    pub gateway: Ipv4Addr,
    /// Which node hands out addresses of which block.
    pub blocks: BTreeMap<Ipv4Net, NodeId>,
}

impl Network {
    /// The part of the range that virtual addresses of services come from: its last eighth.
    pub fn vip_range(&self) -> Ipv4Net {
        let prefix = (self.subnet.prefix_len() + 3).min(32);
        self.subnet.subnets(prefix).expect("a longer prefix splits the range").last().expect("a range has a last part")
    }

    /// Prefix length of this network's blocks; small networks have smaller blocks.
    pub fn block_prefix(&self) -> u8 {
        BLOCK_PREFIX.max(self.subnet.prefix_len() + 1).min(32)
    }

    /// The first block that no node holds and that lies outside the virtual addresses' part.
    pub fn free_block(&self) -> Option<Ipv4Net> {
        let vips = self.vip_range();
        let blocks = self.subnet.subnets(self.block_prefix()).expect("a longer prefix splits the range");
        blocks
            .into_iter()
            .find(|block| !self.blocks.contains_key(block) && !block.contains(&vips) && !vips.contains(block))
    }

    /// The blocks of one node, in ascending order.
    pub fn blocks_of(&self, node: NodeId) -> impl Iterator<Item = Ipv4Net> + '_ {
        self.blocks.iter().filter(move |(_, owner)| **owner == node).map(|(block, _)| *block)
    }

    /// How many addresses a block gives to tasks: without the network's own first (its name and the
    /// gateway) and last address, where they lie in the block.
    pub fn usable_addresses(&self, block: Ipv4Net) -> usize {
        let reserved = [self.subnet.network(), self.gateway, self.subnet.broadcast()];
        let size = 1usize << (32 - block.prefix_len());
        let mut distinct = reserved.to_vec();
        distinct.sort();
        distinct.dedup();
        size - distinct.iter().filter(|address| block.contains(*address)).count()
    }
}
