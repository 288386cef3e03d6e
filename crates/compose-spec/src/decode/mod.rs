//! The merged tree to a [`Project`]: types, ranges, unknown attributes, all mistakes at once.
//!
//! Files that the project refers to are not read here: [`Decoded`] lists them with their places, and
//! `load` fills in what they say.

mod attachments;
mod deploy;
mod fields;
mod mounts;
mod process;
mod resource;
mod scalars;
mod service;

use std::collections::{BTreeMap, BTreeSet};

pub(crate) use fields::Fields;
pub(crate) use resource::{RawContent, RawSource};

use crate::diagnostic::Report;
use crate::project::{At, Project};
use crate::value::{Entry, Node, Value};

/// A project whose files are still to be read.
pub(crate) struct Decoded {
    pub project: Project,
    pub declared_name: Option<At<String>>,
    pub env_files: BTreeMap<String, Vec<EnvFile>>,
    pub label_files: BTreeMap<String, Vec<EnvFile>>,
    pub secrets: BTreeMap<String, RawContent>,
    pub configs: BTreeMap<String, RawContent>,
    pub declared: Declared,
}

/// Keys that the files have, whether or not what they say could be used.
#[derive(Default)]
pub(crate) struct Declared {
    pub services: BTreeSet<String>,
    /// Services of which some attribute could not be read: what they lack may be one of these.
    pub flawed_services: BTreeSet<String>,
    pub secrets: BTreeSet<String>,
    pub configs: BTreeSet<String>,
}

pub(crate) struct EnvFile {
    pub path: At<String>,
    pub required: bool,
    pub raw: bool,
}

pub(crate) fn decode(root: &Node, report: &mut Report) -> Option<Decoded> {
    let mut top = Fields::open(root, "", report)?;
    // Obsolete: every version reads the same.
    top.nullable("version");
    // Both were followed while the files were put together.
    top.nullable("include");
    let declared_name = top.string_at("name");
    let mut decoded = Decoded {
        project: Project::default(),
        declared_name,
        env_files: BTreeMap::new(),
        label_files: BTreeMap::new(),
        secrets: BTreeMap::new(),
        configs: BTreeMap::new(),
        declared: Declared::default(),
    };
    for entry in section(&mut top, "services") {
        decoded.declared.services.insert(entry.key.clone());
        let errors = top.report.error_count();
        service::decode(entry, &mut decoded, top.report);
        if top.report.error_count() > errors {
            decoded.declared.flawed_services.insert(entry.key.clone());
        }
    }
    for entry in section(&mut top, "networks") {
        let network = resource::network(entry, top.report);
        decoded.project.networks.insert(entry.key.clone(), network);
    }
    for entry in section(&mut top, "volumes") {
        let volume = resource::volume(entry, top.report);
        decoded.project.volumes.insert(entry.key.clone(), volume);
    }
    for entry in section(&mut top, "secrets") {
        decoded.declared.secrets.insert(entry.key.clone());
        let secret = resource::content(entry, resource::Kind::Secret, top.report);
        decoded.secrets.extend(secret.map(|secret| (entry.key.clone(), secret)));
    }
    for entry in section(&mut top, "configs") {
        decoded.declared.configs.insert(entry.key.clone());
        let config = resource::content(entry, resource::Kind::Config, top.report);
        decoded.configs.extend(config.map(|config| (entry.key.clone(), config)));
    }
    top.unsupported(&["models"], None);
    top.belongs(&[("services: NAME:", &["image", "ports", "environment", "command", "deploy", "build", "depends_on"])]);
    top.finish();
    Some(decoded)
}

/// The entries of a top-level section without extensions and without names that no object can have.
fn section<'n>(top: &mut Fields<'n, '_>, name: &'static str) -> Vec<&'n Entry> {
    let Some(node) = top.nullable(name) else { return Vec::new() };
    let Value::Map(map) = &node.value else {
        fields::expected("a mapping", node, name, top.report);
        return Vec::new();
    };
    // A service may be named `x-…`; elsewhere that is an extension.
    let extension = |entry: &&Entry| name != "services" && entry.key.starts_with("x-");
    let mut entries: Vec<&Entry> = map.entries.iter().filter(|entry| !extension(entry)).collect();
    entries.retain(|entry| {
        let fits = entry.key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        if !fits || entry.key.is_empty() {
            top.report
                .error(entry.key_span, format!("`{}` is not a name for one of {name}", entry.key))
                .with_help("names have letters, digits, `-`, `_` and `.`");
        }
        fits && !entry.key.is_empty()
    });
    entries
}
