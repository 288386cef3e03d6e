//! Tasks that must leave their node, and services that are spread anew.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use skep_model::*;

use crate::sim::{Fate, Sim, spec};

fn node(sim: &Sim, number: usize) -> NodeId {
    let named = |node: &&std::sync::Arc<Node>| node.hostname() == format!("n{number}");
    sim.cluster.nodes.values().find(named).unwrap().id
}

fn edit_node(sim: &mut Sim, id: NodeId, edit: impl FnOnce(&mut NodeSpec)) {
    let node = &sim.cluster.nodes[&id];
    let (expected, mut spec) = (node.meta.version, node.spec.clone());
    edit(&mut spec);
    sim.apply(Change::UpdateNodeSpec { node: id, expected, spec, at: sim.now });
}

fn drain(sim: &mut Sim, id: NodeId) {
    edit_node(sim, id, |spec| spec.availability = Availability::Drain);
}

fn counts(sim: &Sim, service: ServiceId) -> Vec<usize> {
    let mut counts: BTreeMap<NodeId, usize> = BTreeMap::new();
    for node in sim.running(service).iter().filter_map(|task| task.node) {
        *counts.entry(node).or_default() += 1;
    }
    let mut counts: Vec<usize> = counts.into_values().collect();
    counts.sort_unstable();
    counts
}

/// Rounds to the rest, with the fewest tasks of the service that ran after any of them.
fn least_running(sim: &mut Sim, service: ServiceId) -> usize {
    let mut least = usize::MAX;
    for _ in 0..200 {
        let moved = sim.round();
        least = least.min(sim.running(service).len());
        if !moved {
            return least;
        }
    }
    panic!("no rest after 200 rounds");
}

#[test]
fn a_drain_leaves_as_many_serving_as_are_asked_for() {
    let mut sim = Sim::new(2);
    let mut web = spec("web", 4);
    web.scheduling.min_available = 3;
    let web = sim.create(web);
    let batch = sim.create(spec("batch", 4));
    sim.settle();
    let first = node(&sim, 0);
    drain(&mut sim, first);
    sim.managers();
    let stopping =
        |service| sim.cluster.tasks_of_service(service).filter(|it| it.desired == DesiredState::Shutdown).count();
    assert_eq!((stopping(web), stopping(batch)), (1, 2), "one after the other, the others at once as ever");
    assert_eq!(least_running(&mut sim, web), 3);
    assert_eq!((counts(&sim, web), counts(&sim, batch)), (vec![4], vec![4]));
    let gone = sim.cluster.tasks_of_service(web).filter_map(|task| task.stop_reason.clone());
    assert_eq!(gone.collect::<Vec<_>>(), ["its node n0 is drained"; 2]);
}

#[test]
fn a_drain_is_not_hurried_by_what_fails_elsewhere_and_a_lost_node_is_not_waited_for() {
    let mut sim = Sim::new(3);
    let mut web = spec("web", 3);
    web.scheduling.min_available = 2;
    let web = sim.create(web);
    sim.settle();
    let first = node(&sim, 0);
    sim.fate = Box::new(move |task| if task.node == Some(first) { Fate::Runs } else { Fate::Exits(1) });
    sim.settle();
    assert_eq!(sim.running(web).len(), 1);
    drain(&mut sim, first);
    sim.settle();
    assert_eq!(sim.running(web).len(), 1, "the last one serves on");
    let status = NodeStatus { state: NodeState::Down, ..NodeStatus::default() };
    sim.apply(Change::ReportNode { node: first, description: None, status, at: sim.now });
    sim.fate = Box::new(|_| Fate::Runs);
    sim.run_for(Duration::from_secs(60));
    assert_eq!(counts(&sim, web), [1, 2]);
}

#[test]
fn a_service_that_starts_first_drains_without_a_gap_and_does_not_repeat_what_waits() {
    let mut sim = Sim::new(2);
    let mut web = spec("web", 2);
    web.update.order = UpdateOrder::StartFirst;
    let web = sim.create(web);
    sim.settle();
    let (first, second) = (node(&sim, 0), node(&sim, 1));
    edit_node(&mut sim, second, |spec| spec.availability = Availability::Pause);
    drain(&mut sim, first);
    sim.settle();
    assert_eq!(sim.running(web).len(), 2, "no node takes the replacement");
    assert_eq!(sim.cluster.tasks_of_service(web).count(), 3);
    edit_node(&mut sim, second, |spec| spec.availability = Availability::Active);
    assert_eq!(least_running(&mut sim, web), 2);
    assert_eq!(counts(&sim, web), [2]);
}

