//! `images --tree`: names, and beneath them the images for each platform.

use silo_types::size;

use crate::context::Cli;
use crate::failure::Outcome;
use crate::table::{short_id, width};
use crate::value::Value;

/// Columns between two columns.
const SPACING: usize = 3;

/// One line: what it is, and what is told of it.
struct Line {
    name: String,
    cells: Option<[String; 4]>,
}

fn cells(id: &str, total: f64, content: f64, is_used: bool) -> [String; 4] {
    let extra = if is_used { "U" } else { "" };
    let sizes = [total, content].map(|bytes| size::human_with_precision(bytes, 3));
    let [total, content] = sizes;
    [short_id(id), total, content, extra.to_owned()]
}

/// The lines of one image.
fn lines(image: &Value) -> Vec<Line> {
    let mut names: Vec<&str> = image.get("RepoTags").list().iter().map(Value::str).collect();
    names.sort_unstable();
    let manifests = image.get("Manifests").list();
    let images: Vec<&Value> =
        manifests.iter().filter(|manifest| manifest.get("Kind").str() == "image").collect();
    let is_used = |manifest: &Value| !manifest.path(&["ImageData", "Containers"]).list().is_empty();
    let used = image.get("Containers").int() > 0 || images.iter().any(|image| is_used(image));
    let content = manifests.iter().map(|one| one.path(&["Size", "Content"]).float()).sum();
    let top = cells(image.get("Id").str(), image.get("Size").float(), content, used);
    let mut lines: Vec<Line> =
        names.iter().map(|name| Line { name: (*name).to_owned(), cells: None }).collect();
    match lines.last_mut() {
        Some(last) => last.cells = Some(top),
        None => lines.push(Line { name: "<untagged>".to_owned(), cells: Some(top) }),
    }
    for (number, manifest) in images.iter().enumerate() {
        let platform = manifest.path(&["ImageData", "Platform"]);
        let parts = ["os", "architecture", "variant"].map(|part| platform.get(part).str());
        let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        let branch = if number + 1 == images.len() { "└─" } else { "├─" };
        let size = |name: &str| manifest.path(&["Size", name]).float();
        lines.push(Line {
            name: format!("{branch} {}", parts.join("/")),
            cells: Some(cells(
                manifest.get("ID").str(),
                size("Total"),
                size("Content"),
                is_used(manifest),
            )),
        });
    }
    lines
}

/// The table of all images.
fn tree(images: &[Value]) -> String {
    let mut groups: Vec<Vec<Line>> = images.iter().map(lines).collect();
    // Those without a name come last.
    groups.sort_by_key(|lines| {
        let name = lines.first().map(|line| line.name.clone()).unwrap_or_default();
        (name == "<untagged>", name)
    });
    let names = groups.iter().flatten().map(|line| width(&line.name));
    let first = names.chain([width("IMAGE")]).max().unwrap_or_default();
    let row = |name: &str, [id, total, content, extra]: [&str; 4]| {
        // By what is seen of it: `format!` would count characters.
        let rest = first + SPACING - width(name);
        let line = format!(
            "{name}{:rest$}{id:<12}{:SPACING$}{total:>10}{:SPACING$}{content:>12}{:SPACING$}{extra}",
            "", "", "", ""
        );
        line.trim_end().to_owned()
    };
    let mut text = vec![row("IMAGE", ["ID", "DISK USAGE", "CONTENT SIZE", "EXTRA"])];
    for (number, group) in groups.iter().enumerate() {
        if number > 0 {
            text.push(String::new());
        }
        for line in group {
            text.push(match &line.cells {
                Some([id, total, content, extra]) => {
                    row(&line.name, [id.as_str(), total.as_str(), content.as_str(), extra.as_str()])
                }
                None => line.name.clone(),
            });
        }
    }
    text.join("\n")
}

/// Shows the images that `filters` let through.
pub(super) async fn show(cli: &Cli, all: bool, filters: Option<String>) -> Outcome {
    let client = cli.client().await?;
    let images: Value = client
        .get("/images/json")
        .query("manifests", "1")
        .query_if("all", all)
        .query_some("filters", filters)
        .receive()
        .await?;
    cli.line(&tree(images.list()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_beneath_names() {
        let manifest = |id: &str, architecture: &str, containers: &str| {
            format!(
                r#"{{"ID":"sha256:{id}","Kind":"image","Size":{{"Content":10,"Total":2010}},
                "ImageData":{{"Platform":{{"os":"linux","architecture":"{architecture}"}},
                "Containers":[{containers}]}}}}"#
            )
        };
        let (amd, arm) = (manifest("aa", "amd64", ""), manifest("bb", "arm64", r#""c""#));
        let attestation =
            r#"{"ID":"sha256:cc","Kind":"attestation","Size":{"Content":5,"Total":5}}"#;
        let json = format!(
            r#"[{{"Id":"sha256:dd","RepoTags":[],"Size":1000,"Containers":-1,"Manifests":[]}},
            {{"Id":"sha256:aa","RepoTags":["b:2","a:1"],"Size":4020,"Containers":0,
            "Manifests":[{amd},{arm},{attestation}]}}]"#
        );
        let images = Value::parse(json.as_bytes()).unwrap();
        let shown = tree(images.list());
        let words: Vec<Vec<&str>> =
            shown.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(
            words,
            [
                vec!["IMAGE", "ID", "DISK", "USAGE", "CONTENT", "SIZE", "EXTRA"],
                vec!["a:1"],
                vec!["b:2", "aa", "4.02kB", "25B", "U"],
                vec!["├─", "linux/amd64", "aa", "2.01kB", "10B"],
                vec!["└─", "linux/arm64", "bb", "2.01kB", "10B", "U"],
                vec![],
                vec!["<untagged>", "dd", "1kB", "0B"],
            ],
            "{shown}"
        );
    }
}
