//! A plan says what differs, and nothing where nothing does.

use expect_test::expect;
use proptest::prelude::*;
use skep_model::*;
use skep_stack::{Plan, Prune, StackSpec, diff};

use crate::convert_with;

const AT: Timestamp = Timestamp(1);

const COUNTER: &str = "
services:
  web: {image: \"web:1\", networks: [front], secrets: [s], ports: [\"80\"]}
  redis: {image: \"redis:7\", volumes: [\"data:/data\"], configs: [c]}
networks: {front: }
volumes: {data: }
secrets: {s: {file: s.txt}}
configs: {c: {content: hello}}
";

fn spec(text: &str, secret: &str) -> StackSpec {
    convert_with(text, &[("s.txt", secret)]).unwrap_or_else(|errors| panic!("{errors}")).spec
}

fn digest(data: &[u8]) -> ContentDigest {
    use sha2::{Digest, Sha256};
    ContentDigest(Sha256::digest(data).iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A cluster after a deploy: digests pinned, images resolved, addresses and ports given out.
fn deployed(stack: &StackSpec) -> Cluster {
    let mut cluster = Cluster::default();
    let mut ids = IdSource::from_seed(7);
    let mut apply = |change: Change| {
        let version = cluster.version.0 + 1;
        cluster.apply(&change, version).unwrap();
    };
    for (index, spec) in stack.networks.iter().enumerate() {
        let subnet = format!("10.210.{index}.0/24").parse().unwrap();
        let gateway = format!("10.210.{index}.1").parse().unwrap();
        let network = Network {
            id: ids.next_id(),
            meta: Meta::new(AT),
            spec: spec.clone(),
            subnet,
            gateway,
            blocks: Default::default(),
            subnet_v6: None,
        };
        apply(Change::CreateNetwork { network: Box::new(network) });
    }
    for secret in &stack.secrets {
        let contents = Contents::new(digest(&secret.data), secret.data.clone(), AT);
        let (name, labels) = (secret.name.clone(), secret.labels.clone());
        apply(Change::CreateSecret {
            secret: Box::new(Secret { id: ids.next_id(), meta: Meta::new(AT), name, labels, contents }),
        });
    }
    for config in &stack.configs {
        let contents = Contents::new(digest(&config.data), config.data.clone(), AT);
        let (name, labels) = (config.name.clone(), config.labels.clone());
        apply(Change::CreateConfig {
            config: Box::new(Config { id: ids.next_id(), meta: Meta::new(AT), name, labels, contents }),
        });
    }
    for wanted in &stack.services {
        let mut spec = wanted.clone();
        let container = &mut spec.task.container;
        container.image += "@sha256:0123";
        for reference in &mut container.secrets {
            let secret = stack.secrets.iter().find(|secret| secret.name == reference.secret).unwrap();
            reference.digest = Some(digest(&secret.data));
        }
        for reference in &mut container.configs {
            let config = stack.configs.iter().find(|config| config.name == reference.config).unwrap();
            reference.digest = Some(digest(&config.data));
        }
        spec.task.force_update = 3;
        let linux = PlatformSpec { os: "linux".to_owned(), ..PlatformSpec::default() };
        spec.task.placement.platforms = vec![linux];
        let service = Service::new(ids.next_id(), spec, AT);
        apply(Change::CreateService { service: Box::new(service) });
    }
    cluster
}

fn shown(plan: &Plan) -> String {
    plan.to_string()
}

#[test]
fn a_first_deploy_creates_everything() {
    let plan = diff(&Cluster::default(), &spec(COUNTER, "one"), Prune::No);
    expect![[r#"
        + network st_default
        + network st_front
        + secret st_s
        + config st_c
        + service st_redis
        + service st_web
    "#]]
    .assert_eq(&shown(&plan));
}

#[test]
fn the_same_again_is_nothing() {
    let stack = spec(COUNTER, "one");
    let plan = diff(&deployed(&stack), &stack, Prune::Yes);
    assert!(plan.is_empty(), "{plan}");
}

#[test]
fn a_new_secret_content_replaces_the_tasks_that_use_it() {
    let plan = diff(&deployed(&spec(COUNTER, "one")), &spec(COUNTER, "two"), Prune::No);
    expect![[r#"
        = network st_default
        = network st_front
        ~ secret st_s (content)
        = config st_c
        = service st_redis
        ~ service st_web (secrets)
    "#]]
    .assert_eq(&shown(&plan));
}

#[test]
fn what_differs_is_named() {
    let changed = COUNTER
        .replace("web:1", "web:2")
        .replace("ports: [\"80\"]", "ports: [\"81:80\"], environment: {A: 1}, deploy: {replicas: 3}");
    let plan = diff(&deployed(&spec(COUNTER, "one")), &spec(&changed, "one"), Prune::No);
    expect![[r#"
        = network st_default
        = network st_front
        = secret st_s
        = config st_c
        = service st_redis
        ~ service st_web (image, environment, deploy.replicas, ports)
    "#]]
    .assert_eq(&shown(&plan));
}

#[test]
fn pruning_removes_what_the_file_no_longer_names() {
    let smaller = "services: {web: {image: \"web:1\", ports: [\"80\"]}}";
    let cluster = deployed(&spec(COUNTER, "one"));
    let kept = diff(&cluster, &spec(smaller, ""), Prune::No);
    assert!(!shown(&kept).contains("- "), "{kept}");
    expect![[r#"
        = network st_default
        ~ service st_web (secrets, networks)
        - service st_redis
        - secret st_s
        - config st_c
        - network st_front
    "#]]
    .assert_eq(&shown(&diff(&cluster, &spec(smaller, ""), Prune::Yes)));
}

#[test]
fn what_is_in_the_way_is_refused_all_at_once() {
    let mut taken = spec(COUNTER, "one");
    for service in &mut taken.services {
        service.labels.insert(Stack::LABEL.to_owned(), "other".to_owned());
    }
    for network in &mut taken.networks {
        network.internal = true;
    }
    let wanted = COUNTER
        .replace("volumes: {data: }", "volumes: {data: }\nx-y: 1")
        .replace("{file: s.txt}", "{external: true, name: nowhere}");
    let plan = diff(&deployed(&taken), &spec(&wanted, "one"), Prune::No);
    expect![[r#"
        ! secret nowhere is declared as external, but could not be found; make it with `skep secret create`, or remove external: true
        ! network st_default exists with other settings (driver: overlay, internal: true, subnet: 10.210.0.0/24), and a network cannot be changed; remove the stack first, or give the network another name
        ! network st_front exists with other settings (driver: overlay, internal: true, subnet: 10.210.1.0/24), and a network cannot be changed; remove the stack first, or give the network another name
        ! service st_redis belongs to stack other; give it another name
        ! service st_web belongs to stack other; give it another name
        = network st_default
        = network st_front
        = config st_c
        ~ service st_redis (deploy.labels)
        ~ service st_web (secrets, deploy.labels)
    "#]].assert_eq(&shown(&plan));
}

proptest! {
    #[test]
    fn whatever_was_deployed_needs_no_second_deploy(
        replicas in 0u64..5, port in 1u16.., global: bool, ports in proptest::collection::vec(1u16..100, 0..4),
        env in proptest::collection::btree_map("[A-Z]{1,4}", "[a-z ]{0,6}", 0..5), cpus in 1u32..64, secret in "[a-z]{1,9}",
    ) {
        let mode = if global { "mode: global".to_owned() } else { format!("replicas: {replicas}") };
        let environment: Vec<String> = env.iter().map(|(name, value)| format!("{name}: \"{value}\"")).collect();
        let ports: Vec<String> = ports.iter().enumerate().map(|(i, p)| format!("\"{}:{p}\"", 2000 + i)).collect();
        let text = format!(
            "services: {{a: {{image: x, secrets: [s], environment: {{{}}}, ports: [{}], expose: [{port}], deploy: {{{mode}, resources: {{limits: {{cpus: {cpus}}}}}}}}}}}\nsecrets: {{s: {{file: s.txt}}}}",
            environment.join(", "), ports.join(", "),
        );
        let stack = spec(&text, &secret);
        let plan = diff(&deployed(&stack), &stack, Prune::Yes);
        prop_assert!(plan.is_empty(), "{}", plan);
    }
}
