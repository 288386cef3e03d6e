//! The loader from outside: files in, a project or diagnostics out.

// Tests touch the world that the crate does not, and a failed step is a failed test.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod errors;
mod loading;
mod oracle;
mod verdicts;

use std::collections::BTreeMap;

use skep_compose_spec::{Diagnostic, FileContent, Loaded, Request, load_with};

/// A folder `/app` of files and an environment, held in memory.
#[derive(Default)]
pub struct World {
    files: BTreeMap<String, String>,
    variables: BTreeMap<String, String>,
}

impl World {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn file(mut self, name: &str, text: &str) -> Self {
        let path = if name.starts_with('/') || name == "-" { name.to_owned() } else { format!("/app/{name}") };
        self.files.insert(path, text.to_owned());
        self
    }

    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.to_owned(), value.to_owned());
        self
    }

    pub fn load(&self, files: &[&str]) -> Result<Loaded, Vec<Diagnostic>> {
        let request = Request {
            files: files.iter().map(|file| (*file).to_owned()).collect(),
            working_directory: "/app".to_owned(),
            home: Some("/home/me".to_owned()),
            ..Request::default()
        };
        let read = |path: &str| match self.files.get(path) {
            Some(text) => FileContent::Bytes(text.as_bytes().into()),
            None => FileContent::Missing,
        };
        load_with(request, read, |name| self.variables.get(name).cloned())
    }
}

/// Loads one file.
pub fn load(text: &str) -> Result<Loaded, Vec<Diagnostic>> {
    World::new().file("compose.yml", text).load(&["compose.yml"])
}

pub fn shown(diagnostics: &[Diagnostic]) -> String {
    diagnostics.iter().map(Diagnostic::to_string).collect()
}
