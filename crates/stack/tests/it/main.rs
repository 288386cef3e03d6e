//! From compose text to a stack's specs, and from there to what a deploy would change.

// Tests touch the world that the crate does not, and a failed step is a failed test.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod balancing;
mod converting;
mod order;
mod planning;

use std::collections::BTreeMap;

use skep_compose_spec::{Diagnostic, FileContent, Request, load_with};
use skep_stack::{Conversion, convert};

/// Converts one file in /app; `files` lie beside it.
pub fn convert_with(text: &str, files: &[(&str, &str)]) -> Result<Conversion, String> {
    let mut all: BTreeMap<String, String> =
        files.iter().map(|(name, text)| (format!("/app/{name}"), (*text).to_owned())).collect();
    all.insert("/app/compose.yml".to_owned(), text.to_owned());
    let request = Request {
        files: vec!["compose.yml".to_owned()],
        working_directory: "/app".to_owned(),
        project_name: Some("st".to_owned()),
        ..Request::default()
    };
    let read = |path: &str| match all.get(path) {
        Some(text) => FileContent::Bytes(text.as_bytes().into()),
        None => FileContent::Missing,
    };
    let loaded = load_with(request, read, |_| None).map_err(|errors| shown(&errors))?;
    assert_eq!(shown(&loaded.warnings), "", "the loader has nothing to say of these");
    convert(&loaded.project, "st").map_err(|errors| shown(&errors))
}

pub fn converted(text: &str) -> Conversion {
    convert_with(text, &[]).unwrap_or_else(|errors| panic!("{errors}"))
}

pub fn shown(diagnostics: &[Diagnostic]) -> String {
    diagnostics.iter().map(Diagnostic::to_string).collect()
}
