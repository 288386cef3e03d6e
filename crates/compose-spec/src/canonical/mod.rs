//! Short forms to long ones, in the tree: after this every attribute has one shape.
//!
//! It comes before the merge, so that `environment: [A=1]` meets `environment: {A: 2}`, and so that a
//! port is found again whichever way it was written.
//! What has an unexpected type is left alone: the typed decoding says what is wrong with it.

mod mounts;
mod ports;

use crate::diagnostic::Report;
use crate::source::Span;
use crate::value::{Entry, Map, Node, Value};

pub(crate) use ports::port_range;

/// Attributes that are a mapping or a list of `NAME=value`.
const KEY_VALUE: [&str; 4] = ["environment", "labels", "annotations", "sysctls"];

/// Attributes that are a string or a list of strings.
const LISTS: [&str; 5] = ["dns", "dns_search", "dns_opt", "tmpfs", "label_file"];

pub(crate) fn canonicalize(root: &mut Node, report: &mut Report) {
    let Some(root) = root.as_map_mut() else { return };
    if let Some(include) = root.get_mut("include")
        && let Value::List(items) = &mut include.value
    {
        items.iter_mut().for_each(include_item);
    }
    for (section, has_labels) in [("networks", true), ("volumes", true), ("secrets", true), ("configs", true)] {
        for resource in children(root, section) {
            if has_labels {
                key_values(resource, "labels", report);
            }
            legacy_external(resource, report);
        }
    }
    for service in children(root, "services") {
        canonicalize_service(service, report);
    }
}

fn children<'m>(root: &'m mut Map, section: &str) -> impl Iterator<Item = &'m mut Map> + use<'m> {
    let section = root.get_mut(section).and_then(Node::as_map_mut);
    section.into_iter().flat_map(|map| map.entries.iter_mut().filter_map(|entry| entry.value.as_map_mut()))
}

pub(crate) fn canonicalize_service(service: &mut Map, report: &mut Report) {
    for name in KEY_VALUE {
        key_values(service, name, report);
    }
    for name in LISTS {
        if let Some(node) = service.get_mut(name) {
            wrap(node);
        }
    }
    if let Some(deploy) = service.get_mut("deploy").and_then(Node::as_map_mut) {
        key_values(deploy, "labels", report);
    }
    wrap_in(service, "build", "context");
    if let Some(Node { value: Value::Map(build), span, .. }) = service.get_mut("build")
        && build.get("context").is_none()
    {
        build.imply("context", *span, Value::Str(".".to_owned()));
    }
    wrap_in(service, "extends", "service");
    env_files(service);
    depends_on(service);
    networks(service);
    extra_hosts(service);
    ports::canonicalize(service, report);
    mounts::canonicalize(service, report);
    for name in ["secrets", "configs"] {
        each_item(service, name, |item| wrap_item(item, "source"));
    }
    each_item(service, "devices", device);
    for name in ["post_start", "pre_stop"] {
        each_item(service, name, |hook| {
            if let Some(hook) = hook.as_map_mut() {
                key_values(hook, "environment", report);
            }
        });
    }
}

/// A single value where a list is meant becomes a list of one.
fn wrap(node: &mut Node) {
    if matches!(node.value, Value::Str(_)) {
        let item = Node::new(node.span, std::mem::replace(&mut node.value, Value::Null));
        node.value = Value::List(vec![item]);
    }
}

/// `build: ./x` becomes `build: {context: ./x}`.
fn wrap_in(service: &mut Map, name: &str, key: &str) {
    if let Some(node) = service.get_mut(name) {
        wrap_item(node, key);
    }
}

fn wrap_item(node: &mut Node, key: &str) {
    if let Value::Str(text) = &node.value {
        let mut map = Map::default();
        map.imply(key, node.span, Value::Str(text.clone()));
        node.value = Value::Map(map);
    }
}

fn each_item(service: &mut Map, name: &str, change: impl FnMut(&mut Node)) {
    if let Some(Node { value: Value::List(items), .. }) = service.get_mut(name) {
        items.iter_mut().for_each(change);
    }
}

