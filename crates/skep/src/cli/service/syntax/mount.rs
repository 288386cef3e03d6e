//! `--mount type=volume,source=data,target=/data,readonly`.

use std::str::FromStr;

use skep_compose_spec::bytes;
use skep_model::{Labels, MemoryBytes, Mount, MountKind, Propagation};

use super::fields::{fields, switch, unknown, value};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountFlag(pub Mount);

const KNOWN: &str = "type, source, target, readonly, bind-propagation, bind-nonrecursive, bind-create-src, \
                     volume-nocopy, volume-subpath, volume-label, volume-opt, tmpfs-size or tmpfs-mode";

/// Everything that a mount may say, before it is known what it is.
#[derive(Default)]
struct Parts {
    kind: Option<String>,
    source: Option<String>,
    target: Option<String>,
    read_only: bool,
    propagation: Option<Propagation>,
    non_recursive: bool,
    create_source: bool,
    no_copy: bool,
    subpath: Option<String>,
    labels: Labels,
    options: Labels,
    size: Option<MemoryBytes>,
    mode: Option<u32>,
    /// Keys that fit one kind only, as they were written.
    of_kind: Vec<(&'static str, String)>,
}

impl FromStr for MountFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = Parts::default();
        for (key, value) in fields(text)? {
            parts.take(key, value)?;
        }
        parts.mount().map(Self)
    }
}

impl Parts {
    fn take(&mut self, key: String, given: Option<String>) -> Result<(), String> {
        for kind in ["bind", "volume", "tmpfs"] {
            if key.starts_with(&format!("{kind}-")) {
                self.of_kind.push((kind, key.clone()));
            }
        }
        match key.as_str() {
            "type" => self.kind = Some(value(&key, given)?.to_ascii_lowercase()),
            "source" | "src" => self.source = Some(value(&key, given)?),
            "target" | "dst" | "destination" => self.target = Some(value(&key, given)?),
            "readonly" | "ro" => self.read_only = switch(&key, given)?,
            // For other systems than Linux.
            "consistency" => drop(value(&key, given)?),
            "bind-propagation" => self.propagation = Some(propagation(&value(&key, given)?)?),
            "bind-nonrecursive" => self.non_recursive = switch(&key, given)?,
            "bind-recursive" => match value(&key, given)?.as_str() {
                "enabled" => self.non_recursive = false,
                "disabled" => self.non_recursive = true,
                other => return Err(format!("bind-recursive={other} is not supported; use enabled or disabled")),
            },
            "bind-create-src" => self.create_source = switch(&key, given)?,
            "volume-nocopy" => self.no_copy = switch(&key, given)?,
            "volume-subpath" => self.subpath = Some(value(&key, given)?),
            "volume-label" => {
                let label = value(&key, given)?;
                let (name, label) = label.split_once('=').unwrap_or((&label, ""));
                self.labels.insert(name.to_owned(), label.to_owned());
            }
            "volume-driver" => match value(&key, given)?.as_str() {
                "" | "local" => {}
                other => {
                    return Err(format!("volume driver `{other}` is not supported: volumes are folders of the node"));
                }
            },
            "volume-opt" => {
                let option = value(&key, given)?;
                let (name, option) = option.split_once('=').unwrap_or((&option, ""));
                self.options.insert(name.to_owned(), option.to_owned());
            }
            "tmpfs-size" => self.size = Some(MemoryBytes(bytes(&value(&key, given)?)?)),
            "tmpfs-mode" => {
                let text = value(&key, given)?;
                let mode = u32::from_str_radix(&text, 8).ok().filter(|mode| *mode <= 0o7777);
                self.mode = Some(mode.ok_or_else(|| format!("`{text}` is not a mode; write it as 1777"))?);
            }
            _ => return Err(unknown(&key, KNOWN)),
        }
        Ok(())
    }

