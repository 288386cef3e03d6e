//! How many tasks there are and what becomes of them, with a real scheduler and simulated agents.

mod at_most_one;
mod disorder;
mod laws;
mod places;
mod play;
mod sim;

use std::time::Duration;

use proptest::prelude::*;
use sim::{Fate, Sim, spec};
use skep_model::*;
use skep_orchestrator::allocator;

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn a_service_gets_its_replicas_and_loses_them_with_its_removal() {
    let mut sim = Sim::new(3);
    let web = sim.create(spec("web", 5));
    sim.settle();
    assert_eq!(sim.running(web).len(), 5);
    sim.update(web, |spec| spec.mode = Mode::Replicated { replicas: 2 });
    sim.settle();
    let slots: Vec<Slot> = sim.running(web).iter().map(|task| task.slot).collect();
    assert_eq!(slots.len(), 2);
    let nodes: std::collections::BTreeSet<_> = sim.running(web).iter().map(|task| task.node).collect();
    assert_eq!(nodes.len(), 2, "crowded nodes give up tasks first");
    sim.apply(Change::RemoveService { service: web });
    sim.settle();
    assert_eq!(sim.cluster.tasks.len(), 0);
}

#[test]
fn a_crash_loop_backs_off_and_keeps_a_bounded_history() {
    let mut sim = Sim::new(1);
    sim.fate = Box::new(|_| Fate::Exits(1));
    let id = sim.create(spec("crash", 1));
    let before = sim.index;
    sim.run_for(10 * MINUTE);
    let writes = sim.index - before;
    assert!(sim.cluster.tasks_of_service(id).count() <= 6, "five kept and one on its way");
    // 5 s, 10, 20, 40, then one a minute: 13 or so restarts, each a handful of writes.
    assert!(writes < 150, "{writes} writes in ten minutes");
    let failures = sim.cluster.tasks_of_service(id).map(|task| task.failures_before).max();
    assert!(failures >= Some(10), "{failures:?}");
}

#[test]
fn a_task_that_ran_long_restarts_after_the_plain_delay() {
    let mut sim = Sim::new(1);
    let id = sim.create(spec("web", 1));
    sim.settle();
    sim.run_for(MINUTE);
    sim.fate = Box::new(|task| if task.failures_before == 0 { Fate::Exits(1) } else { Fate::Runs });
    sim.settle();
    assert_eq!(sim.running(id).len(), 0, "waits for its delay");
    sim.run_for(Duration::from_secs(5));
    assert_eq!(sim.running(id).len(), 1);
}

#[test]
fn restart_conditions_and_attempts_are_kept() {
    let mut sim = Sim::new(1);
    sim.fate = Box::new(|task| if task.service_name == "once" { Fate::Exits(0) } else { Fate::Exits(3) });
    let on_failure = |condition, max_attempts| RestartPolicy {
        condition,
        max_attempts,
        delay: Duration::ZERO,
        ..RestartPolicy::default()
    };
    let mut once = spec("once", 1);
    once.task.restart = on_failure(Condition::OnFailure, 0);
    let mut never = spec("never", 1);
    never.task.restart = on_failure(Condition::None, 0);
    let mut thrice = spec("thrice", 1);
    thrice.task.restart = on_failure(Condition::Any, 3);
    let [once, never, thrice] = [once, never, thrice].map(|spec| sim.create(spec));
    sim.run_for(10 * MINUTE);
    let made = |id| sim.cluster.tasks_of_service(id).count();
    assert_eq!((made(once), made(never), made(thrice)), (1, 1, 4));
}

#[test]
fn global_services_follow_the_nodes() {
    let mut sim = Sim::new(3);
    let mut everywhere = spec("agent", 0);
    everywhere.mode = Mode::Global;
    let id = sim.create(everywhere);
    sim.settle();
    assert_eq!(sim.running(id).len(), 3);
    let node = sim.cluster.nodes.values().next().unwrap().clone();
    let drain = NodeSpec { availability: Availability::Drain, ..NodeSpec::default() };
    sim.apply(Change::UpdateNodeSpec { node: node.id, expected: node.meta.version, spec: drain, at: sim.now });
    sim.settle();
    assert_eq!(sim.running(id).len(), 2);
    let expected = sim.cluster.nodes[&node.id].meta.version;
    sim.apply(Change::UpdateNodeSpec { node: node.id, expected, spec: NodeSpec::default(), at: sim.now });
    sim.settle();
    assert_eq!(sim.running(id).len(), 3);
}

