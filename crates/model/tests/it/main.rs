//! The laws of `Cluster::apply`: what is refused, what moves only forward, and that indexes stay true.

mod claims;
mod contents;
mod jobs;
mod tunnel;

use std::collections::BTreeMap;
use std::sync::Arc;

use skep_model::*;

pub const AT: Timestamp = Timestamp(1_700_000_000_000_000_000);

pub fn service_spec(name: &str) -> ServiceSpec {
    ServiceSpec::new(name, "nginx:1")
}

fn service(ids: &mut IdSource, name: &str) -> Service {
    Service::new(ids.next_id(), service_spec(name), AT)
}

pub fn node(ids: &mut IdSource) -> Node {
    Node {
        id: ids.next_id(),
        meta: Meta::new(AT),
        spec: NodeSpec::default(),
        description: None,
        status: NodeStatus::default(),
        manager: None,
        certificate: Default::default(),
        tunnel: None,
    }
}

fn task(ids: &mut IdSource, service: &Service) -> Task {
    Task {
        id: ids.next_id(),
        meta: Meta::new(AT),
        service: service.id,
        service_name: service.name().to_owned(),
        slot: Slot::Replica(1),
        spec: Arc::new(service.spec.task.clone()),
        spec_version: service.spec_version,
        networks: Vec::new(),
        host_ports: Vec::new(),
        node: None,
        desired: DesiredState::Running,
        status: TaskStatus::new(TaskState::New, AT, "created"),
        not_before: None,
        failures_before: 0,
        iteration: None,
        running_since: None,
        withdrawn: false,
        generic: Vec::new(),
        stop_reason: None,
        home: None,
        service_labels: Labels::new(),
    }
}

/// A cluster with one node, one service and one pending task.
fn cluster() -> (Cluster, NodeId, ServiceId, TaskId) {
    let mut ids = IdSource::from_seed(1);
    let (node, service) = (node(&mut ids), service(&mut ids, "web"));
    let task = task(&mut ids, &service);
    let (n, s, t) = (node.id, service.id, task.id);
    let mut cluster = Cluster::default();
    cluster.apply(&Change::CreateNode { node: Box::new(node) }, 1).unwrap();
    cluster.apply(&Change::CreateService { service: Box::new(service) }, 2).unwrap();
    cluster.apply(&Change::CreateTask { task: Box::new(task) }, 3).unwrap();
    cluster.apply(&Change::SetTaskPending { task: t, reason: None, at: AT }, 4).unwrap();
    assert_eq!(cluster.check(), []);
    (cluster, n, s, t)
}

fn report(task: TaskId, node: NodeId, state: TaskState) -> Change {
    Change::ReportTask { task, node, status: TaskStatus::new(state, AT, "") }
}

#[test]
fn an_update_made_for_an_older_version_is_refused() {
    let (mut cluster, _, service, _) = cluster();
    let mut spec = service_spec("web");
    spec.task.container.image = "nginx:2".to_owned();
    let stale = Change::UpdateService { service, expected: Version(1), spec: Arc::new(spec.clone()), at: AT };
    let before = cluster.clone();
    let refusal = cluster.apply(&stale, 9).unwrap_err();
    assert!(refusal.to_string().starts_with("update out of sequence"), "{refusal}");
    assert_eq!(cluster, before);
    let fresh = Change::UpdateService { service, expected: Version(2), spec: Arc::new(spec), at: AT };
    cluster.apply(&fresh, 9).unwrap();
    let updated = cluster.service_named("WEB").unwrap();
    assert_eq!((updated.spec_version, updated.revisions.len()), (Version(9), 1));
    assert_eq!(updated.previous_spec().unwrap().task.container.image, "nginx:1");
}

#[test]
fn scaling_and_repeating_a_spec_make_no_revision() {
    let (mut cluster, _, id, _) = cluster();
    let same = Change::UpdateService { service: id, expected: Version(2), spec: Arc::new(service_spec("web")), at: AT };
    cluster.apply(&same, 5).unwrap();
    assert_eq!(cluster.services[&id].meta.version, Version(2));
    let scaled = ServiceSpec { mode: Mode::Replicated { replicas: 5 }, ..service_spec("web") };
    let scale = Change::UpdateService { service: id, expected: Version(2), spec: Arc::new(scaled), at: AT };
    cluster.apply(&scale, 6).unwrap();
    let service = &cluster.services[&id];
    assert_eq!((service.meta.version, service.spec_version, service.revisions.len()), (Version(6), Version(2), 0));
}

