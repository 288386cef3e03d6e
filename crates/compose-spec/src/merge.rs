//! Several files to one tree, by compose's rules.
//!
//! Mappings merge, scalars are replaced, lists grow; some lists are keyed (a port, a mount's target), and
//! there the later entry replaces the earlier one in its place.
//! `!override` replaces whatever the rule, and `!reset` removes.

use crate::diagnostic::Report;
use crate::value::{Entry, Map, Merging, Node, Value};

/// How two values under one path meet.
enum Rule {
    Usual,
    Replace,
    Logging,
    /// Later items replace those of the same key.
    Keyed(fn(&Node) -> Option<String>),
}

fn rule(path: &[&str]) -> Rule {
    match path {
        ["services", _, "command" | "entrypoint"] => Rule::Replace,
        ["services", _, "healthcheck", "test"] => Rule::Replace,
        ["services", _, "ulimits", _] => Rule::Replace,
        ["services", _, "logging"] => Rule::Logging,
        ["services", _, "ports"] => Rule::Keyed(port_key),
        ["services", _, "volumes" | "devices"] => {
            Rule::Keyed(|item| text_of(item, "target").or(text_of(item, "source")))
        }
        ["services", _, "secrets" | "configs"] => Rule::Keyed(file_key),
        ["services", _, "env_file"] => Rule::Keyed(|item| text_of(item, "path")),
        ["services", _, list] if SETS.contains(list) => Rule::Keyed(Node::scalar_text),
        ["services", _, "networks", _, "aliases" | "link_local_ips"] => Rule::Keyed(Node::scalar_text),
        ["networks", _, "ipam", "config"] => Rule::Keyed(|item| text_of(item, "subnet")),
        _ => Rule::Usual,
    }
}

/// Lists of strings in which no string stands twice.
const SETS: [&str; 14] = [
    "cap_add",
    "cap_drop",
    "device_cgroup_rules",
    "dns",
    "dns_opt",
    "dns_search",
    "expose",
    "external_links",
    "extra_hosts",
    "group_add",
    "label_file",
    "profiles",
    "security_opt",
    "tmpfs",
];

/// Merges `over` into `base`, both mappings; `path` is where they stand.
pub(crate) fn merge(base: &mut Map, over: Map, path: &[&str], report: &mut Report) {
    for Entry { key, key_span, value } in over.entries {
        match value.merging {
            Merging::Reset => {
                base.remove(&key);
            }
            Merging::Override => {
                let mut value = value;
                value.merging = Merging::Usual;
                drop_resets(&mut value);
                base.set(&key, key_span, value);
            }
            Merging::Usual => {
                let mut path = path.to_vec();
                path.push(&key);
                match base.get_mut(&key) {
                    Some(old) => meet(old, value, &path, report),
                    None => {
                        let mut value = value;
                        drop_resets(&mut value);
                        unique(&mut value, &path);
                        base.entries.push(Entry { key, key_span, value });
                    }
                }
            }
        }
    }
}

/// What a file resets has nothing to reset when it comes first.
fn drop_resets(node: &mut Node) {
    match &mut node.value {
        Value::Map(map) => {
            map.entries.retain(|entry| entry.value.merging != Merging::Reset);
            map.entries.iter_mut().for_each(|entry| drop_resets(&mut entry.value));
        }
        Value::List(items) => items.iter_mut().for_each(drop_resets),
        Value::Null | Value::Bool(_) | Value::Int(..) | Value::Float(..) | Value::Str(_) => {}
    }
    node.merging = Merging::Usual;
}

fn meet(old: &mut Node, over: Node, path: &[&str], report: &mut Report) {
    if over.value == Value::Null {
        return;
    }
    let rule = rule(path);
    if let Rule::Replace = rule {
        *old = over;
        return;
    }
    if let Rule::Logging = rule
        && drivers_differ(old, &over)
    {
        *old = over;
        return;
    }
    match (&mut old.value, over.value) {
        (Value::Map(base), Value::Map(more)) => {
            merge(base, more, path, report);
        }
        (Value::List(items), Value::List(more)) => {
            items.extend(more);
            if let Rule::Keyed(key) = rule {
                keep_last(items, key);
            }
        }
        (Value::List(_) | Value::Map(_), scalar_or_other @ (Value::List(_) | Value::Map(_))) => {
            let (before, now) = (old.kind(), Node::new(over.span, scalar_or_other).kind());
            let place = report.sources.place(old.span);
            report
                .error(
                    over.span,
                    format!("cannot override {}: it was {before} at {place} and is {now} here", path.join(".")),
                )
                .with_help("write both the same way, or replace the earlier one with !override");
        }
        (_, value) => *old = Node { span: over.span, value, merging: Merging::Usual },
    }
}

/// A single file may repeat itself, too.
fn unique(node: &mut Node, path: &[&str]) {
    match &mut node.value {
        Value::List(items) => {
            if let Rule::Keyed(key) = rule(path) {
                keep_last(items, key);
            }
        }
        Value::Map(map) => {
            for entry in &mut map.entries {
                let mut path = path.to_vec();
                path.push(&entry.key);
                unique(&mut entry.value, &path);
            }
        }
        Value::Null | Value::Bool(_) | Value::Int(..) | Value::Float(..) | Value::Str(_) => {}
    }
}

/// Of the items of one key the last stays, in the place of the first.
fn keep_last(items: &mut Vec<Node>, key: fn(&Node) -> Option<String>) {
    let mut kept: Vec<(Option<String>, Node)> = Vec::with_capacity(items.len());
    for item in items.drain(..) {
        let key = key(&item);
        match kept.iter_mut().find(|(earlier, _)| earlier.is_some() && *earlier == key) {
            Some((_, slot)) => *slot = item,
            None => kept.push((key, item)),
        }
    }
    items.extend(kept.into_iter().map(|(_, item)| item));
}

fn text_of(item: &Node, key: &str) -> Option<String> {
    item.as_map()?.get(key)?.scalar_text()
}

fn port_key(item: &Node) -> Option<String> {
    item.as_map()?;
    let part = |key: &str, default: &str| text_of(item, key).unwrap_or_else(|| default.to_owned());
    let target = text_of(item, "target")?;
    Some(format!("{}:{}:{target}/{}", part("host_ip", "0.0.0.0"), part("published", ""), part("protocol", "tcp")))
}

fn file_key(item: &Node) -> Option<String> {
    let target = text_of(item, "target").or(text_of(item, "source"))?;
    Some(target.trim_start_matches("/run/secrets/").to_owned())
}

fn drivers_differ(old: &Node, over: &Node) -> bool {
    match (text_of(old, "driver"), text_of(over, "driver")) {
        (Some(old), Some(over)) => old != over,
        _ => false,
    }
}
