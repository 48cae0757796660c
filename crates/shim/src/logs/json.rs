//! Records of the `json-file` driver: one JSON object a line, byte for byte as dockerd writes
//! them.
//!
//! ```text
//! {"log":"hi\n","stream":"stdout","attrs":{"tag":"x"},"time":"2026-11-22T02:38:09.8055Z"}
//! ```
//!
//! `attrs` is absent when empty; the fraction of the time has no trailing zeros; `<`, `>`, `&`
//! and the line separators U+2028 and U+2029 are escaped; bytes that are no UTF-8 are replaced.

use std::collections::BTreeMap;
use std::io::Write as _;

use jiff::Timestamp;
use serde::Deserialize;

use super::{LogLine, Stream};
use crate::exit::timestamp;

/// Writes records, keeping what is the same in all of them ready.
#[derive(Debug)]
pub(crate) struct Encoder {
    /// `,"attrs":{...}` or nothing.
    attrs: Vec<u8>,
    /// The second that `second_text` spells.
    second: i64,
    second_text: [u8; 19],
}

impl Encoder {
    pub(crate) fn new(attrs: &BTreeMap<String, String>) -> Self {
        let mut text = Vec::new();
        if !attrs.is_empty() {
            text.extend(b",\"attrs\":{");
            for (index, (name, value)) in attrs.iter().enumerate() {
                if index > 0 {
                    text.push(b',');
                }
                string(&mut text, name.as_bytes());
                text.push(b':');
                string(&mut text, value.as_bytes());
            }
            text.push(b'}');
        }
        Self { attrs: text, second: i64::MIN, second_text: [b'0'; 19] }
    }

    /// Appends the record of `line` to `out`; `newline` says that the line ended there.
    pub(crate) fn record(
        &mut self,
        out: &mut Vec<u8>,
        stream: Stream,
        time: i64,
        line: [&[u8]; 2],
        newline: bool,
    ) {
        out.push(b'{');
        if newline || line.iter().any(|part| !part.is_empty()) {
            out.extend(b"\"log\":\"");
            match line {
                [head, []] => escape(out, head),
                [[], tail] => escape(out, tail),
                // A character may lie across the two.
                parts => escape(out, &parts.concat()),
            }
            if newline {
                out.extend(b"\\n");
            }
            out.extend(b"\",");
        }
        out.extend(match stream {
            Stream::Stdout => &b"\"stream\":\"stdout\""[..],
            Stream::Stderr => b"\"stream\":\"stderr\"",
        });
        out.extend(&self.attrs);
        out.extend(b",\"time\":\"");
        self.time(out, time);
        out.extend(b"\"}\n");
    }

    fn time(&mut self, out: &mut Vec<u8>, time: i64) {
        let second = time.div_euclid(1_000_000_000);
        if second != self.second {
            let text = format!("{:.0}", timestamp(second * 1_000_000_000));
            if let Some(text) = text.as_bytes().first_chunk() {
                self.second_text = *text;
                self.second = second;
            }
        }
        out.extend(&self.second_text);
        let mut fraction = time.rem_euclid(1_000_000_000);
        if fraction != 0 {
            let mut digits = 9;
            while fraction % 10 == 0 {
                fraction /= 10;
                digits -= 1;
            }
            // Writing to memory cannot fail.
            drop(write!(out, ".{fraction:0digits$}"));
        }
        out.push(b'Z');
    }
}

fn string(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    escape(out, text);
    out.push(b'"');
}

fn escape(out: &mut Vec<u8>, mut bytes: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    while !bytes.is_empty() {
        let plain = bytes
            .iter()
            .position(|&b| {
                !(0x20..0x80).contains(&b) || matches!(b, b'"' | b'\\' | b'<' | b'>' | b'&')
            })
            .unwrap_or(bytes.len());
        out.extend(&bytes[..plain]);
        bytes = &bytes[plain..];
        let Some(&first) = bytes.first() else { return };
        if first < 0x80 {
            match first {
                b'"' | b'\\' => out.extend([b'\\', first]),
                b'\n' => out.extend(b"\\n"),
                b'\r' => out.extend(b"\\r"),
                _ => {
                    out.extend(b"\\u00");
                    out.extend([HEX[usize::from(first >> 4)], HEX[usize::from(first & 15)]]);
                }
            }
            bytes = &bytes[1..];
            continue;
        }
        let run = bytes.iter().position(|&b| b < 0x80).unwrap_or(bytes.len());
        let (mut foreign, rest) = bytes.split_at(run);
        while !foreign.is_empty() {
            let (valid, bad) = match str::from_utf8(foreign) {
                Ok(text) => (text, false),
                Err(error) => {
                    let valid = &foreign[..error.valid_up_to()];
                    (str::from_utf8(valid).unwrap_or_default(), true)
                }
            };
            for part in valid.split_inclusive(['\u{2028}', '\u{2029}']) {
                if let Some(before) = part.strip_suffix('\u{2028}') {
                    out.extend(before.as_bytes());
                    out.extend(b"\\u2028");
                } else if let Some(before) = part.strip_suffix('\u{2029}') {
                    out.extend(before.as_bytes());
                    out.extend(b"\\u2029");
                } else {
                    out.extend(part.as_bytes());
                }
            }
            foreign = &foreign[valid.len()..];
            if bad {
                // One replacement for each byte, as Go decodes.
                out.extend(b"\\ufffd");
                foreign = &foreign[1..];
            }
        }
        bytes = rest;
    }
}

