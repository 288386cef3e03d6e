//! What rows are measured with, each made when a row first asks for it: a row without Docker downloads none.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use skep_lab::Docker;

use super::Options;
use crate::workspace::{Profile, Workspace};
use crate::{images, shell};

/// How much work a row does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// As the budgets say.
    Whole,
    /// Enough to see that the row works.
    Quick,
}

pub struct Bench {
    workspace: Workspace,
    binary: Option<PathBuf>,
    pub runs: u32,
    pub size: Size,
    skep: OnceCell<PathBuf>,
    parts: OnceCell<PathBuf>,
    images: OnceCell<PathBuf>,
    docker: OnceCell<Docker>,
}

impl Bench {
    pub fn new(workspace: Workspace, options: &Options) -> Bench {
        Bench {
            workspace,
            binary: options.binary.clone(),
            runs: if options.quick { 1 } else { options.runs.max(1) },
            size: if options.quick { Size::Quick } else { Size::Whole },
            skep: OnceCell::new(),
            parts: OnceCell::new(),
            images: OnceCell::new(),
            docker: OnceCell::new(),
        }
    }

    /// `whole`, or `quick` when only that the row works is to be seen.
    pub fn sized<T>(&self, whole: T, quick: T) -> T {
        match self.size {
            Size::Whole => whole,
            Size::Quick => quick,
        }
    }

    /// Where anchors are unpacked.
    pub fn anchors(&self) -> PathBuf {
        self.workspace.target_directory.join("anchors")
    }

    fn profile(&self) -> Profile {
        self.sized(Profile::Release, Profile::Dev)
    }

    /// The `skep` to measure.
    pub fn skep(&self) -> Result<&Path> {
        let built = once(&self.skep, || match &self.binary {
            Some(binary) => Ok(binary.clone()),
            None => self.workspace.build("skep", self.profile()),
        });
        built.map(PathBuf::as_path)
    }

    /// `skep-bench`, which measures parts of skep alone.
    pub fn parts(&self) -> Result<&Path> {
        once(&self.parts, || self.workspace.build("skep-bench", self.profile())).map(PathBuf::as_path)
    }

    /// The folder of a registry with the images that containers are made of.
    pub fn images(&self) -> Result<&Path> {
        once(&self.images, images::make).map(PathBuf::as_path)
    }

    pub fn docker(&self) -> Result<&Docker> {
        once(&self.docker, || crate::docker::unpack(&self.workspace.target_directory))
    }
}

/// Runs a part to its end and reads the JSON that it prints.
pub fn read_part<T: DeserializeOwned>(command: &mut Command) -> Result<T> {
    let text = shell::read(command)?;
    serde_json::from_str(&text).with_context(|| format!("cannot understand what was measured: {text}"))
}

fn once<T>(cell: &OnceCell<T>, make: impl FnOnce() -> Result<T>) -> Result<&T> {
    match cell.get() {
        Some(made) => Ok(made),
        None => {
            let made = make()?;
            Ok(cell.get_or_init(|| made))
        }
    }
}