#[test]
fn tasks_of_a_node_that_is_down_run_elsewhere_at_once() {
    let mut sim = Sim::new(2);
    let id = sim.create(spec("web", 4));
    sim.settle();
    let node = *sim.cluster.nodes.keys().next().unwrap();
    let status = NodeStatus { state: NodeState::Down, ..NodeStatus::default() };
    sim.apply(Change::ReportNode { node, description: None, status, at: sim.now });
    sim.settle();
    let running: Vec<_> = sim.running(id).into_iter().filter(|task| task.node != Some(node)).collect();
    assert_eq!(running.len(), 4);
}

#[test]
fn an_update_replaces_one_slot_at_a_time_and_completes() {
    let mut sim = Sim::new(2);
    let id = sim.create(spec("web", 3));
    sim.settle();
    sim.update(id, |spec| spec.task.container.image = "app:2".into());
    let mut least = usize::MAX;
    for _ in 0..200 {
        sim.round();
        least = least.min(sim.running(id).len());
        sim.now = sim.now.after(Duration::from_millis(100));
    }
    assert_eq!(least, 2, "stop-first with parallelism 1 keeps two of three running");
    assert!(sim.running(id).iter().all(|task| task.spec.container.image == "app:2"));
    assert_eq!(sim.cluster.services[&id].update_status.as_ref().unwrap().state, UpdateState::Completed);
}

#[test]
fn start_first_never_runs_fewer_than_wanted() {
    let mut sim = Sim::new(2);
    let mut web = spec("web", 2);
    web.update.order = UpdateOrder::StartFirst;
    let id = sim.create(web);
    sim.settle();
    sim.update(id, |spec| spec.task.container.image = "app:2".into());
    for _ in 0..100 {
        sim.round();
        assert!(sim.running(id).len() >= 2);
        sim.now = sim.now.after(Duration::from_millis(100));
    }
    assert!(sim.running(id).iter().all(|task| task.spec.container.image == "app:2"));
}

#[test]
fn a_failing_update_pauses_or_rolls_back() {
    for action in [FailureAction::Pause, FailureAction::Rollback] {
        let mut sim = Sim::new(1);
        let mut web = spec("web", 3);
        web.update.failure_action = action;
        let id = sim.create(web);
        sim.settle();
        sim.fate = Box::new(|task| if task.spec.container.image == "app:bad" { Fate::Rejected } else { Fate::Runs });
        sim.update(id, |spec| spec.task.container.image = "app:bad".into());
        sim.run_for(MINUTE);
        let status = sim.cluster.services[&id].update_status.clone().unwrap();
        let good = sim.running(id).iter().filter(|task| task.spec.container.image == "app:1").count();
        match action {
            FailureAction::Rollback => {
                assert_eq!((status.state, good), (UpdateState::RollbackCompleted, 3), "{status:?}")
            }
            _ => assert_eq!((status.state, good), (UpdateState::Paused, 3), "{status:?}"),
        }
    }
}

#[test]
fn a_changed_label_or_repeated_spec_restarts_nothing() {
    let mut sim = Sim::new(1);
    let id = sim.create(spec("web", 2));
    sim.settle();
    let before: Vec<TaskId> = sim.running(id).iter().map(|task| task.id).collect();
    sim.update(id, |spec| drop(spec.labels.insert("team".into(), "blue".into())));
    sim.run_for(MINUTE);
    assert_eq!(sim.running(id).iter().map(|task| task.id).collect::<Vec<_>>(), before);
    let index = sim.index;
    sim.run_for(10 * MINUTE);
    assert_eq!(sim.index, index, "a cluster at rest writes nothing");
}

