//! What each task runs: the container's spec.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use skep_compose_spec::project::{self, At, Service};
use skep_model::{ContainerSpec, HealthCheck, HealthTest, Hook, Labels, LogDriver, MemoryBytes, PullPolicy, Ulimit};

use super::{Context, storage};

pub(super) fn convert(cx: &mut Context<'_>, service: &Service, image: String) -> ContainerSpec {
    let security = security(cx, service);
    let (cap_add, cap_drop) = capabilities(&service.cap_add, &service.cap_drop);
    ContainerSpec {
        image,
        pull_policy: pull_policy(cx, service),
        registry_auth: None,
        labels: cx.labels(&service.labels),
        command: service.entrypoint.clone(),
        args: service.command.clone(),
        env: environment(&service.environment),
        working_dir: service.working_dir.clone(),
        user: service.user.clone(),
        groups: service.group_add.clone(),
        hostname: service.hostname.clone(),
        domainname: service.domainname.clone(),
        init: service.init.unwrap_or(false),
        tty: service.tty,
        open_stdin: service.stdin_open,
        read_only: service.read_only,
        privileged: service.privileged,
        no_new_privileges: security.no_new_privileges,
        seccomp_unconfined: security.seccomp_unconfined,
        cap_add,
        cap_drop,
        sysctls: service.sysctls.clone(),
        ulimits: ulimits(service),
        shm_size: service.shm_size.map(MemoryBytes),
        oom_score_adj: service.oom_score_adj,
        devices: devices(service),
        stop_signal: service.stop_signal.clone(),
        stop_grace_period: service.stop_grace_period,
        health_check: service.healthcheck.as_ref().map(health_check),
        post_start: service.post_start.iter().map(hook).collect(),
        pre_stop: service.pre_stop.iter().map(hook).collect(),
        mounts: storage::mounts(cx, service),
        secrets: storage::secrets(cx, service),
        configs: storage::configs(cx, service),
        extra_hosts: service.extra_hosts.clone(),
        dns_servers: dns(cx, service),
        dns_search: service.dns_search.clone(),
        dns_options: service.dns_opt.clone(),
        on_change: service.skep.on_change.as_ref().map(|at| at.value.clone()),
    }
}

fn environment(environment: &BTreeMap<String, Option<String>>) -> Vec<String> {
    let line = |(name, value): (&String, &Option<String>)| match value {
        Some(value) => format!("{name}={value}"),
        None => name.clone(),
    };
    environment.iter().map(line).collect()
}

fn hook(hook: &project::Hook) -> Hook {
    let project::Hook { span: _, command, user, working_dir, environment, privileged } = hook;
    let (command, env) = (command.clone(), self::environment(environment));
    Hook { command, user: user.clone(), working_dir: working_dir.clone(), env, privileged: *privileged }
}

fn pull_policy(cx: &mut Context<'_>, service: &Service) -> PullPolicy {
    let at = service.wrote("pull_policy").unwrap_or(service.span);
    match &service.pull_policy {
        None | Some(project::PullPolicy::Missing) => PullPolicy::Missing,
        Some(project::PullPolicy::Always) => PullPolicy::Always,
        Some(project::PullPolicy::Never) => PullPolicy::Never,
        Some(project::PullPolicy::Build) => {
            cx.no_effect(at, &format!("services.{}.pull_policy: build", service.name), "images come from a registry");
            PullPolicy::Missing
        }
        Some(project::PullPolicy::Every(words)) => {
            cx.report
                .warning(at, format!("services.{}.pull_policy: {words} is not supported yet", service.name))
                .with_help("it means missing; each deploy asks the registry what the tag stands for");
            PullPolicy::Missing
        }
    }
}

struct Security {
    no_new_privileges: bool,
    seccomp_unconfined: bool,
}

