//! The tree that every step before the typed decoding works on: YAML's values, each with its place.

use crate::source::Span;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub span: Span,
    pub value: Value,
    pub merging: Merging,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    /// The number, and how it was written.
    Int(i128, String),
    /// The number, and how it was written.
    Float(f64, String),
    Str(String),
    List(Vec<Node>),
    Map(Map),
}

/// How a value meets the one of an earlier file under the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Merging {
    #[default]
    Usual,
    /// `!reset`: both go.
    Reset,
    /// `!override`: the earlier one goes.
    Override,
}

/// A mapping in the order of the file, its keys unique.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Map {
    pub entries: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub key: String,
    pub key_span: Span,
    pub value: Node,
}

impl Map {
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    pub fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        self.entries.iter_mut().find(|entry| entry.key == key).map(|entry| &mut entry.value)
    }

    pub fn remove(&mut self, key: &str) -> Option<Node> {
        let at = self.entries.iter().position(|entry| entry.key == key)?;
        Some(self.entries.remove(at).value)
    }

    /// Replaces the value of `key` in place, or adds it at the end.
    pub fn set(&mut self, key: &str, key_span: Span, value: Node) {
        match self.get_mut(key) {
            Some(old) => *old = value,
            None => self.entries.push(Entry { key: key.to_owned(), key_span, value }),
        }
    }

    /// Adds a value that was not written but follows from one that was, at the same place.
    pub fn imply(&mut self, key: &str, span: Span, value: Value) {
        self.set(key, span, Node::new(span, value));
    }
}

impl Node {
    pub fn new(span: Span, value: Value) -> Self {
        Self { span, value, merging: Merging::Usual }
    }

    pub fn str(span: Span, text: impl Into<String>) -> Self {
        Self::new(span, Value::Str(text.into()))
    }

    pub fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::Str(text) => Some(text),
            _ => None,
        }
    }

    pub fn as_map(&self) -> Option<&Map> {
        match &self.value {
            Value::Map(map) => Some(map),
            _ => None,
        }
    }

    pub fn as_map_mut(&mut self) -> Option<&mut Map> {
        match &mut self.value {
            Value::Map(map) => Some(map),
            _ => None,
        }
    }

    pub fn as_list(&self) -> Option<&[Node]> {
        match &self.value {
            Value::List(items) => Some(items),
            _ => None,
        }
    }

    /// A scalar as the string that Docker makes of it where a string is wanted but a number or boolean is
    /// allowed; `None` for lists, maps and null.
    pub fn scalar_text(&self) -> Option<String> {
        match &self.value {
            Value::Bool(value) => Some(value.to_string()),
            Value::Int(value, _) => Some(value.to_string()),
            Value::Float(value, _) => Some(crate::scalar::float_text(*value)),
            Value::Str(text) => Some(text.clone()),
            Value::Null | Value::List(_) | Value::Map(_) => None,
        }
    }

    /// What a message calls this kind of value.
    pub fn kind(&self) -> &'static str {
        match &self.value {
            Value::Null => "empty",
            Value::Bool(_) => "a boolean",
            Value::Int(..) => "a whole number",
            Value::Float(..) => "a number",
            Value::Str(_) => "a string",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }
}
