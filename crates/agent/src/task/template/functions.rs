//! The functions of templates: Swarm's own (`env`, `secret`, `config`, `join`) and Go's that make sense for files.
//!
//! `and` and `or` are with the evaluation, since they do not look at all of their arguments.

use std::cmp::Ordering;
use std::fmt::Write as _;

use super::Outside;
use super::value::Value;

const KNOWN: &str =
    "env, secret, config, join, and, or, not, eq, ne, lt, le, gt, ge, len, index, print, println, printf";

/// The error says what is wrong, not where.
pub fn call(name: &str, arguments: &[Value], outside: Outside<'_>) -> Result<Value, String> {
    match (name, arguments) {
        ("env" | "secret" | "config", [Value::Text(wanted)]) => outside(name, wanted).map(Value::Text),
        ("env" | "secret" | "config", _) => Err(format!("`{name}` takes one name: {{{{{name} \"NAME\"}}}}")),
        ("join", [separator, parts @ ..]) => {
            let parts = parts.iter().map(text).collect::<Result<Vec<_>, _>>()?;
            Ok(Value::Text(parts.join(text(separator)?)))
        }
        ("not", [value]) => Ok(Value::Bool(!value.is_true())),
        ("eq", [first, others @ ..]) if !others.is_empty() => {
            let mut equal = false;
            for other in others {
                equal |= compare(name, first, other)?.is_eq();
            }
            Ok(Value::Bool(equal))
        }
        ("ne", [a, b]) => Ok(Value::Bool(compare(name, a, b)?.is_ne())),
        ("lt", [a, b]) => Ok(Value::Bool(compare(name, a, b)?.is_lt())),
        ("le", [a, b]) => Ok(Value::Bool(compare(name, a, b)?.is_le())),
        ("gt", [a, b]) => Ok(Value::Bool(compare(name, a, b)?.is_gt())),
        ("ge", [a, b]) => Ok(Value::Bool(compare(name, a, b)?.is_ge())),
        ("len", [Value::Text(text)]) => Ok(Value::Number(text.len() as i64)),
        ("len", [Value::Map(map)]) => Ok(Value::Number(map.len() as i64)),
        ("index", [of, key]) => of.index(key),
        ("print", values) => print(values).map(Value::Text),
        ("println", values) => {
            let shown = values.iter().map(Value::shown).collect::<Result<Vec<_>, _>>()?;
            Ok(Value::Text(format!("{}\n", shown.join(" "))))
        }
        ("printf", [Value::Text(format), values @ ..]) => printf(format, values).map(Value::Text),
        ("printf", _) => Err("`printf` takes a format first: {{printf \"%s\" .Task.ID}}".to_owned()),
        ("join" | "not" | "eq" | "ne" | "lt" | "le" | "gt" | "ge" | "len" | "index", _) => {
            Err(format!("`{name}` is given {} values, or values of another kind than it takes", arguments.len()))
        }
        _ => Err(format!("the function `{name}` is not supported in templates; there are {KNOWN}")),
    }
}

fn text(value: &Value) -> Result<&str, String> {
    match value {
        Value::Text(text) => Ok(text),
        other => Err(format!("a text is wanted here, not {}", other.kind())),
    }
}

fn compare(name: &str, a: &Value, b: &Value) -> Result<Ordering, String> {
    match (a, b) {
        (Value::Text(a), Value::Text(b)) => Ok(a.cmp(b)),
        (Value::Number(a), Value::Number(b)) => Ok(a.cmp(b)),
        (Value::Bool(a), Value::Bool(b)) if matches!(name, "eq" | "ne") => Ok(a.cmp(b)),
        _ => Err(format!("`{name}` cannot compare {} with {}", a.kind(), b.kind())),
    }
}

/// A space where neither neighbour is a text.
fn print(values: &[Value]) -> Result<String, String> {
    let mut shown = String::new();
    for (index, value) in values.iter().enumerate() {
        let between = |value: &Value| !matches!(value, Value::Text(_));
        if index > 0 && between(value) && between(&values[index - 1]) {
            shown.push(' ');
        }
        shown.push_str(&value.shown()?);
    }
    Ok(shown)
}

fn printf(format: &str, values: &[Value]) -> Result<String, String> {
    let mut shown = String::new();
    let mut values = values.iter();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            shown.push(c);
            continue;
        }
        let verb = chars.next().ok_or("the format of `printf` ends with a %")?;
        if verb == '%' {
            shown.push('%');
            continue;
        }
        let value = values.next().ok_or_else(|| format!("`printf` has no value for its %{verb}"))?;
        match (verb, value) {
            ('v', value) => shown.push_str(&value.shown()?),
            ('s', Value::Text(text)) => shown.push_str(text),
            ('q', Value::Text(text)) => write!(shown, "{text:?}").expect("a string takes all"),
            ('d', Value::Number(number)) => write!(shown, "{number}").expect("a string takes all"),
            ('t', Value::Bool(bool)) => write!(shown, "{bool}").expect("a string takes all"),
            ('s' | 'q' | 'd' | 't', value) => {
                return Err(format!("`printf` cannot show {} as %{verb}; %v shows anything", value.kind()));
            }
            _ => return Err(format!("`printf` knows %s, %q, %d, %t, %v and %%, not %{verb}")),
        }
    }
    match values.next() {
        None => Ok(shown),
        Some(_) => Err("`printf` is given more values than its format has".to_owned()),
    }
}
