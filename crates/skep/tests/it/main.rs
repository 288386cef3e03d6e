//! The built `skep` in lab nodes: what a user does, what a user gets when something is wrong, and each promise of a
//! compose file kept by a real container.

mod at_most_one;
mod bad_compose;
mod bad_input;
mod beginnings;
mod cli;
mod cluster;
mod container;
mod deploys;
mod disaster;
mod docker_parity;
mod draining;
mod drivers;
mod dual;
mod events;
mod exec;
mod faults;
mod health;
mod hooks;
mod jobs;
mod limits;
mod load;
mod names;
mod networks;
mod ports;
#[cfg(target_arch = "x86_64")]
mod power_cut;
#[cfg(target_arch = "x86_64")]
mod qemu;
mod restarts;
mod revisions;
mod services;
mod storage;
mod templates;
mod traces;
mod trust;
mod two_nodes;
mod unlock;
mod updates;
mod volumes;
mod walk;
mod workers_first;
mod world;
