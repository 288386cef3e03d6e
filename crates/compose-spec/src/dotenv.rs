//! Files of variables: compose's `.env` grammar, and the literal one of `format: raw`.
//!
//! In the first, values may be quoted, span lines within quotes, carry comments, and refer to variables;
//! in the second every line is `NAME=value`, taken literally.

use std::collections::BTreeMap;

use crate::diagnostic::Report;
use crate::interpolate::{TemplateError, explain, substitute};
use crate::source::Span;

/// Where values come from that a file refers to: the caller's variables first, then earlier lines.
type Lookup<'l> = dyn FnMut(&str) -> Option<String> + 'l;

/// Later lines win. A bare `NAME` takes the value that `lookup` has, and is left out if it has none.
pub(crate) fn parse(file: u16, text: &str, lookup: &mut Lookup<'_>, report: &mut Report) -> BTreeMap<String, String> {
    let mut reader = Reader { text: text.strip_prefix('\u{feff}').unwrap_or(text), at: 0, file, report };
    let mut values = BTreeMap::new();
    while reader.skip_blank() {
        reader.line(&mut values, lookup);
    }
    values
}

/// `format: raw`: everything after the first `=` is the value, quotes and dollar signs included.
pub(crate) fn parse_raw(
    file: u16,
    text: &str,
    lookup: &mut Lookup<'_>,
    report: &mut Report,
) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    for (number, line) in text.strip_prefix('\u{feff}').unwrap_or(text).lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = match line.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (line.trim_end(), None),
        };
        if name.is_empty() || name.contains(char::is_whitespace) {
            let span = Span::new(file, number + 1, 1, line.chars().count());
            report.error(span, format!("`{name}` is not a variable's name")).with_help("write NAME=value");
            continue;
        }
        let value = value.map(str::to_owned).or_else(|| lookup(name));
        if let Some(value) = value {
            values.insert(name.to_owned(), value);
        }
    }
    values
}

struct Reader<'t, 'r> {
    text: &'t str,
    at: usize,
    file: u16,
    report: &'r mut Report,
}

impl<'t> Reader<'t, '_> {
    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn span(&self, at: usize, length: usize) -> Span {
        let before = &self.text[..at];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Span::new(self.file, line, column, length)
    }

    /// To the next line with something on it; `false` at the end of the text.
    fn skip_blank(&mut self) -> bool {
        loop {
            let rest = self.rest();
            self.at += rest.len() - rest.trim_start().len();
            match self.rest().starts_with('#') {
                true => self.skip_line(),
                false => return !self.rest().is_empty(),
            }
        }
    }

    fn skip_line(&mut self) {
        self.at += self.rest().find('\n').map_or(self.rest().len(), |end| end + 1);
    }

    fn line(&mut self, values: &mut BTreeMap<String, String>, lookup: &mut Lookup<'_>) {
        if let Some(after) = self.rest().strip_prefix("export")
            && after.starts_with([' ', '\t'])
        {
            self.at += "export".len() + (after.len() - after.trim_start_matches([' ', '\t']).len());
        }
        let start = self.at;
        let end = self.rest().find(['=', ':', '\n']).map_or(self.text.len(), |end| start + end);
        let name = self.text[start..end].trim();
        let separated = self.text[end..].starts_with(['=', ':']);
        // `NAME # why` has no separator: the comment is not part of the name.
        let name = if separated { name } else { name.split(" #").next().unwrap_or_default().trim() };
        if let Some(problem) = wrong_name(name) {
            let span = self.span(start, name.chars().count());
            self.report.error(span, problem).with_help("write NAME=value, one to a line");
            return self.skip_line();
        }
        if !separated {
            if let Some(value) = lookup(name) {
                values.insert(name.to_owned(), value);
            }
            return self.skip_line();
        }
        self.at = end + 1;
        let spaces = self.rest().len() - self.rest().trim_start_matches([' ', '\t']).len();
        self.at += spaces;
        if let Some(value) = self.value(values, lookup) {
            values.insert(name.to_owned(), value);
        }
    }

    fn value(&mut self, values: &BTreeMap<String, String>, lookup: &mut Lookup<'_>) -> Option<String> {
        let start = self.at;
        match self.rest().chars().next() {
            Some(quote @ ('\'' | '"')) => {
                let Some(inner) = closed_by(&self.rest()[1..], quote) else {
                    let span = self.span(start, 1);
                    self.report
                        .error(span, "this quoted value does not end")
                        .with_help(format!("close it with {quote}"));
                    self.at = self.text.len();
                    return None;
                };
                self.at += inner.len() + 2;
                self.skip_line();
                match quote {
                    '\'' => Some(inner.replace("\\'", "'")),
                    _ => self.filled(&unescape(inner), start, values, lookup),
                }
            }
            _ => {
                let line = self.rest().split('\n').next().unwrap_or_default();
                self.skip_line();
                let value = match line.starts_with('#') {
                    true => "",
                    false => line.split(" #").next().unwrap_or_default().split("\t#").next().unwrap_or_default(),
                };
                self.filled(value.trim_end(), start, values, lookup)
            }
        }
    }

    fn filled(
        &mut self,
        template: &str,
        at: usize,
        values: &BTreeMap<String, String>,
        lookup: &mut Lookup<'_>,
    ) -> Option<String> {
        let mut find = |name: &str| lookup(name).or_else(|| values.get(name).cloned());
        let mut unset = Vec::new();
        let filled: Result<String, TemplateError> =
            substitute(template, &mut find, &mut |name| unset.push(name.to_owned()));
        if unset.is_empty()
            && let Ok(filled) = filled
        {
            return Some(filled);
        }
        let span = self.span(at, template.chars().count());
        for name in unset {
            self.report.warning(span, format!("the variable `{name}` is not set; it becomes an empty string"));
        }
        filled.map_err(|error| explain(&error, span, self.report)).ok()
    }
}

