//! Whether the parts of a project fit together: what a service refers to is there.

use std::collections::BTreeSet;

use crate::decode::Declared;
use crate::diagnostic::Report;
use crate::project::{Attachment, MountKind, Project, Service};
use crate::source::Span;
use crate::suggest;

pub(crate) fn check(project: &Project, declared: &Declared, report: &mut Report) {
    // Another mistake, such as `service:`, most often explains it.
    if declared.services.is_empty() && !report.has_errors() {
        report.error_nowhere("the compose files have no services").with_help("add one under services:");
    }
    for service in project.services.values() {
        if !declared.flawed_services.contains(&service.name) {
            has_image(service, report);
        }
        references(project, declared, service, report);
        dependencies(project, declared, service, report);
    }
    circles(project, report);
}

fn has_image(service: &Service, report: &mut Report) {
    if service.image.is_none() && service.build_context.is_none() {
        let at = service.wrote("image").unwrap_or(service.span);
        report.error(at, format!("services.{} has no image", service.name)).with_help("add image: name:tag");
    }
}

fn references(project: &Project, declared: &Declared, service: &Service, report: &mut Report) {
    if let Attachment::Networks(networks) = &service.attachment {
        for (key, network) in networks.iter().filter(|(key, _)| *key != "default") {
            defined("network", "networks", key, project.networks.keys(), service, network.span, report);
        }
    }
    for mount in &service.mounts {
        if let MountKind::Volume { key: Some(key), .. } = &mount.kind {
            defined("volume", "volumes", key, project.volumes.keys(), service, mount.span, report);
        }
    }
    for secret in &service.secrets {
        defined("secret", "secrets", &secret.source, &declared.secrets, service, secret.span, report);
    }
    for config in &service.configs {
        defined("config", "configs", &config.source, &declared.configs, service, config.span, report);
    }
}

fn defined<'k>(
    kind: &str,
    section: &str,
    key: &str,
    all: impl IntoIterator<Item = &'k String>,
    service: &Service,
    at: Span,
    report: &mut Report,
) {
    let all: Vec<&str> = all.into_iter().map(String::as_str).collect();
    if all.contains(&key) {
        return;
    }
    let problem = report.error(at, format!("services.{} refers to undefined {kind} `{key}`", service.name));
    match suggest::nearest(key, all) {
        Some(near) => problem.with_help(format!("did you mean `{near}`?")),
        None if kind == "volume" => {
            problem.with_help(format!("add `{key}:` under volumes: at the top level, or write ./{key} for a folder"))
        }
        None => problem.with_help(format!("add `{key}:` under {section}: at the top level")),
    };
}

fn dependencies(project: &Project, declared: &Declared, service: &Service, report: &mut Report) {
    for (name, dependency) in &service.depends_on {
        let disabled = declared.services.contains(name) && !project.services.contains_key(name);
        if project.services.contains_key(name) || disabled && !dependency.required {
            continue;
        }
        if disabled {
            report
                .error(
                    dependency.span,
                    format!("services.{} depends on `{name}`, whose profile is not active", service.name),
                )
                .with_help("activate the profile, or write required: false");
            continue;
        }
        let problem =
            report.error(dependency.span, format!("services.{} depends on undefined service `{name}`", service.name));
        if let Some(near) = suggest::nearest(name, project.services.keys().map(String::as_str)) {
            problem.with_help(format!("did you mean `{near}`?"));
        }
    }
}

/// Depth first, each service once; the first circle found is named.
fn circles(project: &Project, report: &mut Report) {
    let mut done = BTreeSet::new();
    for name in project.services.keys() {
        let mut path = Vec::new();
        if let Some(circle) = circle(project, name, &mut path, &mut done) {
            let start = &project.services[circle[0]];
            let at = start.depends_on.get(circle[1]).map_or(start.span, |dependency| dependency.span);
            report
                .error(at, format!("services depend on each other in a circle: {}", circle.join(" -> ")))
                .with_help("remove one of these dependencies");
            return;
        }
    }
}

fn circle<'p>(
    project: &'p Project,
    name: &'p str,
    path: &mut Vec<&'p str>,
    done: &mut BTreeSet<&'p str>,
) -> Option<Vec<&'p str>> {
    if let Some(at) = path.iter().position(|earlier| *earlier == name) {
        let mut circle = path[at..].to_vec();
        circle.push(name);
        return Some(circle);
    }
    if !done.insert(name) {
        return None;
    }
    path.push(name);
    for next in project.services.get(name).into_iter().flat_map(|service| service.depends_on.keys()) {
        let found = circle(project, next, path, done);
        if found.is_some() {
            return found;
        }
    }
    path.pop();
    None
}
