//! Records of the `local` driver. All numbers are little-endian:
//!
//! ```text
//! u32 length of the body
//! body: u8 flags (1 standard error, 2 the line goes on in a later record)
//!       i64 nanoseconds since 1970
//!       the line's bytes, without newline
//! u32 length of the body again, for reading backwards
//! ```

use super::{LogLine, Stream};
use crate::exit::timestamp;

const STDERR: u8 = 1;
const PARTIAL: u8 = 2;
/// Bytes of flags and time.
const FIXED: usize = 9;
/// Bytes around a body.
pub(crate) const AROUND: usize = 8;
/// No record is longer; a greater length is damage.
pub(crate) const MAX_BODY: usize = 1 << 20;

/// Appends a record to `out`.
pub(crate) fn record(
    out: &mut Vec<u8>,
    stream: Stream,
    time: i64,
    line: [&[u8]; 2],
    newline: bool,
) {
    let length = FIXED + line[0].len() + line[1].len();
    let length = u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
    let flags = if stream == Stream::Stderr { STDERR } else { 0 };
    out.extend(length);
    out.push(flags | if newline { 0 } else { PARTIAL });
    out.extend(time.to_le_bytes());
    out.extend(line[0]);
    out.extend(line[1]);
    out.extend(length);
}

/// The record's length when `bytes` start with its first four and they make sense.
pub(crate) fn body_length(bytes: &[u8]) -> Option<usize> {
    let length = usize::try_from(u32::from_le_bytes(*bytes.first_chunk()?)).ok()?;
    (FIXED..=MAX_BODY).contains(&length).then_some(length)
}

/// The record with which `bytes` start and how long it is in all. `None` when it is incomplete
/// or damaged.
pub(crate) fn decode(bytes: &[u8]) -> Option<(LogLine, usize)> {
    let length = body_length(bytes)?;
    let whole = bytes.get(..length + AROUND)?;
    if whole[..4] != whole[length + 4..] {
        return None;
    }
    let body = &whole[4..length + 4];
    let time = i64::from_le_bytes(*body[1..].first_chunk()?);
    let partial = body[0] & PARTIAL != 0;
    let mut line = body[FIXED..].to_vec();
    if !partial {
        line.push(b'\n');
    }
    let line = LogLine {
        time: timestamp(time),
        stream: if body[0] & STDERR == 0 { Stream::Stdout } else { Stream::Stderr },
        bytes: line,
        attrs: std::collections::BTreeMap::new(),
        partial,
    };
    Some((line, length + AROUND))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let mut out = Vec::new();
        record(&mut out, Stream::Stderr, 5, [b"a\xff", b"b"], true);
        let first = out.len();
        record(&mut out, Stream::Stdout, -1, [b"", b""], false);
        let (line, length) = decode(&out).unwrap();
        assert_eq!(
            (line.stream, &line.bytes[..], length),
            (Stream::Stderr, &b"a\xffb\n"[..], first)
        );
        let (line, length) = decode(&out[first..]).unwrap();
        assert_eq!((line.partial, line.bytes.len(), length), (true, 0, out.len() - first));
        for cut in 0..first {
            assert!(decode(&out[..cut]).is_none());
        }
        out[0] ^= 1;
        assert!(decode(&out).is_none());
    }
}