fn wrong_name(name: &str) -> Option<String> {
    if name.is_empty() {
        return Some("a variable's name is missing".to_owned());
    }
    if name.contains(char::is_whitespace) {
        return Some(format!("a variable's name cannot contain a space: `{name}`"));
    }
    let odd = name.chars().find(|c| !(c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '[' | ']')))?;
    Some(format!("unexpected character `{odd}` in the variable's name `{name}`"))
}

/// What stands before the closing quote; a backslash keeps a quote from closing.
fn closed_by(text: &str, quote: char) -> Option<&str> {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return Some(&text[..at]),
            _ => {}
        }
    }
    None
}

/// Escapes of a double-quoted value; unknown ones stay. A dollar sign is escaped as interpolation has it.
fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            Some('a') => out.push('\u{7}'),
            Some('b') => out.push('\u{8}'),
            Some('f') => out.push('\u{c}'),
            Some('v') => out.push('\u{b}'),
            Some('"') => out.push('"'),
            Some('\\') => out.push('\\'),
            Some('$') => out.push_str("$$"),
            Some(other) => out.extend(['\\', other]),
            None => out.push('\\'),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Vec<(String, String)>, Vec<String>) {
        let mut report = Report::default();
        let file = report.sources.add(".env", text);
        let mut lookup = |name: &str| (name == "HOST").then(|| "outside".to_owned());
        let values = parse(file, text, &mut lookup, &mut report);
        (values.into_iter().collect(), report.diagnostics.into_iter().map(|d| d.message).collect())
    }

    #[test]
    fn the_grammar_of_env_files() {
        let text = "# comment\nexport A=1\nB: two\nC = spaced  # why\nD=123#x\nE='single $A\nlines \\' q'\nF=\"dou\\tble ${A} \\$A\" # c\nG=${A:-x}$HOST\nHOST\nMISSING\nH=\nI=${NONE}\n";
        let (values, problems) = read(text);
        let expected = [
            ("A", "1"),
            ("B", "two"),
            ("C", "spaced"),
            ("D", "123#x"),
            ("E", "single $A\nlines ' q"),
            ("F", "dou\tble 1 $A"),
            ("G", "1outside"),
            ("H", ""),
            ("HOST", "outside"),
            ("I", ""),
        ];
        assert_eq!(values, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
        assert_eq!(problems, ["the variable `NONE` is not set; it becomes an empty string"]);
    }

    #[test]
    fn each_wrong_line_is_named_and_the_others_are_read() {
        let (values, problems) = read("A B=1\nC%=2\nOK=1\n=x\nD='open\n");
        assert_eq!(values, [("OK".to_owned(), "1".to_owned())]);
        assert_eq!(problems.len(), 4, "{problems:?}");
    }

    #[test]
    fn raw_lines_are_literal() {
        let mut report = Report::default();
        let text = "A=\"q\" $X # no\n  B=1\nHOST\nbad name=1\n";
        let file = report.sources.add("raw.env", text);
        let values = parse_raw(file, text, &mut |name| (name == "HOST").then(|| "h".to_owned()), &mut report);
        assert_eq!(values["A"], "\"q\" $X # no");
        assert_eq!((values["B"].as_str(), values["HOST"].as_str()), ("1", "h"));
        assert_eq!(report.diagnostics.len(), 1);
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[A-C=: '\"\\\\#$\n{}ü]{0,40}") {
            read(&text);
        }
    }
}
