//! `deploy`, and the older attributes of a service that say the same.

use super::{Fields, fields};
use crate::project::{
    At, Condition, Deploy, EndpointMode, FailureAction, GenericResource, Mode, Order, Placement, Resources,
    RestartPolicy, Service, UpdateConfig,
};
use crate::value::{Node, Value};

pub(super) fn decode(f: &mut Fields<'_, '_>, service: &mut Service) {
    let mut deploy = Deploy::default();
    if let Some(node) = f.nullable("deploy") {
        let path = f.at("deploy");
        if let Some(mut d) = Fields::open(node, path, f.report) {
            deploy = read(&mut d);
            d.finish();
        }
        deploy.span = node.span;
    }
    let scale = f.whole_at("scale");
    deploy.replicas = agree(f, "scale", "deploy.replicas", scale, deploy.replicas);
    let cpus = f.nano_cpus("cpus");
    let limits = &mut deploy.limits;
    limits.nano_cpus = agree(f, "cpus", "deploy.resources.limits.cpus", cpus, limits.nano_cpus.take());
    let memory = f.bytes("mem_limit");
    limits.memory = agree(f, "mem_limit", "deploy.resources.limits.memory", memory, limits.memory.take());
    let pids = f.whole_at("pids_limit");
    limits.pids = agree(f, "pids_limit", "deploy.resources.limits.pids", pids, limits.pids.take());
    let memory = f.bytes("mem_reservation");
    let reserved = deploy.reservations.memory.take();
    let path = "deploy.resources.reservations.memory";
    deploy.reservations.memory = agree(f, "mem_reservation", path, memory, reserved);
    service.deploy = deploy;
}

/// Two ways to say one thing must say the same.
fn agree<T: PartialEq>(
    f: &mut Fields<'_, '_>,
    old: &str,
    new: &str,
    from_old: Option<At<T>>,
    from_new: Option<At<T>>,
) -> Option<At<T>> {
    match (from_old, from_new) {
        (Some(older), Some(newer)) if older.value != newer.value => {
            let place = f.report.sources.place(newer.span);
            let path = f.path.clone();
            f.report
                .error(older.span, format!("{path}: {old} and {new} ({place}) have different values"))
                .with_help("keep one of the two");
            Some(newer)
        }
        (older, newer) => newer.or(older),
    }
}

fn read(d: &mut Fields<'_, '_>) -> Deploy {
    let mode = d.choice(
        "mode",
        &[
            ("replicated", Mode::Replicated),
            ("global", Mode::Global),
            ("replicated-job", Mode::ReplicatedJob),
            ("global-job", Mode::GlobalJob),
        ],
    );
    let mut deploy = Deploy {
        mode,
        replicas: d.whole_at("replicas"),
        endpoint_mode: d.choice("endpoint_mode", &[("vip", EndpointMode::Vip), ("dnsrr", EndpointMode::Dnsrr)]),
        labels: d.string_map("labels"),
        restart_policy: restart_policy(d),
        placement: placement(d),
        update_config: update_config(d, "update_config", true),
        rollback_config: update_config(d, "rollback_config", false),
        ..Deploy::default()
    };
    if let Some(At { value: Mode::Global | Mode::GlobalJob, .. }) = deploy.mode
        && let Some(replicas) = &deploy.replicas
    {
        let path = d.at("replicas");
        d.report
            .error(replicas.span, format!("{path} has no meaning for a global service"))
            .with_help("a global service runs one task on each node: remove replicas, or use mode: replicated");
    }
    resources(d, &mut deploy);
    deploy
}

fn resources(d: &mut Fields<'_, '_>, deploy: &mut Deploy) {
    let Some(mut r) = d.child("resources") else { return };
    if let Some(mut l) = r.child("limits") {
        deploy.limits = amounts(&mut l);
        deploy.limits.pids = l.whole_at("pids");
        l.finish();
    }
    if let Some(mut v) = r.child("reservations") {
        deploy.reservations = amounts(&mut v);
        deploy.generic_resources = generic_resources(&mut v);
        v.unsupported(
            &["devices"],
            Some("say what nodes have in their config.toml (generic_resources), and reserve it as generic_resources"),
        );
        v.finish();
    }
    r.finish();
}