#[test]
fn a_new_spec_runs_what_was_done_again_and_does_not_wait_for_the_old_ones_back_off() {
    for order in [UpdateOrder::StopFirst, UpdateOrder::StartFirst] {
        let mut sim = Sim::new(1);
        sim.fate = Box::new(|task| match task.service_name.as_str() {
            "migrate" => Fate::Exits(0),
            _ if task.spec.container.image == "app:1" => Fate::Rejected,
            _ => Fate::Runs,
        });
        let mut migrate = spec("migrate", 1);
        migrate.task.restart.condition = Condition::None;
        let mut web = spec("web", 1);
        (migrate.update.order, web.update.order) = (order, order);
        let [migrate, web] = [migrate, web].map(|spec| sim.create(spec));
        sim.run_for(10 * MINUTE);
        let ended = |sim: &Sim| {
            let tasks = sim.cluster.tasks_of_service(migrate);
            tasks.map(|task| task.spec.container.image.clone()).collect::<std::collections::BTreeSet<_>>()
        };
        assert_eq!(ended(&sim), ["app:1".to_owned()].into());
        for id in [migrate, web] {
            sim.update(id, |spec| spec.task.container.image = "app:2".into());
        }
        sim.run_for(Duration::from_secs(3));
        assert_eq!(ended(&sim), ["app:1".to_owned(), "app:2".to_owned()].into(), "done once for each spec");
        assert_eq!(sim.running(web).len(), 1, "the mended image is tried at once");
        let index = sim.index;
        sim.run_for(10 * MINUTE);
        assert_eq!(sim.index, index, "and both rest");
    }
}

#[test]
fn an_update_of_what_was_scaled_away_completes_without_another_change() {
    let mut sim = Sim::new(1);
    let mut web = spec("web", 2);
    web.update.monitor = MINUTE;
    let id = sim.create(web);
    sim.settle();
    sim.update(id, |spec| spec.task.container.image = "app:2".into());
    sim.round();
    sim.update(id, |spec| spec.mode = Mode::Replicated { replicas: 0 });
    sim.run_for(5 * MINUTE);
    assert_eq!(sim.cluster.services[&id].update_status.as_ref().unwrap().state, UpdateState::Completed);
}

