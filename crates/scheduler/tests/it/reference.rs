//! The scheduler against one that looks at every node for every task: slow, and too simple to be wrong.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use skep_model::*;
use skep_scheduler::{Placement, schedule};

use crate::lab::{Lab, NOW};

/// Where each task goes, one at a time, in the order in which the scheduler answers.
fn one_by_one(cluster: &Cluster, order: &[TaskId]) -> BTreeMap<TaskId, Option<NodeId>> {
    let mut placed: BTreeMap<TaskId, Option<NodeId>> = BTreeMap::new();
    for id in order {
        let task = &cluster.tasks[id];
        let on = |node: &Node| -> Vec<&Task> {
            let here = |task: &&Task| {
                let assigned = task.occupies_node() && task.node == Some(node.id);
                assigned || placed.get(&task.id) == Some(&Some(node.id))
            };
            cluster.tasks.values().map(|task| &**task).filter(here).collect()
        };
        let allowed = |node: &Node| company(cluster, task, &on(node)) && at_home(cluster, task, node);
        let fitting = |node: &Node| fits(task, node, &on(node)) && allowed(node);
        let nodes = cluster.nodes.values().filter(|node| fitting(node));
        let best = nodes.min_by_key(|node| rank(cluster, task, node, &on));
        placed.insert(*id, best.map(|node| node.id));
    }
    placed
}

fn fits(task: &Task, node: &Node, there: &[&Task]) -> bool {
    let placement = &task.spec.placement;
    let have = node.description.as_ref().map(|description| description.resources).unwrap_or_default();
    let cpus = |task: &Task| task.spec.resources.reservations.nano_cpus.unwrap_or_default().0;
    let ports = |task: &Task| task.host_ports.iter().map(|port| port.published).collect::<BTreeSet<u16>>();
    let of_service = there.iter().filter(|other| other.service == task.service).count() as u64;
    node.status.state == NodeState::Ready
        && node.spec.availability == Availability::Active
        && have.nano_cpus.0.saturating_sub(there.iter().map(|other| cpus(other)).sum()) >= cpus(task)
        && node.satisfies(&placement.constraints)
        && placement.platforms.iter().all(|wanted| {
            let platforms = node.description.iter().flat_map(|it| it.platforms.iter().chain(&it.emulated));
            platforms.into_iter().any(|it| it.architecture == wanted.architecture)
        })
        && there.iter().all(|other| ports(other).is_disjoint(&ports(task)))
        && (placement.max_replicas_per_node == 0 || of_service < placement.max_replicas_per_node)
}

/// Whether other services' tasks on a node, `there`, let one of `task`'s in.
fn company(cluster: &Cluster, task: &Task, there: &[&Task]) -> bool {
    let is_there = |name: &String| there.iter().any(|other| other.service_name == *name);
    let avoids = |other: &&Task| {
        let placement = &cluster.services[&other.service].spec.task.placement;
        placement.anti_affinity.contains(&task.service_name)
    };
    let placement = &task.spec.placement;
    placement.affinity.iter().all(is_there)
        && !placement.anti_affinity.iter().any(is_there)
        && !there.iter().any(avoids)
}

fn at_home(cluster: &Cluster, task: &Task, node: &Node) -> bool {
    let home = task.home.and_then(|home| cluster.nodes.get(&home));
    let lost = |home: &&std::sync::Arc<Node>| {
        let drained = home.spec.availability == Availability::Drain;
        drained || home.status.state == NodeState::Down || !home.satisfies(&task.spec.placement.constraints)
    };
    home.filter(|home| !lost(home)).is_none_or(|home| home.id == node.id)
}

type Rank = (Vec<usize>, Vec<String>, bool, usize, u64, usize, usize, NodeId);

