//! Lists of a spec, and what is taken out of them and put in: removals first, and what is put in replaces what has the
//! same name.

use std::net::IpAddr;

use skep_model::{ContainerSpec, Labels, NetworkAttachment, PortSpec, ServiceSpec};

use super::pairs;
use crate::cli::service::syntax::{
    CapabilityFlag, ConfigFlag, ConstraintFlag, HostFlag, KeyValue, MountFlag, NetworkFlag, PreferenceFlag,
    PublishFlag, SecretFlag, UlimitFlag,
};

/// What changes of one list; `remove` holds the names of items.
#[derive(Debug, Clone, PartialEq)]
pub struct Edit<T> {
    pub remove: Vec<String>,
    pub add: Vec<T>,
}

impl<T> Default for Edit<T> {
    fn default() -> Self {
        Self { remove: Vec::new(), add: Vec::new() }
    }
}

impl<T: Clone> Edit<T> {
    pub fn new(remove: &[String], add: &[T]) -> Self {
        Self { remove: remove.to_vec(), add: add.to_vec() }
    }

    pub fn adding(add: &[T]) -> Self {
        Self::new(&[], add)
    }

    fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.add.is_empty()
    }

    /// `named` says whether an item is the one of that name, `same` whether one takes the place of another.
    fn apply<I: Clone>(
        &self,
        list: &mut Vec<I>,
        item: impl Fn(&T) -> I,
        named: impl Fn(&I, &str) -> bool,
        same: impl Fn(&I, &I) -> bool,
    ) {
        list.retain(|item| !self.remove.iter().any(|name| named(item, name)));
        for added in self.add.iter().map(item) {
            match list.iter_mut().find(|item| same(item, &added)) {
                Some(place) => *place = added,
                None => list.push(added),
            }
        }
    }
}

/// Everything that is added to and taken from.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Lists {
    pub cap_add: Vec<CapabilityFlag>,
    pub cap_drop: Vec<CapabilityFlag>,
    pub configs: Edit<ConfigFlag>,
    pub constraints: Edit<ConstraintFlag>,
    pub container_labels: Edit<KeyValue>,
    pub dns: Edit<IpAddr>,
    pub dns_options: Edit<String>,
    pub dns_search: Edit<String>,
    /// `NAME=value`
    pub env: Edit<String>,
    pub groups: Edit<String>,
    pub hosts: Edit<HostFlag>,
    pub labels: Edit<KeyValue>,
    pub mounts: Edit<MountFlag>,
    pub networks: Edit<NetworkFlag>,
    pub preferences: Edit<PreferenceFlag>,
    pub ports_rm: Vec<PublishFlag>,
    pub ports_add: Vec<PublishFlag>,
    pub secrets: Edit<SecretFlag>,
    pub sysctls: Edit<KeyValue>,
    pub ulimits: Edit<UlimitFlag>,
}

/// Stands for the network of the node itself, as in Docker.
const HOST_NETWORK: &str = "host";
/// The network of services that name none.
pub const DEFAULT_NETWORK: &str = "default";

impl Lists {
    pub fn apply(&self, spec: &mut ServiceSpec) {
        label(&self.labels, &mut spec.labels);
        self.apply_container(&mut spec.task.container);
        let placement = &mut spec.task.placement;
        self.constraints.apply(
            &mut placement.constraints,
            |ConstraintFlag(constraint)| constraint.clone(),
            |constraint, text| text.parse::<ConstraintFlag>().is_ok_and(|flag| flag.0 == *constraint),
            PartialEq::eq,
        );
        self.preferences.apply(
            &mut placement.preferences,
            |PreferenceFlag(preference)| preference.clone(),
            |preference, text| text.strip_prefix("spread=").unwrap_or(text) == preference.spread,
            PartialEq::eq,
        );
        self.apply_networks(spec);
        let ports = &mut spec.endpoint.ports;
        ports.retain(|port| !self.ports_rm.iter().any(|flag| unpublishes(flag, port)));
        let added = self.ports_add.iter().flat_map(|flag| &flag.ports);
        added.for_each(|port| {
            if !ports.contains(port) {
                ports.push(port.clone())
            }
        });
    }