/// `name:value` or `name=value`, as `docker run --security-opt` takes them.
fn security(cx: &mut Context<'_>, service: &Service) -> Security {
    let mut security = Security { no_new_privileges: false, seccomp_unconfined: false };
    for At { span, value } in &service.security_opt {
        let (name, argument) = value.split_once(['=', ':']).unwrap_or((value, ""));
        match (name, argument) {
            ("no-new-privileges", "" | "true") => security.no_new_privileges = true,
            ("no-new-privileges", "false") => security.no_new_privileges = false,
            ("seccomp", "unconfined") => security.seccomp_unconfined = true,
            ("seccomp", _) => {
                cx.report
                    .warning(
                        *span,
                        format!("services.{}: seccomp profiles of your own are not supported yet", service.name),
                    )
                    .with_help("the default profile applies; seccomp=unconfined switches it off");
            }
            ("apparmor" | "label" | "systempaths" | "writable-cgroups", _) => {
                cx.report
                    .warning(*span, format!("services.{}: security_opt `{value}` is not supported yet", service.name));
            }
            _ => {
                cx.report
                    .error(*span, format!("services.{}: unknown security_opt `{value}`", service.name))
                    .with_help("no-new-privileges:true and seccomp=unconfined are known");
            }
        }
    }
    security
}

/// Docker's form: upper case with `CAP_`, sorted; `ALL` takes in the rest, and adding wins over dropping.
fn capabilities(add: &[String], drop: &[String]) -> (Vec<String>, Vec<String>) {
    let normal = |name: &String| {
        let upper = name.trim().to_ascii_uppercase();
        if upper == "ALL" || upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") }
    };
    let collect = |names: &[String]| -> BTreeSet<String> {
        let all: BTreeSet<String> = names.iter().map(normal).collect();
        if all.contains("ALL") { BTreeSet::from(["ALL".to_owned()]) } else { all }
    };
    let (add, drop) = (collect(add), collect(drop));
    let drop = drop.into_iter().filter(|name| name == "ALL" || !add.contains(name)).collect();
    (add.into_iter().collect(), drop)
}

fn ulimits(service: &Service) -> Vec<Ulimit> {
    let limit = |number: i64| u64::try_from(number).unwrap_or(u64::MAX);
    let ulimit = |(name, it): (&String, &project::Ulimit)| Ulimit {
        name: name.clone(),
        soft: limit(it.soft),
        hard: limit(it.hard),
    };
    service.ulimits.iter().map(ulimit).collect()
}

fn devices(service: &Service) -> Vec<String> {
    let line =
        |At { value, .. }: &At<project::Device>| format!("{}:{}:{}", value.source, value.target, value.permissions);
    service.devices.iter().map(line).collect()
}

fn health_check(check: &project::Healthcheck) -> HealthCheck {
    let project::Healthcheck { span: _, test, interval, timeout, retries, start_period, start_interval } = check;
    HealthCheck {
        test: test.as_ref().map(|test| match test {
            project::HealthTest::Disabled => HealthTest::Disabled,
            project::HealthTest::Exec(words) => HealthTest::Exec(words.clone()),
            project::HealthTest::Shell(line) => HealthTest::Shell(line.clone()),
        }),
        interval: *interval,
        timeout: *timeout,
        retries: *retries,
        start_period: *start_period,
        start_interval: *start_interval,
    }
}

fn dns(cx: &mut Context<'_>, service: &Service) -> Vec<String> {
    let mut servers = Vec::new();
    for At { span, value } in service.dns.iter().filter(|at| !at.value.is_empty()) {
        if value.parse::<IpAddr>().is_ok() {
            servers.push(value.clone());
        } else {
            cx.report.error(*span, format!("services.{}.dns: `{value}` is not an IP address", service.name));
        }
    }
    servers
}

/// Options of the one log driver that there is.
const LOG_OPTIONS: [&str; 2] = ["max-size", "max-file"];

pub(super) fn log_driver(cx: &mut Context<'_>, service: &Service) -> Option<LogDriver> {
    let logging = service.logging.as_ref()?;
    let name = logging.driver.as_deref().filter(|driver| !driver.is_empty()).unwrap_or("json-file");
    if !matches!(name, "json-file" | "local") {
        cx.report
            .warning(logging.span, format!("services.{}.logging: driver `{name}` is not supported yet", service.name))
            .with_help("logs are kept on the node, 10 MB × 3 a task; `skep service logs` shows them");
        return None;
    }
    for option in logging.options.keys().filter(|option| !LOG_OPTIONS.contains(&option.as_str())) {
        cx.report
            .warning(logging.span, format!("services.{}.logging: option `{option}` has no effect yet", service.name))
            .with_help("max-size and max-file are known");
    }
    let known = logging.options.iter().filter(|(option, _)| LOG_OPTIONS.contains(&option.as_str()));
    let options: Labels = known.map(|(option, value)| (option.clone(), value.clone())).collect();
    Some(LogDriver { name: "json-file".to_owned(), options })
}
