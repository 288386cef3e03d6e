//! Which node hands out which addresses: blocks of networks, and *singles*, blocks of one address.
//!
//! A node gets a block when its blocks no longer hold its tasks. Singles go to the node where their task is: an address
//! that a service asks for by name, and on a local network (driver macvlan), where addresses are few, any address.
//! They are taken back once no task of the node can have them.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;
use skep_model::{
    Change, Cluster, Feature, Network, NetworkDriver, NetworkId, NodeId, Service, Task, TaskId, Timestamp,
};

use crate::allocator::Refusal;

/// How long a single rests after its task has ended, before another node may have it: names that are kept lead there.
const REST: Duration = Duration::from_secs(60);

/// Blocks and singles that nodes lack for the tasks about to be assigned to them, and singles that nobody needs.
pub fn blocks_for(cluster: &Cluster, assigned: &[(TaskId, NodeId)], now: Timestamp) -> Vec<Change> {
    let mut draft = Draft { picture: cluster.clone(), changes: Vec::new() };
    if cluster.has(Feature::Drivers) {
        draft.release_singles(now);
    }
    let nodes: BTreeSet<NodeId> = assigned.iter().map(|(_, node)| *node).collect();
    for node in nodes {
        let arriving = assigned.iter().filter(|(_, to)| *to == node).filter_map(|(task, _)| cluster.tasks.get(task));
        let arriving: Vec<&Task> = arriving.map(|task| &**task).collect();
        let settled: Vec<&Task> = cluster.tasks_of_node(node).map(|task| &**task).collect();
        let on_node = || arriving.iter().chain(&settled);
        let networks: BTreeSet<NetworkId> = on_node().flat_map(|task| task.networks.iter().copied()).collect();
        for id in networks {
            let here = |task: &&&Task| task.networks.contains(&id);
            draft.give_kept(id, node, arriving.iter().filter(here).copied());
            match cluster.networks.get(&id).map(|network| network.spec.driver()) {
                Some(NetworkDriver::Macvlan) => {
                    let living = settled.iter().filter(|task| task.occupies_node());
                    draft.give_singles(id, node, arriving.iter().chain(living).filter(here).copied());
                }
                // Ended tasks that are still kept count too: their addresses rest before they are given again.
                Some(NetworkDriver::Overlay | NetworkDriver::Bridge) => {
                    draft.give_blocks(id, node, on_node().filter(here).count());
                }
                None => {}
            }
        }
    }
    draft.changes
}

/// Changes, and the cluster as it is after them.
struct Draft {
    picture: Cluster,
    changes: Vec<Change>,
}

impl Draft {
    /// Whether the change was possible.
    fn push(&mut self, change: Change) -> bool {
        let version = self.picture.version.0;
        let done = self.picture.apply(&change, version).is_ok();
        if done {
            self.changes.push(change);
        }
        done
    }

    fn give_blocks(&mut self, id: NetworkId, node: NodeId, needed: usize) {
        while let Some(block) = lacking_block(&self.picture, id, node, needed) {
            if !self.push(Change::AssignBlock { network: id, block, node }) {
                break;
            }
        }
    }

    /// Addresses that tasks ask for by name, each from whoever had it.
    fn give_kept<'t>(&mut self, id: NetworkId, node: NodeId, tasks: impl Iterator<Item = &'t Task>) {
        if !self.picture.has(Feature::Drivers) {
            return;
        }
        for task in tasks {
            let Some(network) = self.picture.networks.get(&id) else { return };
            let Some(address) = network.wanted_by_task(task).filter(|address| network.subnet.contains(address)) else {
                continue;
            };
            let block = Ipv4Net::from(address);
            if network.blocks_of(node).any(|own| own.contains(&address)) {
                continue;
            }
            if network.blocks.contains_key(&block) {
                self.push(Change::ReleaseBlock { network: id, block });
            }
            self.push(Change::AssignBlock { network: id, block, node });
        }
    }

    /// As many addresses as there are tasks that ask for none by name.
    fn give_singles<'t>(&mut self, id: NetworkId, node: NodeId, tasks: impl Iterator<Item = &'t Task>) {
        let Some(network) = self.picture.networks.get(&id) else { return };
        let kept: BTreeSet<Ipv4Addr> = self.picture.kept_addresses(network).into_keys().collect();
        let needed = tasks.filter(|task| network.wanted_by_task(task).is_none()).count();
        let held = network.blocks_of(node).filter(|block| !kept.contains(&block.addr())).count();
        for _ in held..needed {
            let free = self.picture.networks.get(&id).and_then(|network| network.free_single(&kept));
            let Some(block) = free else { return };
            self.push(Change::AssignBlock { network: id, block, node });
        }
    }

    fn release_singles(&mut self, now: Timestamp) {
        let with = self.picture.networks.values().filter(|network| network.singles().next().is_some());
        let stale: Vec<Change> = with.flat_map(|network| stale_singles(&self.picture, network, now)).collect();
        for change in stale {
            self.push(change);
        }
    }
}

