//! `$NAME` and `${NAME…}` in the values of a file, with compose's forms.
//!
//! | form | meaning |
//! |---|---|
//! | `$$` | a dollar sign |
//! | `$NAME`, `${NAME}` | the value, or nothing with a warning |
//! | `${NAME:-default}`, `${NAME-default}` | a default when unset or empty, when unset |
//! | `${NAME:?message}`, `${NAME?message}` | an error when unset or empty, when unset |
//! | `${NAME:+other}`, `${NAME+other}` | `other` when set and not empty, when set |
//!
//! Defaults, messages and replacements are templates themselves and are only looked at when used.
//! A dollar sign that begins none of these stays as it is.

use std::collections::{BTreeMap, BTreeSet};

use crate::diagnostic::Report;
use crate::source::Span;
use crate::value::{Node, Value};

/// What variables stand for: what the caller told, before what `.env` files say.
#[derive(Debug, Default)]
pub(crate) struct Variables<'k> {
    /// The caller's environment, as far as it told; `None` for what it does not have.
    pub known: Option<&'k BTreeMap<String, Option<String>>>,
    /// Below the environment.
    pub files: BTreeMap<String, String>,
    /// Asked for and not known.
    pub wanted: BTreeSet<String>,
    /// Already warned about.
    pub warned: BTreeSet<String>,
    /// Required, missing, and already reported.
    pub missed: BTreeSet<String>,
}

impl Variables<'_> {
    pub fn get(&mut self, name: &str) -> Option<String> {
        match self.known.and_then(|known| known.get(name)) {
            Some(Some(value)) => Some(value.clone()),
            Some(None) => self.files.get(name).cloned(),
            None => {
                self.wanted.insert(name.to_owned());
                None
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum TemplateError {
    /// Not one of the forms; what was found.
    Malformed(String),
    Required {
        name: String,
        message: String,
    },
}

/// Fills in one template. `unset` is told of each variable that has no value and no default.
pub(crate) fn substitute(
    template: &str,
    lookup: &mut dyn FnMut(&str) -> Option<String>,
    unset: &mut dyn FnMut(&str),
) -> Result<String, TemplateError> {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
        } else if let Some(inner) = after.strip_prefix('{') {
            let end = closing_brace(inner).ok_or_else(|| TemplateError::Malformed(rest[at..].to_owned()))?;
            out.push_str(&braced(&inner[..end], lookup, unset)?);
            rest = &inner[end + 1..];
        } else {
            let length = name_length(after);
            if length == 0 {
                out.push('$');
            } else {
                out.push_str(&plain(&after[..length], lookup, unset));
            }
            rest = &after[length..];
        }
    }
    out.push_str(rest);
    Ok(out)
}

fn plain(name: &str, lookup: &mut dyn FnMut(&str) -> Option<String>, unset: &mut dyn FnMut(&str)) -> String {
    lookup(name).unwrap_or_else(|| {
        unset(name);
        String::new()
    })
}

fn braced(
    inner: &str,
    lookup: &mut dyn FnMut(&str) -> Option<String>,
    unset: &mut dyn FnMut(&str),
) -> Result<String, TemplateError> {
    let malformed = || TemplateError::Malformed(format!("${{{inner}}}"));
    let (name, operation) = inner.split_at(name_length(inner));
    if name.is_empty() {
        return Err(malformed());
    }
    if operation.is_empty() {
        return Ok(plain(name, lookup, unset));
    }
    let (empty_counts, operation) = match operation.strip_prefix(':') {
        Some(operation) => (true, operation),
        None => (false, operation),
    };
    let mut chars = operation.chars();
    let operator = chars.next().ok_or_else(malformed)?;
    let argument = chars.as_str();
    let value = lookup(name).filter(|value| !(empty_counts && value.is_empty()));
    match (operator, value) {
        ('-' | '?', Some(value)) => Ok(value),
        ('-', None) => substitute(argument, lookup, unset),
        ('+', Some(_)) => substitute(argument, lookup, unset),
        ('+', None) => Ok(String::new()),
        ('?', None) => {
            let message = substitute(argument, lookup, unset)?;
            Err(TemplateError::Required { name: name.to_owned(), message })
        }
        _ => Err(malformed()),
    }
}

/// The brace that closes a `${` before `text`; inner `${` have their own.
fn closing_brace(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut open = 1usize;
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'}' => open -= 1,
            b'{' if at > 0 && bytes[at - 1] == b'$' => open += 1,
            _ => {}
        }
        if open == 0 {
            return Some(at);
        }
    }
    None
}

fn name_length(text: &str) -> usize {
    let starts = text.as_bytes().first().is_some_and(|b| b.is_ascii_alphabetic() || *b == b'_');
    if !starts {
        return 0;
    }
    text.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count()
}

