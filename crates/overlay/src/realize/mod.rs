//! Makes the kernel be what the plan says: bridges, sandboxes, the nftables table. Everything that is found and not
//! wanted goes; what is there and right is not touched, so applying the same twice changes nothing, and containers'
//! traffic flows on through a daemon's crash, start and upgrade.
//!
//! All calls block, for milliseconds: async callers use `spawn_blocking`. They work on the network namespace of the
//! calling thread's process; only helper threads of their own ever leave it.
//!
//! The order that the agent keeps: `create_sandbox`, start the container, and an `apply` with the endpoint whenever
//! something about it changes; at the end an `apply` without it, wait for connections to end, `remove_sandbox`.

mod addresses;
mod conntrack;
mod foreign;
mod link;
mod namespace;
mod nft;
mod sandbox;
mod sysctl;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

pub use foreign::Warning;
pub use sandbox::Attachment;

use self::addresses::AddressBook;
use crate::ipam::{Addresses, IpamError, Request};
use crate::netlink::{Family, NetlinkError, Socket};
use crate::plan::{
    self, BRIDGE_PREFIX, Bridge, LINK_PREFIX, NodeNetwork, Problem, Protocol, Realization, Rules, bridge_name,
    link_name,
};
use crate::snapshot::Snapshot;

/// Where the overlay keeps its state.
#[derive(Debug, Clone)]
pub struct Config {
    /// Namespaces are pinned in `<run_dir>/net/ns`.
    pub run_dir: PathBuf,
    /// Addresses in use are kept in `<data_dir>/net/addresses.json`.
    pub data_dir: PathBuf,
}

