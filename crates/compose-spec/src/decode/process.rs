//! What a service runs and how its process is looked after.

use std::collections::BTreeMap;

use super::{Fields, fields, scalars};
use crate::project::{
    At, DependencyCondition, DependsOn, HealthTest, Healthcheck, Hook, Logging, PullPolicy, Restart, Service, Ulimit,
};
use crate::value::{Entry, Node, Value};
use crate::words::{self, SplitError};

pub(super) fn decode(f: &mut Fields<'_, '_>, service: &mut Service) {
    service.command = command(f, "command");
    service.entrypoint = command(f, "entrypoint");
    service.environment = environment(f);
    service.user = f.filled("user");
    service.group_add = f.strings("group_add");
    service.working_dir = f.filled("working_dir");
    service.hostname = f.filled("hostname");
    service.domainname = f.filled("domainname");
    service.init = f.bool("init");
    service.tty = f.bool("tty").unwrap_or(false);
    service.stdin_open = f.bool("stdin_open").unwrap_or(false);
    service.stop_signal = f.filled("stop_signal");
    service.stop_grace_period = f.duration("stop_grace_period");
    service.healthcheck = healthcheck(f);
    service.post_start = hooks(f, "post_start");
    service.pre_stop = hooks(f, "pre_stop");
    service.logging = logging(f);
    service.restart = restart(f);
    service.depends_on = depends_on(f);
}

fn environment(f: &mut Fields<'_, '_>) -> BTreeMap<String, Option<String>> {
    let nameless = f.entries("environment").iter().find(|entry| entry.key.is_empty());
    if let Some(entry) = nameless {
        let path = f.at("environment");
        f.report.error(entry.key_span, format!("{path}: a variable's name is missing")).with_help("write NAME=value");
    }
    f.scalars("environment")
}

/// A list of words, or a string that is split like a shell would; null keeps the image's.
fn command(f: &mut Fields<'_, '_>, name: &'static str) -> Option<Vec<String>> {
    let node = f.nullable(name)?;
    let path = f.at(name);
    match &node.value {
        Value::List(items) => {
            let word = |(index, item): (usize, &Node)| fields::text(item, &format!("{path}.{index}"), f.report);
            Some(items.iter().enumerate().filter_map(word).collect())
        }
        Value::Str(text) => split(text, node, &path, f),
        _ => {
            fields::expected("a string or a list", node, &path, f.report);
            None
        }
    }
}

fn split(text: &str, node: &Node, path: &str, f: &mut Fields<'_, '_>) -> Option<Vec<String>> {
    match words::split(text) {
        Ok(words) => {
            if let Some(operator) = words.operator {
                f.report
                    .warning(node.span, format!("{path}: no shell reads this, so `{operator}` has no special meaning"))
                    .with_help("write [\"sh\", \"-c\", \"…\"] to run it in a shell, or quote the operator");
            }
            Some(words.words)
        }
        Err(SplitError::OpenQuote(quote)) => {
            f.report
                .error(node.span, format!("{path}: a {quote} is not closed"))
                .with_help("close it, or write a list");
            None
        }
        Err(SplitError::TrailingBackslash) => {
            f.report.error(node.span, format!("{path} ends with a backslash")).with_help("write \\\\ for a backslash");
            None
        }
    }
}

fn healthcheck(f: &mut Fields<'_, '_>) -> Option<Healthcheck> {
    let span = f.node("healthcheck")?.span;
    let mut h = f.child("healthcheck")?;
    let test = health_test(&mut h);
    let disable = h.bool("disable").unwrap_or(false);
    let check = Healthcheck {
        span,
        test: if disable { Some(HealthTest::Disabled) } else { test },
        interval: h.duration("interval"),
        timeout: h.duration("timeout"),
        retries: h.whole("retries"),
        start_period: h.duration("start_period"),
        start_interval: h.duration("start_interval"),
    };
    h.finish();
    Some(check)
}

fn health_test(h: &mut Fields<'_, '_>) -> Option<HealthTest> {
    let node = h.node("test")?;
    let path = h.at("test");
    if let Value::Str(text) = &node.value {
        return Some(HealthTest::Shell(text.clone()));
    }
    let words = h.strings("test");
    match words.first().map(String::as_str) {
        Some("NONE") => Some(HealthTest::Disabled),
        Some("CMD") if words.len() > 1 => Some(HealthTest::Exec(words[1..].to_vec())),
        Some("CMD-SHELL") if words.len() == 2 => Some(HealthTest::Shell(words[1].clone())),
        Some("CMD" | "CMD-SHELL") => {
            h.report
                .error(node.span, format!("{path} has the wrong number of words after its first"))
                .with_help("write [\"CMD\", \"program\", \"argument\"] or [\"CMD-SHELL\", \"one line\"]");
            None
        }
        Some(other) => {
            h.report
                .error(node.span, format!("{path} must start with CMD, CMD-SHELL or NONE, not `{other}`"))
                .with_help(format!("write [\"CMD\", \"{other}\", …], or the whole line as one string"));
            None
        }
        None => {
            if matches!(node.value, Value::List(_)) {
                h.report.error(node.span, format!("{path} is empty")).with_help("write [\"NONE\"] to switch it off");
            }
            None
        }
    }
}