    fn mount(self) -> Result<Mount, String> {
        let kind = self.kind.as_deref().unwrap_or("volume");
        let target = self.target.filter(|target| !target.is_empty());
        let target = target.ok_or("a mount needs a target: target=/path")?;
        if let Some((_, key)) = self.of_kind.iter().find(|(of, _)| *of != kind) {
            return Err(format!("`{key}` does not fit a mount of type {kind}"));
        }
        let source = self.source.filter(|source| !source.is_empty());
        let kind = match (kind, source) {
            ("bind", Some(source)) if source.starts_with('/') => MountKind::Bind {
                source,
                propagation: self.propagation.unwrap_or_default(),
                create_source: self.create_source,
                non_recursive: self.non_recursive,
            },
            ("bind", Some(source)) => {
                return Err(format!("`{source}` is not an absolute path: the source of a bind is a path of the node"));
            }
            ("bind", None) => return Err("a bind needs a source: source=/path/of/the/node".to_owned()),
            ("volume", name) => MountKind::Volume {
                name,
                no_copy: self.no_copy,
                subpath: self.subpath,
                // By its name an older node knows that it does not know them.
                driver: (!self.options.is_empty()).then(|| "local".to_owned()),
                options: self.options,
                labels: self.labels,
            },
            ("tmpfs", None) => MountKind::Tmpfs { size: self.size, mode: self.mode },
            ("tmpfs", Some(_)) => return Err("a tmpfs has no source".to_owned()),
            ("npipe" | "cluster" | "image", _) => {
                return Err(format!("mounts of type {kind} are not supported; use bind, volume or tmpfs"));
            }
            (other, _) => return Err(format!("`{other}` is not a type of mount; use bind, volume or tmpfs")),
        };
        Ok(Mount { target, read_only: self.read_only, kind })
    }
}

fn propagation(text: &str) -> Result<Propagation, String> {
    Ok(match text {
        "rprivate" => Propagation::RPrivate,
        "private" => Propagation::Private,
        "rshared" => Propagation::RShared,
        "shared" => Propagation::Shared,
        "rslave" => Propagation::RSlave,
        "slave" => Propagation::Slave,
        other => {
            return Err(format!(
                "`{other}` is not a propagation; use private, shared or slave, or one of them after r"
            ));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(text: &str, expected: Expect) {
        let said = match text.parse::<MountFlag>() {
            Ok(MountFlag(mount)) => format!("{mount:?}"),
            Err(problem) => format!("refused: {problem}"),
        };
        expected.assert_eq(&said);
    }

    #[test]
    fn mounts_of_each_kind() {
        check(
            "type=bind,src=/srv,dst=/data,ro,bind-propagation=rslave",
            expect![[
                r#"Mount { target: "/data", read_only: true, kind: Bind { source: "/srv", propagation: RSlave, create_source: false, non_recursive: false } }"#
            ]],
        );
        check(
            "source=data,target=/data,volume-nocopy,volume-label=a=b",
            expect![[
                r#"Mount { target: "/data", read_only: false, kind: Volume { name: Some("data"), no_copy: true, subpath: None, driver: None, options: {}, labels: {"a": "b"} } }"#
            ]],
        );
        check(
            "type=tmpfs,target=/run,tmpfs-size=64m,tmpfs-mode=1770",
            expect![[
                r#"Mount { target: "/run", read_only: false, kind: Tmpfs { size: Some(MemoryBytes(67108864)), mode: Some(1016) } }"#
            ]],
        );
    }

    #[test]
    fn what_does_not_fit_is_refused_with_what_would() {
        check("type=bind,target=/a", expect!["refused: a bind needs a source: source=/path/of/the/node"]);
        check(
            "type=bind,source=a,target=/a",
            expect!["refused: `a` is not an absolute path: the source of a bind is a path of the node"],
        );
        check("type=tmpfs,source=a,target=/a", expect!["refused: a tmpfs has no source"]);
        check("source=a", expect!["refused: a mount needs a target: target=/path"]);
        check(
            "type=bind,source=/a,target=/a,tmpfs-size=1m",
            expect!["refused: `tmpfs-size` does not fit a mount of type bind"],
        );
        check(
            "type=npipe,source=a,target=/a",
            expect!["refused: mounts of type npipe are not supported; use bind, volume or tmpfs"],
        );
        check(
            "source=a,target=/a,volume-driver=nfs",
            expect!["refused: volume driver `nfs` is not supported: volumes are folders of the node"],
        );
        check("source=a,target=/a,readonly=no", expect!["refused: `readonly` is true or false, not `no`"]);
        check(
            "sauce=a",
            expect![
                "refused: `sauce` is not known here; use type, source, target, readonly, bind-propagation, bind-nonrecursive, bind-create-src, volume-nocopy, volume-subpath, volume-label, volume-opt, tmpfs-size or tmpfs-mode"
            ],
        );
    }
}
