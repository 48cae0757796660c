//! Ranges: of blobs that are read (RFC 9110, section 14) and of chunks that are written.

use hyper::StatusCode;

use crate::error::Refusal;
use crate::uploads::Range as Chunk;

/// Which bytes of a blob of `size` bytes a `Range` header asks for: the first and how many. `None`
/// for all of them, also where a header asks for several ranges or in other units.
pub(crate) fn wanted(header: &str, size: u64) -> Result<Option<(u64, u64)>, Refusal> {
    let Some(range) = header.trim().strip_prefix("bytes=") else { return Ok(None) };
    let Some((first, last)) = range.split_once('-') else { return Ok(None) };
    let unsatisfiable = || {
        let status = StatusCode::RANGE_NOT_SATISFIABLE;
        Refusal::new(status, "SIZE_INVALID", format!("the blob has {size} bytes"))
    };
    let (Some(first), Some(last)) = (number(first), number(last)) else { return Ok(None) };
    let (first, end) = match (first, last) {
        (None, None) => return Ok(None),
        (None, Some(0)) => return Err(unsatisfiable()),
        (None, Some(count)) => (size.saturating_sub(count), size),
        (Some(first), None) => (first, size),
        (Some(first), Some(last)) => (first, last.saturating_add(1).min(size)),
    };
    if first >= end { Err(unsatisfiable()) } else { Ok(Some((first, end - first))) }
}

/// A number that may be left out; `None` for anything else.
#[expect(clippy::option_option, reason = "no number, and not a number")]
fn number(text: &str) -> Option<Option<u64>> {
    if text.is_empty() {
        return Some(None);
    }
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| Some(text.parse().unwrap_or(u64::MAX)))
}

/// The `Content-Range` of a chunk: `<first>-<last>`.
pub(crate) fn chunk(header: &str) -> Result<Chunk, Refusal> {
    let (first, last) = header.split_once('-').unwrap_or((header, ""));
    match (number(first).flatten(), number(last).flatten()) {
        (Some(first), Some(last)) => Ok(Chunk { first, last }),
        _ => Err(Refusal::upload("Content-Range is not FIRST-LAST")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_blobs() {
        for (header, expected) in [
            ("bytes=0-0", Some((0, 1))),
            ("bytes=500-1499", Some((500, 1000))),
            ("bytes=500-", Some((500, 1548))),
            ("bytes=-500", Some((1548, 500))),
            ("bytes=-5000", Some((0, 2048))),
            ("bytes=2000-5000", Some((2000, 48))),
            ("bytes=0-99999999999999999999", Some((0, 2048))),
            ("bytes=0-1,5-6", None),
            ("bytes=-", None),
            ("bytes=x-1", None),
            ("lines=0-1", None),
            ("", None),
        ] {
            assert_eq!(wanted(header, 2048).unwrap(), expected, "{header}");
        }
        for bad in ["bytes=500-0", "bytes=2048-", "bytes=5000-10000", "bytes=-0"] {
            let refused = wanted(bad, 2048).unwrap_err();
            assert_eq!(refused.status, StatusCode::RANGE_NOT_SATISFIABLE, "{bad}");
        }
        assert!(wanted("bytes=0-", 0).is_err());
    }

    #[test]
    fn of_chunks() {
        assert_eq!(chunk("0-9").unwrap(), Chunk { first: 0, last: 9 });
        for bad in ["", "-", "1-", "-1", "a-b", "bytes 0-9/10", "0-9/10", "-1-2"] {
            assert!(chunk(bad).is_err(), "{bad}");
        }
    }
}
