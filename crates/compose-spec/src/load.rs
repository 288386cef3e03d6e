//! From a request to a project: asks for what it needs, and says all that is wrong.
//!
//! This crate reads neither files nor the environment.
//! [`load`] returns what it still wants; the caller adds it to the request and calls again, or lets
//! [`load_with`] do so.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::assemble::Assembler;
use crate::check;
use crate::decode::{self, Declared, Decoded, RawContent, RawSource};
use crate::diagnostic::Diagnostic;
use crate::paths::{self, Base};
use crate::project::{At, Content, ContentSource, Project};
use crate::source::Span;
use crate::value::{Node, Value};

/// What to load, and what is known so far of the world outside.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Compose files in the order of their precedence, later ones over earlier; `-` is standard input.
    pub files: Vec<String>,
    /// Absolute; what `files` and `env_files` are relative to.
    pub working_directory: String,
    /// Instead of the folder of the first file: what paths in the files are relative to.
    pub project_directory: Option<String>,
    /// Over `COMPOSE_PROJECT_NAME`, the files' `name:`, and the project's folder.
    pub project_name: Option<String>,
    /// What `~` stands for.
    pub home: Option<String>,
    /// Instead of `.env` of the working and project directories.
    pub env_files: Vec<String>,
    /// Active profiles, beside `COMPOSE_PROFILES`; `*` is all.
    pub profiles: Vec<String>,
    /// Environment variables by name, `None` for those that are not set.
    pub variables: BTreeMap<String, Option<String>>,
    /// Files by absolute path, and `-`.
    pub contents: BTreeMap<String, FileContent>,
}

/// What came of the attempt to read a file.
#[derive(Debug, Clone)]
pub enum FileContent {
    Bytes(Arc<[u8]>),
    Missing,
    /// Why not: `permission denied`.
    Unreadable(String),
}

/// What [`load`] made of a request.
#[derive(Debug)]
pub enum Outcome {
    Loaded {
        project: Box<Project>,
        warnings: Vec<Diagnostic>,
    },
    /// Add these to the request, and call again.
    Wanted(Wanted),
    /// Errors, and the warnings beside them.
    Refused(Vec<Diagnostic>),
}

/// What the request has to tell before a load can go on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    /// Absolute paths, and `-` for standard input.
    pub files: BTreeSet<String>,
    /// Environment variables.
    pub variables: BTreeSet<String>,
}

/// A project and what to tell the user about it.
#[derive(Debug)]
pub struct Loaded {
    pub project: Project,
    pub warnings: Vec<Diagnostic>,
}

/// Calls [`load`] until it has an answer, asking `read` for files and `variable` for the environment.
pub fn load_with(
    mut request: Request,
    mut read: impl FnMut(&str) -> FileContent,
    mut variable: impl FnMut(&str) -> Option<String>,
) -> Result<Loaded, Vec<Diagnostic>> {
    loop {
        match load(&request) {
            Outcome::Loaded { project, warnings } => return Ok(Loaded { project: *project, warnings }),
            Outcome::Refused(diagnostics) => return Err(diagnostics),
            // Each round tells something that was not known, and files and variables are finite.
            Outcome::Wanted(wanted) => {
                for path in wanted.files {
                    let content = read(&path);
                    request.contents.insert(path, content);
                }
                for name in wanted.variables {
                    let value = variable(&name);
                    request.variables.insert(name, value);
                }
            }
        }
    }
}

