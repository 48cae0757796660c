//! `--format`: tables, templates and JSON over rows.

use crate::context::Cli;
use crate::failure::{Failure, Outcome};
use crate::table;
use crate::template::{Mode, Template};
use crate::value::{Row, Value};

/// A kind of rows: what its fields are called in headings, and its default table.
#[derive(Debug)]
pub(crate) struct Kind {
    /// Field and heading.
    pub(crate) headings: &'static [(&'static str, &'static str)],
    /// The template of the default table, without `table `.
    pub(crate) table: &'static str,
    /// The template for `--quiet`.
    pub(crate) quiet: &'static str,
    /// The template for `--format raw`; empty where there is none.
    pub(crate) raw: &'static str,
}

/// A format that is ready to show rows.
#[derive(Debug)]
pub(crate) struct Format {
    template: Template,
    is_table: bool,
    shows_whole_row: bool,
}

impl Format {
    /// Chooses the template: `format` as it was given (empty for none).
    pub(crate) fn new(kind: &Kind, format: &str, quiet: bool) -> Outcome<Self> {
        let (source, is_table) = match format {
            "" | "table" if quiet => (kind.quiet.to_owned(), false),
            "" | "table" => (kind.table.to_owned(), true),
            "json" => ("{{json .}}".to_owned(), false),
            "raw" if !kind.raw.is_empty() => (kind.raw.to_owned(), false),
            _ if quiet && !format.starts_with("table") => (kind.quiet.to_owned(), false),
            _ => match format.strip_prefix("table") {
                Some(rest) => (unescape(rest.trim_matches(' ')), true),
                None => (unescape(format), false),
            },
        };
        let template = Template::parse(&source)
            .map_err(|error| Failure::new(format!("failed to parse template: {error}")))?;
        // `--format json` leaves costly fields out, as Docker does; the template does not.
        let shows_whole_row = format.replace(' ', "").contains("{{json.}}");
        Ok(Self { template, is_table, shows_whole_row })
    }

    /// Whether the format is a table.
    pub(crate) fn is_table(&self) -> bool {
        self.is_table
    }

    /// Whether the template shows a field, by its name or with the whole row.
    pub(crate) fn uses(&self, field: &str) -> bool {
        self.template.uses_field(field) || self.shows_whole_row
    }

    /// All rows, ready to print.
    pub(crate) fn render(&self, kind: &Kind, rows: &[Row]) -> Outcome<String> {
        let mut body = String::new();
        for row in rows {
            self.template
                .execute(&Value::Row(row.clone()), Mode::Values, &mut body)
                .map_err(|error| Failure::new(format!("failed to execute template: {error}")))?;
            body.push('\n');
        }
        if !self.is_table {
            return Ok(body);
        }
        let headings = Value::Row(Row {
            type_name: "",
            fields: kind.headings.iter().map(|(name, head)| (*name, Value::text(*head))).collect(),
            labels: Vec::new(),
        });
        let mut head = String::new();
        // Docker shows what a heading's template wrote before it failed.
        self.template.execute(&headings, Mode::Header, &mut head).ok();
        Ok(table::align(&format!("{head}\n{body}"), 10, 3))
    }

    /// Prints all rows.
    pub(crate) fn print(&self, cli: &Cli, kind: &Kind, rows: &[Row]) -> Outcome {
        let text = self.render(kind, rows)?;
        cli.print(&text)
    }
}

fn unescape(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}

/// Shows one object by a template, as `inspect --format` does, or as JSON.
pub(crate) fn object(value: &Value, format: &str) -> Outcome<String> {
    if format == "json" {
        return Ok(value.json());
    }
    let template = Template::parse(format)
        .map_err(|error| Failure::new(format!("template parsing error: {error}")))?;
    let mut out = String::new();
    template
        .execute(value, Mode::Values, &mut out)
        .map_err(|error| Failure::new(format!("template parsing error: {error}")))?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: Kind = Kind {
        headings: &[("ID", "CONTAINER ID"), ("Names", "NAMES")],
        table: "{{.ID}}\t{{.Names}}",
        quiet: "{{.ID}}",
        raw: "",
    };

    fn rows() -> Vec<Row> {
        ["a", "b"]
            .map(|id| Row {
                type_name: "*formatter.ContainerContext",
                fields: vec![("ID", Value::text(id)), ("Names", Value::text(format!("n-{id}")))],
                labels: vec![("x.y-z".into(), "v".into())],
            })
            .to_vec()
    }

    #[test]
    fn formats() {
        for (format, quiet, shown) in [
            ("", false, "CONTAINER ID   NAMES\na              n-a\nb              n-b\n"),
            ("", true, "a\nb\n"),
            (
                "table {{.Names}}\\t{{.ID}}",
                false,
                "NAMES     CONTAINER ID\nn-a       a\nn-b       b\n",
            ),
            ("table {{upper .ID}}", false, "CONTAINER ID\nA\nB\n"),
            ("table {{.Label \"x.y-z\"}}", false, "y z\nv\nv\n"),
            ("{{.ID}}-{{.Names}}", false, "a-n-a\nb-n-b\n"),
            ("json", false, "{\"ID\":\"a\",\"Names\":\"n-a\"}\n{\"ID\":\"b\",\"Names\":\"n-b\"}\n"),
        ] {
            let made = Format::new(&KIND, format, quiet).unwrap();
            assert_eq!(made.render(&KIND, &rows()).unwrap(), shown, "{format}");
        }
    }

    #[test]
    fn errors() {
        assert_eq!(
            Format::new(&KIND, "{{.ID", false).unwrap_err().message,
            "failed to parse template: template: :1: unclosed action"
        );
        let format = Format::new(&KIND, "{{.Foo}}", false).unwrap();
        assert_eq!(
            format.render(&KIND, &rows()).unwrap_err().message,
            "failed to execute template: template: :1:2: executing \"\" at <.Foo>: can't evaluate \
             field Foo in type *formatter.ContainerContext"
        );
    }
}
