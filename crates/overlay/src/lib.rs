//! One node's network: plan (pure), realize (netlink, nftables), and the net helper (DNS, localhost proxies).

pub mod snapshot;
