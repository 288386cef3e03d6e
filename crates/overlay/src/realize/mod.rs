//! Makes the kernel be what the plan says: bridges, sandboxes, the nftables table. Everything that is found and not
//! wanted goes; what is there and right is not touched, so applying the same twice changes nothing, and containers'
//! traffic flows on through a daemon's crash, start and upgrade.
//!
//! All calls block, for milliseconds: async callers use `spawn_blocking`. They work on the network namespace of the
//! calling thread's process; only helper threads of their own ever leave it.
//!
//! The order that the agent keeps: `create_sandbox`, start the container, and an `apply` with the endpoint whenever
//! something about it changes. At the end an `apply` with the endpoint no longer serving, so that no new connection
//! comes; time for the old ones to end; stop the container; an `apply` without the endpoint, which makes the node
//! forget its connections; `remove_sandbox`.

mod addresses;
mod bridge;
mod conntrack;
mod error;
mod family;
mod foreign;
mod ingress;
mod link;
mod namespace;
mod neighbourhood;
mod nft;
mod policy;
mod route;
mod sandbox;
mod sysctl;
mod tunnel;
mod ways;
mod wireguard;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

pub use error::{RealizeError, TunnelStatsError};
pub use foreign::Warning;
pub use neighbourhood::{HostRoute, host_routes};
pub use sandbox::Attachment;

use self::addresses::AddressBook;
use self::conntrack::Flows;
use self::family::Family;
use self::sysctl::Ipv6;
use crate::helper::Helper;
use crate::ipam::{Addresses, IpamError, Request};
use crate::netlink::{self, Socket};
use crate::plan::{
    self, Bridge, LINK_PREFIX, Network, NodeNetwork, Problem, Realization, Rules, bridge_name, link_name,
};
use crate::snapshot::Snapshot;
use crate::tunnel::{Carrier, DataPlane, PeerStats, PublicKey, Tunnel};

/// Where the overlay keeps its state.
#[derive(Debug, Clone)]
pub struct Config {
    /// Namespaces are pinned in `<run_dir>/net/ns`.
    pub run_dir: PathBuf,
    /// Addresses in use are kept in `<data_dir>/net/addresses.json`.
    pub data_dir: PathBuf,
    /// Who shall carry the tunnel to other nodes.
    pub data_plane: DataPlane,
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
    carrier: Carrier,
    /// Whether this kernel has it.
    ipv6: Ipv6,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    route: Socket,
    table: nft::Table,
    /// Empty while no network here has IPv6.
    table_v6: nft::Table,
    /// Every sandbox that is there, with the interfaces that it needs on the node: none known for those that an
    /// earlier daemon left, whose links say whose they are.
    sandboxes: BTreeMap<String, BTreeSet<String>>,
    /// Sandboxes that an earlier daemon left and nobody has claimed yet.
    unclaimed: BTreeSet<String>,
    /// Interfaces that an earlier daemon left have been looked for.
    swept: bool,
    flows: Flows,
    addresses: AddressBook,
    /// What the interface was made to be; none known before the first `apply`.
    tunnel: Option<Tunnel>,
}

