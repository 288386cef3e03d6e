//! The words of scripts that describe a service.

use std::time::Duration;

use skep_model::*;

/// `500ms`, `3s`, `10m`, `2h`
pub fn seconds(text: &str) -> Duration {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: f64 = digits.parse().unwrap_or_else(|_| panic!("not a duration: {text}"));
    let unit = match &text[digits.len()..] {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        other => panic!("not a unit: {other}"),
    };
    Duration::from_secs_f64(number * unit)
}

/// Changes one thing of a spec: `image=app:2`, `order=start-first`, `rollback.parallelism=2`.
pub fn edit(spec: &mut ServiceSpec, word: &str) {
    let (key, value) = word.split_once('=').unwrap_or((word, ""));
    let number = || value.parse::<u64>().unwrap_or_else(|_| panic!("not a number: {word}"));
    match key {
        "image" => spec.task.container.image = value.to_owned(),
        "replicas" => spec.mode = Mode::Replicated { replicas: number() },
        "global" => spec.mode = Mode::Global,
        "job" => {
            let (at_once, total) = value.split_once('/').unwrap();
            let (max_concurrent, total_completions) = (at_once.parse().unwrap(), total.parse().unwrap());
            spec.mode = Mode::ReplicatedJob { max_concurrent, total_completions };
        }
        "global-job" => spec.mode = Mode::GlobalJob,
        "at-most-one" => spec.task.at_most_one = true,
        "label" => drop(spec.labels.insert(value.to_owned(), String::new())),
        "rebalance" => spec.scheduling.rebalance_on_join = true,
        "force" => spec.task.force_update += 1,
        "deadline" => spec.progress_deadline = Some(seconds(value)),
        "cpus" => spec.task.resources.reservations.nano_cpus = Some(NanoCpus(number() * 1_000_000_000)),
        "most" => spec.task.placement.max_replicas_per_node = number(),
        "needs" => spec.task.placement.constraints = vec![format!("node.labels.{}", value).parse().unwrap()],
        "needs-not" => spec.task.placement.constraints = Vec::new(),
        "port" => spec.endpoint.ports.push(PortSpec {
            name: None,
            protocol: PortProtocol::Tcp,
            target: 80,
            published: value.parse().unwrap(),
            mode: PublishMode::Host,
            host_ip: None,
        }),
        "check" => {
            let test = Some(HealthTest::Shell("true".to_owned()));
            let check = HealthCheck {
                test,
                interval: None,
                timeout: None,
                retries: None,
                start_period: None,
                start_interval: None,
            };
            spec.task.container.health_check = Some(check);
        }
        "restart" => {
            spec.task.restart.condition = match value {
                "none" => Condition::None,
                "on-failure" => Condition::OnFailure,
                _ => Condition::Any,
            }
        }
        "restart-delay" => spec.task.restart.delay = seconds(value),
        "attempts" => spec.task.restart.max_attempts = number(),
        "after" => {
            // after=db:healthy, after=db:started:restart
            let mut words = value.split(':');
            let service = words.next().unwrap().to_owned();
            let condition = match words.next() {
                Some("healthy") => DependencyCondition::Healthy,
                Some("completed") => DependencyCondition::Completed,
                _ => DependencyCondition::Started,
            };
            let flag = words.next();
            let (required, restart) = (flag != Some("optional"), flag == Some("restart"));
            spec.depends_on.push(Dependency { service, condition, required, restart });
        }
        "at" => {
            let cron = value.replace('_', " ");
            let before = spec.schedule.take();
            let concurrency = before.map(|before| before.concurrency).unwrap_or_default();
            spec.schedule = Some(Schedule { cron, timezone: String::new(), concurrency });
        }
        "zone" => spec.schedule.as_mut().unwrap().timezone = value.to_owned(),
        "runs" => {
            spec.schedule.as_mut().unwrap().concurrency = match value {
                "allow" => Concurrency::Allow,
                "replace" => Concurrency::Replace,
                _ => Concurrency::Forbid,
            }
        }
        key => match key.strip_prefix("rollback.") {
            Some(key) => policy(&mut spec.rollback, key, value),
            None => policy(&mut spec.update, key, value),
        },
    }
}

fn policy(policy: &mut UpdateConfig, key: &str, value: &str) {
    match key {
        "parallelism" => policy.parallelism = value.parse().unwrap(),
        "delay" => policy.delay = seconds(value),
        "monitor" => policy.monitor = seconds(value),
        "ratio" => policy.max_failure_ratio = value.parse().unwrap(),
        "order" => {
            policy.order = match value {
                "start-first" => UpdateOrder::StartFirst,
                _ => UpdateOrder::StopFirst,
            }
        }
        "on-failure" => {
            policy.failure_action = match value {
                "rollback" => FailureAction::Rollback,
                "continue" => FailureAction::Continue,
                _ => FailureAction::Pause,
            }
        }
        _ => panic!("not a word of a service: {key}={value}"),
    }
}
