//! `service inspect --pretty`: for people, in the order and the words of Docker's.

use std::fmt::{Display, Write};
use std::time::Duration;

use skep_model::{
    ContainerSpec, HealthCheck, HealthTest, Hook, Labels, Mode, MountKind, NanoCpus, PublishMode, Resources, Service,
    Timestamp, UpdateConfig,
};

use super::service::{action_word, order_word, state_word};
use crate::cli::output::{size, time};

/// Lines under headings: one blank deeper at each level.
struct Sheet(String);

impl Sheet {
    fn line(&mut self, text: impl Display) {
        writeln!(self.0, "{text}").expect("a string takes what is written to it");
    }

    /// `Key: value`, with the values below each other.
    fn field(&mut self, indent: usize, key: &str, value: impl Display) {
        let key = format!("{}{key}:", " ".repeat(indent));
        self.line(format_args!("{key:<24}{value}"));
    }

    fn field_unless_empty(&mut self, indent: usize, key: &str, values: &[String]) {
        if !values.is_empty() {
            self.field(indent, key, values.join(" "));
        }
    }
}

pub fn service(service: &Service, now: Timestamp) -> String {
    let spec = &service.spec;
    let mut sheet = Sheet(String::new());
    sheet.field(0, "ID", service.id);
    sheet.field(0, "Name", service.name());
    labels(&mut sheet, "Labels", &spec.labels);
    match spec.mode {
        Mode::Replicated { replicas } => {
            sheet.field(0, "Service Mode", "Replicated");
            sheet.field(1, "Replicas", replicas);
        }
        Mode::Global => sheet.field(0, "Service Mode", "Global"),
        Mode::ReplicatedJob { max_concurrent, total_completions } => {
            sheet.field(0, "Service Mode", "ReplicatedJob");
            sheet.field(1, "Max Concurrent", max_concurrent);
            sheet.field(1, "Total Completions", total_completions);
        }
        Mode::GlobalJob => sheet.field(0, "Service Mode", "GlobalJob"),
    }
    update_status(&mut sheet, service, now);
    placement(&mut sheet, service);
    config(&mut sheet, "UpdateConfig", "Update order", &spec.update);
    config(&mut sheet, "RollbackConfig", "Rollback order", &spec.rollback);
    container(&mut sheet, &spec.task.container);
    files(&mut sheet, &spec.task.container);
    if let Some(driver) = &spec.task.log_driver {
        sheet.line("Log Driver:");
        sheet.field(1, "Name", &driver.name);
        labels(&mut sheet, " LogOpts", &driver.options);
    }
    resources(&mut sheet, &spec.task.resources);
    let networks: Vec<String> = spec.task.networks.iter().map(|network| network.network.clone()).collect();
    sheet.field_unless_empty(0, "Networks", &networks);
    endpoint(&mut sheet, service);
    if let Some(check) = &spec.task.container.health_check {
        health(&mut sheet, check);
    }
    hooks(&mut sheet, "Post Start", &spec.task.container.post_start);
    hooks(&mut sheet, "Pre Stop", &spec.task.container.pre_stop);
    sheet.0
}

fn labels(sheet: &mut Sheet, heading: &str, labels: &Labels) {
    if !labels.is_empty() {
        sheet.line(format_args!("{heading}:"));
        let indent = " ".repeat(heading.len() - heading.trim_start().len() + 1);
        labels.iter().for_each(|(name, value)| sheet.line(format_args!("{indent}{name}={value}")));
    }
}

fn update_status(sheet: &mut Sheet, service: &Service, now: Timestamp) {
    let Some(status) = &service.update_status else { return };
    sheet.line("UpdateStatus:");
    sheet.field(1, "State", state_word(status.state));
    sheet.field(1, "Started", time::ago(status.started_at, now));
    if let Some(at) = status.completed_at {
        sheet.field(1, "Completed", time::ago(at, now));
    }
    sheet.field(1, "Message", &status.message);
}

fn placement(sheet: &mut Sheet, service: &Service) {
    let placement = &service.spec.task.placement;
    let constraints: Vec<String> = placement.constraints.iter().map(ToString::to_string).collect();
    let preferences: Vec<String> = placement.preferences.iter().map(|it| format!("spread={}", it.spread)).collect();
    sheet.line("Placement:");
    if !constraints.is_empty() {
        sheet.field(1, "Constraints", format_args!("[{}]", constraints.join(", ")));
    }
    sheet.field_unless_empty(1, "Preferences", &preferences);
    if placement.max_replicas_per_node > 0 {
        sheet.field(1, "Max Replicas Per Node", placement.max_replicas_per_node);
    }
}