#[test]
fn task_states_never_go_back() {
    let (mut cluster, node, _, task) = cluster();
    assert!(cluster.apply(&report(task, node, TaskState::Running), 5).is_err(), "not assigned to that node");
    cluster.apply(&Change::AssignTask { task, node, at: AT }, 5).unwrap();
    assert!(cluster.apply(&Change::AssignTask { task, node, at: AT }, 6).is_err());
    cluster.apply(&report(task, node, TaskState::Running), 6).unwrap();
    assert!(cluster.apply(&report(task, node, TaskState::Preparing), 7).is_err());
    cluster.apply(&report(task, node, TaskState::Failed), 7).unwrap();
    assert!(cluster.apply(&report(task, node, TaskState::Complete), 8).is_err(), "one end only");
    let desired = |desired| Change::SetTaskDesired { task, desired, at: AT, reason: None };
    cluster.apply(&desired(DesiredState::Shutdown), 8).unwrap();
    assert!(cluster.apply(&desired(DesiredState::Running), 9).is_err());
    assert_eq!(cluster.check(), []);
}

#[test]
fn a_slot_of_at_most_one_takes_no_second_task_while_the_first_may_run() {
    let (mut cluster, node, service, first) = cluster();
    let mut second = task(&mut IdSource::from_seed(2), &cluster.services[&service]);
    let mut spec = (*second.spec).clone();
    spec.at_most_one = true;
    (second.spec, second.status.state) = (Arc::new(spec), TaskState::Pending);
    let create = |task: &Task| Change::CreateTask { task: Box::new(task.clone()) };
    let refused = cluster.apply(&create(&second), 5).unwrap_err();
    assert!(refused.to_string().ends_with("which may still run"), "{refused}");
    second.desired = DesiredState::Ready;
    cluster.apply(&create(&second), 5).unwrap();
    cluster.apply(&Change::AssignTask { task: first, node, at: AT }, 6).unwrap();
    let desired = |task, desired| Change::SetTaskDesired { task, desired, at: AT, reason: None };
    cluster.apply(&desired(first, DesiredState::Remove), 7).unwrap();
    assert!(cluster.apply(&desired(second.id, DesiredState::Running), 8).is_err(), "wanted gone is not gone");
    cluster.apply(&report(first, node, TaskState::Orphaned), 8).unwrap();
    cluster.apply(&desired(second.id, DesiredState::Running), 9).unwrap();
    assert_eq!(cluster.check(), []);
    cluster.apply(&desired(second.id, DesiredState::Shutdown), 10).unwrap();
    let assign = Change::AssignTask { task: second.id, node, at: AT };
    assert!(cluster.apply(&assign, 11).is_err(), "what is to stop goes nowhere");
}

#[test]
fn at_most_one_refuses_start_first() {
    let mut spec = service_spec("web");
    spec.task.at_most_one = true;
    spec.validate().unwrap();
    spec.rollback.order = UpdateOrder::StartFirst;
    assert!(spec.validate().unwrap_err().problem.contains("rollback order start-first"));
}

#[test]
fn names_are_unique_without_regard_to_case() {
    let (mut cluster, ..) = cluster();
    let twin = service(&mut IdSource::from_seed(5), "Web");
    let refusal = cluster.apply(&Change::CreateService { service: Box::new(twin) }, 9).unwrap_err();
    assert_eq!(refusal.to_string(), "service Web already exists");
}

#[test]
fn what_a_service_uses_cannot_be_removed() {
    let (mut cluster, ..) = cluster();
    let mut ids = IdSource::from_seed(9);
    let secret = Secret {
        id: ids.next_id(),
        meta: Meta::new(AT),
        name: "password".to_owned(),
        labels: Labels::new(),
        contents: Contents::new(ContentDigest("aa".to_owned()), Arc::from(&b"x"[..]), AT),
    };
    let id = secret.id;
    let mut user = service(&mut ids, "db");
    let mut spec = service_spec("db");
    let file = FileTarget { path: "password".to_owned(), uid: 0, gid: 0, mode: 0o444 };
    spec.task.container.secrets.push(SecretRef { secret: "password".to_owned(), digest: None, file });
    user.spec = Arc::new(spec);
    let user_id = user.id;
    cluster.apply(&Change::CreateSecret { secret: Box::new(secret) }, 5).unwrap();
    cluster.apply(&Change::CreateService { service: Box::new(user) }, 6).unwrap();
    let refusal = cluster.apply(&Change::RemoveSecret { secret: id }, 7).unwrap_err();
    assert_eq!(refusal.to_string(), "secret password is in use by service db");
    cluster.apply(&Change::RemoveService { service: user_id }, 7).unwrap();
    cluster.apply(&Change::RemoveSecret { secret: id }, 8).unwrap();
    assert_eq!(cluster.check(), []);
}

#[test]
fn a_service_cannot_be_created_on_a_network_that_has_gone() {
    let mut ids = IdSource::from_seed(7);
    let mut web = service(&mut ids, "web");
    let mut spec = service_spec("web");
    spec.task.networks =
        vec![NetworkAttachment { network: "front".into(), aliases: vec![], address: None, address_v6: None }];
    web.spec = spec.into();
    let refused = Cluster::default().apply(&Change::CreateService { service: Box::new(web) }, 1).unwrap_err();
    assert!(matches!(&refused, Rejection::NotFound { kind: Kind::Network, id } if id == "front"), "{refused}");
}

