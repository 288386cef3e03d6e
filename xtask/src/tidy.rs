//! Rules of this code base that the compiler does not know: crate arrows, bans of the pure crates, and the shape of files.
//!
//! Reports everything it finds, each with its place and what would be right.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell;
use crate::workspace::{Package, Workspace};

/// Which crates of ours each crate may use (docs/ARCHITECTURE.md has the picture). One that is not listed may use none.
const ARROWS: &[(&str, &[&str])] = &[
    ("skep-model", &[]),
    ("skep-compose-spec", &[]),
    ("skep-runtime", &[]),
    ("skep-image", &[]),
    ("skep-overlay", &[]),
    ("skep-orchestrator", &["model"]),
    ("skep-scheduler", &["model"]),
    ("skep-api", &["identity", "model"]),
    ("skep-identity", &["model"]),
    ("skep-stack", &["compose-spec", "model"]),
    ("skep-store", &["api", "identity", "model"]),
    ("skep-manager", &["store", "api", "identity", "image", "orchestrator", "scheduler", "stack", "model"]),
    ("skep-agent", &["api", "identity", "runtime", "image", "overlay", "model"]),
    ("skep-lab", &[]),
    (
        "skep",
        &[
            "agent",
            "api",
            "compose-spec",
            "identity",
            "image",
            "lab",
            "manager",
            "model",
            "orchestrator",
            "overlay",
            "runtime",
            "scheduler",
            "stack",
            "store",
        ],
    ),
    ("skep-sim", &["model", "orchestrator", "scheduler", "stack", "compose-spec", "api", "manager", "store"]),
    ("skep-bench", &["api", "identity", "manager", "model", "overlay", "scheduler", "store"]),
    ("xtask", &["lab"]),
];

/// Crates that decide and never do: `now`, ids and files come to them as arguments.
const PURE: &[&str] = &["skep-model", "skep-compose-spec", "skep-stack", "skep-scheduler", "skep-orchestrator"];
const NOT_IN_PURE: &[&str] = &["tokio", "tokio-util", "tokio-stream", "tonic", "hyper", "rand", "rustix", "libc"];
const CLOCKS_AND_FILES: &[&str] = &[
    "std::time::Instant::now",
    "std::time::SystemTime::now",
    "std::env::var",
    "std::fs::read",
    "std::fs::write",
    "std::fs::File::open",
];

const LINES_MAX: usize = 500;
const LINES_WITHOUT_HEADER_MAX: usize = 40;

/// Written in two parts, for this file is checked too.
const UNFINISHED: &[&str] = &[concat!("todo", "!("), concat!("unimplemented", "!(")];
const OF_ONE_MACHINE: &[&str] =
    &[concat!("/work", "/main"), concat!("/work", "/shared"), concat!("/work", "/target"), concat!("/root/", ".cargo")];

pub fn run() -> Result<()> {
    let workspace = Workspace::load()?;
    let mut findings = Vec::new();
    for package in &workspace.packages {
        check_arrows(package, &mut findings);
        check_purity(package, &mut findings)?;
    }
    let list = shell::read(Command::new("git").current_dir(&workspace.workspace_root).args(["ls-files", "-z"]))?;
    for name in list.split('\0').filter(|name| !name.is_empty()) {
        let path = workspace.workspace_root.join(name);
        // A file may be listed and deleted in the work tree; one that is not UTF-8 is data.
        if let Ok(text) = fs::read_to_string(&path) {
            check_text(name, &text, &mut findings);
        }
    }
    if findings.is_empty() {
        println!("tidy: ok");
        return Ok(());
    }
    bail!("tidy: {} findings\n  {}", findings.len(), findings.join("\n  "))
}

fn check_arrows(package: &Package, findings: &mut Vec<String>) {
    let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == package.name) else {
        findings.push(format!("{}: say in xtask/src/tidy.rs which crates it may use", package.manifest_path.display()));
        return;
    };
    // What tests use is not part of what a crate is; only what it is made of points downwards.
    for dependency in package.dependencies.iter().filter(|dependency| dependency.kind.as_deref() != Some("dev")) {
        let Some(ours) = dependency.name.strip_prefix("skep-") else { continue };
        if !allowed.contains(&ours) {
            findings.push(format!(
                "{} may not use {}: arrows point only down (docs/ARCHITECTURE.md)",
                package.name, dependency.name
            ));
        }
    }
}

