//! The system calls that no safe wrapper offers: one leaf file per family, and nothing else in this crate is unsafe.
#![allow(unsafe_code)]

pub mod namespace;
pub mod netlink;
pub mod tun;
pub mod udp;