/// A list of `NAME=value` to a mapping; a later one wins, and `NAME` alone is null.
fn key_values(map: &mut Map, name: &str, report: &mut Report) {
    let Some(node) = map.get_mut(name) else { return };
    let Value::List(items) = &node.value else { return };
    let mut entries = Map::default();
    for item in items {
        let Some(text) = item.scalar_text() else {
            report
                .error(item.span, format!("{name} must list strings, this is {}", item.kind()))
                .with_help("write - NAME=value, or a mapping: NAME: value");
            continue;
        };
        let (key, value) = match text.split_once('=') {
            Some((key, value)) => (key.to_owned(), Value::Str(value.to_owned())),
            None => (text, Value::Null),
        };
        entries.imply(&key, item.span, value);
    }
    node.value = Value::Map(entries);
}

/// `external: {name: x}` becomes `external: true` and `name: x`.
fn legacy_external(resource: &mut Map, report: &mut Report) {
    let Some(external) = resource.get_mut("external") else { return };
    let Value::Map(inner) = &external.value else { return };
    let (span, name) = (external.span, inner.get("name").cloned());
    external.value = Value::Bool(true);
    report.warning(span, "`external.name` is deprecated").with_help("write external: true, and name beside it");
    if let Some(name) = name
        && resource.get("name").is_none()
    {
        resource.set("name", span, name);
    }
}

fn include_item(item: &mut Node) {
    wrap_item(item, "path");
    if let Some(map) = item.as_map_mut() {
        for name in ["path", "env_file"] {
            if let Some(node) = map.get_mut(name) {
                wrap(node);
            }
        }
    }
}

fn env_files(service: &mut Map) {
    if let Some(node) = service.get_mut("env_file") {
        wrap(node);
    }
    each_item(service, "env_file", |item| wrap_item(item, "path"));
}

/// A list of services to a mapping with the default condition.
fn depends_on(service: &mut Map) {
    let Some(node) = service.get_mut("depends_on") else { return };
    list_to_keys(node, |span| {
        let mut map = Map::default();
        map.imply("condition", span, Value::Str("service_started".to_owned()));
        Value::Map(map)
    });
}

fn networks(service: &mut Map) {
    if let Some(node) = service.get_mut("networks") {
        list_to_keys(node, |_| Value::Null);
    }
}

fn list_to_keys(node: &mut Node, value: impl Fn(Span) -> Value) {
    let Value::List(items) = &node.value else { return };
    if items.iter().any(|item| item.as_str().is_none()) {
        return;
    }
    let mut map = Map::default();
    for item in items {
        let name = item.as_str().expect("every item is a string, checked above");
        map.imply(name, item.span, value(item.span));
    }
    node.value = Value::Map(map);
}

/// A mapping of names to an address or several becomes a list of `name=address`.
fn extra_hosts(service: &mut Map) {
    let Some(node) = service.get_mut("extra_hosts") else { return };
    let line = |name: &str, address: &Node| match address.as_str() {
        Some(text) => Node::str(address.span, format!("{name}={text}")),
        None => address.clone(),
    };
    match &mut node.value {
        Value::Map(map) => {
            let lines = map.entries.iter().flat_map(|Entry { key, value, .. }| match &value.value {
                Value::List(addresses) => addresses.iter().map(|address| line(key, address)).collect(),
                _ => vec![line(key, value)],
            });
            node.value = Value::List(lines.collect());
        }
        Value::List(items) => {
            let spread = items.iter().flat_map(|item| match item.as_str().and_then(|t| t.split_once('=')) {
                Some((name, addresses)) => {
                    addresses.split(',').map(|a| Node::str(item.span, format!("{name}={a}"))).collect()
                }
                None => vec![item.clone()],
            });
            node.value = Value::List(spread.collect());
        }
        _ => {}
    }
}

/// `source[:target[:permissions]]`
fn device(item: &mut Node) {
    let Some(text) = item.as_str() else { return };
    let parts: Vec<&str> = text.split(':').collect();
    let mut map = Map::default();
    for (key, part) in ["source", "target", "permissions"].iter().zip(&parts) {
        map.imply(key, item.span, Value::Str((*part).to_owned()));
    }
    if parts.len() <= 3 {
        item.value = Value::Map(map);
    }
}
