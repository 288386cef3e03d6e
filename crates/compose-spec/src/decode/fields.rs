//! Reading a mapping attribute by attribute, with every mistake reported where it stands.
//!
//! What is asked for is what is known: [`Fields::finish`] refuses the rest and suggests the nearest name.
//! Strings are accepted where a number or boolean is meant, since variables only give strings.

use std::collections::BTreeMap;

use crate::diagnostic::Report;
use crate::project::{At, Strings};
use crate::suggest;
use crate::value::{Entry, Map, Node, Value};

pub(crate) struct Fields<'n, 'r> {
    pub path: String,
    pub report: &'r mut Report,
    pub(super) map: &'n Map,
    pub(super) asked: Vec<&'static str>,
    /// Attributes that are often written here and belong elsewhere, with the place.
    misplaced: &'static [(&'static str, &'static [&'static str])],
}

impl<'n, 'r> Fields<'n, 'r> {
    /// `None`, with a report, for what is no mapping.
    pub fn open(node: &'n Node, path: impl Into<String>, report: &'r mut Report) -> Option<Self> {
        let path = path.into();
        match &node.value {
            Value::Map(map) => Some(Self { path, report, map, asked: Vec::new(), misplaced: &[] }),
            _ => {
                expected("a mapping", node, &path, report);
                None
            }
        }
    }

