//! The networks' bridges on this node: made, mended, and removed once nobody needs them.

use std::collections::{BTreeMap, BTreeSet};

use super::sysctl::Ipv6;
use super::{RealizeError, State, link, sandbox, sysctl};
use crate::netlink::{NetlinkError, Socket};
use crate::plan::{BRIDGE_PREFIX, Bridge, LINK_PREFIX, link_group};

/// Makes the bridges be those wanted, but keeps what a sandbox is plugged into.
pub fn realize_all(state: &mut State, wanted: &BTreeMap<String, Bridge>) -> Result<(), RealizeError> {
    let links = link::list(&mut state.route).map_err(RealizeError::List)?;
    let addresses = link::list_addresses(&mut state.route).map_err(RealizeError::List)?;
    for (name, bridge) in wanted {
        let right = |link: &link::Link| addresses.get(&link.index).is_some_and(|has| *has == bridge.addresses);
        if !links.get(name).is_some_and(right) {
            realize(&mut state.route, name, bridge)?;
        }
    }
    let used: BTreeSet<&String> = state.sandboxes.values().flatten().collect();
    for (name, link) in &links {
        let stray_bridge = name.starts_with(BRIDGE_PREFIX) && !wanted.contains_key(name) && !used.contains(name);
        let stray_link = name.starts_with(LINK_PREFIX)
            && !state.swept
            && !used.contains(name)
            && !sandbox::owner(&link.alias).is_some_and(|id| state.sandboxes.contains_key(id));
        if stray_bridge || stray_link {
            remove_link(&mut state.route, name)?;
        }
    }
    state.swept = true;
    Ok(())
}

/// Makes one bridge, or mends it.
pub fn realize(route: &mut Socket, name: &str, bridge: &Bridge) -> Result<(), RealizeError> {
    let failed = |source| RealizeError::Bridge { bridge: name.to_owned(), network: bridge.network.clone(), source };
    if let Some(link) = link::find(route, name).map_err(failed)? {
        let addresses = link::list_addresses(route).map_err(failed)?.remove(&link.index).unwrap_or_default();
        if addresses == bridge.addresses {
            return Ok(());
        }
        let wrong = addresses.difference(&bridge.addresses);
        let removals: Vec<_> = wrong.map(|address| link::delete_address(link.index, *address)).collect();
        route.all(&removals).map_err(failed)?;
    } else {
        route.all(&[link::new_bridge(name, link_group(&bridge.network))]).map_err(failed)?;
    }
    let ipv6 = if bridge.addresses.iter().any(|address| address.addr().is_ipv6()) { Ipv6::On } else { Ipv6::Off };
    sysctl::set_ipv6(name, ipv6)
        .map_err(|source| RealizeError::Setting { key: format!("ipv6/conf/{name}/disable_ipv6"), source })?;
    let link = link::find(route, name).map_err(failed)?;
    let index = link.map(|link| link.index).unwrap_or_default();
    let mut requests = vec![link::set_alias(index, &format!("skep {}", bridge.network)), link::up(index)];
    // Last: a bridge with its addresses is complete.
    requests.extend(bridge.addresses.iter().map(|address| link::new_address(index, *address)));
    route.all(&requests).map_err(failed)
}

/// Removes every interface of ours. The kernel removes a group in the time that it takes for one.
pub fn remove_all(route: &mut Socket) -> Result<(), RealizeError> {
    let links = link::list(route).map_err(RealizeError::List)?;
    let ours = |name: &str| name.starts_with(BRIDGE_PREFIX) || name.starts_with(LINK_PREFIX);
    let groups: BTreeMap<u32, &String> =
        links.iter().filter(|(name, _)| ours(name)).map(|(name, link)| (link.group, name)).collect();
    for (group, name) in groups {
        removed(name, route.all(&[link::delete_group(group)]))?;
    }
    Ok(())
}

fn remove_link(route: &mut Socket, name: &str) -> Result<(), RealizeError> {
    removed(name, route.all(&[link::delete(name)]))
}

fn removed(name: &str, outcome: Result<(), NetlinkError>) -> Result<(), RealizeError> {
    match outcome {
        // It went with its other end.
        Err(error) if error.errno() == Some(libc::ENODEV) => Ok(()),
        outcome => outcome.map_err(|source| RealizeError::Remove { interface: name.to_owned(), source }),
    }
}