#[test]
fn a_label_that_is_taken_away_moves_the_tasks_that_need_it() {
    let mut sim = Sim::new(3);
    for number in [0, 1] {
        let id = node(&sim, number);
        edit_node(&mut sim, id, |spec| drop(spec.labels.insert("disk".into(), "ssd".into())));
    }
    let mut web = spec("web", 2);
    web.task.placement.constraints.push("node.labels.disk == ssd".parse().unwrap());
    let web = sim.create(web);
    sim.settle();
    assert_eq!(counts(&sim, web), [1, 1]);
    let first = node(&sim, 0);
    edit_node(&mut sim, first, |spec| spec.labels.clear());
    sim.settle();
    assert_eq!(counts(&sim, web), [2]);
    assert!(sim.running(web).iter().all(|task| task.node == Some(node(&sim, 1))));
    let reasons: Vec<_> = sim.cluster.tasks_of_service(web).filter_map(|task| task.stop_reason.clone()).collect();
    assert_eq!(reasons, ["its node n0 no longer satisfies node.labels.disk == ssd"]);
    let second = node(&sim, 1);
    edit_node(&mut sim, second, |spec| {
        spec.availability = Availability::Pause;
        spec.labels.clear();
    });
    sim.settle();
    assert_eq!(sim.running(web).len(), 2, "a paused node keeps what it has");
}

#[test]
fn a_constraint_that_a_service_changes_is_the_updaters_affair() {
    let mut sim = Sim::new(2);
    let first = node(&sim, 0);
    edit_node(&mut sim, first, |spec| drop(spec.labels.insert("disk".into(), "ssd".into())));
    let mut web = spec("web", 2);
    web.task.placement.constraints.push("node.labels.disk == ssd".parse().unwrap());
    let web = sim.create(web);
    sim.settle();
    sim.update(web, |spec| {
        spec.task.placement.constraints = vec!["node.labels.disk != ssd".parse().unwrap()];
    });
    assert_eq!(least_running(&mut sim, web), 1, "one at a time, as updates go");
}

#[test]
fn a_node_that_shrank_gives_up_its_youngest_tasks() {
    let mut sim = Sim::new(2);
    let memory = |sim: &mut Sim, number: usize, gib: u64| {
        let id = node(sim, number);
        let old = &sim.cluster.nodes[&id];
        let (mut description, status) = (old.description.clone().unwrap(), old.status.clone());
        description.resources = NodeResources { nano_cpus: NanoCpus(8_000_000_000), memory: MemoryBytes(gib << 30) };
        let description = Some(Box::new(description));
        sim.apply(Change::ReportNode { node: id, description, status, at: sim.now });
    };
    memory(&mut sim, 0, 4);
    memory(&mut sim, 1, 4);
    let mut web = spec("web", 4);
    web.task.resources.reservations.memory = Some(MemoryBytes(1 << 30));
    let web = sim.create(web);
    sim.settle();
    assert_eq!(counts(&sim, web), [2, 2]);
    memory(&mut sim, 0, 1);
    sim.settle();
    assert_eq!(counts(&sim, web), [1, 3]);
    let reasons: Vec<_> = sim.cluster.tasks_of_service(web).filter_map(|task| task.stop_reason.clone()).collect();
    assert_eq!(reasons, ["its node n0 no longer has enough memory for what its tasks reserve"]);
}

#[test]
fn a_slot_keeps_the_node_of_its_data_through_updates_and_crashes() {
    let mut sim = Sim::new(3);
    let mut db = spec("db", 1);
    db.task.container.mounts.push(Mount {
        target: "/data".into(),
        read_only: false,
        kind: MountKind::Volume {
            name: Some("pgdata".into()),
            no_copy: false,
            subpath: None,
            driver: None,
            options: Labels::new(),
            labels: Labels::new(),
        },
    });
    let db = sim.create(db);
    sim.settle();
    let home = sim.running(db)[0].node.unwrap();
    // The others have less to do: a task that was free would go there.
    let mut busy = spec("busy", 6);
    busy.task.placement.constraints.push(format!("node.id == {home}").parse().unwrap());
    sim.create(busy);
    sim.settle();
    for round in 0..8 {
        sim.update(db, |spec| spec.task.force_update = round + 1);
        sim.run_for(Duration::from_secs(60));
        assert_eq!(sim.running(db)[0].node, Some(home), "round {round}");
    }
    drain(&mut sim, home);
    sim.run_for(Duration::from_secs(60));
    let moved = sim.running(db)[0].node.unwrap();
    assert_ne!(moved, home, "a drain is the operator's word");
    edit_node(&mut sim, home, |spec| spec.availability = Availability::Active);
    sim.update(db, |spec| spec.task.force_update += 1);
    sim.run_for(Duration::from_secs(60));
    assert_eq!(sim.running(db)[0].node, Some(moved), "its newer data is here");
}

