//! One request, taken apart for its handler.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::HeaderMap;
use hyper::body::Body as _;
use hyper::header::CONTENT_TYPE;
use hyper::upgrade::OnUpgrade;
use serde::de::DeserializeOwned;
use silo_build::Builder;
use silo_buildkit::BuildKit;
use silo_docker::{AnyCase, ApiVersion};
use silo_engine::Engine;
use silo_types::Error;

use crate::conn::ConnState;
use crate::query::Query;
use crate::request_body::RequestBody;

/// JSON bodies are not read beyond this.
const MAX_JSON: usize = 8 << 20;

/// What handlers get.
pub(crate) struct Request {
    pub(crate) engine: Arc<Engine>,
    pub(crate) builder: Arc<Builder>,
    pub(crate) buildkit: BuildKit,
    pub(crate) version: ApiVersion,
    pub(crate) query: Query,
    pub(crate) headers: HeaderMap,
    pub(crate) conn: Arc<ConnState>,
    pub(crate) upgrade: Option<OnUpgrade>,
    pub(crate) body: RequestBody,
}

impl Request {
    /// Is the client's API version `1.minor` or newer?
    pub(crate) fn at_least(&self, minor: u32) -> bool {
        self.version >= ApiVersion::v1(minor)
    }

    /// Does the client want the connection as a raw stream by way of `Upgrade`?
    pub(crate) fn asks_upgrade(&self) -> bool {
        self.headers.contains_key(hyper::header::UPGRADE) && !self.conn.is_raw()
    }

    /// The whole body, bounded.
    async fn bytes(&mut self) -> Result<Bytes, Error> {
        let mut bytes = BytesMut::new();
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|error| {
                Error::invalid(format!("invalid JSON: reading request body: {error}"))
            })?;
            if let Ok(data) = frame.into_data() {
                if bytes.len() + data.len() > MAX_JSON {
                    return Err(Error::invalid("invalid JSON: request body too large"));
                }
                bytes.extend_from_slice(&data);
            }
        }
        self.conn.hold();
        Ok(bytes.freeze())
    }

    /// A JSON body; an absent one is the default.
    pub(crate) async fn json<T: DeserializeOwned + Default>(&mut self) -> Result<T, Error> {
        Ok(self.json_if_any().await?.unwrap_or_default())
    }

    /// A JSON body, or `None` where there is none or it is `null`.
    pub(crate) async fn json_if_any<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Error> {
        // A chunked body without content is not the same as none: dockerd calls it broken.
        let none = self.body.is_end_stream();
        let kind = self.headers.get(CONTENT_TYPE).map(|kind| kind.to_str().unwrap_or_default());
        match kind {
            None if none => return Ok(None),
            kind => check_content_type(kind.unwrap_or_default())?,
        }
        if none {
            return Ok(None);
        }
        parse(&self.bytes().await?)
    }
}

fn check_content_type(kind: &str) -> Result<(), Error> {
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if essence.is_empty() {
        return Err(Error::invalid(format!(
            "malformed Content-Type header ({kind}): mime: no media type"
        )));
    }
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "unsupported Content-Type header ({kind}): must be 'application/json'"
    )))
}

/// Parses one JSON document, with errors in the words of Go's decoder; `null` is none.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<Option<T>, Error> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(Error::invalid("invalid JSON: got EOF while reading request body"));
    }
    let mut documents =
        serde_json::Deserializer::from_slice(bytes).into_iter::<Option<AnyCase<T>>>();
    let value = match documents.next() {
        Some(Ok(value)) => value.map(|AnyCase(value)| value),
        Some(Err(error)) => return Err(explain(bytes, &error)),
        None => return Err(Error::invalid("invalid JSON: got EOF while reading request body")),
    };
    let rest = &bytes[documents.byte_offset()..];
    if rest.iter().any(|b| !b.is_ascii_whitespace()) {
        return Err(Error::invalid("unexpected content after JSON"));
    }
    Ok(value)
}

fn explain(bytes: &[u8], error: &serde_json::Error) -> Error {
    use serde_json::error::Category;
    let text = match error.classify() {
        Category::Eof => "unexpected EOF".to_owned(),
        Category::Syntax => {
            let line = bytes.split(|&b| b == b'\n').nth(error.line().saturating_sub(1));
            let found = line
                .map(String::from_utf8_lossy)
                .and_then(|line| line.get(error.column().saturating_sub(1)..)?.chars().next());
            match found {
                Some(c) => format!("invalid character '{c}' looking for beginning of value"),
                None => error.to_string(),
            }
        }
        // `invalid type: string "x", expected i64 at line 1 column 9`
        Category::Data => {
            let text = error.to_string();
            let text = text.split(" at line ").next().unwrap_or_default();
            match text
                .strip_prefix("invalid type: ")
                .and_then(|rest| rest.split_once(", expected "))
            {
                Some((found, wanted)) => format!(
                    "json: cannot unmarshal {} into Go value of type {}",
                    go_kind(found),
                    go_type(wanted)
                ),
                None => format!("json: {text}"),
            }
        }
        Category::Io => error.to_string(),
    };
    Error::invalid(format!("invalid JSON: {text}"))
}

fn go_kind(found: &str) -> &str {
    match found.split([' ', '`']).next().unwrap_or_default() {
        "string" => "string",
        "sequence" => "array",
        "map" => "object",
        "integer" | "floating" => "number",
        "boolean" => "bool",
        _ => found,
    }
}

fn go_type(wanted: &str) -> &str {
    match wanted {
        "a string" => "string",
        "a boolean" => "bool",
        "i64" => "int64",
        "i32" => "int",
        "u64" => "uint64",
        "u16" => "uint16",
        "u32" => "uint32",
        "a sequence" => "[]string",
        "a map" => "map[string]string",
        other => other.strip_prefix("struct ").unwrap_or(other),
    }
}

#[cfg(test)]
mod tests {
    use silo_docker::containers::ContainerCreateRequest;

    use super::*;

    #[test]
    fn malformed_documents_are_named() {
        for (text, expected) in [
            ("", "invalid JSON: got EOF while reading request body"),
            ("  \n", "invalid JSON: got EOF while reading request body"),
            ("x", "invalid JSON: invalid character 'x' looking for beginning of value"),
            ("{\"a\":\n]}", "invalid JSON: invalid character ']' looking for beginning of value"),
            ("{", "invalid JSON: unexpected EOF"),
            ("{} {}", "unexpected content after JSON"),
            (
                "{\"Tty\":\"x\"}",
                "invalid JSON: json: cannot unmarshal string into Go value of type bool",
            ),
        ] {
            let error = parse::<ContainerCreateRequest>(text.as_bytes()).unwrap_err();
            assert_eq!(error.message(), expected, "{text}");
        }
        assert!(parse::<ContainerCreateRequest>(b" {} \n").unwrap().is_some());
        assert!(parse::<ContainerCreateRequest>(b"null\n").unwrap().is_none());
    }

    #[test]
    fn content_types() {
        assert!(check_content_type("application/json; charset=utf-8").is_ok());
        assert_eq!(
            check_content_type("text/plain").unwrap_err().message(),
            "unsupported Content-Type header (text/plain): must be 'application/json'"
        );
        assert!(check_content_type("").is_err());
    }
}