/// Why the kernel could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum RealizeError {
    #[error("failed to prepare the folder `{path}`")]
    Folder { path: PathBuf, source: io::Error },
    #[error("failed to open a netlink socket; the daemon must run as root, with CAP_NET_ADMIN")]
    Open(#[source] NetlinkError),
    #[error("failed to set /proc/sys/net/{key}")]
    Setting { key: String, source: io::Error },
    #[error("failed to list the node's interfaces")]
    List(#[source] NetlinkError),
    #[error("failed to set up the bridge `{bridge}` of network {network}")]
    Bridge { bridge: String, network: String, source: NetlinkError },
    #[error("failed to remove the interface `{interface}`")]
    Remove { interface: String, source: NetlinkError },
    #[error("failed to set up the nftables table `ip skep`; the kernel needs nf_tables with nat, fib and numgen")]
    Table(#[source] NetlinkError),
    #[error("failed to look at other programs' firewall rules")]
    Foreign(#[source] NetlinkError),
    #[error("failed to make, enter or release the network namespace `{path}`")]
    Namespace { path: PathBuf, source: io::Error },
    #[error("failed to {step} sandbox {id}")]
    Sandbox { id: String, step: &'static str, source: NetlinkError },
    #[error("failed to keep the node's addresses in `{path}`")]
    AddressBook { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Ipam(#[from] IpamError),
    #[error("failed to forget connections of removed containers")]
    Forget(#[source] NetlinkError),
    #[error("`{0}` cannot name a sandbox: it must be 1 to 64 letters, digits, `-`, `_` or `.`, and not begin with `.`")]
    Name(String),
}

/// A container's network namespace, pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    pub id: String,
    /// The file to join with setns(2).
    pub netns: PathBuf,
}

impl Sandbox {
    /// A descriptor for the runtime to join.
    pub fn open(&self) -> io::Result<OwnedFd> {
        namespace::open(&self.netns)
    }
}

/// What an `apply` did.
#[derive(Debug)]
pub struct Applied {
    /// For the net helper.
    pub snapshot: Snapshot,
    /// Parts of the input that contradict others and were left out.
    pub problems: Vec<Problem>,
    /// Other programs' rules that may stop containers' packets.
    pub warnings: Vec<Warning>,
    pub table: TableChange,
}

pub use nft::Change as TableChange;

/// This node's network.
#[derive(Debug)]
pub struct Overlay {
    namespaces: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    route: Socket,
    table: nft::Table,
    /// Every sandbox that is there, with the interfaces that it needs on the node: none known for those that an
    /// earlier daemon left, whose links say whose they are.
    sandboxes: BTreeMap<String, BTreeSet<String>>,
    /// Sandboxes that an earlier daemon left and nobody has claimed yet.
    unclaimed: BTreeSet<String>,
    /// UDP ports that led to containers after the last `apply`.
    udp_ports: BTreeSet<u16>,
    addresses: AddressBook,
}

impl Overlay {
    /// Takes over whatever an earlier daemon left; changes nothing of it before the first `apply`.
    ///
    /// # Errors
    /// When the run folder cannot be written or the process lacks CAP_NET_ADMIN.
    pub fn open(config: &Config) -> Result<Self, RealizeError> {
        let namespaces = namespaces_dir(&config.run_dir);
        let folder = |source| RealizeError::Folder { path: namespaces.clone(), source };
        fs::create_dir_all(&namespaces).map_err(folder)?;
        let mut found = BTreeSet::new();
        for (id, path, pinned) in namespace::list(&namespaces).map_err(folder)? {
            if pinned {
                found.insert(id);
            } else {
                // The pin was never made, or a reboot took it.
                namespace::release(&path).map_err(|source| RealizeError::Namespace { path, source })?;
            }
        }
        let key = "ipv4/ip_forward";
        sysctl::set(key, "1").map_err(|source| RealizeError::Setting { key: key.to_owned(), source })?;
        let state = State {
            route: Socket::open(Family::Route).map_err(RealizeError::Open)?,
            table: nft::Table::open().map_err(RealizeError::Open)?,
            sandboxes: found.iter().map(|id| (id.clone(), BTreeSet::new())).collect(),
            unclaimed: found,
            udp_ports: BTreeSet::new(),
            addresses: AddressBook::open(&config.data_dir)?,
        };
        Ok(Self { namespaces, state: Mutex::new(state) })
    }

    /// What `node` means, without changing anything. The net helper can be given the snapshot before the kernel
    /// is changed, so that a published port that another program has is known before it is taken from it.
    pub fn plan(&self, node: &NodeNetwork) -> Realization {
        plan::plan(node, &self.namespaces)
    }

    /// Makes the kernel be what `node` says.
    ///
    /// The first call after `open` must name every container that lives: sandboxes that an earlier daemon left and
    /// that neither it nor a `create_sandbox` before it names are removed, with all their traffic.
    ///
    /// # Errors
    /// The table is changed whole or not at all; links are changed up to the failing one. Calling again completes.
    pub fn apply(&self, node: &NodeNetwork) -> Result<Applied, RealizeError> {
        let Realization { bridges, sandboxes, rules, snapshot, problems } = self.plan(node);
        let mut state = self.state();
        let leftovers: Vec<String> = std::mem::take(&mut state.unclaimed).difference(&sandboxes).cloned().collect();
        for id in leftovers {
            self.remove(&mut state, &id)?;
        }
        // The new rules come before new ways and after old ones: nothing is reachable without being checked.
        let table = state.table.apply(&rules).map_err(RealizeError::Table)?;
        realize_bridges(&mut state, &bridges)?;
        forget_unled(&mut state, &rules)?;
        let warnings = foreign::settle(state.table.socket()).map_err(RealizeError::Foreign)?;
        Ok(Applied { snapshot, problems, warnings, table })
    }

    /// The sandbox's addresses, one for each request: those that it has, or new ones, kept on disk. `now_s` is
    /// wall-clock time in seconds.
    ///
    /// # Errors
    /// [`RealizeError::Ipam`] with the reason; then none is allocated.
    pub fn allocate(&self, sandbox: &str, requests: &[Request], now_s: u64) -> Result<Vec<Ipv4Addr>, RealizeError> {
        self.state().addresses.update(|addresses| {
            requests.iter().map(|request| addresses.allocate(sandbox, request, now_s)).collect::<Result<_, IpamError>>()
        })
    }

    /// Lets a sandbox's addresses go; nothing happens if it has none. Call it after `remove_sandbox`.
    pub fn release(&self, sandbox: &str, now_s: u64) -> Result<(), RealizeError> {
        let release = |addresses: &mut Addresses| Ok::<_, RealizeError>(addresses.release(sandbox, now_s));
        self.state().addresses.update(release).map(drop)
    }

    /// Lets the addresses of all sandboxes go but of those that live: after a crash.
    pub fn release_others(&self, living: &BTreeSet<String>, now_s: u64) -> Result<(), RealizeError> {
        let retain = |addresses: &mut Addresses| Ok::<_, RealizeError>(addresses.retain(living, now_s));
        self.state().addresses.update(retain).map(drop)
    }

    /// A network namespace with `lo` and, in this order, `eth0`, `eth1`, … on the networks given; the default route
    /// leaves by the first that is not internal. Idempotent: an existing sandbox is completed and adopted.
    ///
    /// Its packets pass once an `apply` knows its networks.
    ///
    /// # Errors
    /// What was made until then stays, for another try or `remove_sandbox`.
    pub fn create_sandbox(&self, id: &str, attachments: &[Attachment]) -> Result<Sandbox, RealizeError> {
        let netns = self.path(id)?;
        let bridges: Vec<(String, Bridge)> =
            attachments.iter().map(|a| (bridge_name(&a.network.id), plan::bridge(&a.network))).collect();
        {
            let mut state = self.state();
            state.unclaimed.remove(id);
            let links = attachments.iter().map(|a| link_name(id, &a.network.id));
            let needed = bridges.iter().map(|(name, _)| name.clone()).chain(links).collect();
            state.sandboxes.insert(id.to_owned(), needed);
            for (name, bridge) in &bridges {
                realize_bridge(&mut state.route, name, bridge)?;
            }
        }
        sandbox::realize(id, &netns, attachments)?;
        Ok(Sandbox { id: id.to_owned(), netns })
    }

    /// Removes a sandbox, its links, and the connections that it had: who waits for it is refused. Nothing happens if
    /// there is none. Processes that still run in it lose their network.
    pub fn remove_sandbox(&self, id: &str) -> Result<(), RealizeError> {
        self.remove(&mut self.state(), id)
    }

    /// Every sandbox that is there, whoever made it.
    pub fn sandboxes(&self) -> Vec<Sandbox> {
        let sandbox = |id: &String| Sandbox { id: id.clone(), netns: self.namespaces.join(id) };
        self.state().sandboxes.keys().map(sandbox).collect()
    }

    /// Removes all that this crate ever put into the kernel and the run folder. IPv4 forwarding stays on, for other
    /// programs may rely on it by now.
    pub fn teardown(&self) -> Result<(), RealizeError> {
        let mut state = self.state();
        for id in state.sandboxes.keys().cloned().collect::<Vec<_>>() {
            self.remove(&mut state, &id)?;
        }
        for name in link::list(&mut state.route).map_err(RealizeError::List)?.into_keys() {
            if name.starts_with(BRIDGE_PREFIX) || name.starts_with(LINK_PREFIX) {
                remove_link(&mut state.route, &name)?;
            }
        }
        state.table.remove().map_err(RealizeError::Table)?;
        foreign::withdraw(state.table.socket()).map_err(RealizeError::Foreign)?;
        state.addresses.remove()?;
        fs::remove_dir(&self.namespaces)
            .map_err(|source| RealizeError::Folder { path: self.namespaces.clone(), source })
    }

    fn remove(&self, state: &mut State, id: &str) -> Result<(), RealizeError> {
        let path = self.path(id)?;
        let links = link::list(&mut state.route).map_err(RealizeError::List)?;
        let needed = state.sandboxes.get(id).cloned().unwrap_or_default();
        let owned = |name: &str, link: &link::Link| needed.contains(name) || sandbox::owner(&link.alias) == Some(id);
        let addresses = link::routed_addresses(&mut state.route).map_err(RealizeError::List)?;
        let mut gone = BTreeSet::new();
        for (name, link) in &links {
            if name.starts_with(LINK_PREFIX) && owned(name, link) {
                gone.extend(addresses.get(&link.index).copied());
                remove_link(&mut state.route, name)?;
            }
        }
        if !gone.is_empty() {
            conntrack::forget(state.table.socket(), conntrack::involves(&gone)).map_err(RealizeError::Forget)?;
        }
        namespace::release(&path).map_err(|source| RealizeError::Namespace { path, source })?;
        state.sandboxes.remove(id);
        state.unclaimed.remove(id);
        Ok(())
    }

    /// Ids become file names.
    fn path(&self, id: &str) -> Result<PathBuf, RealizeError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if id.is_empty() || id.len() > 64 || id.starts_with('.') || !id.bytes().all(allowed) {
            return Err(RealizeError::Name(id.to_owned()));
        }
        Ok(self.namespaces.join(id))
    }

    /// A panic elsewhere leaves the state as true as the kernel is: the next change compares with the kernel again.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// UDP senders that began before their port led anywhere are asked to begin again.
fn forget_unled(state: &mut State, rules: &Rules) -> Result<(), RealizeError> {
    let leads = rules.ports.iter().filter(|(key, backends)| key.protocol == Protocol::Udp && !backends.is_empty());
    let ports: BTreeSet<u16> = leads.map(|(key, _)| key.port).collect();
    let new: BTreeSet<u16> = ports.difference(&state.udp_ports).copied().collect();
    if !new.is_empty() {
        conntrack::forget(state.table.socket(), conntrack::is_unled(&new)).map_err(RealizeError::Forget)?;
    }
    state.udp_ports = ports;
    Ok(())
}

/// Makes the bridges be those wanted, but keeps what a sandbox is plugged into.
fn realize_bridges(state: &mut State, wanted: &BTreeMap<String, Bridge>) -> Result<(), RealizeError> {
    let links = link::list(&mut state.route).map_err(RealizeError::List)?;
    let addresses = link::list_addresses(&mut state.route).map_err(RealizeError::List)?;
    for (name, bridge) in wanted {
        let right = |link: &link::Link| addresses.get(&link.index).is_some_and(|has| has == &[bridge.address]);
        if !links.get(name).is_some_and(right) {
            realize_bridge(&mut state.route, name, bridge)?;
        }
    }
    let used: BTreeSet<&String> = state.sandboxes.values().flatten().collect();
    for (name, link) in &links {
        let stray_bridge = name.starts_with(BRIDGE_PREFIX) && !wanted.contains_key(name) && !used.contains(name);
        let stray_link = name.starts_with(LINK_PREFIX)
            && !used.contains(name)
            && !sandbox::owner(&link.alias).is_some_and(|id| state.sandboxes.contains_key(id));
        if stray_bridge || stray_link {
            remove_link(&mut state.route, name)?;
        }
    }
    Ok(())
}

/// Makes one bridge, or mends it.
fn realize_bridge(route: &mut Socket, name: &str, bridge: &Bridge) -> Result<(), RealizeError> {
    let failed = |source| RealizeError::Bridge { bridge: name.to_owned(), network: bridge.network.clone(), source };
    if let Some(link) = link::find(route, name).map_err(failed)? {
        let addresses = link::list_addresses(route).map_err(failed)?.remove(&link.index).unwrap_or_default();
        if addresses == [bridge.address] {
            return Ok(());
        }
        let wrong = addresses.iter().filter(|address| **address != bridge.address);
        let removals: Vec<_> = wrong.map(|address| link::delete_address(link.index, *address)).collect();
        route.all(&removals).map_err(failed)?;
    } else {
        route.all(&[link::new_bridge(name)]).map_err(failed)?;
    }
    sysctl::disable_ipv6(name)
        .map_err(|source| RealizeError::Setting { key: format!("ipv6/conf/{name}/disable_ipv6"), source })?;
    let link = link::find(route, name).map_err(failed)?;
    let index = link.map(|link| link.index).unwrap_or_default();
    route
        .all(&[
            link::set_alias(index, &format!("skep {}", bridge.network)),
            link::new_address(index, bridge.address, link::PrefixRoute::Yes),
            link::up(index),
        ])
        .map_err(failed)
}

fn remove_link(route: &mut Socket, name: &str) -> Result<(), RealizeError> {
    match route.all(&[link::delete(name)]) {
        // It went with its other end.
        Err(error) if error.errno() == Some(libc::ENODEV) => Ok(()),
        done => done.map_err(|source| RealizeError::Remove { interface: name.to_owned(), source }),
    }
}

/// The folder of pinned namespaces under a run folder, for those who only look.
pub fn namespaces_dir(run_dir: &Path) -> PathBuf {
    run_dir.join("net/ns")
}