    /// A service that names no network is in [`DEFAULT_NETWORK`], unless it is to have none.
    fn apply_networks(&self, spec: &mut ServiceSpec) {
        if self.networks.is_empty() {
            return;
        }
        let networks = &mut spec.task.networks;
        let mut add: Vec<NetworkAttachment> =
            self.networks.add.iter().filter_map(|NetworkFlag(network)| network.clone()).collect();
        let is_host = |name: &str| name == HOST_NETWORK;
        spec.task.host_network = match add.iter().any(|network| is_host(&network.network)) {
            true => true,
            false => spec.task.host_network && !self.networks.remove.iter().any(|name| is_host(name)) && add.is_empty(),
        };
        add.retain(|network| !is_host(&network.network));
        Edit::new(&self.networks.remove, &add).apply(
            networks,
            Clone::clone,
            |network, name| network.network.eq_ignore_ascii_case(name),
            |a, b| a.network.eq_ignore_ascii_case(&b.network),
        );
        if networks.is_empty() && !self.without_network() && !spec.task.host_network {
            networks.push(default_network());
        }
    }

    /// Whether the service is to be in no network at all.
    pub fn without_network(&self) -> bool {
        self.networks.add.iter().any(|NetworkFlag(network)| network.is_none())
    }

    fn apply_container(&self, container: &mut ContainerSpec) {
        label(&self.container_labels, &mut container.labels);
        label(&self.sysctls, &mut container.sysctls);
        self.apply_capabilities(container);
        let name = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
        self.env.apply(&mut container.env, Clone::clone, |it, wanted| name(it) == wanted, |a, b| name(a) == name(b));
        let equal = |a: &String, b: &str| a == b;
        self.groups.apply(&mut container.groups, Clone::clone, equal, PartialEq::eq);
        self.dns.apply(&mut container.dns_servers, ToString::to_string, equal, PartialEq::eq);
        self.dns_options.apply(&mut container.dns_options, Clone::clone, equal, PartialEq::eq);
        self.dns_search.apply(&mut container.dns_search, Clone::clone, equal, PartialEq::eq);
        self.hosts.apply(
            &mut container.extra_hosts,
            |HostFlag(name, address)| (name.clone(), address.clone()),
            |(name, address), wanted| match wanted.parse::<HostFlag>() {
                Ok(host) => (&host.0, &host.1) == (name, address),
                Err(_) => name == wanted,
            },
            PartialEq::eq,
        );
        self.mounts.apply(
            &mut container.mounts,
            |MountFlag(mount)| mount.clone(),
            |mount, target| mount.target == target,
            |a, b| a.target == b.target,
        );
        self.secrets.apply(
            &mut container.secrets,
            |SecretFlag(secret)| secret.clone(),
            |secret, name| secret.secret == name,
            |a, b| a.file.path == b.file.path,
        );
        self.configs.apply(
            &mut container.configs,
            |ConfigFlag(config)| config.clone(),
            |config, name| config.config == name,
            |a, b| a.file.path == b.file.path,
        );
        self.ulimits.apply(
            &mut container.ulimits,
            |UlimitFlag(ulimit)| ulimit.clone(),
            |ulimit, name| ulimit.name == name,
            |a, b| a.name == b.name,
        );
    }

    /// What is added is dropped no more, and the other way round; what is asked for both ways is added.
    fn apply_capabilities(&self, container: &mut ContainerSpec) {
        let ContainerSpec { cap_add, cap_drop, .. } = container;
        let put = |flags: &[CapabilityFlag], into: &mut Vec<String>, out_of: &mut Vec<String>| {
            for CapabilityFlag(name) in flags {
                out_of.retain(|other| other != name);
                if !into.contains(name) {
                    into.push(name.clone());
                }
            }
        };
        put(&self.cap_drop, cap_drop, cap_add);
        put(&self.cap_add, cap_add, cap_drop);
    }
}

pub fn default_network() -> NetworkAttachment {
    let network = DEFAULT_NETWORK.to_owned();
    NetworkAttachment { network, aliases: Vec::new(), address: None, address_v6: None }
}

fn label(edit: &Edit<KeyValue>, labels: &mut Labels) {
    labels.retain(|name, _| !edit.remove.contains(name));
    labels.extend(pairs(&edit.add));
}

/// A port is known by the container's port and protocol; by how it is published only where that was said.
fn unpublishes(flag: &PublishFlag, port: &PortSpec) -> bool {
    let same = |wanted: &PortSpec| {
        wanted.target == port.target
            && wanted.protocol == port.protocol
            && (wanted.published == 0 || wanted.published == port.published)
    };
    flag.mode.is_none_or(|mode| mode == port.mode) && flag.ports.iter().any(same)
}
