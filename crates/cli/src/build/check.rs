//! What `--check` found, for people.

use base64::Engine as _;
use serde_json::Value;
use silo_dockerfile::{Span, excerpt};

/// The report of a check as text, and whether anything was found.
pub(crate) fn report(result: &Value) -> (String, bool) {
    let none = Vec::new();
    let warnings = result["warnings"].as_array().unwrap_or(&none);
    let mut text = match warnings.len() {
        0 => "Check complete, no warnings found.\n".to_owned(),
        1 => "Check complete, 1 warning has been found!\n".to_owned(),
        count => format!("Check complete, {count} warnings have been found!\n"),
    };
    for warning in warnings {
        let field = |name: &str| warning[name].as_str().unwrap_or_default();
        text.push_str(&format!("\nWARNING: {}", field("ruleName")));
        if !field("url").is_empty() {
            text.push_str(&format!(" - {}", field("url")));
        }
        text.push_str(&format!("\n{}\n", field("detail")));
        text.push_str(&place(warning, &result["sources"]));
    }
    (text, !warnings.is_empty())
}

/// The lines that a warning is about.
fn place(warning: &Value, sources: &Value) -> String {
    let location = &warning["location"];
    let index = location["sourceIndex"].as_u64().unwrap_or(0);
    let source = &sources[usize::try_from(index).unwrap_or(usize::MAX)];
    let data = source["data"].as_str().unwrap_or_default();
    let Ok(data) = base64::engine::general_purpose::STANDARD.decode(data) else {
        return String::new();
    };
    let line = |value: &Value| value["line"].as_u64().and_then(|line| u32::try_from(line).ok());
    let spans: Vec<Span> = location["ranges"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|range| Some(Span::new(line(&range["start"])?, line(&range["end"])?)))
        .collect();
    excerpt::render(source["filename"].as_str().unwrap_or_default(), &data, &spans, None)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn warnings_show_their_lines() {
        let (text, found) = report(&json!({"warnings": []}));
        assert_eq!((text.as_str(), found), ("Check complete, no warnings found.\n", false));
        let (text, found) = report(&json!({
            "warnings": [{
                "ruleName": "Rule", "url": "https://x/", "detail": "words",
                "location": {
                    "sourceIndex": 0,
                    "ranges": [{"start": {"line": 1}, "end": {"line": 1}}],
                },
            }],
            "sources": [{"filename": "Dockerfile", "data": "RlJPTSB4"}],
        }));
        let expected = "Check complete, 1 warning has been found!\n\nWARNING: Rule - \
                        https://x/\nwords\nDockerfile:1\n--------------------\n   1 | >>> FROM \
                        x\n--------------------\n";
        assert_eq!((text.as_str(), found), (expected, true));
        assert!(report(&json!({"warnings": [{}], "sources": 3})).1);
    }
}