/// One step: what can be said with what the request tells.
pub fn load(request: &Request) -> Outcome {
    let mut assembler = Assembler::new(request);
    let here = Base { folder: &request.working_directory, home: request.home.as_deref() };
    let absolute = |file: &String| if file == "-" { file.clone() } else { here.absolute(file) };
    let files: Vec<At<String>> =
        request.files.iter().map(|file| At { span: Span::default(), value: absolute(file) }).collect();
    let Some(first) = files.first() else {
        assembler.report.error_nowhere("no compose file was given").with_help("name one with --compose-file");
        return Outcome::Refused(assembler.report.into_sorted());
    };
    let folder = match &request.project_directory {
        Some(folder) => here.absolute(folder),
        None if first.value == "-" => request.working_directory.clone(),
        None => paths::folder(&first.value).to_owned(),
    };
    environment(&mut assembler, &folder);
    let model = assembler.project(&files, &folder, &[]);
    if assembler.broken {
        return Outcome::Refused(assembler.report.into_sorted());
    }
    if let Some(wanted) = wanted(&mut assembler) {
        return Outcome::Wanted(wanted);
    }
    let model = Node::new(Span::default(), Value::Map(model));
    let Some(mut decoded) = decode::decode(&model, &mut assembler.report) else {
        return Outcome::Refused(assembler.report.into_sorted());
    };
    let mut declared = std::mem::take(&mut decoded.declared);
    declared.flawed_services.append(&mut assembler.unextended);
    let project = complete(decoded, &declared, &mut assembler, &folder);
    if let Some(wanted) = wanted(&mut assembler) {
        return Outcome::Wanted(wanted);
    }
    check::check(&project, &declared, &mut assembler.report);
    if assembler.report.has_errors() {
        return Outcome::Refused(assembler.report.into_sorted());
    }
    Outcome::Loaded { project: Box::new(project), warnings: assembler.report.into_sorted() }
}

fn wanted(assembler: &mut Assembler<'_>) -> Option<Wanted> {
    let wanted = Wanted {
        files: std::mem::take(&mut assembler.wanted),
        variables: std::mem::take(&mut assembler.variables.wanted),
    };
    (wanted != Wanted::default()).then_some(wanted)
}

/// `.env` of the working directory, then of the project's: what the environment does not say.
fn environment(assembler: &mut Assembler<'_>, folder: &str) {
    let request = assembler.request;
    let here = Base { folder: &request.working_directory, home: request.home.as_deref() };
    if request.env_files.is_empty() {
        let folders = BTreeSet::from([request.working_directory.as_str(), folder]);
        let ordered = [request.working_directory.as_str(), folder];
        for place in ordered.iter().take(folders.len()) {
            assembler.optional_env_file(&format!("{}/.env", place.trim_end_matches('/')));
        }
    }
    // The last of several files wins, and what is read first stays.
    for file in request.env_files.iter().rev() {
        assembler.env_file(&here.absolute(file), None);
    }
    if let Some(name) = &request.project_name {
        assembler.variables.files.insert("COMPOSE_PROJECT_NAME".to_owned(), name.clone());
    }
}

/// Fills in what files and variables say.
fn complete(decoded: Decoded, declared: &Declared, assembler: &mut Assembler<'_>, folder: &str) -> Project {
    let mut project = decoded.project;
    project.name = project_name(decoded.declared_name, assembler, folder);
    let active = active_profiles(&project, assembler);
    project.services.retain(|_, service| {
        service.profiles.is_empty() || service.profiles.iter().any(|p| active.contains(p)) || active.contains("*")
    });
    // What is only there in another profile, and may be missing, is.
    let present: BTreeSet<String> = project.services.keys().cloned().collect();
    let disabled: BTreeSet<&String> = declared.services.difference(&present).collect();
    for (name, service) in &mut project.services {
        service.depends_on.retain(|other, dependency| dependency.required || !disabled.contains(other));
        let mut from_files = BTreeMap::new();
        for file in decoded.env_files.get(name).into_iter().flatten() {
            // What the service sets itself is seen by its files, too.
            let mut seen = from_files.clone();
            seen.extend(service.environment.iter().filter_map(|(k, v)| Some((k.clone(), v.clone()?))));
            from_files.extend(assembler.service_env(file, &seen).unwrap_or_default());
        }
        let mut environment: BTreeMap<_, _> = from_files.into_iter().map(|(key, value)| (key, Some(value))).collect();
        for (key, value) in std::mem::take(&mut service.environment) {
            let value = value.or_else(|| assembler.variables.get(&key));
            environment.insert(key, value);
        }
        service.environment = environment;
        for hook in service.post_start.iter_mut().chain(&mut service.pre_stop) {
            for (name, value) in hook.environment.iter_mut().filter(|(_, value)| value.is_none()) {
                *value = assembler.variables.get(name);
            }
        }
        let mut labels = BTreeMap::new();
        for file in decoded.label_files.get(name).into_iter().flatten() {
            labels.extend(assembler.service_env(file, &labels).unwrap_or_default());
        }
        labels.append(&mut service.labels);
        service.labels = labels;
    }
    project.secrets = contents(decoded.secrets, "secrets", assembler);
    project.configs = contents(decoded.configs, "configs", assembler);
    project.sources = assembler.report.sources.clone();
    project
}

