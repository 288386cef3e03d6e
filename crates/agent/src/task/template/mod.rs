//! Templates in Go's language: in environment values, host names and mount sources (`{{.Task.Slot}}`), and in secrets
//! and configs that are templates, whole files of them.
//!
//! ```text
//! text ─lex─▶ words ─parse─▶ nodes ─eval, with what the task is─▶ text
//! ```
//! Of the language there is what such files use: fields, variables, `if`, `with`, `range`, and the functions in
//! `functions`. Whatever else Go knows is refused by name and place, since a file with a brace left in it would fail
//! later and further away.

mod eval;
mod functions;
mod lex;
mod parse;
#[cfg(test)]
mod tests;
mod value;

use std::collections::BTreeMap;

use skep_model::{Slot, Task};

use value::Value;

/// What a template may ask of the node that it is expanded on.
#[derive(Debug, Clone)]
pub struct NodeFacts {
    pub id: String,
    pub hostname: String,
    pub os: String,
    pub architecture: String,
}

/// What is wrong with a template, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {}, column {}: {problem}", at.line, at.column)]
pub struct TemplateError {
    at: At,
    problem: String,
}

/// A place in a template, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct At {
    line: usize,
    column: usize,
}

impl At {
    fn of(source: &str, position: usize) -> Self {
        let before = &source[..position];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
    }

    fn error(self, problem: impl Into<String>) -> TemplateError {
        TemplateError { at: self, problem: problem.into() }
    }
}

/// The functions that reach beyond the template: `env`, `secret`, `config`, with the name that they are given.
type Outside<'a> = &'a dyn Fn(&str, &str) -> Result<String, String>;

/// What a template is rendered with.
struct Given<'a> {
    root: Value,
    outside: Outside<'a>,
}

/// Expands a value of a spec; the error is for the task's status.
pub fn expand(text: &str, task: &Task, node: &NodeFacts) -> Result<String, String> {
    if !text.contains("{{") {
        return Ok(text.to_owned());
    }
    let outside = |function: &str, _: &str| Err(format!("`{function}` is there in secrets and configs only"));
    let rendered = render(text, task, node, &outside);
    rendered.map_err(|TemplateError { at, problem }| format!("the template `{text}`, column {}: {problem}", at.column))
}

/// Renders a whole file.
pub fn render(source: &str, task: &Task, node: &NodeFacts, outside: Outside<'_>) -> Result<String, TemplateError> {
    let nodes = parse::parse(source)?;
    eval::render(&nodes, &Given { root: root(task, node), outside })
}

/// Swarm's context.
fn root(task: &Task, node: &NodeFacts) -> Value {
    let object = |fields: Vec<(&'static str, Value)>| Value::Object(BTreeMap::from_iter(fields));
    let text = |text: String| Value::Text(text);
    let slot = match task.slot {
        Slot::Replica(number) => number.to_string(),
        Slot::Node(node) => node.to_string(),
    };
    object(vec![
        (
            "Service",
            object(vec![
                ("ID", text(task.service.to_string())),
                ("Name", text(task.service_name.clone())),
                ("Labels", Value::Map(task.service_labels.clone())),
            ]),
        ),
        (
            "Task",
            object(vec![
                ("ID", text(task.id.to_string())),
                ("Name", text(task.container_name())),
                ("Slot", text(slot)),
            ]),
        ),
        (
            "Node",
            object(vec![
                ("ID", text(node.id.clone())),
                ("Hostname", text(node.hostname.clone())),
                (
                    "Platform",
                    object(vec![("OS", text(node.os.clone())), ("Architecture", text(node.architecture.clone()))]),
                ),
            ]),
        ),
    ])
}