fn config(sheet: &mut Sheet, heading: &str, order: &str, config: &UpdateConfig) {
    sheet.line(format_args!("{heading}:"));
    sheet.field(1, "Parallelism", config.parallelism);
    if !config.delay.is_zero() {
        sheet.field(1, "Delay", time::exact(config.delay));
    }
    sheet.field(1, "On failure", action_word(config.failure_action));
    sheet.field(1, "Monitoring Period", time::exact(config.monitor));
    sheet.field(1, "Max failure ratio", config.max_failure_ratio);
    sheet.field(1, order, order_word(config.order));
}

fn container(sheet: &mut Sheet, container: &ContainerSpec) {
    sheet.line("ContainerSpec:");
    sheet.field(1, "Image", &container.image);
    sheet.field_unless_empty(1, "Entrypoint", container.command.as_deref().unwrap_or_default());
    sheet.field_unless_empty(1, "Args", container.args.as_deref().unwrap_or_default());
    sheet.field_unless_empty(1, "Env", &container.env);
    for (key, text) in [("Dir", &container.working_dir), ("User", &container.user), ("Hostname", &container.hostname)] {
        if let Some(text) = text {
            sheet.field(1, key, text);
        }
    }
    sheet.field(1, "Init", container.init);
    sheet.field_unless_empty(1, "Capabilities added", &container.cap_add);
    sheet.field_unless_empty(1, "Capabilities dropped", &container.cap_drop);
    let sysctls: Vec<String> = container.sysctls.iter().map(|(name, value)| format!("{name}={value}")).collect();
    sheet.field_unless_empty(1, "SysCtls", &sysctls);
    let unlimited = |limit: u64| if limit == u64::MAX { "-1".to_owned() } else { limit.to_string() };
    let ulimits = container.ulimits.iter();
    let ulimits: Vec<String> =
        ulimits.map(|it| format!("{}={}:{}", it.name, unlimited(it.soft), unlimited(it.hard))).collect();
    sheet.field_unless_empty(1, "Ulimits", &ulimits);
}

fn files(sheet: &mut Sheet, container: &ContainerSpec) {
    if !container.mounts.is_empty() {
        sheet.line("Mounts:");
    }
    for mount in &container.mounts {
        let (kind, source) = match &mount.kind {
            MountKind::Bind { source, .. } => ("bind", Some(source)),
            MountKind::Volume { name, .. } => ("volume", name.as_ref()),
            MountKind::Tmpfs { .. } => ("tmpfs", None),
        };
        sheet.field(1, "Target", &mount.target);
        if let Some(source) = source {
            sheet.field(2, "Source", source);
        }
        sheet.field(2, "ReadOnly", mount.read_only);
        sheet.field(2, "Type", kind);
    }
    let configs = container.configs.iter().map(|it| (&it.file.path, &it.config)).collect();
    let secrets = container.secrets.iter().map(|it| (&it.file.path, &it.secret)).collect();
    for (heading, files) in [("Configs", configs), ("Secrets", secrets)] {
        let files: Vec<(&String, &String)> = files;
        if !files.is_empty() {
            sheet.line(format_args!("{heading}:"));
        }
        for (target, source) in files {
            sheet.field(1, "Target", target);
            sheet.field(2, "Source", source);
        }
    }
}

fn resources(sheet: &mut Sheet, resources: &Resources) {
    let Resources { limits, reservations, generic } = resources;
    sheet.line("Resources:");
    let mut part =
        |heading: &str, cpus: Option<NanoCpus>, memory: Option<skep_model::MemoryBytes>, pids: Option<u64>| {
            if cpus.is_none() && memory.is_none() && pids.is_none() {
                return;
            }
            sheet.line(format_args!(" {heading}:"));
            if let Some(cpus) = cpus {
                sheet.field(2, "CPU", cpus.0 as f64 / 1e9);
            }
            if let Some(memory) = memory {
                sheet.field(2, "Memory", size::binary(memory.0));
            }
            if let Some(pids) = pids {
                sheet.field(2, "Pids", pids);
            }
        };
    part("Reservations", reservations.nano_cpus, reservations.memory, None);
    part("Limits", limits.nano_cpus, limits.memory, limits.pids);
    for asked in generic {
        sheet.field(1, &asked.kind, asked.amount);
    }
}