fn amounts(f: &mut Fields<'_, '_>) -> Resources {
    Resources { nano_cpus: f.nano_cpus("cpus"), memory: f.bytes("memory"), pids: None }
}

fn generic_resources(v: &mut Fields<'_, '_>) -> Vec<At<GenericResource>> {
    let path = v.at("generic_resources");
    let mut resources = Vec::new();
    for (index, item) in v.items("generic_resources").iter().enumerate() {
        let Some(mut g) = Fields::open(item, format!("{path}.{index}"), v.report) else { continue };
        if let Some(mut s) = g.child("discrete_resource_spec") {
            let (kind, value) = (s.string("kind"), s.whole("value"));
            if let (Some(kind), Some(value)) = (kind, value) {
                resources.push(At { span: item.span, value: GenericResource { kind, value } });
            }
            s.finish();
        }
        g.finish();
    }
    resources
}

fn restart_policy(d: &mut Fields<'_, '_>) -> Option<RestartPolicy> {
    let span = d.node("restart_policy")?.span;
    let mut r = d.child("restart_policy")?;
    let words = [("none", Condition::None), ("on-failure", Condition::OnFailure), ("any", Condition::Any)];
    let policy = RestartPolicy {
        span,
        condition: r.choice("condition", &words).map(|at| at.value),
        delay: r.duration("delay"),
        max_attempts: r.whole("max_attempts"),
        window: r.duration("window"),
    };
    r.finish();
    Some(policy)
}

fn placement(d: &mut Fields<'_, '_>) -> Placement {
    let Some(mut p) = d.child("placement") else { return Placement::default() };
    let placement = Placement {
        constraints: p.strings_at("constraints"),
        preferences: preferences(&mut p),
        max_replicas_per_node: p.whole("max_replicas_per_node"),
    };
    p.finish();
    placement
}

fn preferences(p: &mut Fields<'_, '_>) -> Vec<At<String>> {
    let path = p.at("preferences");
    let mut preferences = Vec::new();
    for (index, item) in p.items("preferences").iter().enumerate() {
        let Some(mut s) = Fields::open(item, format!("{path}.{index}"), p.report) else { continue };
        preferences.extend(s.string_at("spread"));
        s.finish();
    }
    preferences
}

fn update_config(d: &mut Fields<'_, '_>, name: &'static str, may_roll_back: bool) -> Option<UpdateConfig> {
    let span = d.node(name)?.span;
    let mut u = d.child(name)?;
    let actions =
        [("pause", FailureAction::Pause), ("continue", FailureAction::Continue), ("rollback", FailureAction::Rollback)];
    let actions = if may_roll_back { &actions[..] } else { &actions[..2] };
    let config = UpdateConfig {
        span,
        parallelism: u.whole("parallelism"),
        delay: u.duration("delay"),
        failure_action: u.choice("failure_action", actions).map(|at| at.value),
        monitor: u.duration("monitor"),
        max_failure_ratio: ratio(&mut u),
        order: u.choice("order", &[("stop-first", Order::StopFirst), ("start-first", Order::StartFirst)]),
    };
    u.finish();
    Some(config)
}

fn ratio(u: &mut Fields<'_, '_>) -> Option<f64> {
    let node: &Node = u.node("max_failure_ratio")?;
    let path = u.at("max_failure_ratio");
    let ratio = u.number("max_failure_ratio")?;
    if !(0.0..=1.0).contains(&ratio) {
        let problem = fields::expected("a number from 0 to 1", node, &path, u.report);
        if matches!(node.value, Value::Int(1..=100, _)) {
            problem.with_help(format!("write {} for {ratio} percent", ratio / 100.0));
        }
        return None;
    }
    Some(ratio)
}
