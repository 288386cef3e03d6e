//! What a template's expressions stand for.

use std::collections::BTreeMap;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Text(String),
    Number(i64),
    Bool(bool),
    /// Keys of a user's: labels.
    Map(BTreeMap<String, String>),
    /// Keys that are known: `.Service` and its like.
    Object(BTreeMap<&'static str, Value>),
}

impl Value {
    /// As it is printed.
    pub fn shown(&self) -> Result<String, String> {
        match self {
            Value::Text(text) => Ok(text.clone()),
            Value::Number(number) => Ok(number.to_string()),
            Value::Bool(bool) => Ok(bool.to_string()),
            Value::Map(map) => {
                let entries: Vec<String> = map.iter().map(|(key, value)| format!("{key}:{value}")).collect();
                Ok(format!("map[{}]", entries.join(" ")))
            }
            Value::Object(fields) => Err(format!("this has parts and cannot be printed as a whole: {}", named(fields))),
        }
    }

    /// What `if` takes for true: all but what is empty or zero.
    pub fn is_true(&self) -> bool {
        match self {
            Value::Text(text) => !text.is_empty(),
            Value::Number(number) => *number != 0,
            Value::Bool(bool) => *bool,
            Value::Map(map) => !map.is_empty(),
            Value::Object(_) => true,
        }
    }

    pub fn field(&self, name: &str) -> Result<Value, String> {
        match self {
            Value::Object(fields) => {
                fields.get(name).cloned().ok_or_else(|| format!("`.{name}` is not known; {}", named(fields)))
            }
            Value::Map(map) => self.entry(map, name),
            Value::Text(_) | Value::Number(_) | Value::Bool(_) => {
                Err(format!("`.{name}` is asked of {}, which has no parts", self.kind()))
            }
        }
    }

    fn entry(&self, map: &BTreeMap<String, String>, key: &str) -> Result<Value, String> {
        let absent = || {
            let there: Vec<&str> = map.keys().map(String::as_str).collect();
            let there =
                if there.is_empty() { "there are none".to_owned() } else { format!("there are {}", there.join(", ")) };
            format!("no label is named `{key}`; {there}")
        };
        map.get(key).map(|value| Value::Text(value.clone())).ok_or_else(absent)
    }

    /// `index .Service.Labels "key"`: in Go, too, what is not there is empty.
    pub fn index(&self, key: &Value) -> Result<Value, String> {
        match (self, key) {
            (Value::Map(map), Value::Text(key)) => Ok(Value::Text(map.get(key).cloned().unwrap_or_default())),
            _ => Err(format!("`index` takes labels and a name, not {} and {}", self.kind(), key.kind())),
        }
    }

    /// For `range`, in the order of the keys.
    pub fn entries(&self) -> Result<Vec<(String, Value)>, String> {
        match self {
            Value::Map(map) => Ok(map.iter().map(|(key, value)| (key.clone(), Value::Text(value.clone()))).collect()),
            Value::Text(_) | Value::Number(_) | Value::Bool(_) | Value::Object(_) => {
                Err(format!("`range` goes over labels, not over {}", self.kind()))
            }
        }
    }

    pub fn kind(&self) -> &'static str {
        match self {
            Value::Text(_) => "a text",
            Value::Number(_) => "a number",
            Value::Bool(_) => "true or false",
            Value::Map(_) => "labels",
            Value::Object(_) => "something with parts",
        }
    }
}

fn named(fields: &BTreeMap<&'static str, Value>) -> String {
    let names: Vec<String> = fields.keys().map(|name| format!(".{name}")).collect();
    format!("use {}", names.join(", "))
}