/// Branches by their load, level by level; then failures, tasks of the service, tasks.
fn rank<'c>(cluster: &Cluster, task: &Task, node: &Node, on: &impl Fn(&Node) -> Vec<&'c Task>) -> Rank {
    let of_service = |node: &Node| on(node).iter().filter(|other| other.service == task.service).count();
    let label = |node: &Node, wanted: &Preference| {
        let name = wanted.spread.strip_prefix("node.labels.").unwrap();
        node.spec.labels.get(name).cloned().unwrap_or_default()
    };
    let preferences = &task.spec.placement.preferences;
    let branch = |node: &Node| -> Vec<String> { preferences.iter().map(|wanted| label(node, wanted)).collect() };
    let own = branch(node);
    let load = |length: usize| -> usize {
        let below = cluster.nodes.values().filter(|other| branch(other)[..length] == own[..length]);
        below.map(|node| of_service(node)).sum()
    };
    let failed = |other: &&std::sync::Arc<Task>| {
        let same = other.service == task.service && other.spec_version == task.spec_version;
        same && other.node == Some(node.id) && other.status.state == TaskState::Failed
    };
    let failures = cluster.tasks.values().filter(failed).count();
    let counted = if failures >= 5 { failures } else { 0 };
    let loads: Vec<usize> = (1..=own.len()).map(load).collect();
    let description = node.description.as_ref().unwrap();
    let wanted = &task.spec.placement.platforms;
    let itself = description.platforms.iter().any(|it| wanted.iter().all(|want| want.architecture == it.architecture));
    if task.spec.placement.strategy == Some(PlacementStrategy::BinPack) {
        let reserved = |task: &&Task| task.spec.resources.reservations.nano_cpus.unwrap_or_default().0;
        let used: u64 = on(node).iter().map(reserved).sum();
        let total = description.resources.nano_cpus.0;
        let fullness = used.min(total) * 1000 / total;
        return (loads, own, !itself, counted, 1000 - fullness, 0, 1000 - on(node).len(), node.id);
    }
    (loads, own, !itself, counted, 0, of_service(node), on(node).len(), node.id)
}

#[derive(Debug, Clone)]
struct Machine {
    zone: u8,
    disk: u8,
    cpus: u64,
    kind: u8,
}

#[derive(Debug, Clone)]
struct Asked {
    constraint: u8,
    preference: u8,
    cpus: u64,
    most: u64,
    port: bool,
    running: u64,
    failing: u64,
    replicas: u64,
    /// What is asked beyond Swarm: by bits, company, packing, data somewhere.
    more: u8,
}

fn machine() -> impl Strategy<Value = Machine> {
    (0..3u8, 0..2u8, 1..6u64, 0..8u8).prop_map(|(zone, disk, cpus, kind)| Machine { zone, disk, cpus, kind })
}

fn asked() -> impl Strategy<Value = Asked> {
    let limits = (0..3u64, 0..3u64, prop::bool::weighted(0.2));
    let history = (0..4u64, prop_oneof![Just(0u64), Just(4), 5..8u64], 0..9u64);
    let more = prop_oneof![3 => Just(0u8), 2 => 0..8u8];
    (0..7u8, 0..3u8, limits, history, more).prop_map(
        |(constraint, preference, (cpus, most, port), (running, failing, replicas), more)| Asked {
            more,
            constraint,
            preference,
            cpus,
            most,
            port,
            running,
            failing,
            replicas,
        },
    )
}

fn add_node(lab: &mut Lab, number: usize, machine: &Machine) -> NodeId {
    lab.node(&format!("n{number}"), |node| {
        node.spec.labels.insert("zone".into(), format!("Z{}", machine.zone));
        if machine.disk > 0 {
            node.spec.labels.insert("disk".into(), "ssd".into());
        }
        let description = node.description.as_mut().unwrap();
        description.resources.nano_cpus = NanoCpus(machine.cpus);
        match machine.kind {
            0 => node.spec.availability = Availability::Drain,
            1 => node.status.state = NodeState::Down,
            2 => description.platforms[0].architecture = "arm64".into(),
            3 => {
                description.emulated = description.platforms.clone();
                description.platforms[0].architecture = "arm64".into();
            }
            _ => node.status.address = "10.0.0.7".into(),
        }
    })
}