/// Singles that no task of their node has, may still take, or had until just now.
fn stale_singles(cluster: &Cluster, network: &Network, now: Timestamp) -> Vec<Change> {
    let kept = cluster.kept_addresses(network);
    let singles = network.blocks.iter().filter(|(block, _)| block.prefix_len() == 32);
    let is_stale = |address: Ipv4Addr, node: NodeId| {
        let needs = |task: &&Task| {
            let places = || task.status.addresses.iter().filter(|place| place.network == network.id);
            let has = places().any(|place| place.address == address);
            let ended = task.status.state.is_terminal();
            match ended {
                true => has && now.since(task.status.at) < REST,
                false => has || places().next().is_none(),
            }
        };
        let on_it = cluster.tasks_of_node(node).map(|task| &**task).filter(|task| task.networks.contains(&network.id));
        on_it.into_iter().find(needs).is_none()
    };
    let stale = singles.filter(|(block, node)| !kept.contains_key(&block.addr()) && is_stale(block.addr(), **node));
    stale.map(|(block, _)| Change::ReleaseBlock { network: network.id, block: *block }).collect()
}

fn lacking_block(cluster: &Cluster, network: NetworkId, node: NodeId, needed: usize) -> Option<Ipv4Net> {
    let network = cluster.networks.get(&network)?;
    // A quarter of each block is left for addresses that rest between two owners.
    let held: usize = network.blocks_of(node).map(|block| network.usable_addresses(block) * 3 / 4).sum();
    if held >= needed { None } else { network.free_block() }
}

/// Why a task may not be placed yet: the address that it asks for is still another's.
pub fn still_held(cluster: &Cluster, task: &Task) -> Option<String> {
    let wanted = task.spec.networks.iter().zip(&task.networks).filter(|(attachment, _)| attachment.is_fixed());
    for (attachment, id) in wanted {
        let Some(network) = cluster.networks.get(id) else { continue };
        let Some(address) = network.wanted_by(attachment) else { continue };
        if let Some(holder) = cluster.holder_of(network, address, |other| other.id == task.id) {
            return Some(format!("{address} of network {} is still task {}'s", network.spec.name, holder.name()));
        }
    }
    None
}

/// Why a service cannot have the addresses that it asks for by name.
pub fn conflict(cluster: &Cluster, service: &Service) -> Option<Refusal> {
    let refused = |address, network: &Network, why: &str| {
        Some(Refusal(format!("{address} on network {} cannot be given to a task: {why}", network.spec.name)))
    };
    for attachment in service.spec.task.networks.iter().filter(|attachment| attachment.is_fixed()) {
        let Some(network) = cluster.network_named(&attachment.network) else { continue };
        // What an address of IPv6 may be is said by the task, as its network's ranges are.
        let Some(address) = network.wanted_by(attachment) else { continue };
        if !network.subnet.contains(&address) {
            return refused(address, network, &format!("it lies outside the subnet {}", network.subnet));
        }
        if network.is_reserved(address) {
            return refused(address, network, "it is the network's own, its gateway's, or one of aux_addresses");
        }
        let kept = cluster.kept_addresses(network).get(&address).copied().filter(|owner| *owner != service.id);
        if let Some(owner) = kept.and_then(|owner| cluster.services.get(&owner)) {
            return refused(address, network, &format!("service {} asks for it already", owner.name()));
        }
        let others = cluster.services.values().filter(|other| other.id != service.id);
        let vips = |other: &&std::sync::Arc<Service>| {
            other.endpoint.virtual_ips.iter().any(|vip| vip.network == network.id && vip.address == address)
        };
        if let Some(owner) = others.into_iter().find(vips) {
            return refused(address, network, &format!("it is the virtual address of service {}", owner.name()));
        }
        let holder = cluster.holder_of(network, address, |task| task.service == service.id);
        if let Some(holder) = holder.filter(|_| cluster.has(Feature::Drivers)) {
            let name = holder.name();
            return refused(
                address,
                network,
                &format!("task {name} has it; choose another, or restart that task first"),
            );
        }
    }
    None
}

/// The blocks of nodes that were removed: others may have them.
pub fn abandoned_blocks(cluster: &Cluster) -> Vec<Change> {
    let of_nobody = |network: &Arc<Network>| {
        let blocks = network.blocks.iter().filter(|(_, node)| !cluster.nodes.contains_key(*node));
        blocks.map(|(block, _)| Change::ReleaseBlock { network: network.id, block: *block }).collect::<Vec<_>>()
    };
    cluster.networks.values().flat_map(of_nobody).collect()
}