fn hooks(f: &mut Fields<'_, '_>, name: &'static str) -> Vec<Hook> {
    let path = f.at(name);
    let mut hooks = Vec::new();
    for (index, item) in f.items(name).iter().enumerate() {
        let Some(mut h) = Fields::open(item, format!("{path}.{index}"), f.report) else { continue };
        let absent = h.map.entry("command").is_none_or(|entry| entry.value.value == Value::Null);
        let command = command(&mut h, "command");
        // One that cannot be read has been told of.
        if command.as_ref().map_or(absent, |words| words.first().is_none_or(String::is_empty)) {
            h.report
                .error(item.span, format!("{path}.{index} has no command"))
                .with_help("write command: [\"program\", \"argument\"]");
        }
        hooks.push(Hook {
            span: item.span,
            command: command.unwrap_or_default(),
            user: h.filled("user"),
            working_dir: h.filled("working_dir"),
            environment: environment(&mut h),
            privileged: h.bool("privileged").unwrap_or(false),
        });
        h.finish();
    }
    hooks
}

fn logging(f: &mut Fields<'_, '_>) -> Option<Logging> {
    let span = f.node("logging")?.span;
    let mut l = f.child("logging")?;
    let logging = Logging { span, driver: l.string("driver"), options: l.string_map("options") };
    l.finish();
    Some(logging)
}

fn restart(f: &mut Fields<'_, '_>) -> Option<At<Restart>> {
    let node = f.node("restart")?;
    let path = f.at("restart");
    // YAML 1.1 readers take `no` for false; written so on purpose or not, it means `no`.
    if node.value == Value::Bool(false) {
        return Some(At { span: node.span, value: Restart::No });
    }
    let text = fields::string(node, &path, f.report)?;
    let (word, count) = match text.split_once(':') {
        Some((word, count)) => (word, Some(count)),
        None => (text.as_str(), None),
    };
    let value = match (word, count) {
        ("no" | "", None) => Restart::No,
        ("always", None) => Restart::Always,
        ("unless-stopped", None) => Restart::UnlessStopped,
        ("on-failure", None) => Restart::OnFailure { max_attempts: None },
        ("on-failure", Some(count)) => match count.parse() {
            Ok(count) => Restart::OnFailure { max_attempts: Some(count) },
            Err(_) => {
                f.report
                    .error(node.span, format!("{path}: `{count}` is not a number of retries"))
                    .with_help("write on-failure:3");
                return None;
            }
        },
        _ => {
            let problem = f.report.error(
                node.span,
                format!("{path} must be no, always, on-failure[:retries] or unless-stopped, not `{text}`"),
            );
            if let Some(near) = crate::suggest::nearest(word, ["no", "always", "on-failure", "unless-stopped"]) {
                problem.with_help(format!("did you mean `{near}`?"));
            }
            return None;
        }
    };
    Some(At { span: node.span, value })
}

fn depends_on(f: &mut Fields<'_, '_>) -> BTreeMap<String, DependsOn> {
    let path = f.at("depends_on");
    let mut all = BTreeMap::new();
    for Entry { key, key_span, value } in f.entries("depends_on") {
        let Some(mut d) = Fields::open(value, format!("{path}.{key}"), f.report) else { continue };
        let condition = d.choice(
            "condition",
            &[
                ("service_started", DependencyCondition::Started),
                ("service_healthy", DependencyCondition::Healthy),
                ("service_completed_successfully", DependencyCondition::CompletedSuccessfully),
            ],
        );
        let dependency = DependsOn {
            span: *key_span,
            condition: condition.map_or(DependencyCondition::Started, |at| at.value),
            restart: d.bool("restart").unwrap_or(false),
            required: d.bool("required").unwrap_or(true),
        };
        d.finish();
        all.insert(key.clone(), dependency);
    }
    all
}

pub(super) fn ulimits(f: &mut Fields<'_, '_>) -> BTreeMap<String, Ulimit> {
    let path = f.at("ulimits");
    let mut limits = BTreeMap::new();
    for Entry { key, key_span, value } in f.entries("ulimits") {
        let path = format!("{path}.{key}");
        let limit = match &value.value {
            Value::Map(_) => {
                let Some(mut u) = Fields::open(value, path.clone(), f.report) else { continue };
                let both = (u.whole("soft"), u.whole("hard"));
                let present = (
                    value.as_map().is_some_and(|m| m.get("soft").is_some()),
                    value.as_map().is_some_and(|m| m.get("hard").is_some()),
                );
                u.finish();
                if present != (true, true) {
                    f.report
                        .error(*key_span, format!("{path} needs both soft and hard"))
                        .with_help("or write one number for both");
                    continue;
                }
                both
            }
            _ => {
                let one = scalars::whole::<i64>(value, &path, f.report);
                (one, one)
            }
        };
        if let (Some(soft), Some(hard)) = limit {
            if hard >= 0 && (soft > hard || soft < 0) {
                f.report.error(*key_span, format!("{path}: the soft limit {soft} is above the hard limit {hard}"));
                continue;
            }
            limits.insert(key.clone(), Ulimit { span: *key_span, soft, hard });
        }
    }
    limits
}

pub(super) fn pull_policy(f: &mut Fields<'_, '_>) -> Option<PullPolicy> {
    let At { span, value } = f.string_at("pull_policy")?;
    Some(match value.as_str() {
        "always" => PullPolicy::Always,
        "never" => PullPolicy::Never,
        "missing" | "if_not_present" => PullPolicy::Missing,
        "build" => PullPolicy::Build,
        "daily" | "weekly" | "refresh" => PullPolicy::Every(value),
        every if every.strip_prefix("every_").is_some_and(|age| crate::units::duration(age).is_ok()) => {
            PullPolicy::Every(value)
        }
        _ => {
            let path = f.at("pull_policy");
            let words = ["always", "never", "missing", "build", "daily", "weekly"];
            let problem = f.report.error(
                span,
                format!("{path} must be always, never, missing, build, daily, weekly or every_12h, not `{value}`"),
            );
            if let Some(near) = crate::suggest::nearest(&value, words) {
                problem.with_help(format!("did you mean `{near}`?"));
            }
            return None;
        }
    })
}
