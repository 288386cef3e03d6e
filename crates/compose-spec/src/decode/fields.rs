//! Reading a mapping attribute by attribute, with every mistake reported where it stands.
//!
//! What is asked for is what is known: [`Fields::finish`] refuses the rest and suggests the nearest name.
//! Strings are accepted where a number or boolean is meant, since variables only give strings.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::diagnostic::Report;
use crate::project::{At, Strings};
use crate::value::{Entry, Map, Node, Value};
use crate::{suggest, units};

pub(crate) struct Fields<'n, 'r> {
    pub path: String,
    pub report: &'r mut Report,
    map: &'n Map,
    asked: Vec<&'static str>,
}

impl<'n, 'r> Fields<'n, 'r> {
    /// `None`, with a report, for what is no mapping.
    pub fn open(node: &'n Node, path: impl Into<String>, report: &'r mut Report) -> Option<Self> {
        let path = path.into();
        match &node.value {
            Value::Map(map) => Some(Self { path, report, map, asked: Vec::new() }),
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

    pub fn bool(&mut self, name: &'static str) -> Option<bool> {
        let node = self.node(name)?;
        let parsed = match &node.value {
            Value::Bool(value) => Some(*value),
            Value::Str(text) => match text.to_ascii_lowercase().as_str() {
                "true" | "yes" | "y" | "on" => Some(true),
                "false" | "no" | "n" | "off" => Some(false),
                _ => None,
            },
            _ => None,
        };
        if parsed.is_none() {
            let path = self.at(name);
            expected("true or false", node, &path, self.report);
        }
        parsed
    }

    /// A whole number of the type's range.
    pub fn whole<T: TryFrom<i128>>(&mut self, name: &'static str) -> Option<T> {
        self.whole_at(name).map(|at| at.value)
    }

    pub fn whole_at<T: TryFrom<i128>>(&mut self, name: &'static str) -> Option<At<T>> {
        let node = self.node(name)?;
        whole(node, &self.at(name), self.report).map(|value| At { span: node.span, value })
    }

    pub fn number(&mut self, name: &'static str) -> Option<f64> {
        let node = self.node(name)?;
        let parsed = match &node.value {
            Value::Int(value, _) => Some(*value as f64),
            Value::Float(value, _) => Some(*value),
            Value::Str(text) => text.parse().ok(),
            _ => None,
        };
        if parsed.is_none() {
            let path = self.at(name);
            expected("a number", node, &path, self.report);
        }
        parsed.filter(|value: &f64| value.is_finite())
    }

    pub fn duration(&mut self, name: &'static str) -> Option<Duration> {
        self.measured(name, "a duration such as 30s or 1m30s", units::duration).map(|at| at.value)
    }

    /// Bytes, as a number or with a unit.
    pub fn bytes(&mut self, name: &'static str) -> Option<At<u64>> {
        if let Some(Node { value: Value::Int(number, _), span, .. }) = self.map.get(name) {
            self.asked.push(name);
            let path = self.at(name);
            let Ok(value) = u64::try_from(*number) else {
                self.report.error(*span, format!("{path} must not be negative"));
                return None;
            };
            return Some(At { span: *span, value });
        }
        self.measured(name, "a size such as 512m or 1g", units::bytes)
    }

    pub fn nano_cpus(&mut self, name: &'static str) -> Option<At<u64>> {
        if let Some(Node { value: Value::Int(_, text) | Value::Float(_, text), span, .. }) = self.map.get(name) {
            self.asked.push(name);
            let path = self.at(name);
            return match units::nano_cpus(&text.replace('_', "")) {
                Ok(value) => Some(At { span: *span, value }),
                Err(problem) => {
                    self.report.error(*span, format!("{path}: {problem}"));
                    None
                }
            };
        }
        self.measured(name, "a number of cores such as 0.5", units::nano_cpus)
    }

    fn measured<T>(
        &mut self,
        name: &'static str,
        what: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<At<T>> {
        let node = self.node(name)?;
        let path = self.at(name);
        let Value::Str(text) = &node.value else {
            let problem = expected(what, node, &path, self.report);
            if let Value::Int(number, _) = node.value {
                problem.with_help(format!("a number needs its unit: {number}s"));
            }
            return None;
        };
        match parse(text) {
            Ok(value) => Some(At { span: node.span, value }),
            Err(problem) => {
                self.report.error(node.span, format!("{path}: {problem}"));
                None
            }
        }
    }

    /// Permission bits: a number as it is (YAML reads 0440 as octal), or a string of octal digits.
    pub fn mode(&mut self, name: &'static str) -> Option<u32> {
        let node = self.node(name)?;
        let parsed = match &node.value {
            Value::Int(number, _) => u32::try_from(*number).ok(),
            Value::Str(text) => u32::from_str_radix(text.trim_start_matches("0o"), 8).ok(),
            _ => None,
        };
        let path = self.at(name);
        if parsed.is_none_or(|mode| mode > 0o7777) {
            self.report
                .error(node.span, format!("{path} must be permission bits"))
                .with_help("write them in octal: 0440, or \"0440\"");
            return None;
        }
        if let Value::Int(number, text) = &node.value
            && text.bytes().next().is_some_and(|b| b != b'0')
            && text.len() == 3
        {
            let meant = text.clone();
            self.report
                .warning(node.span, format!("{path}: {meant} is read as a decimal number, {number:#o} in octal"))
                .with_help(format!("write 0{meant} for the usual meaning"));
        }
        parsed
    }

    /// One word of several.
    pub fn choice<T: Copy>(&mut self, name: &'static str, choices: &[(&'static str, T)]) -> Option<At<T>> {
        let node = self.node(name)?;
        let path = self.at(name);
        let text = string(node, &path, self.report)?;
        if let Some((_, value)) = choices.iter().find(|(word, _)| *word == text) {
            return Some(At { span: node.span, value: *value });
        }
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let problem = self.report.error(node.span, format!("{path} must be one of {}, not `{text}`", words.join(", ")));
        if let Some(near) = suggest::nearest(&text, words.iter().copied()) {
            problem.with_help(format!("did you mean `{near}`?"));
        }
        None
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

    /// Refuses what was never asked for; `x-` is everyone's own.
    pub fn finish(self) {
        for Entry { key, key_span, .. } in &self.map.entries {
            if key.starts_with("x-") || self.asked.iter().any(|name| name == key) {
                continue;
            }
            let owner = if self.path.is_empty() { "a compose file" } else { &self.path };
            let problem = self.report.error(*key_span, format!("{owner} has no attribute `{key}`"));
            let here = self.asked.iter().copied();
            match suggest::nearest(key, here) {
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

pub(crate) fn whole<T: TryFrom<i128>>(node: &Node, path: &str, report: &mut Report) -> Option<T> {
    let number = match &node.value {
        Value::Int(number, _) => Some(*number),
        Value::Float(number, _) if number.fract() == 0.0 && number.abs() < 1e15 => Some(*number as i128),
        Value::Str(text) => text.trim().parse().ok(),
        _ => None,
    };
    let Some(number) = number else {
        expected("a whole number", node, path, report);
        return None;
    };
    match T::try_from(number) {
        Ok(value) => Some(value),
        Err(_) if number < 0 => {
            report.error(node.span, format!("{path} must not be negative"));
            None
        }
        Err(_) => {
            report.error(node.span, format!("{path} is out of range: {number}"));
            None
        }
    }
}
