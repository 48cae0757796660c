//! Searching registries.

use crate::command::Invocation;
use crate::context::warn;
use crate::failure::Outcome;
use crate::flags::{Filters, flags};
use crate::format::{Format, Kind};
use crate::table::ellipsis;
use crate::value::{Row, Value};

flags! {
    /// Flags of `search`.
    SearchFlags {
        filter: Filters, ['f'] "filter", "Filter output based on conditions provided";
        format: String, "format", "Pretty-print search using a Go template";
        limit: Option<i64>, "limit", "Max number of search results";
        no_trunc: bool, "no-trunc", "Don't truncate output";
    }
}

/// Columns that a description has.
const WIDTH: usize = 45;

const KIND: Kind = Kind {
    headings: &[
        ("Description", "DESCRIPTION"),
        ("IsOfficial", "OFFICIAL"),
        ("Name", "NAME"),
        ("StarCount", "STARS"),
    ],
    table: "{{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}",
    quiet: "{{.Name}}",
    raw: "",
};

/// The registry that a term begins with.
fn registry(term: &str) -> &str {
    match term.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => "docker.io",
    }
}

fn row(item: &Value, flags: &SearchFlags) -> Row {
    // The registry's words are anybody's, and go to a terminal.
    let plain = |name: &str| item.get(name).str().replace(|c: char| c.is_control(), " ");
    let description = plain("description");
    let description = if flags.no_trunc { description } else { ellipsis(&description, WIDTH) };
    // As data it is a word, for people a mark.
    let is_data = flags.format == "json" || flags.format.contains("json .}}");
    let official = match (item.get("is_official").bool(), is_data) {
        (true, true) => "true",
        (true, false) => "[OK]",
        (false, true) => "false",
        (false, false) => "",
    };
    Row {
        type_name: "*registry.searchContext",
        fields: vec![
            ("Description", Value::Text(description)),
            ("IsOfficial", Value::text(official)),
            ("Name", Value::Text(plain("name"))),
            ("StarCount", Value::Text(item.get("star_count").int().to_string())),
        ],
        labels: Vec::new(),
    }
}

/// `search`
pub(crate) async fn search(invocation: Invocation) -> Outcome {
    let (flags, words) = invocation.parse::<SearchFlags>()?;
    let cli = &invocation.cli;
    let format = Format::new(&KIND, &flags.format, false)?;
    if flags.filter.0.contains_key("is-automated") {
        // docker wording
        warn(
            "WARNING: the \"is-automated\" filter is deprecated, and searching for \
             \"is-automated=true\" will not yield any results in future.",
        );
    }
    let client = cli.client().await?;
    let mut request = client
        .get("/images/search")
        .query("term", &words[0])
        .query_some("limit", flags.limit.filter(|limit| *limit != 0).map(|limit| limit.to_string()))
        .query_some("filters", flags.filter.query());
    // A search goes without a password that cannot be had.
    let auth = cli.config().registry_auth(registry(&words[0])).unwrap_or_default();
    if !auth.is_empty() {
        request = request.header("x-registry-auth", &auth);
    }
    let found: Value = request.receive().await?;
    let rows: Vec<Row> = found.list().iter().map(|item| row(item, &flags)).collect();
    format.print(cli, &KIND, &rows)
}