#[test]
fn a_node_that_joins_gets_its_share_where_it_is_asked_for() {
    let mut sim = Sim::new(2);
    let mut web = spec("web", 6);
    web.scheduling.min_available = 5;
    let asked = sim.create(web.clone());
    let on_join = sim.create(ServiceSpec {
        name: "joins".into(),
        scheduling: Scheduling { rebalance_on_join: true, ..Scheduling::default() },
        ..web.clone()
    });
    let never = sim.create(ServiceSpec { name: "never".into(), ..web });
    sim.settle();
    let joined = sim.join("n2");
    sim.run_for(Duration::from_secs(60));
    let all = |sim: &Sim| [asked, on_join, never].map(|service| counts(sim, service));
    assert_eq!(all(&sim), [vec![3, 3], vec![2, 2, 2], vec![3, 3]]);
    sim.apply(Change::SetRebalancing { service: asked, since: Some(sim.now) });
    assert_eq!(least_running(&mut sim, asked), 5);
    sim.run_for(Duration::from_secs(60));
    assert_eq!(all(&sim), [vec![2, 2, 2], vec![2, 2, 2], vec![3, 3]]);
    assert_eq!(sim.cluster.services[&asked].rebalancing_since, None, "it is done");
    assert_eq!(sim.running(asked).iter().filter(|task| task.node == Some(joined)).count(), 2);
}

proptest! {
    /// Wherever tasks are, and whatever the nodes are like, moves come to an end, and at an even spread.
    #[test]
    fn rebalancing_ends_and_is_even(
        zones in prop::collection::vec(0..3u8, 1..6),
        places in prop::collection::vec(0..6usize, 1..12),
        start_first: bool,
        parallelism in 0..3u64,
        spread: bool,
    ) {
        let mut sim = Sim::new(zones.len());
        for (number, zone) in zones.iter().enumerate() {
            let id = node(&sim, number);
            edit_node(&mut sim, id, |spec| drop(spec.labels.insert("zone".into(), zone.to_string())));
        }
        let mut web = spec("web", places.len() as u64);
        web.update.parallelism = parallelism;
        web.update.order = if start_first { UpdateOrder::StartFirst } else { UpdateOrder::StopFirst };
        if spread {
            web.task.placement.preferences.push(Preference { spread: "node.labels.zone".into() });
        }
        let web = sim.create(web);
        for change in skep_orchestrator::reconcile(&sim.cluster, sim.now, &mut sim.ids) {
            sim.apply(change);
        }
        let tasks: Vec<TaskId> = sim.cluster.tasks_of_service(web).map(|task| task.id).collect();
        for (task, place) in tasks.into_iter().zip(&places) {
            let node = node(&sim, place % zones.len());
            sim.apply(Change::AssignTask { task, node, at: sim.now });
        }
        sim.settle();
        let before = sim.index;
        sim.apply(Change::SetRebalancing { service: web, since: Some(sim.now) });
        sim.run_for(Duration::from_secs(600));
        prop_assert_eq!(sim.cluster.services[&web].rebalancing_since, None);
        prop_assert!(sim.index - before < 40 * places.len() as u64 + 40, "{} writes", sim.index - before);
        let mut of_node: BTreeMap<NodeId, usize> = sim.cluster.nodes.keys().map(|node| (*node, 0)).collect();
        for task in sim.running(web) {
            *of_node.get_mut(&task.node.unwrap()).unwrap() += 1;
        }
        let mut of_zone: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (node, count) in &of_node {
            let zone = if spread { sim.cluster.nodes[node].spec.labels["zone"].clone() } else { String::new() };
            of_zone.entry(zone).or_default().push(*count);
        }
        let even = |counts: &[usize]| counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1;
        let sums: Vec<usize> = of_zone.values().map(|counts| counts.iter().sum()).collect();
        prop_assert!(even(&sums), "{:?}", of_zone);
        prop_assert!(of_zone.values().all(|counts| even(counts)), "{:?}", of_zone);
        prop_assert_eq!(sim.running(web).len(), places.len());
    }
}
