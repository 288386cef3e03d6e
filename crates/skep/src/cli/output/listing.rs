//! Listings: the same rows as a table, as JSON lines, by a template, or as ids alone.

use clap::Args;
use serde_json::{Map, Value};

use super::format::{Format, Template};
use super::table;
use crate::cli::Result;

/// Options that every listing has.
#[derive(Debug, Clone, Default, Args)]
pub struct ListOptions {
    /// Only what matches: key=value; may be given several times
    #[arg(short, long = "filter", value_name = "FILTER")]
    pub filter: Vec<String>,
    /// table, json (an object a line), or a template such as '{{.Name}}\t{{.ID}}', `table ` before it for headers
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Only ids
    #[arg(short, long)]
    pub quiet: bool,
    /// Do not shorten anything
    #[arg(long)]
    pub no_trunc: bool,
}

/// A kind of listing.
#[derive(Debug)]
pub struct Listing {
    /// Key and header of the columns of the table.
    pub columns: &'static [(&'static str, &'static str)],
    /// Keys and headers that only formats show.
    pub more: &'static [(&'static str, &'static str)],
    /// What `--quiet` shows.
    pub quiet: &'static str,
}

/// A row: values by Docker's keys, in the order of the keys.
pub type Row = Map<String, Value>;

pub fn row<const N: usize>(fields: [(&'static str, String); N]) -> Row {
    fields.into_iter().map(|(key, value)| (key.to_owned(), Value::String(value))).collect()
}

/// `a=b,c=d`, as Docker's formats show labels.
pub fn labels(labels: &skep_model::Labels) -> String {
    labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",")
}

/// The id as the options want it.
pub fn id(id: &str, options: &ListOptions) -> String {
    match options.no_trunc {
        true => id.to_owned(),
        false => id.trim_start_matches("sha256:").chars().take(12).collect(),
    }
}

/// At most `width` characters, the last an ellipsis where something was cut.
pub fn ellipsis(text: &str, width: usize) -> String {
    match text.chars().count() <= width {
        true => text.to_owned(),
        false => text.chars().take(width - 1).chain(['…']).collect(),
    }
}

impl Listing {
    pub fn print(&self, rows: Vec<Row>, options: &ListOptions) -> Result {
        super::text(&self.render(rows, options)?)?;
        Ok(())
    }

    fn render(&self, rows: Vec<Row>, options: &ListOptions) -> Result<String> {
        let format = Format::parse(options.format.as_deref())?;
        if options.quiet && options.format.is_none() {
            return Ok(rows.iter().map(|row| format!("{}\n", text_of(row, self.quiet))).collect());
        }
        Ok(match format {
            Format::Table => {
                let header = self.columns.iter().map(|(_, header)| (*header).to_owned()).collect();
                let cells = |row: Row| self.columns.iter().map(|(key, _)| text_of(&row, key)).collect();
                table::render(&std::iter::once(header).chain(rows.into_iter().map(cells)).collect::<Vec<_>>())
            }
            Format::Columns(template) => {
                let header = template.header(|key| self.header(key));
                let lines = std::iter::once(Ok(header)).chain(lines(&template, rows));
                let cells = |line: String| line.split('\t').map(str::to_owned).collect();
                table::render(&lines.map(|line| line.map(cells)).collect::<Result<Vec<_>>>()?)
            }
            Format::Json => rows.into_iter().map(|row| format!("{}\n", Value::Object(row))).collect(),
            Format::Lines(template) => {
                lines(&template, rows).map(|line| line.map(|line| line + "\n")).collect::<Result<String>>()?
            }
        })
    }

    fn header(&self, key: &str) -> String {
        let known = self.columns.iter().chain(self.more).find(|(known, _)| *known == key);
        known.map_or_else(|| key.to_uppercase(), |(_, header)| (*header).to_owned())
    }
}

fn lines(template: &Template, rows: Vec<Row>) -> impl Iterator<Item = Result<String>> {
    rows.into_iter().map(|row| template.render(&Value::Object(row)))
}

fn text_of(row: &Row, key: &str) -> String {
    row.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(options: &ListOptions, expected: Expect) {
        let listing = Listing {
            columns: &[("ID", "ID"), ("DesiredState", "DESIRED STATE")],
            more: &[("Node", "NODE")],
            quiet: "ID",
        };
        let rows = vec![
            row([("ID", "4711".to_owned()), ("DesiredState", "Running".to_owned()), ("Node", "n1".to_owned())]),
            row([("ID", "12".to_owned()), ("DesiredState", "Shutdown".to_owned()), ("Node", String::new())]),
        ];
        expected.assert_eq(&listing.render(rows, options).unwrap());
    }

    #[test]
    fn one_listing_has_many_forms() {
        let format = |format: &str| ListOptions { format: Some(format.to_owned()), ..ListOptions::default() };
        check(
            &ListOptions::default(),
            expect![[r#"
            ID        DESIRED STATE
            4711      Running
            12        Shutdown
        "#]],
        );
        check(
            &ListOptions { quiet: true, ..ListOptions::default() },
            expect![[r#"
            4711
            12
        "#]],
        );
        check(
            &format("json"),
            expect![[r#"
            {"DesiredState":"Running","ID":"4711","Node":"n1"}
            {"DesiredState":"Shutdown","ID":"12","Node":""}
        "#]],
        );
        check(
            &format(r"table {{.Node}}\t{{.DesiredState}}"),
            expect![[r#"
            NODE      DESIRED STATE
            n1        Running
                      Shutdown
        "#]],
        );
        check(
            &format("{{.ID}}: {{.Node}}"),
            expect![[r#"
            4711: n1
            12: 
        "#]],
        );
    }

    #[test]
    fn long_texts_are_cut_with_a_mark() {
        assert_eq!(ellipsis("failed", 6), "failed");
        assert_eq!(ellipsis("failed to start", 6), "faile…");
    }
}
