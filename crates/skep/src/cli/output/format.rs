//! `--format`: JSON, or a template with `{{.Key}}` in Go's way.
//!
//! Of Go's templates only what listings and scripts use most: paths, `json`, `upper`, `lower`, `len` and
//! `index .Map "key"`. All else is refused by name.

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::cli::Result;

const SUPPORTED: &str =
    "use {{.Key}}, {{json .Key}}, {{upper .Key}}, {{lower .Key}}, {{len .Key}} or {{index .Map \"key\"}}";

/// What a listing is to look like.
#[derive(Debug)]
pub enum Format {
    /// The listing's own columns.
    Table,
    /// Columns that the template names, separated by tabs, below their headers.
    Columns(Template),
    /// An object a line.
    Json,
    /// A line for each object.
    Lines(Template),
}

#[derive(Debug, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Value { function: Function, path: Vec<String> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Function {
    Plain,
    Json,
    Upper,
    Lower,
    Length,
}

impl Format {
    pub fn parse(text: Option<&str>) -> Result<Self> {
        Ok(match text {
            None | Some("table" | "") => Format::Table,
            Some("json") => Format::Json,
            Some(text) => match text.strip_prefix("table ") {
                Some(columns) => Format::Columns(Template::parse(columns)?),
                None => Format::Lines(Template::parse(text)?),
            },
        })
    }
}

impl Template {
    pub fn parse(text: &str) -> Result<Self> {
        // A shell passes these two on as they are typed.
        let text = text.replace("\\t", "\t").replace("\\n", "\n");
        let mut pieces = Vec::new();
        let mut rest = text.as_str();
        while let Some(open) = rest.find("{{") {
            if open > 0 {
                pieces.push(Piece::Text(rest[..open].to_owned()));
            }
            let inner = &rest[open + 2..];
            let close = inner.find("}}").with_context(|| format!("the format `{text}` lacks a closing }}}}"))?;
            pieces.push(action(&inner[..close])?);
            rest = &inner[close + 2..];
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Ok(Self(pieces))
    }

    pub fn render(&self, object: &Value) -> Result<String> {
        let mut text = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(plain) => text.push_str(plain),
                Piece::Value { function, path } => text.push_str(&apply(*function, find(object, path)?)?),
            }
        }
        Ok(text)
    }

    /// The same with each key replaced by `name(key)`: a header.
    pub fn header(&self, name: impl Fn(&str) -> String) -> String {
        let shown = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Value { path, .. } => path.last().map(|key| name(key)).unwrap_or_default(),
        };
        self.0.iter().map(shown).collect()
    }
}

/// What stands between two pairs of braces.
fn action(text: &str) -> Result<Piece> {
    let refused = || format!("`{{{{{text}}}}}` is not supported in a format; {SUPPORTED}");
    let words = words(text).with_context(refused)?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (function, place, keys) = match words.as_slice() {
        [place] => (Function::Plain, *place, &[][..]),
        ["json", place] => (Function::Json, *place, &[][..]),
        ["upper", place] => (Function::Upper, *place, &[][..]),
        ["lower", place] => (Function::Lower, *place, &[][..]),
        ["len", place] => (Function::Length, *place, &[][..]),
        ["index", place, keys @ ..] if !keys.is_empty() => (Function::Plain, *place, keys),
        _ => bail!(refused()),
    };
    let path = place.strip_prefix('.').with_context(refused)?;
    let mut path: Vec<String> = path.split('.').filter(|key| !key.is_empty()).map(str::to_owned).collect();
    path.extend(keys.iter().map(|key| (*key).to_owned()));
    Ok(Piece::Value { function, path })
}

/// Words, and strings in double quotes; `None` for a string that does not end.
fn words(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (word, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => rest.split_once(char::is_whitespace).unwrap_or((rest, "")),
        };
        words.push(word.to_owned());
        rest = after.trim_start();
    }
    Some(words)
}

/// A first key that is not there is a mistake; below it, Docker's objects leave out what is empty.
fn find<'v>(object: &'v Value, path: &[String]) -> Result<&'v Value> {
    let mut place = object;
    for (depth, key) in path.iter().enumerate() {
        let next = match place {
            Value::Object(map) => map.get(key),
            Value::Array(items) => key.parse::<usize>().ok().and_then(|index| items.get(index)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
        };
        let Some(next) = next else {
            if depth > 0 {
                return Ok(&Value::Null);
            }
            let known = match object {
                Value::Object(map) => map.keys().map(String::as_str).collect::<Vec<_>>().join(", "),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => String::new(),
            };
            bail!("the format asks for `.{}`; there are {known}", path.join("."));
        };
        place = next;
    }
    Ok(place)
}

fn apply(function: Function, value: &Value) -> Result<String> {
    Ok(match function {
        Function::Plain => plain(value),
        Function::Json => serde_json::to_string(value).context("a JSON value is printable")?,
        Function::Upper => plain(value).to_uppercase(),
        Function::Lower => plain(value).to_lowercase(),
        Function::Length => match value {
            Value::Array(items) => items.len().to_string(),
            Value::Object(map) => map.len().to_string(),
            Value::String(text) => text.len().to_string(),
            Value::Null => "0".to_owned(),
            Value::Bool(_) | Value::Number(_) => bail!("`len` wants a list, a map or a string"),
        },
    })
}

/// As Go prints it.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(plain).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let entries = map.iter().map(|(key, value)| format!("{key}:{}", plain(value)));
            format!("map[{}]", entries.collect::<Vec<_>>().join(" "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use serde_json::json;

    fn check(template: &str, expected: Expect) {
        let object = json!({
            "Name": "web", "ID": "4711", "Ports": ["80", "443"], "Replicas": 2,
            "Spec": { "Labels": { "com.example.a": "b" }, "Mode": null },
        });
        let rendered = Template::parse(template).and_then(|template| template.render(&object));
        expected.assert_eq(&rendered.unwrap_or_else(|error| format!("error: {error:#}")));
    }

    #[test]
    fn templates_say_what_they_name() {
        check(r"{{.Name}}\t{{ .ID }}", expect!["web	4711"]);
        check(
            "{{json .}}",
            expect![[
                r#"{"ID":"4711","Name":"web","Ports":["80","443"],"Replicas":2,"Spec":{"Labels":{"com.example.a":"b"},"Mode":null}}"#
            ]],
        );
        check("{{.Spec.Labels}} {{.Ports}} {{len .Ports}}", expect!["map[com.example.a:b] [80 443] 2"]);
        check(r#"{{index .Spec.Labels "com.example.a"}} {{index .Ports 1}}"#, expect!["b 443"]);
        check("{{upper .Name}}, {{.Spec.Mode}}, {{json .Spec.None.Such}}", expect!["WEB, <no value>, null"]);
    }

    #[test]
    fn what_is_not_there_is_said_with_what_is() {
        check("{{.Nmae}}", expect!["error: the format asks for `.Nmae`; there are ID, Name, Ports, Replicas, Spec"]);
        check("{{.Name", expect!["error: the format `{{.Name` lacks a closing }}"]);
        check(
            "{{range .Ports}}x{{end}}",
            expect![[
                r#"error: `{{range .Ports}}` is not supported in a format; use {{.Key}}, {{json .Key}}, {{upper .Key}}, {{lower .Key}}, {{len .Key}} or {{index .Map "key"}}"#
            ]],
        );
    }
}