fn active_profiles(project: &Project, assembler: &mut Assembler<'_>) -> BTreeSet<String> {
    let mut active: BTreeSet<String> = assembler.request.profiles.iter().cloned().collect();
    if project.services.values().any(|service| !service.profiles.is_empty()) {
        let listed = assembler.variables.get("COMPOSE_PROFILES").unwrap_or_default();
        active.extend(listed.split(',').map(str::trim).filter(|p| !p.is_empty()).map(str::to_owned));
    }
    active
}

fn project_name(declared: Option<At<String>>, assembler: &mut Assembler<'_>, folder: &str) -> String {
    if let Some(name) = &assembler.request.project_name {
        return name.clone();
    }
    if let Some(name) = assembler.variables.get("COMPOSE_PROJECT_NAME").filter(|name| !name.is_empty()) {
        return name;
    }
    let plain: String = declared
        .as_ref()
        .map_or_else(|| folder.rsplit('/').next().unwrap_or_default(), |name| name.value.as_str())
        .to_ascii_lowercase()
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
        .collect();
    let plain = plain.trim_start_matches(['_', '-']).to_owned();
    if let Some(declared) = declared
        && declared.value != plain
    {
        assembler
            .report
            .error(declared.span, format!("invalid project name `{}`", declared.value))
            .with_help("it has lower-case letters, digits, `-` and `_`, and starts with a letter or digit");
    }
    if plain.is_empty() { "default".to_owned() } else { plain }
}

fn contents(
    raw: BTreeMap<String, RawContent>,
    section: &str,
    assembler: &mut Assembler<'_>,
) -> BTreeMap<String, Content> {
    let mut contents = BTreeMap::new();
    for (key, raw) in raw {
        let RawContent { span, name, labels, template_driver, source } = raw;
        let source = match source {
            RawSource::External => Some(ContentSource::External),
            RawSource::Inline(text) => Some(ContentSource::Inline { data: text.into_bytes().into() }),
            RawSource::File(path) => file_content(path, &format!("{section}.{key}.file"), assembler),
            RawSource::Environment(variable) => variable_content(variable, section, &key, assembler),
        };
        if let Some(source) = source {
            contents.insert(key, Content { span, name, labels, template_driver, source });
        }
    }
    contents
}

fn file_content(path: At<String>, what: &str, assembler: &mut Assembler<'_>) -> Option<ContentSource> {
    match assembler.bytes(&path.value) {
        Ok(bytes) => bytes.map(|data| ContentSource::File { path: path.value, data: data.into() }),
        Err(why) => {
            let shown = assembler.shown(&path.value);
            assembler.report.error(path.span, format!("{what}: cannot read {shown}: {why}"));
            None
        }
    }
}

fn variable_content(
    variable: At<String>,
    section: &str,
    key: &str,
    assembler: &mut Assembler<'_>,
) -> Option<ContentSource> {
    let value = assembler.variables.get(&variable.value);
    if value.is_none() && assembler.variables.wanted.is_empty() {
        assembler
            .report
            .error(variable.span, format!("{section}.{key}: the variable `{}` is not set", variable.value))
            .with_help("set it in the environment or in .env");
    }
    value.map(|value| ContentSource::Environment { variable: variable.value, data: value.into_bytes().into() })
}