/// The record in one line, newline excluded. `None` when it is not one.
pub(crate) fn decode(line: &[u8]) -> Option<LogLine> {
    #[derive(Deserialize)]
    struct Record {
        #[serde(default)]
        log: String,
        #[serde(default)]
        stream: String,
        #[serde(default)]
        attrs: BTreeMap<String, String>,
        time: String,
    }
    let record: Record = serde_json::from_slice(line).ok()?;
    let time: Timestamp = record.time.parse().ok()?;
    let stream = if record.stream == "stderr" { Stream::Stderr } else { Stream::Stdout };
    let partial = !record.log.ends_with('\n');
    Some(LogLine { time, stream, bytes: record.log.into_bytes(), attrs: record.attrs, partial })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(line: &[u8], attrs: &[(&str, &str)], time: i64, newline: bool) -> String {
        let attrs = attrs.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect();
        let mut out = Vec::new();
        Encoder::new(&attrs).record(&mut out, Stream::Stdout, time, [line, &[]], newline);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn records_are_dockerds() {
        // The first two are taken from what dockerd 20.10 wrote.
        for (line, attrs, time, newline, wanted) in [
            (
                &b"hi"[..],
                &[("tag", "hq/busybox"), ("x", "y")][..],
                1_795_315_089_805_560_002,
                true,
                r#"{"log":"hi\n","stream":"stdout","attrs":{"tag":"hq/busybox","x":"y"},"time":"2026-11-22T02:38:09.805560002Z"}"#,
            ),
            (
                b"\x1b[1m<&>\"\\ \xff",
                &[],
                1_795_315_089_805_857_010,
                true,
                r#"{"log":"\u001b[1m\u003c\u0026\u003e\"\\ \ufffd\n","stream":"stdout","time":"2026-11-22T02:38:09.80585701Z"}"#,
            ),
            (b"", &[], 0, false, r#"{"stream":"stdout","time":"1970-01-01T00:00:00Z"}"#),
            (
                "ä\u{2028}b\r".as_bytes(),
                &[],
                1_000_000_000,
                false,
                r#"{"log":"ä\u2028b\r","stream":"stdout","time":"1970-01-01T00:00:01Z"}"#,
            ),
            (
                b"\xc3",
                &[],
                500_000_000,
                false,
                r#"{"log":"\ufffd","stream":"stdout","time":"1970-01-01T00:00:00.5Z"}"#,
            ),
        ] {
            assert_eq!(encode(line, attrs, time, newline), format!("{wanted}\n"));
        }
    }

    #[test]
    fn what_is_written_can_be_read() {
        let all: Vec<u8> = (0..=127).collect();
        let text = encode(&all, &[("a", "\"<")], 1_700_000_000_000_000_001, true);
        let line = decode(text.trim_end().as_bytes()).unwrap();
        assert_eq!(line.bytes, [&all[..], b"\n"].concat());
        assert_eq!(line.attrs["a"], "\"<");
        assert_eq!(line.time.as_nanosecond(), 1_700_000_000_000_000_001);
        assert!(!line.partial);
        for damaged in ["", "{", "null", "{\"log\":\"x\"}", "{\"log\":\"x\",\"time\":\"now\"}"] {
            assert_eq!(decode(damaged.as_bytes()), None);
        }
    }

    #[test]
    fn characters_may_lie_across_the_parts_of_a_line() {
        let mut out = Vec::new();
        let parts = [&b"\xc3"[..], b"\xa4"];
        Encoder::new(&BTreeMap::new()).record(&mut out, Stream::Stderr, 0, parts, false);
        let wanted = "{\"log\":\"ä\",\"stream\":\"stderr\",\"time\":\"1970-01-01T00:00:00Z\"}\n";
        assert_eq!(out, wanted.as_bytes());
    }
}
