//! Scalars with a meaning: booleans, numbers, durations, sizes, permission bits, words of a choice.

use std::time::Duration;

use super::fields::{Fields, expected, string};
use crate::diagnostic::Report;
use crate::project::At;
use crate::value::{Node, Value};
use crate::{suggest, units};

impl Fields<'_, '_> {
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
        if let Some((_, value)) = choices.iter().find(|(word, _)| word.eq_ignore_ascii_case(&text)) {
            return Some(At { span: node.span, value: *value });
        }
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let problem = self.report.error(node.span, format!("{path} must be one of {}, not `{text}`", words.join(", ")));
        if let Some(near) = suggest::nearest(&text, words.iter().copied()) {
            problem.with_help(format!("did you mean `{near}`?"));
        }
        None
    }
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
