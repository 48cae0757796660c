//! What servers say when they refuse: the body of an error, in the words of Docker.

use serde::Deserialize;
use silo_types::ErrorKind;

/// Messages of servers are cut here, in bytes.
const MAX_MESSAGE: usize = 1024;

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// The code as the specification has it, `MANIFEST_UNKNOWN`; empty if the body has none.
    pub(crate) code: String,
    /// The whole text for people, `manifest unknown: manifest unknown`.
    pub(crate) text: String,
}

#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    errors: Option<Vec<Item>>,
    /// What token servers send.
    #[serde(default)]
    details: Option<String>,
}

#[derive(Deserialize)]
struct Item {
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    message: Option<String>,
}

impl Problem {
    /// Reads the body of an answer of this status.
    pub(crate) fn read(status: u16, reason: &str, body: &[u8]) -> Self {
        let parsed: Option<Body> = serde_json::from_slice(body).ok();
        if let Some(Body { details: Some(details), .. }) = &parsed
            && !details.is_empty()
        {
            let (code, words) = match status {
                401 => ("UNAUTHORIZED", "unauthorized"),
                429 => ("TOOMANYREQUESTS", "toomanyrequests"),
                _ => ("UNKNOWN", "unknown"),
            };
            let text = format!("{words}: {}", clean(details));
            return Self { code: code.to_owned(), text };
        }
        let items = parsed.and_then(|body| body.errors).unwrap_or_default();
        let items: Vec<Item> = items.into_iter().take(8).collect();
        if items.is_empty() {
            let code = match status {
                401 => "UNAUTHORIZED",
                403 => "DENIED",
                429 => "TOOMANYREQUESTS",
                _ => "",
            };
            return Self { code: code.to_owned(), text: plain(status, reason, body) };
        }
        let code = items[0].code.clone().unwrap_or_default();
        let words = |item: &Item| {
            let code = clean(item.code.as_deref().unwrap_or("unknown"));
            let message = clean(item.message.as_deref().unwrap_or_default());
            let code = code.to_ascii_lowercase().replace('_', " ");
            if message.is_empty() { code } else { format!("{code}: {message}") }
        };
        let text = match &items[..] {
            [one] => words(one),
            // docker wording
            many => {
                let lines: Vec<String> = many.iter().map(words).collect();
                format!("errors:\n{}\n", lines.join("\n"))
            }
        };
        Self { code: code.chars().take(64).collect(), text }
    }

    /// What kind of failure it is.
    pub(crate) fn kind(&self, status: u16) -> ErrorKind {
        match (self.code.as_str(), status) {
            ("UNAUTHORIZED", _) | (_, 401) => ErrorKind::Unauthorized,
            ("DENIED", _) | (_, 403) => ErrorKind::Forbidden,
            ("MANIFEST_UNKNOWN" | "NAME_UNKNOWN" | "BLOB_UNKNOWN", _) | (_, 404) => {
                ErrorKind::NotFound
            }
            (_, 500..) => ErrorKind::Unavailable,
            _ => ErrorKind::Internal,
        }
    }
}

/// The words for a body without the specification's errors.
fn plain(status: u16, reason: &str, body: &[u8]) -> String {
    let text = clean(&String::from_utf8_lossy(&body[..body.len().min(MAX_MESSAGE)]));
    match status {
        // docker wording
        400..=499 if text.is_empty() => match status {
            401 => "unauthorized: authentication required".to_owned(),
            403 => "denied: requested access to the resource is denied".to_owned(),
            _ => format!("received unexpected HTTP status: {status} {reason}"),
        },
        400..=499 => format!("error parsing HTTP {status} response body: {text:?}"),
        _ => format!("received unexpected HTTP status: {status} {reason}"),
    }
}

/// Without what would move a terminal's cursor, and not too long.
fn clean(text: &str) -> String {
    let text: String = text.chars().filter(|c| !c.is_control() || *c == '\n').collect();
    let end = text.char_indices().map(|(at, _)| at).find(|at| *at >= MAX_MESSAGE);
    text[..end.unwrap_or(text.len())].trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_of_errors() {
        let unknown = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"x"}}]}"#;
        for (status, reason, body, code, text) in [
            (404, "Not Found", unknown, "MANIFEST_UNKNOWN", "manifest unknown: manifest unknown"),
            (
                401,
                "Unauthorized",
                r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required","detail":null}]}"#,
                "UNAUTHORIZED",
                "unauthorized: authentication required",
            ),
            (
                401,
                "Unauthorized",
                r#"{"details":"incorrect username or password"}"#,
                "UNAUTHORIZED",
                "unauthorized: incorrect username or password",
            ),
            (
                403,
                "Forbidden",
                r#"{"errors":[{"code":"DENIED"},{"code":"A_B","message":"c\u001b[2J"}]}"#,
                "DENIED",
                "errors:\ndenied\na b: c[2J\n",
            ),
            (404, "Not Found", "<html>", "", r#"error parsing HTTP 404 response body: "<html>""#),
            (404, "Not Found", "", "", "received unexpected HTTP status: 404 Not Found"),
            (502, "Bad Gateway", "x", "", "received unexpected HTTP status: 502 Bad Gateway"),
            (
                404,
                "Not Found",
                r#"{"errors":null}"#,
                "",
                r#"error parsing HTTP 404 response body: "{\"errors\":null}""#,
            ),
        ] {
            let problem = Problem::read(status, reason, body.as_bytes());
            assert_eq!((problem.code.as_str(), problem.text.as_str()), (code, text), "{body}");
        }
        let long = format!(r#"{{"errors":[{{"code":"X","message":"{}"}}]}}"#, "é".repeat(5000));
        assert!(Problem::read(400, "", long.as_bytes()).text.len() <= MAX_MESSAGE + 8);
    }
}
