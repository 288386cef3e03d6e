//! Relative paths to absolute ones, in the tree, while it is still known which file they stand in.

use crate::value::{Map, Node, Value};

/// What paths are relative to.
#[derive(Debug, Clone)]
pub(crate) struct Base<'a> {
    /// Absolute.
    pub folder: &'a str,
    /// What `~` stands for.
    pub home: Option<&'a str>,
}

impl Base<'_> {
    /// An absolute path without `.`, `..` and double slashes; symbolic links are not looked at.
    pub fn absolute(&self, path: &str) -> String {
        let from_home = path.strip_prefix('~').filter(|rest| rest.is_empty() || rest.starts_with('/'));
        let joined = match (from_home, self.home) {
            (Some(rest), Some(home)) => format!("{home}{rest}"),
            _ if path.starts_with('/') => path.to_owned(),
            _ => format!("{}/{path}", self.folder),
        };
        clean(&joined)
    }
}

pub(crate) fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// The folder of an absolute path.
pub(crate) fn folder(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some(("", _)) | None => "/",
        Some((folder, _)) => folder,
    }
}

/// Makes every path of a canonical tree absolute.
pub(crate) fn resolve(root: &mut Node, base: &Base<'_>) {
    let Some(root) = root.as_map_mut() else { return };
    for section in ["secrets", "configs"] {
        for resource in maps(root.get_mut(section)) {
            path_at(resource, "file", base);
        }
    }
    for service in maps(root.get_mut("services")) {
        resolve_service(service, base);
    }
}

fn resolve_service(service: &mut Map, base: &Base<'_>) {
    for file in items(service.get_mut("env_file")) {
        if let Some(file) = file.as_map_mut() {
            path_at(file, "path", base);
        }
    }
    for file in items(service.get_mut("label_file")) {
        absolute(file, base);
    }
    for mount in items(service.get_mut("volumes")).filter_map(Node::as_map_mut) {
        if mount.get("type").and_then(Node::as_str) == Some("bind") {
            path_at(mount, "source", base);
        }
    }
    if let Some(build) = service.get_mut("build").and_then(Node::as_map_mut)
        && !build.get("context").and_then(Node::as_str).is_some_and(is_remote)
    {
        path_at(build, "context", base);
    }
}

fn is_remote(context: &str) -> bool {
    context.contains("://") || context.starts_with("github.com/") || context.starts_with("git@")
}

fn path_at(map: &mut Map, key: &str, base: &Base<'_>) {
    if let Some(node) = map.get_mut(key) {
        absolute(node, base);
    }
}

fn absolute(node: &mut Node, base: &Base<'_>) {
    if let Value::Str(path) = &mut node.value
        && !path.is_empty()
    {
        *path = base.absolute(path);
    }
}

fn maps(node: Option<&mut Node>) -> impl Iterator<Item = &mut Map> {
    let map = node.and_then(Node::as_map_mut);
    map.into_iter().flat_map(|map| map.entries.iter_mut().filter_map(|entry| entry.value.as_map_mut()))
}

fn items(node: Option<&mut Node>) -> impl Iterator<Item = &mut Node> {
    let items = node.and_then(|node| match &mut node.value {
        Value::List(items) => Some(items),
        _ => None,
    });
    items.into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_made_absolute_by_their_text_alone() {
        let base = Base { folder: "/w/app", home: Some("/root") };
        for (path, expected) in [
            ("./x", "/w/app/x"),
            ("../x/./y//z", "/w/x/y/z"),
            ("/a/../b", "/b"),
            ("~/x", "/root/x"),
            ("~x", "/w/app/~x"),
            (".", "/w/app"),
            ("../../../..", "/"),
        ] {
            assert_eq!(base.absolute(path), expected, "{path}");
        }
        assert_eq!(folder("/a/b.yml"), "/a");
        assert_eq!(folder("/b.yml"), "/");
    }
}