    /// The entry as it is, null included.
    pub fn entry(&mut self, name: &'static str) -> Option<&'n Entry> {
        self.asked.push(name);
        self.map.entry(name)
    }

    /// The value, null being absent.
    pub fn nullable(&mut self, name: &'static str) -> Option<&'n Node> {
        self.entry(name).map(|entry| &entry.value).filter(|node| node.value != Value::Null)
    }

    /// The value; an attribute without one is a mistake.
    pub fn node(&mut self, name: &'static str) -> Option<&'n Node> {
        let entry = self.entry(name)?;
        if entry.value.value == Value::Null {
            let path = self.at(name);
            self.report
                .error(entry.key_span, format!("{path} is empty"))
                .with_help("give it a value, or remove the line");
            return None;
        }
        Some(&entry.value)
    }

    pub fn at(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// Registers `name` and opens the mapping below it.
    pub fn child(&mut self, name: &'static str) -> Option<Fields<'n, '_>> {
        let node = self.node(name)?;
        let path = self.at(name);
        Fields::open(node, path, self.report)
    }

    /// The mapping's entries, for mappings whose keys are the user's.
    pub fn entries(&mut self, name: &'static str) -> &'n [Entry] {
        let Some(node) = self.node(name) else { return &[] };
        match &node.value {
            Value::Map(map) => &map.entries,
            _ => {
                let path = self.at(name);
                expected("a mapping", node, &path, self.report);
                &[]
            }
        }
    }

    pub fn items(&mut self, name: &'static str) -> &'n [Node] {
        let Some(node) = self.node(name) else { return &[] };
        match &node.value {
            Value::List(items) => items,
            _ => {
                let path = self.at(name);
                expected("a list", node, &path, self.report);
                &[]
            }
        }
    }

    pub fn string(&mut self, name: &'static str) -> Option<String> {
        let node = self.node(name)?;
        string(node, &self.at(name), self.report)
    }

    /// A string for which empty means absent.
    pub fn filled(&mut self, name: &'static str) -> Option<String> {
        self.string(name).filter(|text| !text.is_empty())
    }

    pub fn string_at(&mut self, name: &'static str) -> Option<At<String>> {
        let node = self.node(name)?;
        string(node, &self.at(name), self.report).map(|value| At { span: node.span, value })
    }

    /// A string, or a number as one.
    pub fn text(&mut self, name: &'static str) -> Option<String> {
        let node = self.node(name)?;
        text(node, &self.at(name), self.report)
    }

    /// A list of strings; numbers are taken as such.
    pub fn strings(&mut self, name: &'static str) -> Vec<String> {
        self.strings_at(name).into_iter().map(|at| at.value).collect()
    }

    pub fn strings_at(&mut self, name: &'static str) -> Vec<At<String>> {
        let items = self.items(name);
        let path = self.at(name);
        let read = |(index, item): (usize, &Node)| {
            let value = text(item, &format!("{path}.{index}"), self.report)?;
            Some(At { span: item.span, value })
        };
        items.iter().enumerate().filter_map(read).collect()
    }

    /// A mapping of scalars; null is an empty string.
    pub fn string_map(&mut self, name: &'static str) -> Strings {
        self.scalars(name).into_iter().map(|(key, value)| (key, value.unwrap_or_default())).collect()
    }

    /// A mapping of scalars, null kept apart.
    pub fn scalars(&mut self, name: &'static str) -> BTreeMap<String, Option<String>> {
        let entries = self.entries(name);
        let path = self.at(name);
        let mut map = BTreeMap::new();
        for Entry { key, value, .. } in entries {
            if value.value == Value::Null {
                map.insert(key.clone(), None);
            } else if let Some(text) = text(value, &format!("{path}.{key}"), self.report) {
                map.insert(key.clone(), Some(text));
            }
        }
        map
    }

    /// An attribute of the format that has no effect here; said if it was written.
    pub fn unsupported(&mut self, names: &[&'static str], help: Option<&str>) {
        for name in names {
            self.asked.push(name);
            let Some(entry) = self.map.entry(name) else { continue };
            let path = self.at(name);
            let warning = self.report.warning(entry.key_span, format!("{path} is not supported yet and has no effect"));
            if let Some(help) = help {
                warning.with_help(help);
            }
        }
    }

    /// Attributes that are someone else's to read.
    pub fn ignored(&mut self, names: &[&'static str]) {
        self.asked.extend(names);
    }

    /// An attribute of the format without which the result would be wrong; refused if it was written.
    pub fn refused(&mut self, name: &'static str, help: &str) {
        self.asked.push(name);
        if let Some(entry) = self.map.entry(name) {
            let path = self.at(name);
            self.report.error(entry.key_span, format!("{path} is not supported")).with_help(help);
        }
    }

    /// Where [`Fields::finish`] sends attributes that belong elsewhere.
    pub fn belongs(&mut self, places: &'static [(&'static str, &'static [&'static str])]) {
        self.misplaced = places;
    }

    /// Refuses what was never asked for; `x-` is everyone's own.
    pub fn finish(self) {
        for Entry { key, key_span, .. } in &self.map.entries {
            if key.starts_with("x-") || self.asked.iter().any(|name| name == key) {
                continue;
            }
            let owner = if self.path.is_empty() { "a compose file" } else { &self.path };
            let problem = self.report.error(*key_span, format!("{owner} has no attribute `{key}`"));
            let here = self.asked.iter().copied();
            let elsewhere = self.misplaced.iter().find(|(_, names)| names.contains(&key.as_str()));
            match suggest::nearest(key, here) {
                _ if let Some((place, _)) = elsewhere => problem.with_help(format!("it belongs under {place}")),
                Some(near) => problem.with_help(format!("did you mean `{near}`?")),
                None => problem.with_help("remove it, or name it x-… if it is for another tool"),
            };
        }
    }
}

pub(crate) fn expected<'r>(
    what: &str,
    node: &Node,
    path: &str,
    report: &'r mut Report,
) -> &'r mut crate::diagnostic::Diagnostic {
    let found = match &node.value {
        Value::Str(text) if text.is_empty() => "an empty string".to_owned(),
        Value::Str(text) if text.len() <= 40 => format!("`{text}`"),
        Value::Int(_, text) | Value::Float(_, text) if !text.is_empty() => format!("the number {text}"),
        Value::Bool(value) => format!("the boolean {value}"),
        _ => node.kind().to_owned(),
    };
    report.error(node.span, format!("{path} must be {what}, not {found}"))
}

pub(crate) fn string(node: &Node, path: &str, report: &mut Report) -> Option<String> {
    if let Value::Str(text) = &node.value {
        return Some(text.clone());
    }
    let written = match &node.value {
        Value::Int(_, text) | Value::Float(_, text) => Some(text.clone()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Null | Value::Str(_) | Value::List(_) | Value::Map(_) => None,
    };
    let problem = expected("a string", node, path, report);
    if let Some(written) = written {
        problem.with_help(format!("quote it: \"{written}\""));
    }
    None
}

/// A scalar as Docker turns it into a string, with a warning where that changes it.
pub(crate) fn text(node: &Node, path: &str, report: &mut Report) -> Option<String> {
    let Some(text) = node.scalar_text() else {
        expected("a string", node, path, report);
        return None;
    };
    if let Value::Int(_, written) | Value::Float(_, written) = &node.value
        && *written != text
        && !written.is_empty()
    {
        report
            .warning(node.span, format!("{path}: {written} is a number to YAML and becomes `{text}`"))
            .with_help(format!("quote it to keep it as it is: \"{written}\""));
    }
    Some(text)
}