/// Fills in every string value below `node`; keys stay as they are.
pub(crate) fn interpolate(node: &mut Node, variables: &mut Variables<'_>, report: &mut Report) {
    match &mut node.value {
        Value::Str(text) if text.contains('$') => {
            let mut unset = Vec::new();
            let result = substitute(text, &mut |name| variables.get(name), &mut |name| unset.push(name.to_owned()));
            for name in unset {
                warn_unset(&name, node.span, variables, report);
            }
            match result {
                Ok(filled) => *text = filled,
                // A variable that many places require is missing once.
                Err(TemplateError::Required { name, .. }) if !variables.missed.insert(name.clone()) => {}
                Err(error) => explain(&error, node.span, report),
            }
        }
        Value::List(items) => items.iter_mut().for_each(|item| interpolate(item, variables, report)),
        Value::Map(map) => map.entries.iter_mut().for_each(|e| interpolate(&mut e.value, variables, report)),
        Value::Null | Value::Bool(_) | Value::Int(..) | Value::Float(..) | Value::Str(_) => {}
    }
}

fn warn_unset(name: &str, span: Span, variables: &mut Variables<'_>, report: &mut Report) {
    // What is only unknown so far is asked for before anyone reads this report.
    if variables.warned.insert(name.to_owned()) {
        report
            .warning(span, format!("the variable `{name}` is not set; it becomes an empty string"))
            .with_help(format!("set it in the environment or in .env, or give a default: ${{{name}:-value}}"));
    }
}

pub(crate) fn explain(error: &TemplateError, span: Span, report: &mut Report) {
    match error {
        TemplateError::Malformed(found) => {
            report
                .error(span, format!("invalid interpolation format: `{found}`"))
                .with_help("write ${NAME}, ${NAME:-default}, ${NAME:?message} or ${NAME:+other}; a dollar sign is $$");
        }
        TemplateError::Required { name, message } => {
            let reason = if message.is_empty() { String::new() } else { format!(": {message}") };
            report
                .error(span, format!("required variable `{name}` is missing a value{reason}"))
                .with_help(format!("set it in the environment or in .env: {name}=…"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(template: &str) -> String {
        let set = BTreeMap::from([("FOO", "first"), ("BAR", "second"), ("EMPTY", "")]);
        let mut unset = Vec::new();
        let filled = substitute(template, &mut |n| set.get(n).map(|v| (*v).to_owned()), &mut |n| {
            unset.push(n.to_owned());
        });
        match filled {
            Ok(text) if unset.is_empty() => text,
            Ok(text) => format!("{text} unset:{}", unset.join(",")),
            Err(TemplateError::Malformed(found)) => format!("malformed {found}"),
            Err(TemplateError::Required { name, message }) => format!("required {name} {message}"),
        }
    }

    #[test]
    fn every_form_in_every_case() {
        for (template, expected) in [
            ("$FOO ${FOO}", "first first"),
            ("$FOO-bar", "first-bar"),
            ("$$FOO $${FOO} $$$FOO", "$FOO ${FOO} $first"),
            ("${X}", " unset:X"),
            ("${X:-d} ${EMPTY:-d} ${FOO:-d}", "d d first"),
            ("${X-d} ${EMPTY-d}|${FOO-d}", "d |first"),
            ("${X:+r}|${EMPTY:+r}|${FOO:+r}", "||r"),
            ("${X+r}|${EMPTY+r}|${FOO+r}", "|r|r"),
            ("${X:?no}", "required X no"),
            ("${EMPTY:?no}", "required EMPTY no"),
            ("${EMPTY?no}|${FOO?no}", "|first"),
            ("${X?}", "required X "),
            ("${X:?say $FOO}", "required X say first"),
            ("${X:-${FOO}}", "first"),
            ("${X:-${Y:-${BAR}}} end", "second end"),
            ("${BAR+$FOO ${FOO:+second}}", "first second"),
            ("${FOO:-${UNUSED}}", "first"),
            ("${X:-a:-b}", "a:-b"),
            ("${X:-{}}", "{}"),
            ("a $ b, ^x$, $}, $1", "a $ b, ^x$, $}, $1"),
            ("${", "malformed ${"),
            ("${}", "malformed ${}"),
            ("${ x}", "malformed ${ x}"),
            ("${x!}", "malformed ${x!}"),
            ("${V/a/b}", "malformed ${V/a/b}"),
            ("${X:-$$1}", "$1"),
            ("${X:-ü}ß", "üß"),
        ] {
            assert_eq!(fill(template), expected, "{template}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(template in "[$a-zA-Z{}:?+ü-]{0,24}") {
            fill(&template);
        }

        #[test]
        fn escaped_text_comes_out_as_it_was(text in "[$a-z{}:?+-]{0,24}") {
            proptest::prop_assert_eq!(fill(&text.replace('$', "$$")), text);
        }
    }
}