fn check_purity(package: &Package, findings: &mut Vec<String>) -> Result<()> {
    if !PURE.contains(&package.name.as_str()) {
        return Ok(());
    }
    for dependency in package.dependencies.iter().filter(|dependency| dependency.kind.is_none()) {
        if NOT_IN_PURE.contains(&dependency.name.as_str()) {
            findings
                .push(format!("{} is pure and may not use {}: pass it in as a value", package.name, dependency.name));
        }
    }
    let folder = package.manifest_path.parent().context("a manifest is in a folder")?;
    let lints = fs::read_to_string(folder.join("clippy.toml")).unwrap_or_default();
    for banned in CLOCKS_AND_FILES.iter().filter(|banned| !lints.contains(&format!("\"{banned}\""))) {
        findings.push(format!("{}/clippy.toml: disallow {banned}, the crate is pure", folder.display()));
    }
    Ok(())
}

fn check_text(name: &str, text: &str, findings: &mut Vec<String>) {
    for (number, line) in text.lines().enumerate() {
        for path in OF_ONE_MACHINE.iter().filter(|path| line.contains(**path)) {
            findings.push(format!("{name}:{}: {path} is a path of one machine", number + 1));
        }
    }
    if Path::new(name).extension().is_some_and(|extension| extension == "rs") && !is_generated(name, text) {
        check_rust(name, text, findings);
    }
}

fn check_rust(name: &str, text: &str, findings: &mut Vec<String>) {
    let lines = text.lines().count();
    if lines > LINES_MAX {
        findings.push(format!("{name}: {lines} lines; over {LINES_MAX} it is more than one thing"));
    }
    if lines > LINES_WITHOUT_HEADER_MAX && !text.lines().any(|line| line.starts_with("//!")) {
        findings.push(format!("{name}: begin with `//!`: its job, its place in the flow, what it does not do"));
    }
    for (number, line) in text.lines().enumerate() {
        for word in UNFINISHED.iter().filter(|word| line.contains(**word)) {
            findings.push(format!("{name}:{}: {word}…) is not finished work", number + 1));
        }
    }
}

fn is_generated(name: &str, text: &str) -> bool {
    name.contains("/generated/") || text.lines().take(5).any(|line| line.contains("@generated"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, text: &str) -> Vec<String> {
        let mut findings = Vec::new();
        check_text(name, text, &mut findings);
        findings
    }

    #[test]
    fn a_long_file_needs_a_header_and_an_end() {
        assert_eq!(check("a.rs", &"x\n".repeat(40)).len(), 0);
        assert_eq!(check("a.rs", &"x\n".repeat(41)).len(), 1);
        assert_eq!(check("a.rs", &format!("//! Job.\n{}", "x\n".repeat(499))).len(), 0);
        assert_eq!(check("a.rs", &format!("//! Job.\n{}", "x\n".repeat(500))).len(), 1);
        assert_eq!(check("src/generated/a.rs", &"x\n".repeat(900)).len(), 0);
    }

    #[test]
    fn unfinished_work_and_machine_paths_are_found_with_their_line() {
        let text = format!("\n{})\n", UNFINISHED[0]);
        assert!(check("a.rs", &text)[0].starts_with("a.rs:2:"));
        assert!(check("a.md", &format!("see {}/x", OF_ONE_MACHINE[0]))[0].starts_with("a.md:1:"));
    }

    #[test]
    fn an_arrow_upwards_is_found() {
        let dependency = |name: &str, kind: Option<&str>| crate::workspace::Dependency {
            name: name.to_owned(),
            kind: kind.map(str::to_owned),
        };
        let package =
            |dependencies| Package { name: "skep-scheduler".into(), manifest_path: "Cargo.toml".into(), dependencies };
        let check = |dependencies| {
            let mut findings = Vec::new();
            check_arrows(&package(dependencies), &mut findings);
            findings.len()
        };
        assert_eq!(check(vec![dependency("skep-model", None), dependency("serde", None)]), 0);
        assert_eq!(check(vec![dependency("skep-orchestrator", None)]), 1);
        assert_eq!(check(vec![dependency("skep-orchestrator", Some("dev"))]), 0);
    }
}
