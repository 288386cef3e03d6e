//! N nodes on one machine, in network namespaces: try-out, tests, benchmarks, faults.
//!
//! A lab is a switch (a network namespace of its own that holds a bridge and plays the world outside) and nodes.
//! A node is a network, mount and uts namespace, a cgroup parent and a set of folders; a daemon started in it sees a machine
//! of its own, while the real machine's network, ports, packet filter and cgroups stay as they were.
//!
//! Everything in a lab is found again by the lab's name: the record under `/run/skep-lab`, cgroups `skep-lab-NAME-N`, and a
//! folder. So whoever comes later can clear what a killed test left, with [`sweep`].
//!
//! It knows nothing of how skep works inside: it starts the binary, speaks to it by command line and socket, and takes it down.
//! [`Cluster`] alone knows what commands make one cluster of the nodes.

mod cgroup;
mod cluster;
mod daemon;
mod docker;
mod faults;
mod holder;
mod http;
mod lab;
mod node;
mod outcome;
mod process;
mod record;
mod registry;
mod teardown;
mod tools;
mod vm;
mod wiring;

pub use cluster::{Cluster, NodeRow, parse_node_rows};
pub use docker::Docker;
pub use faults::{Cut, Direction, Faults, Loss, Slow, run_wire};
pub use http::{HttpAnswer, http_get};
pub use lab::{Lab, LabBuilder, Lifetime, Reach};
pub use node::Node;
pub use outcome::Outcome;
pub use process::{ProcessId, StopSignal};
pub use record::{LabInfo, NodeInfo};
pub use registry::Registry;
pub use teardown::{down, list, sweep};
pub use tools::{find_tool, images_folder, skep_binary};
pub use vm::{GuestRoot, Kernel, Vm, VmConfig, make_disk};
pub use wiring::{OUTSIDE_ADDRESS, OUTSIDE_ADDRESS_V6, node_address, node_address_v6};
