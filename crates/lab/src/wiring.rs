//! The lab's switch: a bridge in the outside namespace, and a veth pair from it to each node.
//!
//! Done over netlink, on threads inside the namespaces. Addresses come from ranges that no real network uses
//! (RFC 5737 TEST-NET-2, RFC 3849), so that they cannot meet a pool of skep's or Docker's.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result};
use futures::TryStreamExt;
use rtnetlink::{Handle, LinkBridge, LinkUnspec, LinkVeth, RouteMessageBuilder};

use crate::holder::Holder;

/// The outside's address on the switch: where a client from outside, or a registry for all nodes, sits.
pub const OUTSIDE_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 254);
pub const OUTSIDE_ADDRESS_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x5ce9, 0, 0, 0, 0, 254);

const PREFIX_V4: u8 = 24;
const PREFIX_V6: u8 = 64;
const BRIDGE: &str = "lab";
/// A node's link to the switch.
pub(crate) const UPLINK: &str = "eth0";
/// The end of the cable to the machine itself, in the machine's own network. One name, for one lab has the addresses there.
const MACHINE: &str = "skep-lab";

/// The address of node `number` (1 to 250) on the switch.
pub fn node_address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 51, 100, number)
}

pub fn node_address_v6(number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0x5ce9, 0, 0, 0, 0, u16::from(number))
}

/// Makes the bridge, without addresses.
pub(crate) fn make_switch(outside: &Holder) -> Result<()> {
    netlink(outside, async |handle| {
        set_up(handle, "lo").await?;
        handle.link().add(LinkBridge::new(BRIDGE).build()).execute().await.context("cannot create the bridge")?;
        set_up(handle, BRIDGE).await
    })
}

/// Gives the outside's addresses to the switch itself: the world outside is its namespace.
pub(crate) fn stay_apart(outside: &Holder) -> Result<()> {
    netlink(outside, async |handle| {
        skip_duplicate_detection(BRIDGE)?;
        add_address(handle, BRIDGE, OUTSIDE_ADDRESS.into(), PREFIX_V4).await?;
        add_address(handle, BRIDGE, OUTSIDE_ADDRESS_V6.into(), PREFIX_V6).await
    })
}

/// Runs a cable from the switch into the network that this process is in, and gives its end there the outside's addresses: the
/// world outside is this machine. False, with nothing done, when another lab has that cable. It goes with the switch.
pub(crate) fn join_machine(outside: &Holder) -> Result<bool> {
    let (port, far_end) = ("machine", MACHINE);
    let own_pid = std::process::id();
    let joined = netlink(outside, async |handle| {
        let pair = LinkVeth::new(port, far_end).build();
        handle.link().add(pair).execute().await.context("cannot create a veth pair")?;
        let bridge = index_of(handle, BRIDGE).await?;
        let port = index_of(handle, port).await?;
        handle.link().set(LinkUnspec::new_with_index(port).controller(bridge).up().build()).execute().await?;
        let far_end = index_of(handle, far_end).await?;
        match handle.link().set(LinkUnspec::new_with_index(far_end).setns_by_pid(own_pid).build()).execute().await {
            Ok(()) => Ok(true),
            Err(rtnetlink::Error::NetlinkError(error)) if error.to_io().kind() == io::ErrorKind::AlreadyExists => {
                handle.link().del(port).execute().await.context("cannot remove a veth pair")?;
                Ok(false)
            }
            Err(error) => Err(error).context("cannot run a cable to this machine"),
        }
    })?;
    if joined {
        netlink_here(async |handle| {
            add_address(handle, MACHINE, OUTSIDE_ADDRESS.into(), PREFIX_V4).await?;
            // A machine may do without IPv6.
            let switch = format!("/proc/sys/net/ipv6/conf/{MACHINE}/disable_ipv6");
            if fs::read_to_string(switch).is_ok_and(|disabled| disabled.trim() == "0") {
                skip_duplicate_detection(MACHINE)?;
                add_address(handle, MACHINE, OUTSIDE_ADDRESS_V6.into(), PREFIX_V6).await?;
            }
            set_up(handle, MACHINE).await
        })?;
    }
    Ok(joined)
}

