//! Row B13: the scheduler alone, on one core.
//!
//! Nodes are of several kinds, as in a real cluster: 16 zones, half with an SSD, a quarter arm64.
//! Of the services a quarter has no constraint, a quarter wants a zone, a quarter an SSD in any zone but one, and
//! a quarter is for arm64 and spreads over zones; all of them reserve processors and memory, in three sizes.

use std::sync::Arc;

use anyhow::{Result, ensure};
use serde::Serialize;
use skep_model::{
    Change, Cluster, DesiredState, IdSource, Labels, MemoryBytes, Meta, NanoCpus, Node, NodeDescription, NodeResources,
    NodeSpec, NodeState, NodeStatus, Placement, Platform, PlatformSpec, Preference, Reservations, Resources, Service,
    Slot, Task, TaskId, TaskState, TaskStatus, Timestamp, Version,
};

use crate::spec;

const NOW: Timestamp = Timestamp(1_800_000_000_000_000_000);
const ZONES: usize = 16;
const RUNS: usize = 7;

#[derive(Serialize)]
struct Placed {
    nodes: usize,
    services: usize,
    tasks: usize,
    /// Of the processor, so that other work on the machine does not count; the median of [`RUNS`].
    seconds: f64,
    placements_per_second: f64,
    /// The most and the fewest tasks that a node took.
    load_max: usize,
    load_min: usize,
}

/// Places `services` × `replicas` tasks onto empty nodes, several times, and prints the median.
pub fn run(nodes: usize, services: usize, replicas: usize) -> Result<()> {
    let mut ids = IdSource::from_seed(13);
    let mut cluster = Cluster::default();
    let mut index = 0;
    let mut apply = |change: Change| {
        index += 1;
        cluster.apply(&change, index)
    };
    for number in 0..nodes {
        apply(Change::CreateNode { node: Box::new(node(&mut ids, number)) })?;
    }
    for number in 0..services {
        let service = service(&mut ids, number);
        let (id, name, spec) = (service.id, service.spec.name.clone(), Arc::new(service.spec.task.clone()));
        apply(Change::CreateService { service: Box::new(service) })?;
        for slot in 1..=replicas {
            let task = Task {
                id: ids.next_id(),
                meta: Meta::new(NOW),
                service: id,
                service_name: name.clone(),
                slot: Slot::Replica(slot as u64),
                spec: Arc::clone(&spec),
                spec_version: Version(0),
                networks: Vec::new(),
                host_ports: Vec::new(),
                node: None,
                desired: DesiredState::Running,
                status: TaskStatus::new(TaskState::Pending, NOW, ""),
                not_before: None,
                failures_before: 0,
                iteration: None,
                running_since: None,
                withdrawn: false,
                generic: Vec::new(),
                stop_reason: None,
                service_labels: Default::default(),
                home: None,
            };
            apply(Change::CreateTask { task: Box::new(task) })?;
        }
    }
    measure(&cluster, nodes, services)
}

fn measure(cluster: &Cluster, nodes: usize, services: usize) -> Result<()> {
    let pending: Vec<TaskId> = cluster.tasks.keys().copied().collect();
    let mut seconds = Vec::with_capacity(RUNS);
    let mut loads = std::collections::BTreeMap::new();
    for _ in 0..RUNS {
        let start = cpu_seconds();
        let placements = skep_scheduler::schedule(cluster, &pending, NOW);
        seconds.push(cpu_seconds() - start);
        ensure!(placements.len() == pending.len(), "{} of {} tasks were answered", placements.len(), pending.len());
        loads.clear();
        for placement in placements {
            match placement {
                skep_scheduler::Placement::Assigned { node, .. } => *loads.entry(node).or_insert(0) += 1,
                skep_scheduler::Placement::Unplaced { reason, .. } => anyhow::bail!("a task was not placed: {reason}"),
            }
        }
    }
    seconds.sort_by(f64::total_cmp);
    let seconds = seconds[RUNS / 2];
    let placed = Placed {
        nodes,
        services,
        tasks: pending.len(),
        seconds,
        placements_per_second: pending.len() as f64 / seconds,
        load_max: loads.values().copied().max().unwrap_or(0),
        load_min: if loads.len() < nodes { 0 } else { loads.values().copied().min().unwrap_or(0) },
    };
    println!("{}", serde_json::to_string(&placed)?);
    Ok(())
}

/// What this process, which has one thread, has used of the processor.
fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn node(ids: &mut IdSource, number: usize) -> Node {
    let disk = if number.is_multiple_of(2) { "ssd" } else { "hdd" };
    let architecture = if number % 4 == 3 { "arm64" } else { "amd64" };
    Node {
        id: ids.next_id(),
        meta: Meta::new(NOW),
        spec: NodeSpec {
            labels: Labels::from([
                ("zone".to_owned(), format!("z{}", number / 4 % ZONES)),
                ("disk".to_owned(), disk.to_owned()),
            ]),
            ..NodeSpec::default()
        },
        description: Some(NodeDescription {
            hostname: format!("node-{number}"),
            platforms: vec![Platform {
                os: "linux".to_owned(),
                architecture: architecture.to_owned(),
                variant: String::new(),
            }],
            resources: NodeResources { nano_cpus: NanoCpus(64_000_000_000), memory: MemoryBytes(256 << 30) },
            ..NodeDescription::default()
        }),
        status: NodeStatus { state: NodeState::Ready, ..NodeStatus::default() },
        manager: None,
        certificate: Default::default(),
        tunnel: None,
    }
}

fn service(ids: &mut IdSource, number: usize) -> Service {
    let zone = number / 4 % ZONES;
    let constraints = match number % 4 {
        0 | 3 => Vec::new(),
        1 => vec![format!("node.labels.zone == z{zone}")],
        _ => vec!["node.labels.disk == ssd".to_owned(), format!("node.labels.zone != z{zone}")],
    };
    let arm = PlatformSpec { os: "linux".to_owned(), architecture: "arm64".to_owned(), variant: String::new() };
    let spreads = number % 4 == 3;
    let placement = Placement {
        constraints: constraints.iter().map(|text| text.parse().expect("a constraint of ours parses")).collect(),
        preferences: spreads.then(|| Preference { spread: "node.labels.zone".to_owned() }).into_iter().collect(),
        max_replicas_per_node: 0,
        platforms: spreads.then_some(arm).into_iter().collect(),
        ..Placement::default()
    };
    let size = 1 + (number / 7 % 3) as u64;
    let reservations =
        Reservations { nano_cpus: Some(NanoCpus(size * 100_000_000)), memory: Some(MemoryBytes(size * (64 << 20))) };
    let mut spec = spec::service(&format!("service-{number}"), 1);
    spec.task.placement = placement;
    spec.task.resources = Resources { reservations, ..Resources::default() };
    Service::new(ids.next_id(), spec, NOW)
}
