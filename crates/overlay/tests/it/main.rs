//! The overlay against the real kernel: packets between namespaces, never a look at our own tables.

#![allow(clippy::unwrap_used, reason = "a failed step of a test is a failed test")]

mod balance;
mod coexistence;
mod dual;
mod guest;
mod helper;
mod lab;
mod lifecycle;
mod mesh;
mod netfilter;
mod reach;
mod services;
mod speed;
mod tunnel;
