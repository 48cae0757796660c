//! PAX extended headers: `length key=value\n` records (POSIX.1-2017, `pax`).

use crate::{Time, number};

/// One record: key and value.
pub type Record<'a> = (&'a [u8], &'a [u8]);

/// Splits a header into records. `Err` says what is wrong with it.
pub fn parse(mut bytes: &[u8]) -> Result<Vec<Record<'_>>, &'static str> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let space = bytes
            .iter()
            .take(21)
            .position(|byte| *byte == b' ')
            .ok_or("a PAX record without a length")?;
        let length = number::decimal(&bytes[..space])
            .and_then(|length| usize::try_from(length).ok())
            .filter(|length| *length > space + 1 && *length <= bytes.len())
            .ok_or("a PAX record with a wrong length")?;
        let (record, rest) = bytes.split_at(length);
        let [body @ .., b'\n'] = &record[space + 1..] else {
            return Err("a PAX record without its line end");
        };
        let equals = body
            .iter()
            .position(|byte| *byte == b'=')
            .filter(|at| *at > 0)
            .ok_or("a PAX record without a key")?;
        let (key, value) = (&body[..equals], &body[equals + 1..]);
        if key.contains(&0) {
            return Err("a PAX key with a NUL");
        }
        if value.contains(&0) && matches!(key, b"path" | b"linkpath" | b"uname" | b"gname") {
            return Err("a PAX name with a NUL");
        }
        records.push((key, value));
        bytes = rest;
    }
    Ok(records)
}

/// Appends a record.
pub fn write(header: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    // The length counts its own digits: try until it agrees with itself.
    let body = key.len() + value.len() + 3;
    let mut length = body + 1;
    while length != body + length.to_string().len() {
        length = body + length.to_string().len();
    }
    header.extend_from_slice(length.to_string().as_bytes());
    header.push(b' ');
    header.extend_from_slice(key);
    header.push(b'=');
    header.extend_from_slice(value);
    header.push(b'\n');
}

/// Parses `[-]seconds[.fraction]`; digits beyond nanoseconds are cut off.
pub fn parse_time(text: &[u8]) -> Option<Time> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = match text.iter().position(|byte| *byte == b'.') {
        Some(dot) => (&text[..dot], &text[dot + 1..]),
        None => (text, &b""[..]),
    };
    let seconds = i64::try_from(number::decimal(whole)?).ok()?;
    let mut nanos = 0_u32;
    for index in 0..9 {
        let digit = fraction.get(index).copied().unwrap_or(b'0');
        nanos = nanos * 10 + digit.is_ascii_digit().then(|| u32::from(digit - b'0'))?;
    }
    if fraction.len() > 64 || !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(match (negative, nanos) {
        (false, _) => Time { seconds, nanos },
        (true, 0) => Time { seconds: -seconds, nanos: 0 },
        (true, _) => Time { seconds: -seconds - 1, nanos: 1_000_000_000 - nanos },
    })
}

/// Writes a time for a record, without needless digits.
pub fn format_time(time: Time) -> String {
    let (sign, seconds, nanos) = match (time.seconds < 0, time.nanos) {
        (true, 0) => ("-", time.seconds.unsigned_abs(), 0),
        (true, nanos) => ("-", (time.seconds + 1).unsigned_abs(), 1_000_000_000 - nanos),
        (false, nanos) => ("", time.seconds.unsigned_abs(), nanos),
    };
    if nanos == 0 {
        return format!("{sign}{seconds}");
    }
    let text = format!("{sign}{seconds}.{nanos:09}");
    text.trim_end_matches('0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_round_trip() {
        for length in [0, 1, 3, 88, 89, 90, 91, 92, 985, 989, 990, 9_990] {
            let value = vec![b'v'; length];
            let mut header = Vec::new();
            write(&mut header, b"path", &value);
            write(&mut header, b"k", b"=\n=");
            assert_eq!(parse(&header).unwrap(), [(&b"path"[..], &value[..]), (b"k", b"=\n=")]);
        }
    }

    #[test]
    fn refuses_what_readers_differ_about() {
        for bad in [
            &b"+9 path=x\n"[..],
            b" 9 path=x\n",
            b"9 path=xx\n",
            b"99 path=x\n",
            b"5 =x\n\n",
            b"10 path=x\n\0",
            b"11 path=a\0b\n",
            b"3 \n",
            b"0 ",
            b"18446744073709551615 path=x\n",
        ] {
            assert!(parse(bad).is_err(), "{:?}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn times_round_trip() {
        for (text, seconds, nanos) in [
            ("0", 0, 0),
            ("1.5", 1, 500_000_000),
            ("-1.5", -2, 500_000_000),
            ("-0.25", -1, 750_000_000),
            ("1700000000.000000001", 1_700_000_000, 1),
        ] {
            let time = Time { seconds, nanos };
            assert_eq!(parse_time(text.as_bytes()), Some(time), "{text}");
            assert_eq!(format_time(time), text);
        }
        for bad in ["", ".", "x", "1.x", "+1", "1e3", "99999999999999999999"] {
            assert_eq!(parse_time(bad.as_bytes()), None, "{bad}");
        }
    }
}
