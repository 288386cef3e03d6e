//! Files to one tree: each is parsed, filled in, made canonical, given absolute paths, joined with what it
//! includes and extends, and merged over the ones before it.
//!
//! What a file needs and the caller has not told yet is noted as wanted; the tree is then not complete,
//! and `load` asks before it looks at it further.

use std::collections::{BTreeMap, BTreeSet};

use crate::canonical;
use crate::decode::EnvFile;
use crate::diagnostic::Report;
use crate::interpolate::{Variables, interpolate};
use crate::load::{FileContent, Request};
use crate::merge::merge;
use crate::paths::{self, Base};
use crate::project::At;
use crate::source::Span;
use crate::value::{Map, Node, Value};
use crate::{dotenv, suggest, yaml};

/// Files of one load, included and extended ones counted; far above what anyone writes.
const FILES_MAX: usize = 1_000;
/// How deep includes, and how deep extensions, may be nested.
const CHAIN_MAX: usize = 50;

pub(crate) struct Assembler<'q> {
    pub request: &'q Request,
    pub report: Report,
    pub variables: Variables<'q>,
    pub wanted: BTreeSet<String>,
    /// A file is not YAML: what the others lack cannot be told.
    pub broken: bool,
    /// Services that could not be put together: what they lack has been said.
    pub unextended: BTreeSet<String>,
    /// Files that are extended, prepared.
    extended: BTreeMap<String, Option<Map>>,
    reads: usize,
}

impl<'q> Assembler<'q> {
    pub fn new(request: &'q Request) -> Self {
        Self {
            request,
            report: Report::default(),
            variables: Variables { known: Some(&request.variables), ..Variables::default() },
            wanted: BTreeSet::new(),
            broken: false,
            unextended: BTreeSet::new(),
            extended: BTreeMap::new(),
            reads: 0,
        }
    }

