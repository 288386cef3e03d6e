//! `volumes`: `[source:]target[:options]` to the long form.

use crate::diagnostic::Report;
use crate::paths;
use crate::source::Span;
use crate::value::{Map, Node, Value};

const HELP: &str = "write name:/path, ./folder:/path:ro, or type:, source: and target:";

pub(super) fn canonicalize(service: &mut Map, report: &mut Report) {
    let Some(Node { value: Value::List(items), .. }) = service.get_mut("volumes") else { return };
    items.retain_mut(|item| {
        let Some(text) = item.as_str().map(str::to_owned) else {
            // One path has one spelling, so that a later file finds the mount again.
            if let Some(Value::Str(target)) =
                item.as_map_mut().and_then(|map| map.get_mut("target")).map(|n| &mut n.value)
                && target.starts_with('/')
            {
                *target = paths::clean(target);
            }
            return true;
        };
        match short(&text, item.span, report) {
            Ok(map) => {
                item.value = Value::Map(map);
                true
            }
            Err(problem) => {
                report.error(item.span, format!("invalid volume `{text}`: {problem}")).with_help(HELP);
                false
            }
        }
    });
}

fn short(text: &str, span: Span, report: &mut Report) -> Result<Map, String> {
    let parts: Vec<&str> = text.split(':').collect();
    if parts.iter().any(|part| part.is_empty()) {
        return Err(if text.is_empty() { "it is empty" } else { "a part between colons is empty" }.to_owned());
    }
    let (source, target, options) = match parts.as_slice() {
        [target] => (None, *target, ""),
        [source, target] => (Some(*source), *target, ""),
        [source, target, options] => (Some(*source), *target, *options),
        _ => return Err("too many colons".to_owned()),
    };
    let string = |text: &str| Value::Str(text.to_owned());
    let is_path = |source: &str| source.starts_with(['.', '/', '~']);
    let kind = if source.is_some_and(is_path) { "bind" } else { "volume" };
    let mut map = Map::default();
    map.imply("type", span, string(kind));
    if let Some(source) = source {
        map.imply("source", span, string(source));
    }
    let target = if target.starts_with('/') { paths::clean(target) } else { target.to_owned() };
    map.imply("target", span, Value::Str(target));
    let mut inner = Map::default();
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => map.imply("read_only", span, Value::Bool(true)),
            "rw" => {}
            "nocopy" if kind == "volume" => inner.imply("nocopy", span, Value::Bool(true)),
            "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave" if kind == "bind" => {
                inner.imply("propagation", span, string(option));
            }
            "z" | "Z" if kind == "bind" => inner.imply("selinux", span, string(option)),
            other => {
                report
                    .warning(span, format!("volume option `{other}` is not known and has no effect"))
                    .with_help("options are ro, rw, nocopy, z, Z and [r]private, [r]shared, [r]slave");
            }
        }
    }
    if kind == "bind" {
        inner.imply("create_host_path", span, Value::Bool(true));
    }
    if !inner.entries.is_empty() {
        map.imply(kind, span, Value::Map(inner));
    }
    Ok(map)
}