#[test]
fn blocks_are_carved_apart_and_outside_the_virtual_addresses() {
    let (mut cluster, node, ..) = cluster();
    let subnet: ipnet::Ipv4Net = "10.64.0.0/24".parse().unwrap();
    let spec = NetworkSpec { name: "back".to_owned(), ..NetworkSpec::default() };
    let id = IdSource::from_seed(3).next_id();
    let gateway = "10.64.0.1".parse().unwrap();
    let network = Network { id, meta: Meta::new(AT), spec, subnet, gateway, blocks: BTreeMap::new(), subnet_v6: None };
    assert_eq!(network.vip_range(), "10.64.0.224/27".parse().unwrap());
    cluster.apply(&Change::CreateNetwork { network: Box::new(network) }, 5).unwrap();
    let mut carved = Vec::new();
    while let Some(block) = cluster.networks[&id].free_block() {
        cluster.apply(&Change::AssignBlock { network: id, block, node }, 6).unwrap();
        carved.push(block);
        assert!(cluster.apply(&Change::AssignBlock { network: id, block, node }, 7).is_err());
    }
    assert_eq!(carved.len(), 3);
    assert_eq!(cluster.networks[&id].usable_addresses(carved[0]), 62);
    assert_eq!(cluster.check(), []);
}

#[test]
fn a_name_or_an_unambiguous_prefix_finds_an_object() {
    let (cluster, node, service, task) = cluster();
    assert_eq!(cluster.find_service("web").unwrap().id, service);
    assert_eq!(cluster.find_service(&service.to_string()[..4]).unwrap().id, service);
    assert_eq!(cluster.find_task("web.1").unwrap().id, task);
    assert_eq!(cluster.find_node(&node.to_string()).unwrap().id, node);
    assert_eq!(cluster.find_service("webb").unwrap_err().to_string(), "service `webb` not found; did you mean `web`?");
    assert_eq!(
        cluster.find_service("api").unwrap_err().to_string(),
        "service `api` not found; `skep service ls` lists what is there"
    );
}

#[test]
fn a_value_rebuilt_from_its_tables_is_the_same() {
    let (cluster, ..) = cluster();
    let rebuilt = Cluster::from_tables(
        cluster.version,
        None,
        cluster.nodes.values().map(|n| (**n).clone()).collect(),
        cluster.services.values().map(|s| (**s).clone()).collect(),
        cluster.tasks.values().map(|t| (**t).clone()).collect(),
        Vec::new(),
        Vec::new(),
        Vec::new(),
        Vec::new(),
    );
    assert_eq!(rebuilt, cluster);
    assert_eq!(rebuilt.check(), []);
}

#[test]
fn specs_are_validated_with_words_that_a_user_can_act_on() {
    let mut spec = service_spec("web.1");
    assert!(spec.validate().unwrap_err().to_string().contains("DNS name component"));
    spec = service_spec("web");
    spec.task.resources.limits.memory = Some(MemoryBytes(1 << 20));
    assert_eq!(
        spec.validate().unwrap_err().to_string(),
        "service web: invalid memory value 1048576: must be at least 4 MiB"
    );
}

#[test]
fn a_raft_id_is_never_given_out_again_by_settings_that_were_read_before() {
    let config = cluster_config();
    let mut cluster = Cluster::default();
    cluster.apply(&Change::SetClusterConfig { config: Box::new(config), expected: None }, 1).unwrap();
    let read = (**cluster.config.as_ref().unwrap()).clone();
    let node = Node {
        id: Id::from_u128(2),
        meta: Meta::new(AT),
        spec: NodeSpec { role: Role::Manager, ..NodeSpec::default() },
        description: None,
        status: NodeStatus::default(),
        manager: Some(ManagerStatus { raft_id: 1, address: "10.0.0.1:7377".to_owned() }),
        certificate: Default::default(),
        tunnel: None,
    };
    cluster.apply(&Change::CreateNode { node: Box::new(node) }, 2).unwrap();
    let expected = Some(read.meta.version);
    cluster.apply(&Change::SetClusterConfig { config: Box::new(read), expected }, 3).unwrap();
    assert_eq!(cluster.config.as_ref().unwrap().next_raft_id, 2);
}

fn cluster_config() -> ClusterConfig {
    ClusterConfig {
        id: Id::from_u128(1),
        meta: Meta::new(AT),
        spec: ClusterSpec::default(),
        ca_certificate: String::new(),
        ca_key: String::new(),
        join_tokens: JoinTokenHashes::default(),
        next_raft_id: 1,
        unlock_key: None,
        level: FEATURE_LEVEL,
        trust: Default::default(),
    }
}