    /// The bytes of a file by its absolute path (or `-`); without a place, of the command line's.
    /// `Ok(None)` while it is wanted; `Err` says why it cannot be read.
    pub fn bytes(&mut self, path: &str) -> Result<Option<&'q [u8]>, String> {
        match self.request.contents.get(path) {
            Some(FileContent::Bytes(bytes)) => Ok(Some(bytes)),
            Some(FileContent::Missing) => Err("there is no such file".to_owned()),
            Some(FileContent::Unreadable(why)) => Err(why.clone()),
            None => {
                self.wanted.insert(path.to_owned());
                Ok(None)
            }
        }
    }

    /// As text, registered as a source; `None` while wanted or after a report.
    fn text(&mut self, path: &str, at: Option<Span>) -> Option<(u16, &'q str)> {
        let problem = match self.bytes(path) {
            Ok(None) => return None,
            Ok(Some(bytes)) => match std::str::from_utf8(bytes) {
                Ok(text) if self.reads < FILES_MAX => {
                    self.reads += 1;
                    return Some((self.report.sources.add(&self.shown(path), text), text));
                }
                Ok(_) => format!("more than {FILES_MAX} files are included"),
                Err(_) => "it is not UTF-8 text".to_owned(),
            },
            Err(problem) => problem,
        };
        let message = format!("cannot read {}: {problem}", self.shown(path));
        match at {
            Some(span) => self.report.error(span, message),
            None => self.report.error_nowhere(message),
        };
        self.broken |= at.is_none();
        None
    }

    /// As a user would name the file, standing in the working directory.
    pub fn shown(&self, path: &str) -> String {
        if path == "-" {
            return "<stdin>".to_owned();
        }
        let inside = path.strip_prefix(&self.request.working_directory).and_then(|rest| rest.strip_prefix('/'));
        inside.unwrap_or(path).to_owned()
    }

    /// Reads variables from a file below what is already known.
    pub fn env_file(&mut self, path: &str, at: Option<Span>) {
        let Some((file, text)) = self.text(path, at) else { return };
        let values = self.parse_env(file, text, false, &BTreeMap::new());
        for (name, value) in values {
            self.variables.files.entry(name).or_insert(value);
        }
    }

    fn parse_env(
        &mut self,
        file: u16,
        text: &str,
        raw: bool,
        earlier: &BTreeMap<String, String>,
    ) -> BTreeMap<String, String> {
        let variables = &mut self.variables;
        let mut lookup = |name: &str| variables.get(name).or_else(|| earlier.get(name).cloned());
        match raw {
            true => dotenv::parse_raw(file, text, &mut lookup, &mut self.report),
            false => dotenv::parse(file, text, &mut lookup, &mut self.report),
        }
    }

    /// A service's file of variables, which may refer to those of the files before it.
    /// `None` while wanted, and after a report.
    pub fn service_env(
        &mut self,
        file: &EnvFile,
        earlier: &BTreeMap<String, String>,
    ) -> Option<BTreeMap<String, String>> {
        let EnvFile { path, required, raw } = file;
        if !*required && matches!(self.request.contents.get(&path.value), Some(FileContent::Missing)) {
            return None;
        }
        let (file, text) = self.text(&path.value, Some(path.span))?;
        Some(self.parse_env(file, text, *raw, earlier))
    }

    /// The merged tree of a project's files, all relative to `folder`.
    pub fn project(&mut self, files: &[At<String>], folder: &str, chain: &[String]) -> Map {
        let mut model = Map::default();
        for file in files {
            let at = (!chain.is_empty()).then_some(file.span);
            let Some((id, text)) = self.text(&file.value, at) else { continue };
            let Some(documents) = yaml::parse(id, text, &mut self.report) else {
                self.broken = true;
                continue;
            };
            for document in documents {
                if let Some(map) = self.document(document, &file.value, folder, chain) {
                    merge(&mut model, map, &[], &mut self.report);
                }
            }
        }
        model
    }

    fn document(&mut self, mut document: Node, file: &str, folder: &str, chain: &[String]) -> Option<Map> {
        if document.value == Value::Null {
            return None;
        }
        self.prepare(&mut document, folder);
        let Value::Map(mut map) = document.value else {
            self.report
                .error(document.span, format!("a compose file must be a mapping, not {}", document.kind()))
                .with_help("start with services:");
            return None;
        };
        self.extend(&mut map, file, folder);
        match self.included(&map, file, folder, chain) {
            Some(mut base) => {
                merge(&mut base, map, &[], &mut self.report);
                Some(base)
            }
            None => Some(map),
        }
    }

    fn prepare(&mut self, document: &mut Node, folder: &str) {
        interpolate(document, &mut self.variables, &mut self.report);
        canonical::canonicalize(document, &mut self.report);
        paths::resolve(document, &Base { folder, home: self.request.home.as_deref() });
    }

    /// All that a file includes, merged; an earlier include wins over a later one.
    fn included(&mut self, map: &Map, file: &str, folder: &str, chain: &[String]) -> Option<Map> {
        let node = map.get("include")?;
        let Value::List(items) = &node.value else {
            self.report
                .error(node.span, format!("include must be a list, not {}", node.kind()))
                .with_help("write include: and below it - path/to/compose.yml");
            return None;
        };
        let chain: Vec<String> = chain.iter().cloned().chain([file.to_owned()]).collect();
        let mut all = Map::default();
        for item in items.iter().rev() {
            if let Some(one) = self.include(item, folder, &chain) {
                merge(&mut all, one, &[], &mut self.report);
            }
        }
        Some(all)
    }

    fn include(&mut self, item: &Node, folder: &str, chain: &[String]) -> Option<Map> {
        let base = Base { folder, home: self.request.home.as_deref() };
        let paths_of = |key: &str| -> Vec<At<String>> {
            let list = item.as_map().and_then(|map| map.get(key)).and_then(Node::as_list).unwrap_or_default();
            let at = |node: &Node| Some(At { span: node.span, value: base.absolute(node.as_str()?) });
            list.iter().filter_map(at).collect()
        };
        let files = paths_of("path");
        let env_files = paths_of("env_file");
        let Some(first) = files.first() else {
            self.report.error(item.span, "this include has no path").with_help("write - path/to/compose.yml");
            return None;
        };
        if let Some(cycle) = files.iter().find(|file| chain.contains(&file.value)) {
            let walk: Vec<String> = chain.iter().chain([&cycle.value]).map(|path| self.shown(path)).collect();
            self.report.error(cycle.span, format!("include cycle: {}", walk.join(" includes ")));
            return None;
        }
        if chain.len() > CHAIN_MAX {
            self.report.error(item.span, format!("includes are nested deeper than {CHAIN_MAX}"));
            return None;
        }
        let given = item.as_map().and_then(|map| map.get("project_directory")).and_then(Node::as_str);
        let its_folder = given.map_or_else(|| paths::folder(&first.value).to_owned(), |given| base.absolute(given));
        let outer = self.variables.files.clone();
        if env_files.is_empty() {
            let default = format!("{}/.env", its_folder.trim_end_matches('/'));
            self.optional_env_file(&default);
        }
        for env_file in env_files.iter().filter(|file| file.value != "/dev/null") {
            self.env_file(&env_file.value, Some(env_file.span));
        }
        let map = self.project(&files, &its_folder, chain);
        self.variables.files = outer;
        Some(map)
    }

    pub fn optional_env_file(&mut self, path: &str) {
        if !matches!(self.request.contents.get(path), Some(FileContent::Missing)) {
            self.env_file(path, None);
        }
    }

    /// Puts what services extend under them.
    fn extend(&mut self, map: &mut Map, file: &str, folder: &str) {
        let Some(services) = map.get("services").and_then(Node::as_map) else { return };
        let services = services.clone();
        let extending: Vec<String> = services
            .entries
            .iter()
            .filter(|entry| entry.value.as_map().is_some_and(|service| service.get("extends").is_some()))
            .map(|entry| entry.key.clone())
            .collect();
        for name in extending {
            let mut chain = Vec::new();
            let errors = self.report.error_count();
            let whole = self.extended_service(&services, &name, file, folder, &mut chain);
            if self.report.error_count() > errors {
                self.unextended.insert(name.clone());
            }
            let target =
                map.get_mut("services").and_then(Node::as_map_mut).and_then(|services| services.get_mut(&name));
            if let (Some(whole), Some(node)) = (whole, target) {
                node.value = Value::Map(whole);
            }
        }
    }

    fn extended_service(
        &mut self,
        services: &Map,
        name: &str,
        file: &str,
        folder: &str,
        chain: &mut Vec<(String, String)>,
    ) -> Option<Map> {
        let mut service = services.get(name)?.as_map()?.clone();
        let Some(extends) = service.remove("extends") else { return Some(service) };
        let span = extends.span;
        let from = extends.as_map().and_then(|map| map.get("service")).and_then(Node::as_str);
        let Some(from) = from else {
            self.report
                .error(span, format!("services.{name}.extends has no service"))
                .with_help("write extends: {service: base}, with file: for another file's");
            return Some(service);
        };
        chain.push((file.to_owned(), name.to_owned()));
        let other = extends.as_map().and_then(|map| map.get("file")).and_then(Node::as_str);
        let base = Base { folder, home: self.request.home.as_deref() };
        let other = other.map(|path| base.absolute(path)).filter(|path| path != file);
        let its_file = other.as_deref().unwrap_or(file).to_owned();
        if chain.contains(&(its_file.clone(), from.to_owned())) || chain.len() > CHAIN_MAX {
            let walk: Vec<&str> = chain.iter().map(|(_, name)| name.as_str()).chain([from]).collect();
            self.report.error(span, format!("services extend each other in a circle: {}", walk.join(" extends ")));
            return Some(service);
        }
        let loaded;
        let (its_services, its_folder) = match &other {
            None => (services, folder),
            Some(path) => {
                loaded = self.services_of(path, span)?;
                (&loaded, paths::folder(path))
            }
        };
        if its_services.get(from).is_none() {
            let place = self.shown(&its_file);
            let known: Vec<&str> = its_services.entries.iter().map(|entry| entry.key.as_str()).collect();
            let problem = self
                .report
                .error(span, format!("services.{name} extends service `{from}`, which {place} does not have"));
            if let Some(near) = suggest::nearest(from, known) {
                problem.with_help(format!("did you mean `{near}`?"));
            }
            return Some(service);
        }
        let (its_services, its_folder) = (its_services.clone(), its_folder.to_owned());
        let mut whole = self.extended_service(&its_services, from, &its_file, &its_folder, chain)?;
        merge(&mut whole, service, &["services", name], &mut self.report);
        Some(whole)
    }

    /// The services of a file that is extended, relative to its own folder.
    fn services_of(&mut self, path: &str, at: Span) -> Option<Map> {
        if let Some(known) = self.extended.get(path) {
            return known.clone();
        }
        let (id, text) = self.text(path, Some(at))?;
        let mut documents = yaml::parse(id, text, &mut self.report).unwrap_or_else(|| {
            self.broken = true;
            Vec::new()
        });
        let mut services = None;
        for document in &mut documents {
            self.prepare(document, paths::folder(path));
            services =
                document.as_map().and_then(|map| map.get("services")).and_then(Node::as_map).cloned().or(services);
        }
        self.extended.insert(path.to_owned(), services.clone());
        services
    }
}