#[test]
fn subnets_addresses_and_ports_are_given_once() {
    let mut sim = Sim::new(1);
    for name in ["front", "back"] {
        let spec = NetworkSpec { name: name.into(), ..NetworkSpec::default() };
        let (subnet, gateway) = allocator::subnet_for(&sim.cluster, &spec).unwrap();
        let network = Network {
            id: sim.ids.next_id(),
            meta: Meta::new(sim.now),
            spec,
            subnet,
            gateway,
            blocks: Default::default(),
            subnet_v6: None,
        };
        sim.apply(Change::CreateNetwork { network: Box::new(network) });
    }
    let subnets: Vec<String> = sim.cluster.networks.values().map(|network| network.subnet.to_string()).collect();
    assert_eq!(subnets.iter().collect::<std::collections::BTreeSet<_>>().len(), 2);
    let clash =
        NetworkSpec { name: "x".into(), subnet: Some("10.64.0.0/24".parse().unwrap()), ..NetworkSpec::default() };
    let refusal = allocator::subnet_for(&sim.cluster, &clash).unwrap_err().to_string();
    assert_eq!(refusal, "subnet 10.64.0.0/24 of network x overlaps 10.64.0.0/18 of network front");
    let port = PortSpec {
        name: None,
        protocol: PortProtocol::Tcp,
        target: 80,
        published: 0,
        mode: PublishMode::Ingress,
        host_ip: None,
    };
    let ids: Vec<ServiceId> = ["a", "b"]
        .into_iter()
        .map(|name| {
            let mut spec = spec(name, 1);
            spec.task.networks.push(NetworkAttachment {
                network: "back".into(),
                aliases: vec![],
                address: None,
                address_v6: None,
            });
            spec.endpoint.ports.push(port.clone());
            sim.create(spec)
        })
        .collect();
    sim.settle();
    let endpoints: Vec<_> = ids.iter().map(|id| sim.cluster.services[id].endpoint.clone()).collect();
    let published: std::collections::BTreeSet<u16> =
        endpoints.iter().map(|endpoint| endpoint.ports[0].published).collect();
    assert_eq!(published, [30000, 30001].into());
    assert_ne!(endpoints[0].virtual_ips[0].address, endpoints[1].virtual_ips[0].address);
    let back = sim.cluster.network_named("back").unwrap();
    assert_eq!(back.blocks.len(), 1, "one block for the one node");
    assert_eq!(sim.running(ids[0]).len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    /// Whatever happens to nodes and specs, the laws hold at every step and the cluster comes to rest.
    #[test]
    fn any_history_settles(events in proptest::collection::vec((0u8..7, 0u8..4, 0u64..6), 1..25)) {
        let mut sim = Sim::new(3);
        let mut web = spec("web", 3);
        web.update.parallelism = 2;
        let id = sim.create(web);
        let mut global = spec("global", 0);
        global.mode = Mode::Global;
        sim.create(global);
        let nodes: Vec<NodeId> = sim.cluster.nodes.keys().copied().collect();
        for (event, which, number) in events {
            let node = nodes[usize::from(which) % nodes.len()];
            match event {
                0 => sim.update(id, |spec| spec.mode = Mode::Replicated { replicas: number }),
                1 => sim.update(id, |spec| spec.task.container.image = format!("app:{number}")),
                2 | 3 => {
                    let state = if event == 2 { NodeState::Down } else { NodeState::Ready };
                    let status = NodeStatus { state, ..NodeStatus::default() };
                    sim.apply(Change::ReportNode { node, description: None, status, at: sim.now });
                }
                4 => {
                    let availability = [Availability::Active, Availability::Drain, Availability::Pause][number as usize % 3];
                    let spec = NodeSpec { availability, ..NodeSpec::default() };
                    let expected = sim.cluster.nodes[&node].meta.version;
                    sim.apply(Change::UpdateNodeSpec { node, expected, spec, at: sim.now });
                }
                5 => sim.fate = Box::new(move |task| if task.id.as_u128() % 5 < u128::from(number) { Fate::Exits(1) } else { Fate::Runs }),
                _ => sim.fate = Box::new(|_| Fate::Runs),
            }
            sim.round();
            sim.run_for(Duration::from_secs(number));
        }
        sim.fate = Box::new(|_| Fate::Runs);
        sim.run_for(5 * MINUTE);
        let slots: Vec<Slot> = sim.running(id).iter().map(|task| task.slot).collect();
        let distinct: std::collections::BTreeSet<_> = slots.iter().collect();
        prop_assert_eq!(slots.len(), distinct.len(), "one task a slot");
    }
}

#[test]
fn new_contents_reach_tasks_that_live_on_where_the_service_says_how() {
    let file = FileTarget { path: "page".to_owned(), uid: 0, gid: 0, mode: 0o444 };
    let page = |content: &str| ConfigRef {
        config: "page".to_owned(),
        digest: Some(ContentDigest(content.to_owned())),
        file: file.clone(),
    };
    for (on_change, lives_on) in [(Some("SIGHUP".to_owned()), true), (None, false)] {
        let mut sim = Sim::new(2);
        let mut asked = spec("web", 2);
        asked.task.container.on_change.clone_from(&on_change);
        let id = sim.create(asked);
        sim.update(id, |spec| spec.task.container.configs = vec![page("one")]);
        sim.run_for(MINUTE);
        let before: Vec<TaskId> = sim.running(id).iter().map(|task| task.id).collect();
        sim.update(id, |spec| spec.task.container.configs = vec![page("two")]);
        sim.run_for(MINUTE);
        let running = sim.running(id);
        let after: Vec<TaskId> = running.iter().map(|task| task.id).collect();
        assert_eq!(before == after, lives_on, "{on_change:?}");
        assert!(running.iter().all(|task| task.spec.container.configs == [page("two")]), "{on_change:?}");
        // Anything else beside it replaces them.
        sim.update(id, |spec| {
            spec.task.container.configs = vec![page("three")];
            spec.task.container.env.push("MORE=1".to_owned());
        });
        sim.run_for(MINUTE);
        assert!(sim.running(id).iter().all(|task| !after.contains(&task.id)), "{on_change:?}");
    }
}
