//! What a service finds in its file system: volumes, tmpfs, secrets, configs.

use super::{Fields, fields};
use crate::project::{Bind, FileReference, Mount, MountKind, Service, Strings};
use crate::source::Span;
use crate::units;
use crate::value::Node;

pub(super) fn decode(f: &mut Fields<'_, '_>, service: &mut Service) {
    service.mounts = volumes(f);
    service.tmpfs = tmpfs(f);
    duplicate_targets(f, service.mounts.iter().chain(&service.tmpfs).collect());
    service.secrets = references(f, "secrets");
    service.configs = references(f, "configs");
}

#[derive(Clone, Copy, PartialEq)]
enum Type {
    Bind,
    Volume,
    Tmpfs,
    Other(&'static str),
}

fn volumes(f: &mut Fields<'_, '_>) -> Vec<Mount> {
    let path = f.at("volumes");
    let mut mounts = Vec::new();
    for (index, item) in f.items("volumes").iter().enumerate() {
        let Some(mut v) = Fields::open(item, format!("{path}.{index}"), f.report) else { continue };
        mounts.extend(volume(&mut v, item));
        v.finish();
    }
    mounts
}

fn volume(v: &mut Fields<'_, '_>, item: &Node) -> Option<Mount> {
    let span = item.span;
    let types = [
        ("bind", Type::Bind),
        ("volume", Type::Volume),
        ("tmpfs", Type::Tmpfs),
        ("npipe", Type::Other("npipe")),
        ("cluster", Type::Other("cluster")),
        ("image", Type::Other("image")),
    ];
    let kind = v.choice("type", &types);
    let source = v.string("source").filter(|source| !source.is_empty());
    let target = v.string("target");
    let read_only = v.bool("read_only").unwrap_or(false);
    // For macOS only; nothing to do on Linux.
    v.string("consistency");
    let path = v.path.clone();
    let bind = bind_options(v);
    let volume = volume_options(v);
    let tmpfs = tmpfs_options(v);
    v.nullable("image");
    if item.as_map().is_some_and(|map| map.get("type").is_none()) {
        v.report.error(span, format!("{path} has no type")).with_help("add type: volume, bind or tmpfs");
    }
    let kind = kind?.value;
    let present = |key: &str| item.as_map().and_then(|map| map.entry(key)).map(|entry| entry.key_span);
    for (name, its) in [("bind", Type::Bind), ("volume", Type::Volume), ("tmpfs", Type::Tmpfs)] {
        if kind != its
            && let Some(at) = present(name)
        {
            v.report.error(at, format!("{path}: {name} options do not fit a mount of another type"));
        }
    }
    let Some(target) = target else {
        v.report.error(span, format!("{path} has no target")).with_help("target: is the path in the container");
        return None;
    };
    let target = container_path(&target, &path, span, v)?;
    let kind = match (kind, source) {
        (Type::Bind, Some(source)) => MountKind::Bind(Bind { source, ..bind }),
        (Type::Bind, None) => {
            v.report.error(span, format!("{path} is a bind mount without a source"));
            return None;
        }
        (Type::Volume, key) => MountKind::Volume { key, no_copy: volume.0, subpath: volume.1, labels: volume.2 },
        (Type::Tmpfs, None) => MountKind::Tmpfs { size: tmpfs.0, mode: tmpfs.1, options: Vec::new() },
        (Type::Tmpfs, Some(_)) => {
            v.report.error(span, format!("{path} is a tmpfs and cannot have a source"));
            return None;
        }
        (Type::Other(name), _) => {
            v.report
                .error(span, format!("{path}: mounts of type {name} are not supported"))
                .with_help("use volume, bind or tmpfs");
            return None;
        }
    };
    Some(Mount { span, target, read_only, kind })
}

fn bind_options(v: &mut Fields<'_, '_>) -> Bind {
    let Some(mut b) = v.child("bind") else { return Bind::default() };
    let words = ["private", "rprivate", "shared", "rshared", "slave", "rslave"].map(|word| (word, word));
    let propagation = b.choice("propagation", &words).map(|at| at.value.to_owned());
    let create_host_path = b.bool("create_host_path").unwrap_or(false);
    let recursive = b.choice(
        "recursive",
        &[("enabled", "enabled"), ("disabled", "disabled"), ("writable", "writable"), ("readonly", "readonly")],
    );
    if let Some(at) = &recursive
        && matches!(at.value, "writable" | "readonly")
    {
        let path = b.at("recursive");
        b.report.warning(at.span, format!("{path}: {} is not supported yet and means enabled", at.value));
    }
    b.unsupported(&["selinux"], None);
    b.finish();
    Bind {
        source: String::new(),
        propagation,
        create_host_path,
        non_recursive: recursive.is_some_and(|at| at.value == "disabled"),
    }
}

fn volume_options(v: &mut Fields<'_, '_>) -> (bool, Option<String>, Strings) {
    let Some(mut o) = v.child("volume") else { return (false, None, Strings::new()) };
    let options = (o.bool("nocopy").unwrap_or(false), o.string("subpath"), o.string_map("labels"));
    o.finish();
    options
}

fn tmpfs_options(v: &mut Fields<'_, '_>) -> (Option<u64>, Option<u32>) {
    let Some(mut t) = v.child("tmpfs") else { return (None, None) };
    let options = (t.bytes("size").map(|at| at.value), t.mode("mode"));
    t.finish();
    options
}

fn container_path(target: &str, path: &str, span: Span, f: &mut Fields<'_, '_>) -> Option<String> {
    if !target.starts_with('/') {
        f.report
            .error(span, format!("{path}: `{target}` is not an absolute path in the container"))
            .with_help(format!("write /{target}, or {target}:/path to mount something there"));
        return None;
    }
    Some(crate::paths::clean(target))
}

/// `tmpfs: /run:size=64m,mode=1777,noexec`
fn tmpfs(f: &mut Fields<'_, '_>) -> Vec<Mount> {
    let path = f.at("tmpfs");
    let mut mounts = Vec::new();
    for (index, item) in f.items("tmpfs").iter().enumerate() {
        let path = format!("{path}.{index}");
        let Some(text) = fields::string(item, &path, f.report) else { continue };
        let (target, list) = text.split_once(':').unwrap_or((&text, ""));
        let Some(target) = container_path(target, &path, item.span, f) else { continue };
        let (mut size, mut mode, mut read_only, mut options) = (None, None, false, Vec::new());
        for option in list.split(',').filter(|option| !option.is_empty()) {
            let read = match option.split_once('=') {
                Some(("size", value)) => units::bytes(value).map(|bytes| size = Some(bytes)),
                Some(("mode", value)) => u32::from_str_radix(value, 8)
                    .map(|bits| mode = Some(bits))
                    .map_err(|_| format!("`{value}` are not permission bits")),
                _ if option == "ro" => {
                    read_only = true;
                    Ok(())
                }
                _ => {
                    options.push(option.to_owned());
                    Ok(())
                }
            };
            if let Err(problem) = read {
                f.report.error(item.span, format!("{path}: {problem}"));
            }
        }
        mounts.push(Mount { span: item.span, target, read_only, kind: MountKind::Tmpfs { size, mode, options } });
    }
    mounts
}

fn duplicate_targets(f: &mut Fields<'_, '_>, mounts: Vec<&Mount>) {
    for (index, mount) in mounts.iter().enumerate() {
        if let Some(first) = mounts[..index].iter().find(|earlier| earlier.target == mount.target) {
            let place = f.report.sources.place(first.span);
            let path = f.path.clone();
            f.report.error(mount.span, format!("{path}: {} is already mounted at {place}", mount.target));
        }
    }
}

fn references(f: &mut Fields<'_, '_>, name: &'static str) -> Vec<FileReference> {
    let path = f.at(name);
    let mut references = Vec::new();
    for (index, item) in f.items(name).iter().enumerate() {
        let Some(mut r) = Fields::open(item, format!("{path}.{index}"), f.report) else { continue };
        let source = r.string("source");
        let reference = FileReference {
            span: item.span,
            source: source.clone().unwrap_or_default(),
            target: target(&mut r),
            uid: numeric(&mut r, "uid"),
            gid: numeric(&mut r, "gid"),
            mode: r.mode("mode"),
        };
        if item.as_map().is_some_and(|map| map.get("source").is_none()) {
            r.report.error(item.span, format!("{path}.{index} has no source"));
        }
        r.finish();
        references.extend(source.map(|_| reference));
    }
    references
}

/// A path that leads out of the folder that it is relative to names no file of the container.
fn target(r: &mut Fields<'_, '_>) -> Option<String> {
    let target = r.string_at("target").filter(|target| !target.value.is_empty())?;
    if target.value.split('/').any(|part| part == "..") {
        let path = r.at("target");
        r.report
            .error(target.span, format!("{path}: `{}` must not contain `..`", target.value))
            .with_help("write an absolute path, or a file's name");
    }
    Some(target.value)
}

/// User and group ids of files are numbers: the container's own names are not known here.
fn numeric(r: &mut Fields<'_, '_>, name: &'static str) -> Option<String> {
    let span = r.node(name)?.span;
    let text = r.text(name)?;
    if text.parse::<u32>().is_err() {
        let path = r.at(name);
        r.report.error(span, format!("{path} must be a number, not `{text}`"));
        return None;
    }
    Some(text)
}
