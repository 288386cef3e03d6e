//! What skep places by beyond Swarm's filters: data, emulators, company, strategy, priority, generic resources.

use skep_model::*;
use skep_scheduler::{Placement as Placed, explain_service, explain_task, next_move, schedule};

use crate::counted;
use crate::lab::{Lab, NOW};

fn with_volume(task: &mut TaskSpec) {
    task.container.mounts.push(Mount {
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
}

fn emulating(node: &mut Node) {
    let arm = Platform { os: "linux".into(), architecture: "arm".into(), variant: "v7".into() };
    node.description.as_mut().unwrap().emulated.push(arm);
}

fn for_arm(task: &mut TaskSpec) {
    let arm = PlatformSpec { os: "linux".into(), architecture: "arm".into(), variant: "v7".into() };
    task.placement.platforms.push(arm);
}

#[test]
fn an_emulator_is_the_last_choice_and_better_than_none() {
    let mut lab = Lab::new();
    lab.node("emulator", emulating);
    let service = lab.service("web", for_arm);
    let tasks = lab.tasks(service, 1, &[]);
    assert_eq!(lab.place(&tasks).0, counted(&[("emulator", 1)]));
    let mut lab = Lab::new();
    lab.node("emulator", emulating);
    lab.node("pi", |node| {
        node.description.as_mut().unwrap().platforms =
            ["v7", "v6"].map(|v| Platform { os: "linux".into(), architecture: "arm".into(), variant: v.into() }).into();
    });
    let service = lab.service("web", |task| {
        for_arm(task);
        task.resources.reservations.nano_cpus = Some(NanoCpus(1_000_000_000));
    });
    let tasks = lab.tasks(service, 3, &[]);
    assert_eq!(lab.place(&tasks).0, counted(&[("emulator", 1), ("pi", 2)]), "until the processor of its own is full");
}

/// A task of a slot whose data is on `home`.
fn at_home(lab: &mut Lab, service: ServiceId, home: NodeId) -> TaskId {
    let id = lab.tasks(service, 1, &[])[0];
    let task = Task { home: Some(home), id: lab.ids.next_id(), ..(*lab.cluster.tasks[&id]).clone() };
    lab.apply(Change::RemoveTask { task: id });
    let id = task.id;
    lab.apply(Change::CreateTask { task: Box::new(task) });
    id
}

#[test]
fn a_task_goes_where_its_data_is_while_that_node_can_be_waited_for() {
    let place = |edit: &dyn Fn(&mut Node), volumes: Option<VolumePlacement>| {
        let mut lab = Lab::new();
        let home = lab.node("home", edit);
        lab.node("empty", |_| {});
        let busy = lab.service("busy", |_| {});
        for task in lab.tasks(busy, 3, &[]) {
            lab.apply(Change::AssignTask { task, node: home, at: NOW });
        }
        let service = lab.service("db", |task| {
            with_volume(task);
            task.placement.volumes = volumes;
            task.placement.constraints.push("node.labels.gone != yes".parse().unwrap());
            task.resources.reservations.memory = Some(MemoryBytes(2 << 30));
        });
        let task = at_home(&mut lab, service, home);
        match &schedule(&lab.cluster, &[task], NOW)[..] {
            [Placed::Assigned { node, .. }] => lab.cluster.nodes[node].hostname().to_owned(),
            [Placed::Unplaced { reason, .. }] => reason.clone(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(place(&|_| {}, None), "home");
    assert_eq!(place(&|_| {}, Some(VolumePlacement::Free)), "empty");
    let small = |node: &mut Node| node.description.as_mut().unwrap().resources.memory = MemoryBytes(1 << 30);
    let why = "1GiB of memory free, 2GiB reserved by each task";
    assert_eq!(place(&small, None), format!("no suitable node (its volume pgdata is on home: {why})"));
    let paused = |node: &mut Node| node.spec.availability = Availability::Pause;
    assert_eq!(place(&paused, None), "no suitable node (its volume pgdata is on home: it is paused)");
    let drained = |node: &mut Node| node.spec.availability = Availability::Drain;
    assert_eq!(place(&drained, None), "empty");
    let down = |node: &mut Node| node.status.state = NodeState::Down;
    assert_eq!(place(&down, None), "empty");
    let stays = place(&down, Some(VolumePlacement::Stay));
    assert_eq!(stays, "no suitable node (its volume pgdata is on home: it is down)");
    let relabelled = |node: &mut Node| drop(node.spec.labels.insert("gone".into(), "yes".into()));
    assert_eq!(place(&relabelled, None), "empty", "constraints are the operator's later word");
}

#[test]
fn company_is_sought_and_avoided_and_who_is_avoided_keeps_away() {
    let mut lab = Lab::new();
    for name in ["a", "b", "c"] {
        lab.node(name, |_| {});
    }
    let app = lab.service("app", |task| task.placement.affinity.push("db".into()));
    let pending = lab.tasks(app, 1, &[]);
    let (_, reasons) = lab.place(&pending);
    assert_eq!(reasons, ["no suitable node (service affinity not satisfied on 3 nodes)"]);
    let db = lab.service("db", |task| task.placement.anti_affinity.push("batch".into()));
    let tasks = lab.tasks(db, 1, &[]);
    let (at, _) = lab.place(&tasks);
    assert_eq!(lab.place(&pending).0, at, "app follows db");
    let batch = lab.service("batch", |_| {});
    let tasks = lab.tasks(batch, 4, &[]);
    let (placed, reasons) = lab.place(&tasks);
    assert_eq!((placed.len(), placed.values().sum::<usize>(), reasons.len()), (2, 4, 0));
    assert!(placed.keys().all(|name| !at.contains_key(name)), "batch did not ask for it: {placed:?} {at:?}");
    let explanation = explain_service(&lab.cluster, &lab.cluster.services[&db], NOW);
    let whys: Vec<&str> = explanation.nodes.iter().filter(|it| it.refused_by.is_some()).map(|it| &*it.why).collect();
    assert_eq!(whys, ["a task of batch is there"; 2]);
}

#[test]
fn two_that_follow_each_other_do_not_wait_for_each_other() {
    let mut lab = Lab::new();
    lab.node("a", |_| {});
    lab.node("b", |_| {});
    let left = lab.service("left", |task| task.placement.affinity.push("right".into()));
    let right = lab.service("right", |task| task.placement.affinity.push("left".into()));
    let tasks = [lab.tasks(left, 1, &[]), lab.tasks(right, 1, &[])].concat();
    let (placed, reasons) = lab.place(&tasks);
    assert_eq!((placed.len(), reasons.len()), (1, 0), "both on one node: {placed:?} {reasons:?}");
}

#[test]
fn packing_fills_one_node_before_the_next() {
    let mut lab = Lab::new();
    for name in ["a", "b", "c"] {
        lab.node(name, |_| {});
    }
    let packed = |task: &mut TaskSpec| {
        task.placement.strategy = Some(PlacementStrategy::BinPack);
        task.resources.reservations.nano_cpus = Some(NanoCpus(500_000_000));
    };
    let service = lab.service("batch", packed);
    let tasks = lab.tasks(service, 5, &[]);
    let (placed, _) = lab.place(&tasks);
    let mut counts: Vec<usize> = placed.values().copied().collect();
    counts.sort_unstable();
    assert_eq!(counts, [1, 4]);
    let next = lab.service("next", packed);
    let tasks = lab.tasks(next, 3, &[]);
    let (second, _) = lab.place(&tasks);
    assert_eq!(second.values().copied().collect::<Vec<_>>(), [3], "{placed:?} {second:?}");
    assert_eq!(placed[second.keys().next().unwrap()], 1, "the one that was begun");
}

#[test]
fn of_tasks_that_wait_those_of_higher_priority_get_the_room() {
    let mut lab = Lab::new();
    lab.node("a", |_| {});
    let whole = |task: &mut TaskSpec| task.resources.reservations.nano_cpus = Some(NanoCpus(2_000_000_000));
    let low = lab.service("low", whole);
    let high = lab.service("high", whole);
    let service = &lab.cluster.services[&high];
    let scheduling = Scheduling { priority: 10, ..Scheduling::default() };
    let spec = ServiceSpec { scheduling, ..(*service.spec).clone() };
    let expected = service.meta.version;
    lab.apply(Change::UpdateService { service: high, expected, spec: spec.into(), at: NOW });
    let tasks = [lab.tasks(low, 1, &[]), lab.tasks(high, 1, &[])].concat();
    match &schedule(&lab.cluster, &tasks, NOW)[..] {
        [Placed::Assigned { task, .. }, Placed::Unplaced { .. }] => assert_eq!(*task, tasks[1]),
        other => panic!("{other:?}"),
    };
}

#[test]
fn generic_resources_are_set_aside_and_given_by_name() {
    let mut lab = Lab::new();
    lab.node("gpus", |node| {
        let ids = vec!["UUID1".to_owned(), "UUID2".to_owned()];
        node.description.as_mut().unwrap().generic.push(GenericResource { kind: "gpu".into(), amount: 2, ids });
    });
    lab.node("none", |_| {});
    let service = lab.service("train", |task| {
        task.resources.generic.push(GenericRequest { kind: "gpu".into(), amount: 1 });
    });
    let tasks = lab.tasks(service, 3, &[]);
    let (placed, reasons) = lab.place(&tasks);
    assert_eq!(placed, counted(&[("gpus", 2)]));
    assert_eq!(reasons, ["no suitable node (insufficient resources on 2 nodes)"]);
    let given: Vec<String> =
        tasks[..2].iter().flat_map(|task| lab.cluster.tasks[task].generic[0].ids.clone()).collect();
    assert_eq!(given, ["UUID1", "UUID2"]);
    let explanation = explain_task(&lab.cluster, &lab.cluster.tasks[&tasks[2]], NOW);
    assert!(explanation.nodes.iter().all(|node| node.why == "0 gpu free, 1 reserved by each task"), "{explanation:?}");
    assert!(explanation.hints[0].contains("generic_resources"), "{explanation:?}");
}

#[test]
fn each_node_says_why_not_in_numbers_and_what_would_mend_it() {
    let mut lab = Lab::new();
    lab.node("small", |node| {
        node.description.as_mut().unwrap().resources.memory = MemoryBytes(1_288_490_189);
        node.spec.labels.insert("disk".into(), "ssd".into());
    });
    lab.node("slow", |node| drop(node.spec.labels.insert("disk".into(), "hdd".into())));
    lab.node("bare", |_| {});
    lab.node("drained", |node| node.spec.availability = Availability::Drain);
    let service = lab.service("db", |task| {
        task.placement.constraints.push("node.labels.disk == ssd".parse().unwrap());
        task.resources.reservations.memory = Some(MemoryBytes(2 << 30));
    });
    let explanation = explain_service(&lab.cluster, &lab.cluster.services[&service], NOW);
    let mut lines: Vec<String> = explanation
        .nodes
        .iter()
        .map(|node| format!("{}: {}: {}", node.hostname, node.refused_by.unwrap_or("fits"), node.why))
        .collect();
    lines.sort();
    lines.extend(explanation.hints);
    expect_test::expect![[r#"
        bare: constraints: node.labels.disk == ssd: it has no node.labels.disk
        drained: ready: it is drained
        slow: constraints: node.labels.disk == ssd: it has hdd
        small: resources: 1.2GiB of memory free, 2GiB reserved by each task
        reserve at most 1.2GiB (deploy.resources.reservations.memory), the most that is free, on small; or add a node
        let drained take tasks again: skep node update --availability active drained"#]]
    .assert_eq(&lines.join("\n"));
}

#[test]
fn one_task_moves_from_the_most_to_the_least_and_none_when_it_is_even() {
    let mut lab = Lab::new();
    let full = lab.node("full", |_| {});
    let service = lab.service("web", |_| {});
    let tasks = lab.tasks(service, 3, &[]);
    for task in &tasks {
        lab.apply(Change::AssignTask { task: *task, node: full, at: NOW });
        let status = TaskStatus::new(TaskState::Running, NOW, "");
        lab.apply(Change::ReportTask { task: *task, node: full, status });
    }
    let look = |lab: &Lab| {
        let tasks: Vec<&Task> = lab.cluster.tasks_of_service(service).map(|task| &**task).collect();
        next_move(&lab.cluster, &lab.cluster.services[&service], &tasks, NOW)
    };
    assert_eq!(look(&lab), None);
    let joined = lab.node("joined", |_| {});
    assert_eq!(look(&lab).map(|step| step.to), Some(joined));
    let other = lab.tasks(service, 1, &[])[0];
    lab.apply(Change::AssignTask { task: other, node: joined, at: NOW });
    lab.apply(Change::RemoveTask { task: tasks[0] });
    assert_eq!(look(&lab), None, "two and one is even");
}
