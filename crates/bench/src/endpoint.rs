//! What one endpoint's coming or going costs among many, from the plan to the kernel: run in a network namespace of its
//! own, which it fills.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use skep_overlay::plan::{Backend, Balance, Network, NodeNetwork, Service};
use skep_overlay::tunnel::DataPlane;
use skep_overlay::{Config, Overlay};

/// Backends of each service.
const EACH: u32 = 10;
/// Changes that are measured.
const CHANGES: usize = 100;

pub fn run(folder: &std::path::Path, backends: u32) -> Result<()> {
    let config =
        Config { run_dir: folder.join("run"), data_dir: folder.join("data"), data_plane: DataPlane::Userspace };
    let overlay = Overlay::open(&config).context("cannot open the network")?;
    let mut node = filled(backends);
    let begin = Instant::now();
    let applied = overlay.apply(&node).context("cannot fill the network")?;
    ensure!(applied.problems.is_empty(), "{:?}", applied.problems);
    let load = begin.elapsed();
    let mut took: Vec<Duration> = Vec::new();
    for round in 0..CHANGES {
        // Another service each time: it comes, and goes with the next.
        let service = (round / 2 * 7) % node.services.len();
        let backends = &mut node.services[service].backends;
        match round % 2 {
            0 => backends.push(Backend { address: Ipv4Addr::new(10, 127, 255, 250), serving: true }),
            _ => drop(backends.pop()),
        }
        let begin = Instant::now();
        overlay.apply(&node).context("cannot change the network")?;
        took.push(begin.elapsed());
    }
    took.sort();
    overlay.teardown().context("cannot remove the network")?;
    let millis = |duration: Duration| duration.as_secs_f64() * 1e3;
    let median = millis(took[CHANGES / 2]);
    println!("{}", json!({ "load_ms": millis(load), "change_ms": median, "slowest_ms": millis(took[CHANGES - 1]) }));
    Ok(())
}

/// Services with [`EACH`] backends on one network, without a container.
fn filled(backends: u32) -> NodeNetwork {
    let network = Network {
        id: "network".to_owned(),
        name: "network".to_owned(),
        subnet: "10.64.0.0/10".parse().expect("a literal range is one"),
        subnet_v6: None,
        gateway: Ipv4Addr::new(10, 64, 0, 1),
        blocks: vec![],
        internal: false,
        driver: skep_overlay::plan::Driver::Overlay,
    };
    let first = u32::from(Ipv4Addr::new(10, 64, 0, 2));
    let virtual_ips = u32::from(Ipv4Addr::new(10, 112, 0, 0));
    let service = |number: u32| Service {
        network: network.id.clone(),
        vip: Some(Ipv4Addr::from(virtual_ips + number)),
        names: vec![format!("service{number}")],
        backends: (0..EACH)
            .map(|slot| Backend { address: Ipv4Addr::from(first + number * EACH + slot), serving: true })
            .collect(),
        balance: Balance::default(),
    };
    NodeNetwork {
        services: (0..backends / EACH).map(service).collect(),
        networks: vec![network],
        ..NodeNetwork::nothing("10.64.0.0/10".parse().expect("a literal range is one"))
    }
}
