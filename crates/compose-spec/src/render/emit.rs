//! YAML text from a small tree; strings are quoted exactly when another reader could take them for
//! something else.

use std::fmt::Write;

use crate::scalar;
use crate::value::Value;

pub(super) enum Tree {
    /// A scalar as it appears in the text.
    Scalar(String),
    List(Vec<Tree>),
    Map(Vec<(String, Tree)>),
    /// Stands for an attribute that is not there.
    Absent,
}

impl Tree {
    pub fn map() -> Self {
        Tree::Map(Vec::new())
    }

    pub fn null() -> Self {
        Tree::raw("null")
    }

    /// A number or boolean.
    pub fn raw(value: impl ToString) -> Self {
        Tree::Scalar(value.to_string())
    }

    /// A string that is the file's own, so that its dollar signs must not be filled in again.
    pub fn text(text: &str) -> Self {
        Tree::Scalar(quoted(&text.replace('$', "$$")))
    }

    pub fn optional(text: Option<impl AsRef<str>>) -> Self {
        text.map_or(Tree::Absent, |text| Tree::text(text.as_ref()))
    }

    pub fn list(items: impl IntoIterator<Item = Tree>) -> Self {
        Tree::List(items.into_iter().collect())
    }

    pub fn strings(items: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        Tree::list(items.into_iter().map(|item| Tree::text(item.as_ref())))
    }

    pub fn map_of(entries: impl IntoIterator<Item = (impl AsRef<str>, Tree)>) -> Self {
        Tree::Map(entries.into_iter().map(|(key, value)| (key.as_ref().to_owned(), value)).collect())
    }

    pub fn strings_map<'s>(map: impl IntoIterator<Item = (&'s String, &'s String)>) -> Self {
        Tree::map_of(map.into_iter().map(|(key, value)| (key, Tree::text(value))))
    }

    /// Adds an attribute to a map, unless it is absent or empty.
    pub fn set(&mut self, key: &str, value: Tree) {
        let empty = match &value {
            Tree::Absent => true,
            Tree::List(items) => items.is_empty(),
            Tree::Map(entries) => entries.is_empty(),
            Tree::Scalar(_) => false,
        };
        if !empty {
            self.put(key, value);
        }
    }

    pub fn flag(&mut self, key: &str, value: bool) {
        if value {
            self.put(key, Tree::raw("true"));
        }
    }

    /// A list for which being empty says something.
    pub fn optional_list(&mut self, key: &str, items: Option<&[String]>) {
        if let Some(items) = items {
            self.put(key, Tree::strings(items));
        }
    }

    fn put(&mut self, key: &str, value: Tree) {
        match self {
            Tree::Map(entries) => entries.push((key.to_owned(), value)),
            Tree::Scalar(_) | Tree::List(_) | Tree::Absent => unreachable!("attributes are set on maps"),
        }
    }

    pub fn to_yaml(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, 0);
        out
    }

    fn write(&self, out: &mut String, indent: usize) {
        let pad = " ".repeat(indent);
        match self {
            Tree::Absent => {}
            Tree::Scalar(text) => writeln!(out, "{pad}{text}").expect("a string takes what is written to it"),
            Tree::Map(entries) => {
                for (key, value) in entries {
                    write!(out, "{pad}{}:", quoted(key)).expect("a string takes what is written to it");
                    value.write_value(out, indent + 2);
                }
            }
            Tree::List(items) => {
                for item in items {
                    let mut text = String::new();
                    item.write(&mut text, indent + 2);
                    // The dash takes the place of the first line's indent.
                    let body = text.get(indent + 2..).unwrap_or_default();
                    write!(out, "{pad}- {body}").expect("a string takes what is written to it");
                }
            }
        }
    }

    fn write_value(&self, out: &mut String, indent: usize) {
        match self {
            Tree::Absent => out.push('\n'),
            Tree::Scalar(text) => {
                out.push(' ');
                out.push_str(text);
                out.push('\n');
            }
            Tree::List(items) if items.is_empty() => out.push_str(" []\n"),
            Tree::Map(entries) if entries.is_empty() => out.push_str(" {}\n"),
            Tree::List(_) | Tree::Map(_) => {
                out.push('\n');
                self.write(out, indent);
            }
        }
    }
}

/// Plain where every YAML reader agrees that it is a string; YAML 1.1's booleans are quoted, too.
fn quoted(text: &str) -> String {
    let plain_characters = |c: char| c.is_alphanumeric() || "_-./$+@%()=,;<>^~ ".contains(c) || c == ':';
    let safe = matches!(scalar::resolve(text), Value::Str(_))
        && text.chars().all(plain_characters)
        && text.starts_with(|c: char| c.is_alphanumeric() || matches!(c, '/' | '.' | '_' | '$' | '+' | '('))
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !looks_like_sexagesimal(text)
        && !matches!(
            text.to_ascii_lowercase().as_str(),
            "y" | "n" | "yes" | "no" | "on" | "off" | "true" | "false" | "null"
        );
    if safe {
        return text.to_owned();
    }
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() || matches!(c, '\u{feff}' | '\u{2028}' | '\u{2029}') => {
                write!(out, "\\u{:04x}", u32::from(c)).expect("a string takes what is written to it");
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// `22:22` is a number to YAML 1.1, and a date is one to several.
fn looks_like_sexagesimal(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit() || c == '+' || c == '.')
        && text.chars().all(|c| c.is_ascii_digit() || matches!(c, ':' | '.' | '_' | '-' | '+'))
}
