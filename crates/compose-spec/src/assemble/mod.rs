//! Files to one tree: each is parsed, filled in, made canonical, given absolute paths, joined with what it
//! includes and extends, and merged over the ones before it.
//!
//! What a file needs and the caller has not told yet is noted as wanted; the tree is then not complete,
//! and `load` asks before it looks at it further.

mod extend;
mod include;

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
use crate::{dotenv, yaml};

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

    pub fn optional_env_file(&mut self, path: &str) {
        if !matches!(self.request.contents.get(path), Some(FileContent::Missing)) {
            self.env_file(path, None);
        }
    }
}
