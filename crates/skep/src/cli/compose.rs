//! Compose files from the user's disk, input and environment; what is wrong with them goes to standard error.

use std::env;
use std::io::{self, Read};

use anyhow::Context as _;
use clap::Args;
use skep_compose_spec::{Diagnostic, FileContent, Project, Request, Severity, load_with};

use super::Result;
use super::failure::Exit;
use super::output;

/// The largest file that is read: a secret or config has a megabyte at most, a compose file far less.
const FILE_BYTES_MAX: u64 = 16 << 20;

#[derive(Debug, Args)]
pub struct Files {
    /// A compose file, or - for standard input; later ones over earlier ones
    #[arg(short, long = "compose-file", value_name = "FILE", required = true, value_delimiter = ',')]
    compose_file: Vec<String>,
}

/// The project as `name`, if one is given. Every mistake is said before the failure is returned.
pub fn load(files: &Files, name: Option<&str>) -> Result<Project> {
    let folder = env::current_dir().context("failed to find the current folder")?;
    let request = Request {
        files: files.compose_file.clone(),
        working_directory: folder.to_str().context("the current folder's name is not UTF-8")?.to_owned(),
        project_name: name.map(str::to_owned),
        home: env::var("HOME").ok(),
        ..Request::default()
    };
    match load_with(request, read, |name| env::var(name).ok()) {
        Ok(loaded) => {
            tell(&loaded.warnings);
            Ok(loaded.project)
        }
        Err(diagnostics) => Err(refuse(&diagnostics)),
    }
}

/// Shows each diagnostic as it is.
pub fn tell(diagnostics: &[Diagnostic]) {
    for diagnostic in diagnostics {
        output::raw_complaint(&diagnostic.to_string());
    }
}

/// Shows all, and ends with how many errors there are.
pub fn refuse(diagnostics: &[Diagnostic]) -> anyhow::Error {
    tell(diagnostics);
    let errors = diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).count();
    let plural = if errors == 1 { "" } else { "s" };
    Exit::saying(1, format!("{errors} error{plural} in the compose file; nothing was changed"))
}

fn read(path: &str) -> FileContent {
    let read = || -> io::Result<Vec<u8>> {
        let mut data = Vec::new();
        let limit = FILE_BYTES_MAX + 1;
        match path {
            "-" => io::stdin().take(limit).read_to_end(&mut data)?,
            path => std::fs::File::open(path)?.take(limit).read_to_end(&mut data)?,
        };
        match data.len() as u64 > FILE_BYTES_MAX {
            true => Err(io::Error::other(format!("it has more than {FILE_BYTES_MAX} bytes"))),
            false => Ok(data),
        }
    };
    match read() {
        Ok(data) => FileContent::Bytes(data.into()),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound => FileContent::Missing,
            io::ErrorKind::PermissionDenied => FileContent::Unreadable("permission denied".to_owned()),
            io::ErrorKind::IsADirectory => FileContent::Unreadable("it is a folder".to_owned()),
            _ => FileContent::Unreadable(error.to_string()),
        },
    }
}