fn add_service(lab: &mut Lab, number: usize, asked: &Asked, nodes: &[NodeId]) -> Vec<TaskId> {
    let constraints = [
        "",
        "node.labels.zone == z1",
        "node.labels.zone != Z1",
        "node.labels.disk == SSD",
        "node.platform.arch == arm64",
        "node.ip == 10.0.0.0/8",
        "node.hostname != n0",
    ];
    let service = lab.service(&format!("s{number}"), |task| {
        let constraint = constraints[usize::from(asked.constraint)];
        task.placement.constraints.extend((!constraint.is_empty()).then(|| constraint.parse().unwrap()));
        for label in ["node.labels.zone", "node.labels.disk"].iter().take(usize::from(asked.preference)) {
            task.placement.preferences.push(Preference { spread: (*label).to_owned() });
        }
        if asked.port {
            let platform = PlatformSpec { os: "linux".into(), architecture: "amd64".into(), variant: String::new() };
            task.placement.platforms.push(platform);
        }
        task.placement.max_replicas_per_node = asked.most;
        // Of two services of which each may follow the other, who is first decides: not looked at here.
        if asked.more & 1 != 0 && number > 0 {
            task.placement.affinity.push(format!("s{}", number - 1));
        }
        if asked.more & 2 != 0 {
            task.placement.anti_affinity.push(format!("s{}", number + 2));
        }
        if asked.more & 4 != 0 {
            task.placement.strategy = Some(PlacementStrategy::BinPack);
        }
        task.resources.reservations.nano_cpus = Some(NanoCpus(asked.cpus));
    });
    let port = PortSpec {
        name: None,
        protocol: PortProtocol::Tcp,
        target: 80,
        published: 8080,
        mode: PublishMode::Host,
        host_ip: None,
    };
    let ports = if asked.port { vec![port] } else { Vec::new() };
    for (at, task) in lab.tasks(service, asked.failing, &[]).into_iter().enumerate() {
        let node = nodes[at / 6 % nodes.len()];
        lab.apply(Change::AssignTask { task, node, at: NOW });
        lab.apply(Change::ReportTask { task, node, status: TaskStatus::new(TaskState::Failed, NOW, "") });
    }
    for (at, task) in lab.tasks(service, asked.running, &[]).into_iter().enumerate() {
        lab.apply(Change::AssignTask { task, node: nodes[(at + number) % nodes.len()], at: NOW });
    }
    let pending = lab.tasks(service, asked.replicas, &ports);
    for (at, id) in pending.iter().enumerate().filter(|_| asked.more == 5) {
        let home = Some(nodes[at % nodes.len()]);
        let task = Task { home, ..(*lab.cluster.tasks[id]).clone() };
        lab.apply(Change::RemoveTask { task: *id });
        lab.apply(Change::CreateTask { task: Box::new(task) });
    }
    pending
}

proptest! {
    #[test]
    fn the_index_chooses_what_looking_at_every_node_chooses(
        machines in prop::collection::vec(machine(), 1..7),
        services in prop::collection::vec(asked(), 1..6),
        backwards: bool,
    ) {
        let mut lab = Lab::new();
        let nodes: Vec<NodeId> =
            machines.iter().enumerate().map(|(number, machine)| add_node(&mut lab, number, machine)).collect();
        let mut pending = Vec::new();
        for (number, asked) in services.iter().enumerate() {
            pending.extend(add_service(&mut lab, number, asked, &nodes));
        }
        if backwards {
            pending.reverse();
            pending.extend(pending.clone());
        }
        let placements = schedule(&lab.cluster, &pending, NOW);
        let chosen: Vec<(TaskId, Option<NodeId>)> = placements
            .into_iter()
            .map(|placement| match placement {
                Placement::Assigned { task, node } => (task, Some(node)),
                Placement::Unplaced { task, .. } => (task, None),
            })
            .collect();
        let distinct: BTreeSet<TaskId> = pending.iter().copied().collect();
        prop_assert_eq!(chosen.len(), distinct.len(), "every pending task is answered once");
        let order: Vec<TaskId> = chosen.iter().map(|(task, _)| *task).collect();
        let expected = one_by_one(&lab.cluster, &order);
        for (task, node) in chosen {
            prop_assert_eq!(node, expected[&task], "{}", lab.cluster.tasks[&task].name());
        }
    }
}