fn endpoint(sheet: &mut Sheet, service: &Service) {
    let mode = match service.spec.endpoint.mode {
        skep_model::EndpointMode::Vip => "vip",
        skep_model::EndpointMode::DnsRr => "dnsrr",
    };
    sheet.field(0, "Endpoint Mode", mode);
    if let Some(affinity) = service.spec.endpoint.session_affinity {
        sheet.field(0, "Session Affinity", affinity.word());
    }
    if service.spec.endpoint.prefer_local {
        sheet.field(0, "Prefer Local", true);
    }
    if !service.endpoint.ports.is_empty() {
        sheet.line("Ports:");
    }
    for port in &service.endpoint.ports {
        let mode = match port.mode {
            PublishMode::Ingress => "ingress",
            PublishMode::Host => "host",
        };
        sheet.line(format_args!(" PublishedPort = {}", port.published));
        sheet.line(format_args!("  Protocol = {}", port.protocol.word()));
        sheet.line(format_args!("  TargetPort = {}", port.target));
        sheet.line(format_args!("  PublishMode = {mode}"));
    }
}

fn health(sheet: &mut Sheet, check: &HealthCheck) {
    sheet.line("Healthcheck:");
    let test = match &check.test {
        None => "the image's".to_owned(),
        Some(HealthTest::Disabled) => "none".to_owned(),
        Some(HealthTest::Exec(words)) => words.join(" "),
        Some(HealthTest::Shell(line)) => line.clone(),
    };
    sheet.field(1, "Test", test);
    let mut duration = |key, duration: Option<Duration>| {
        if let Some(duration) = duration {
            sheet.field(1, key, time::exact(duration));
        }
    };
    duration("Interval", check.interval);
    duration("Timeout", check.timeout);
    duration("Start Period", check.start_period);
    duration("Start Interval", check.start_interval);
    if let Some(retries) = check.retries {
        sheet.field(1, "Retries", retries);
    }
}

fn hooks(sheet: &mut Sheet, heading: &str, hooks: &[Hook]) {
    if !hooks.is_empty() {
        sheet.line(format_args!("{heading}:"));
        hooks.iter().for_each(|hook| sheet.field(1, "Command", hook.command.join(" ")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::wait::fixture;
    use expect_test::expect;
    use skep_model::{UpdateState, UpdateStatus};
    use std::sync::Arc;

    #[test]
    fn a_service_is_told_to_people() {
        let mut web = fixture::service("web", 3);
        let spec = Arc::make_mut(&mut web.spec);
        spec.labels = Labels::from([("a".to_owned(), "b".to_owned())]);
        spec.task.container.env = vec!["A=1".to_owned()];
        spec.task.resources.limits.memory = Some(skep_model::MemoryBytes(64 << 20));
        spec.endpoint.session_affinity = Some(skep_model::SessionAffinity::ClientIp);
        spec.endpoint.prefer_local = true;
        spec.task.placement.constraints = vec!["node.role==manager".parse().unwrap()];
        web.update_status = Some(UpdateStatus {
            state: UpdateState::Paused,
            started_at: Timestamp(0),
            completed_at: None,
            message: "update paused due to failure".to_owned(),
            progress: None,
        });
        let told = service(&web, Timestamp(120_000_000_000));
        let told: String =
            told.lines().filter(|line| !line.starts_with("ID:")).map(|line| line.to_owned() + "\n").collect();
        expect![[r#"
            Name:                   web
            Labels:
             a=b
            Service Mode:           Replicated
             Replicas:              3
            UpdateStatus:
             State:                 paused
             Started:               2 minutes ago
             Message:               update paused due to failure
            Placement:
             Constraints:           [node.role == manager]
            UpdateConfig:
             Parallelism:           1
             On failure:            pause
             Monitoring Period:     5s
             Max failure ratio:     0
             Update order:          stop-first
            RollbackConfig:
             Parallelism:           1
             On failure:            pause
             Monitoring Period:     5s
             Max failure ratio:     0
             Rollback order:        stop-first
            ContainerSpec:
             Image:                 docker.io/library/nginx:1.27
             Env:                   A=1
             Init:                  false
            Resources:
             Limits:
              Memory:               64MiB
            Endpoint Mode:          vip
            Session Affinity:       client-ip
            Prefer Local:           true
        "#]]
        .assert_eq(&told);
    }
}