/// Runs a cable from the switch to node `number`, and gives the node its addresses and its way out.
pub(crate) fn plug(outside: &Holder, node: &Holder, number: u8) -> Result<()> {
    let (port, far_end) = (port_name(number), format!("far{number}"));
    let pid = u32::try_from(node.process.pid).context("process number does not fit")?;
    netlink(outside, async |handle| {
        handle
            .link()
            .add(LinkVeth::new(&port, &far_end).build())
            .execute()
            .await
            .context("cannot create a veth pair")?;
        let bridge = index_of(handle, BRIDGE).await?;
        let port = index_of(handle, &port).await?;
        handle.link().set(LinkUnspec::new_with_index(port).controller(bridge).up().build()).execute().await?;
        let far_end = index_of(handle, &far_end).await?;
        handle.link().set(LinkUnspec::new_with_index(far_end).setns_by_pid(pid).build()).execute().await?;
        Ok(())
    })?;
    netlink(node, async |handle| {
        set_up(handle, "lo").await?;
        let index = index_of(handle, &far_end).await?;
        handle.link().set(LinkUnspec::new_with_index(index).name(UPLINK).build()).execute().await?;
        skip_duplicate_detection(UPLINK)?;
        add_address(handle, UPLINK, node_address(number).into(), PREFIX_V4).await?;
        add_address(handle, UPLINK, node_address_v6(number).into(), PREFIX_V6).await?;
        set_up(handle, UPLINK).await?;
        let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(OUTSIDE_ADDRESS).build();
        handle.route().add(route).execute().await.context("cannot add the default route")?;
        let route = RouteMessageBuilder::<Ipv6Addr>::new().gateway(OUTSIDE_ADDRESS_V6).build();
        handle.route().add(route).execute().await.context("cannot add the IPv6 default route")?;
        Ok(())
    })
}

/// Pulls a node's cable at the switch (`connected` = false) or puts it back. Addresses and routes in the node stay.
pub(crate) fn set_connected(outside: &Holder, number: u8, connected: bool) -> Result<()> {
    netlink(outside, async |handle| {
        let index = index_of(handle, &port_name(number)).await?;
        let link = LinkUnspec::new_with_index(index);
        let link = if connected { link.up() } else { link.down() };
        handle.link().set(link.build()).execute().await.context("cannot switch the port")
    })
}

/// The name of node `number`'s port at the switch.
pub(crate) fn port_name(number: u8) -> String {
    format!("node{number}")
}

/// Runs `work` with a netlink connection of the holder's network namespace.
fn netlink<T: Send>(holder: &Holder, work: impl AsyncFnOnce(&Handle) -> Result<T> + Send) -> Result<T> {
    holder.in_netns(|| netlink_here(work))?
}

fn netlink_here<T>(work: impl AsyncFnOnce(&Handle) -> Result<T>) -> Result<T> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_io().build().context("cannot start a runtime")?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection().context("cannot open a netlink socket")?;
        let connection = tokio::spawn(connection);
        let result = work(&handle).await;
        connection.abort();
        result
    })
}

async fn index_of(handle: &Handle, name: &str) -> Result<u32> {
    let mut links = handle.link().get().match_name(name.to_owned()).execute();
    let link = links.try_next().await.with_context(|| format!("cannot look up link {name}"))?;
    Ok(link.with_context(|| format!("there is no link {name}"))?.header.index)
}

async fn set_up(handle: &Handle, name: &str) -> Result<()> {
    let index = index_of(handle, name).await?;
    let request = handle.link().set(LinkUnspec::new_with_index(index).up().build());
    request.execute().await.with_context(|| format!("cannot set {name} up"))
}

async fn add_address(handle: &Handle, name: &str, address: IpAddr, prefix: u8) -> Result<()> {
    let index = index_of(handle, name).await?;
    let request = handle.address().add(index, address, prefix);
    request.execute().await.with_context(|| format!("cannot give {address} to {name}"))
}

/// An IPv6 address is unusable for a second or two while the kernel asks whether somebody else has it; here nobody has.
/// `/proc/sys/net` shows the network namespace of the thread that reads it.
fn skip_duplicate_detection(link: &str) -> Result<()> {
    let file = format!("/proc/sys/net/ipv6/conf/{link}/accept_dad");
    fs::write(&file, "0").with_context(|| format!("cannot write {file}"))
}