impl Overlay {
    /// Takes over whatever an earlier daemon left; changes nothing of it before the first `apply`.
    ///
    /// # Errors
    /// When the run folder cannot be written, the process lacks CAP_NET_ADMIN, or the kernel shall carry the tunnel and
    /// cannot.
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
            route: Socket::open(netlink::Family::Route).map_err(RealizeError::Open)?,
            table: nft::Table::open(Family::V4).map_err(RealizeError::Open)?,
            table_v6: nft::Table::open(Family::V6).map_err(RealizeError::Open)?,
            sandboxes: found.iter().map(|id| (id.clone(), BTreeSet::new())).collect(),
            unclaimed: found,
            swept: false,
            flows: Flows::default(),
            addresses: AddressBook::open(&config.data_dir)?,
            tunnel: None,
        };
        let carrier = tunnel::choose(config.data_plane)?;
        let ipv6 = if sysctl::has_ipv6() && nft::is_able(Family::V6) { Ipv6::On } else { Ipv6::Off };
        Ok(Self { namespaces, carrier, ipv6, state: Mutex::new(state) })
    }

    /// Who carries the tunnel to other nodes, as long as this is open.
    pub fn carrier(&self) -> Carrier {
        self.carrier
    }

    /// What is known of the tunnel's peers, from whoever carries it; nothing while there is no tunnel.
    ///
    /// # Errors
    /// When the one who carries cannot be asked.
    pub async fn tunnel_stats(&self, helper: &Helper) -> Result<BTreeMap<PublicKey, PeerStats>, TunnelStatsError> {
        match self.carrier {
            // It is answered within the call, and nobody's lock is waited for.
            Carrier::Kernel => Ok(wireguard::stats().map_err(RealizeError::Stats)?),
            Carrier::Userspace => Ok(helper.tunnel_stats().await?),
        }
    }

    /// What `node` means, without changing anything. The net helper can be given the snapshot before the kernel
    /// is changed, so that a published port that another program has is known before it is taken from it.
    pub fn plan(&self, node: &NodeNetwork) -> Realization {
        let plan = plan::plan(&self.possible(node), &self.namespaces);
        let carried = plan.tunnel.clone().filter(|_| self.carrier == Carrier::Userspace);
        Realization { snapshot: plan.snapshot.with_tunnel(carried), ..plan }
    }

    /// Whether containers here have IPv6 where their network has it.
    pub fn has_ipv6(&self) -> bool {
        self.ipv6 == Ipv6::On
    }

    /// Without what this kernel cannot.
    fn possible(&self, node: &NodeNetwork) -> NodeNetwork {
        let mut node = node.clone();
        node.networks.iter_mut().for_each(|network| *network = self.possible_network(network));
        node
    }

    fn possible_network(&self, network: &Network) -> Network {
        Network { subnet_v6: network.subnet_v6.filter(|_| self.has_ipv6()), ..network.clone() }
    }

    /// Makes the kernel be what `node` says.
    ///
    /// The first call after `open` must name every container that lives: sandboxes that an earlier daemon left and
    /// that neither it nor a `create_sandbox` before it names are removed, with all their traffic.
    ///
    /// # Errors
    /// The table is changed whole or not at all; links are changed up to the failing one. Calling again completes.
    pub fn apply(&self, node: &NodeNetwork) -> Result<Applied, RealizeError> {
        let plan = self.plan(node);
        let Realization { bridges, sandboxes, routes, ingress, rules, rules_v6, tunnel, places, snapshot, problems } =
            plan;
        let mut state = self.state();
        let leftovers: Vec<String> = std::mem::take(&mut state.unclaimed).difference(&sandboxes).cloned().collect();
        let mut gone = BTreeSet::new();
        for id in leftovers {
            gone.extend(self.remove(&mut state, &id)?);
        }
        // The new rules come before new ways and after old ones: nothing is reachable without being checked.
        let table = state.table.apply(&rules).map_err(RealizeError::Table)?;
        self.apply_v6(&mut state, rules_v6.as_ref())?;
        bridge::realize_all(&mut state, &bridges)?;
        let State { route, tunnel: before, .. } = &mut *state;
        tunnel::realize(route, self.carrier, tunnel.as_ref(), before.as_ref())?;
        *before = tunnel;
        let kernel = ways::realize(route, &routes, ingress.as_ref())?;
        let State { table: nft, flows, .. } = &mut *state;
        let all_rules: Vec<&Rules> = [Some(&rules), rules_v6.as_ref()].into_iter().flatten().collect();
        flows.follow(nft.socket(), &all_rules, places, gone).map_err(RealizeError::Forget)?;
        let mut warnings =
            foreign::settle(state.table.socket(), &Family::BOTH[..all_rules.len()]).map_err(RealizeError::Foreign)?;
        warnings.extend((kernel == ingress::Kernel::Unable).then_some(Warning::NoVxlan));
        let lacks = |network: &Network| network.subnet_v6.is_some() && !self.has_ipv6();
        warnings.extend(node.networks.iter().any(lacks).then_some(Warning::NoIpv6));
        Ok(Applied { snapshot, problems, warnings, table })
    }

    /// The table and what else this kernel needs for IPv6, as long as a network here has it.
    fn apply_v6(&self, state: &mut State, rules: Option<&Rules>) -> Result<(), RealizeError> {
        match rules {
            Some(rules) => {
                state.table_v6.apply(rules).map_err(RealizeError::Table)?;
                let key = "ipv6/conf/*/forwarding".to_owned();
                sysctl::forward_ipv6().map_err(|source| RealizeError::Setting { key, source })
            }
            None if self.has_ipv6() && state.table_v6.may_be_there() => {
                state.table_v6.remove().map_err(RealizeError::Table)
            }
            None => Ok(()),
        }
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

    /// How many TCP connections are led to these addresses and have not ended.
    pub fn connections(&self, addresses: &BTreeSet<IpAddr>) -> Result<usize, RealizeError> {
        conntrack::count(self.state().table.socket(), addresses).map_err(RealizeError::Count)
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
        let possible = |at: &Attachment| Attachment { network: self.possible_network(&at.network), ..at.clone() };
        let attachments = &attachments.iter().map(possible).collect::<Vec<_>>();
        let routed = || attachments.iter().filter(|at| !matches!(at.network.driver, plan::Driver::Macvlan { .. }));
        let bridges: Vec<(String, Bridge)> =
            routed().map(|a| (bridge_name(&a.network.id), plan::bridge(&a.network))).collect();
        {
            let mut state = self.state();
            state.unclaimed.remove(id);
            let links = routed().map(|a| link_name(id, &a.network.id));
            let needed = bridges.iter().map(|(name, _)| name.clone()).chain(links).collect();
            state.sandboxes.insert(id.to_owned(), needed);
            for (name, bridge) in &bridges {
                bridge::realize(&mut state.route, name, bridge)?;
            }
        }
        sandbox::realize(id, &netns, attachments)?;
        Ok(Sandbox { id: id.to_owned(), netns })
    }

    /// Removes a sandbox: from now on its addresses are refused to everybody. Nothing happens if there is none.
    ///
    /// Its interfaces go with the last process in it, by the kernel, which removes many at once in the time that it
    /// takes for one.
    pub fn remove_sandbox(&self, id: &str) -> Result<(), RealizeError> {
        self.remove(&mut self.state(), id).map(drop)
    }

    /// Every sandbox that is there, whoever made it.
    pub fn sandboxes(&self) -> Vec<Sandbox> {
        let sandbox = |id: &String| Sandbox { id: id.clone(), netns: self.namespaces.join(id) };
        self.state().sandboxes.keys().map(sandbox).collect()
    }

    /// Removes all that this crate ever put into the kernel and the run folder. Forwarding stays on, for other
    /// programs may rely on it by now.
    pub fn teardown(&self) -> Result<(), RealizeError> {
        let mut state = self.state();
        for id in state.sandboxes.keys().cloned().collect::<Vec<_>>() {
            self.remove(&mut state, &id)?;
        }
        ways::remove(&mut state.route)?;
        tunnel::remove(&mut state.route)?;
        bridge::remove_all(&mut state.route)?;
        state.table.remove().map_err(RealizeError::Table)?;
        self.apply_v6(&mut state, None)?;
        foreign::withdraw(state.table.socket()).map_err(RealizeError::Foreign)?;
        state.addresses.remove()?;
        fs::remove_dir(&self.namespaces)
            .map_err(|source| RealizeError::Folder { path: self.namespaces.clone(), source })
    }

    /// The addresses that the sandbox had.
    fn remove(&self, state: &mut State, id: &str) -> Result<BTreeSet<IpAddr>, RealizeError> {
        let path = self.path(id)?;
        let links = link::list(&mut state.route).map_err(RealizeError::List)?;
        let routed = route::routed_addresses(&mut state.route).map_err(RealizeError::List)?;
        let needed = state.sandboxes.get(id).cloned().unwrap_or_default();
        let owned = links.iter().filter(|(name, link)| {
            name.starts_with(LINK_PREFIX) && (needed.contains(*name) || sandbox::owner(&link.alias) == Some(id))
        });
        let owned: BTreeSet<u32> = owned.map(|(_, link)| link.index).collect();
        let gone: Vec<(u32, IpAddr)> = routed.into_iter().filter(|(index, _)| owned.contains(index)).collect();
        let routes: Vec<_> = gone.iter().map(|(index, address)| route::delete_straight(*address, *index)).collect();
        for answer in state.route.each(&routes).map_err(RealizeError::List)? {
            match answer {
                // The link went first, and the route with it.
                Err(error) if matches!(error.errno(), Some(libc::ESRCH | libc::ENODEV)) => {}
                answer => answer.map_err(|source| RealizeError::Sandbox {
                    id: id.to_owned(),
                    step: "end routes to",
                    source,
                })?,
            }
        }
        namespace::release(&path).map_err(|source| RealizeError::Namespace { path, source })?;
        state.sandboxes.remove(id);
        state.unclaimed.remove(id);
        Ok(gone.into_iter().map(|(_, address)| address).collect())
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

/// The folder of pinned namespaces under a run folder, for those who only look.
pub fn namespaces_dir(run_dir: &Path) -> PathBuf {
    run_dir.join("net/ns")
}
