//! Where tasks go, and the words when they go nowhere.

mod lab;
mod places;
mod reference;

use std::collections::BTreeMap;

use lab::{Lab, NOW};
use proptest::prelude::*;
use skep_model::*;
use skep_scheduler::schedule;

fn counted(pairs: &[(&str, usize)]) -> BTreeMap<String, usize> {
    pairs.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

#[test]
fn replicas_spread_over_nodes_and_then_by_load() {
    let mut lab = Lab::new();
    for name in ["a", "b", "c"] {
        lab.node(name, |_| {});
    }
    let first = lab.service("first", |_| {});
    let tasks = lab.tasks(first, 4, &[]);
    let (placed, reasons) = lab.place(&tasks);
    assert_eq!((placed.len(), placed.values().sum::<usize>(), reasons.len()), (3, 4, 0));
    let second = lab.service("second", |_| {});
    let tasks = lab.tasks(second, 2, &[]);
    let (placed, _) = lab.place(&tasks);
    assert_eq!(placed.values().copied().collect::<Vec<_>>(), [1, 1], "the two emptier nodes take one each");
}

#[test]
fn a_task_that_fits_nowhere_says_why_for_all_nodes() {
    let mut lab = Lab::new();
    lab.node("small", |_| {});
    lab.node("drained", |node| node.spec.availability = Availability::Drain);
    lab.node("down", |node| node.status.state = NodeState::Down);
    let service = lab.service("big", |task| task.resources.reservations.memory = Some(MemoryBytes(8 << 30)));
    let tasks = lab.tasks(service, 1, &[]);
    let (_, reasons) = lab.place(&tasks);
    assert_eq!(reasons, ["no suitable node (2 nodes not available for new tasks; insufficient resources on 1 node)"]);
    assert_eq!(schedule(&Cluster::default(), &tasks, NOW), []);
}

#[test]
fn reservations_are_set_aside_until_a_node_is_full() {
    let mut lab = Lab::new();
    lab.node("a", |_| {});
    let service = lab.service("half", |task| task.resources.reservations.nano_cpus = Some(NanoCpus(900_000_000)));
    let tasks = lab.tasks(service, 3, &[]);
    let (placed, reasons) = lab.place(&tasks);
    assert_eq!(placed, counted(&[("a", 2)]));
    assert_eq!(reasons, ["no suitable node (insufficient resources on 1 node)"]);
}

#[test]
fn constraints_platforms_and_limits_filter() {
    let mut lab = Lab::new();
    lab.node("ssd", |node| {
        node.spec.labels.insert("disk".into(), "SSD".into());
        node.status.address = "192.168.7.9".into();
    });
    lab.node("arm", |node| node.description.as_mut().unwrap().platforms[0].architecture = "arm64".into());
    let cases: [(&str, &str); 6] = [
        ("node.labels.disk == ssd", "ssd"),
        ("node.labels.disk != ssd", "arm"),
        ("node.hostname == arm", "arm"),
        ("node.ip == 192.168.0.0/16", "ssd"),
        ("node.platform.arch == arm64", "arm"),
        ("engine.labels.gpu != yes", ""),
    ];
    for (number, (constraint, expected)) in cases.into_iter().enumerate() {
        let service = lab.service(&format!("s{number}"), |task| {
            task.placement.constraints.push(constraint.parse().unwrap());
            task.placement.max_replicas_per_node = 1;
        });
        let tasks = lab.tasks(service, 2, &[]);
        let (placed, reasons) = lab.place(&tasks);
        match expected {
            "" => assert_eq!(placed, counted(&[("arm", 1), ("ssd", 1)]), "{constraint}"),
            host => {
                assert_eq!(placed, counted(&[(host, 1)]), "{constraint}");
                assert!(reasons[0].contains("max replicas per node limit exceeded on 1 node"), "{reasons:?}");
            }
        }
    }
    let service = lab.service("arm-only", |task| {
        let platform = PlatformSpec { os: "linux".into(), architecture: "aarch64".into(), variant: String::new() };
        task.placement.platforms.push(platform);
    });
    let tasks = lab.tasks(service, 1, &[]);
    assert_eq!(lab.place(&tasks).0, counted(&[("arm", 1)]));
}

#[test]
fn a_host_port_is_given_once_a_node() {
    let mut lab = Lab::new();
    lab.node("a", |_| {});
    lab.node("b", |_| {});
    let port = PortSpec {
        name: None,
        protocol: PortProtocol::Tcp,
        target: 80,
        published: 8080,
        mode: PublishMode::Host,
        host_ip: None,
    };
    let service = lab.service("edge", |_| {});
    let tasks = lab.tasks(service, 3, &[port]);
    let (placed, reasons) = lab.place(&tasks);
    assert_eq!(placed, counted(&[("a", 1), ("b", 1)]));
    assert_eq!(reasons, ["no suitable node (host-mode port already in use on 2 nodes)"]);
}

#[test]
fn a_node_whose_skep_would_leave_something_out_is_none() {
    let mut lab = Lab::new();
    let (old, new) = (Feature::Hooks.level() - 1, Feature::Hooks.level());
    lab.node("old", |node| node.description.as_mut().unwrap().level = old);
    let service = lab.service("hooked", |task| {
        let command = vec!["true".to_owned()];
        task.container.pre_stop.push(Hook { command, ..Hook::default() });
    });
    let tasks = lab.tasks(service, 1, &[]);
    assert_eq!(lab.place(&tasks).1, ["no suitable node (skep is too old on 1 node)"]);
    lab.node("new", |node| node.description.as_mut().unwrap().level = new);
    assert_eq!(lab.place(&tasks).0, counted(&[("new", 1)]));
    let plain = lab.service("plain", |_| {});
    let tasks = lab.tasks(plain, 1, &[]);
    assert_eq!(lab.place(&tasks).0, counted(&[("old", 1)]));
}

#[test]
fn preferences_equalise_branches_before_nodes() {
    let mut lab = Lab::new();
    for (name, zone) in [("a1", "a"), ("a2", "a"), ("a3", "a"), ("b1", "b")] {
        lab.node(name, |node| drop(node.spec.labels.insert("zone".into(), zone.into())));
    }
    let service = lab.service("zoned", |task| {
        task.placement.preferences.push(Preference { spread: "node.labels.zone".into() });
    });
    let tasks = lab.tasks(service, 6, &[]);
    let (placed, _) = lab.place(&tasks);
    assert_eq!(placed["b1"], 3, "{placed:?}");
}

#[test]
fn a_node_that_keeps_failing_a_service_is_the_last_choice() {
    let mut lab = Lab::new();
    let bad = lab.node("bad", |_| {});
    let service = lab.service("flaky", |_| {});
    for task in lab.tasks(service, 5, &[]) {
        lab.apply(Change::AssignTask { task, node: bad, at: NOW });
        lab.apply(Change::ReportTask { task, node: bad, status: TaskStatus::new(TaskState::Failed, NOW, "") });
    }
    let tasks = lab.tasks(service, 1, &[]);
    lab.node("good", |_| {});
    let other = lab.service("other", |_| {});
    for task in lab.tasks(other, 3, &[]) {
        let good = lab.cluster.find_node("good").unwrap().id;
        lab.apply(Change::AssignTask { task, node: good, at: NOW });
    }
    assert_eq!(lab.place(&tasks).0, counted(&[("good", 1)]));
}

proptest! {
    /// The same cluster gives the same placements, no node is overfilled, and the load differs by one at most.
    #[test]
    fn equal_nodes_are_filled_evenly(nodes in 1usize..8, tasks in 0u64..40) {
        let mut lab = Lab::new();
        for number in 0..nodes {
            lab.node(&format!("n{number}"), |_| {});
        }
        let service = lab.service("web", |_| {});
        let pending = lab.tasks(service, tasks, &[]);
        prop_assert_eq!(schedule(&lab.cluster, &pending, NOW), schedule(&lab.cluster, &pending, NOW));
        let (placed, reasons) = lab.place(&pending);
        prop_assert!(reasons.is_empty());
        let (least, most) = (tasks as usize / nodes, (tasks as usize).div_ceil(nodes));
        prop_assert!(placed.values().all(|count| (least..=most).contains(count)), "{placed:?}");
        prop_assert_eq!(schedule(&lab.cluster, &pending, NOW), vec![], "placed tasks are no longer pending");
    }
}
