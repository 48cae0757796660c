//! Text to keys.

use std::io::BufRead as _;

use super::{Arch, Error, Registry};
use crate::hive::Hive;
use crate::key::KeyFlags;
use crate::name::Name;
use crate::text::{Builder, hex_digit};
use crate::time::FileTime;
use crate::value::{MAX_VALUE_NAME, Value, ValueType};

const MAGIC: &[u8] = b"WINE REGISTRY Version 2";
const RELATIVE: &[u8] = b";; All keys relative to ";

/// Reads a registry file of Wine's. Options of later versions that start with `#` are skipped;
/// any other line that is not understood is an error.
pub fn parse(text: &[u8]) -> Result<Registry, Error> {
    read(text, |_| true, |_| true)
}

/// Reads some keys of a file, without those below them. Of the others no more is looked at than
/// where they begin, which is many times faster. Names are compared without the case of ASCII.
pub fn parse_keys(text: &[u8], keys: &[&str]) -> Result<Registry, Error> {
    let same = |path: &[u16], key: &str| {
        char::decode_utf16(path.iter().copied())
            .map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER).to_ascii_lowercase())
            .eq(key.chars().map(|letter| letter.to_ascii_lowercase()))
    };
    // Up to the first backslash, whatever that stands for, no name needs to be unescaped.
    let begins = |line: &[u8], key: &str| {
        let plain = line.iter().take_while(|&&byte| byte != b'\\' && byte != b']');
        plain.zip(key.bytes()).all(|(one, other)| one.eq_ignore_ascii_case(&other))
    };
    read(
        text,
        |line| keys.iter().any(|key| !key.is_ascii() || begins(line, key)),
        |path| keys.iter().any(|key| same(path, key)),
    )
}

/// Reads the keys that are wanted: first by the line after its bracket, then by the path.
fn read(
    text: &[u8],
    wanted_line: impl Fn(&[u8]) -> bool,
    wanted: impl Fn(&[u16]) -> bool,
) -> Result<Registry, Error> {
    let mut cursor = Cursor { text, at: 0, line: 0 };
    if cursor.next_line() != Some(MAGIC) {
        return Err(Error::NotWine);
    }
    let mut builder = Builder::new();
    let mut current = None;
    let mut base = String::new();
    let mut arch = None;
    while let Some(line) = cursor.next_line() {
        let line = line.trim_ascii_start();
        let error = |reason| Error::Line { line: cursor.line, reason };
        match line.first() {
            None => {}
            Some(b';') => {
                if let Some(path) = line.strip_prefix(RELATIVE) {
                    base = String::from_utf8_lossy(path.trim_ascii_end())
                        .trim_end()
                        .replace("\\\\", "\\");
                }
            }
            Some(b'[') => {
                if !wanted_line(&line[1..]) {
                    cursor.skip_key();
                    continue;
                }
                let (path, rest) = unescape(&line[1..], b']').map_err(error)?;
                if !wanted(&path) {
                    cursor.skip_key();
                    continue;
                }
                let time = FileTime::from_unix(seconds(rest));
                current = Some(builder.enter(&path, time).map_err(error)?);
            }
            Some(b'#') => match current {
                Some(node) => option(&mut builder, node, line).map_err(error)?,
                None if line == b"#arch=win32" => arch = Some(Arch::Win32),
                None if line == b"#arch=win64" => arch = Some(Arch::Win64),
                None if line.starts_with(b"#arch=") => {
                    return Err(error("an unknown architecture"));
                }
                None => {}
            },
            Some(b'"' | b'@') => {
                let Some(node) = current else { return Err(error("a value without a key")) };
                let line_number = cursor.line;
                let value = value(line, &mut cursor)
                    .map_err(|reason| Error::Line { line: line_number, reason })?;
                builder.value(node, value);
            }
            Some(_) => return Err(error("neither a key nor a value")),
        }
    }
    Ok(Registry { base, arch, hive: Hive::new(builder.finish()) })
}

struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
    line: usize,
}

impl<'a> Cursor<'a> {
    /// The next line without its end.
    fn next_line(&mut self) -> Option<&'a [u8]> {
        let rest = self.text.get(self.at..).filter(|rest| !rest.is_empty())?;
        let line = rest.split(|&byte| byte == b'\n').next()?;
        self.at += line.len() + 1;
        self.line += 1;
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    }

    /// Goes to the next line that begins a key. Lines are not counted on the way.
    fn skip_key(&mut self) {
        while let Some(mut rest) = self.text.get(self.at..).filter(|rest| !rest.is_empty()) {
            // It compares many bytes at once, and of a slice it does not fail.
            self.at += rest.skip_until(b'[').unwrap_or(rest.len());
            if self.text[..self.at].ends_with(b"\n[") {
                self.at -= 1;
                return;
            }
        }
    }
}

/// The time after a key.
fn seconds(rest: &[u8]) -> i64 {
    let digits = rest.trim_ascii_start().iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0_i64, |number, digit| {
        number.saturating_mul(10).saturating_add(i64::from(digit - b'0'))
    })
}

/// A line of a key that starts with `#`.
fn option(builder: &mut Builder, node: usize, line: &[u8]) -> Result<(), &'static str> {
    if let Some(digits) = line.strip_prefix(b"#time=") {
        let digits = digits.iter().map_while(|&digit| hex_digit(digit.into()));
        let ticks = digits.fold(0_u64, |ticks, digit| ticks << 4 | u64::from(digit));
        builder.set_time(node, FileTime(ticks));
    } else if let Some(class) = line.strip_prefix(b"#class=\"") {
        let (class, _) = unescape(class, b'"')?;
        // The length of a class is kept in 16 bits, in bytes.
        if class.len() > 0x7FFF {
            return Err("a class of more than 32767 characters");
        }
        builder.key(node).class = Name::from(class);
    } else if line == b"#link" {
        let key = builder.key(node);
        key.flags = key.flags | KeyFlags::SYMLINK;
    }
    Ok(())
}

/// A value, whose bytes may go on in the next lines.
fn value<'a>(line: &'a [u8], cursor: &mut Cursor<'a>) -> Result<Value, &'static str> {
    let (name, rest) = match line.strip_prefix(b"\"") {
        Some(rest) => unescape(rest, b'"')?,
        None => (Vec::new(), &line[1..]),
    };
    if name.len() > MAX_VALUE_NAME {
        return Err("a value name of more than 16383 characters");
    }
    let rest = rest.trim_ascii_start().strip_prefix(b"=").ok_or("no \"=\" after a value name")?;
    let rest = rest.trim_ascii_start();
    let (kind, data) = if let Some(text) = rest.strip_prefix(b"\"") {
        (ValueType::SZ, string(text)?)
    } else if let Some(digits) = rest.strip_prefix(b"dword:") {
        let digits = digits.iter().map_while(|&digit| hex_digit(digit.into()));
        let number = digits.fold(0_u32, |number, digit| number << 4 | u32::from(digit));
        (ValueType::DWORD, number.to_le_bytes().to_vec())
    } else if let Some(bytes) = rest.strip_prefix(b"hex:") {
        (ValueType::BINARY, hex(bytes, cursor)?)
    } else if let Some(rest) = rest.strip_prefix(b"hex(") {
        let (kind, rest) = kind(rest)?;
        (kind, hex(rest, cursor)?)
    } else if let Some(text) = rest.strip_prefix(b"str:\"") {
        (ValueType::SZ, string(text)?)
    } else if let Some(rest) = rest.strip_prefix(b"str(") {
        let (kind, rest) = kind(rest)?;
        (kind, string(rest.strip_prefix(b"\"").ok_or("no text after its type")?)?)
    } else {
        return Err("a value of unknown form");
    };
    Ok(Value::new(name, kind, data))
}

/// A type in hexadecimal digits, to the colon.
fn kind(rest: &[u8]) -> Result<(ValueType, &[u8]), &'static str> {
    const WRONG: &str = "a value type that is no number";
    let digits = rest.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let text = std::str::from_utf8(&rest[..digits]).map_err(|_| WRONG)?;
    let number = u32::from_str_radix(text, 16).map_err(|_| WRONG)?;
    Ok((ValueType(number), rest[digits..].strip_prefix(b"):").ok_or(WRONG)?))
}

/// Text as data, with a NUL.
fn string(text: &[u8]) -> Result<Vec<u8>, &'static str> {
    let mut data = Vec::with_capacity(2 * text.len());
    scan(text, b'"', |unit| data.extend_from_slice(&unit.to_le_bytes()))?;
    data.extend_from_slice(&[0, 0]);
    Ok(data)
}

/// Text up to an end character, and what follows that.
fn unescape(text: &[u8], end: u8) -> Result<(Vec<u16>, &[u8]), &'static str> {
    let mut units = Vec::with_capacity(text.len().min(64));
    let rest = scan(text, end, |unit| units.push(unit))?;
    Ok((units, rest))
}

fn scan(text: &[u8], end: u8, mut put: impl FnMut(u16)) -> Result<&[u8], &'static str> {
    let mut at = 0;
    loop {
        let byte = *text.get(at).ok_or("a text without an end")?;
        at += 1;
        if byte == end {
            return Ok(&text[at..]);
        }
        if byte != b'\\' {
            put(byte.into());
            continue;
        }
        let escaped = *text.get(at).ok_or("a text without an end")?;
        at += 1;
        let digits = |at: usize, most: usize, base: u32| {
            let digit = |byte: &u8| char::from(*byte).to_digit(base);
            let digits = text[at..].iter().take(most).map_while(digit);
            digits.fold((0_u16, at), |(unit, at), digit| {
                let digit = u16::try_from(digit).unwrap_or_default();
                (unit * u16::try_from(base).unwrap_or(16) + digit, at + 1)
            })
        };
        let unit = match escaped {
            b'a' => 7,
            b'b' => 8,
            b't' => 9,
            b'n' => 10,
            b'v' => 11,
            b'f' => 12,
            b'r' => 13,
            b'e' => 27,
            b'x' => {
                let (unit, after) = digits(at, 4, 16);
                // Without a digit it is the letter.
                let unit = if after == at { u16::from(b'x') } else { unit };
                at = after;
                unit
            }
            b'0'..=b'7' => {
                let (unit, after) = digits(at - 1, 3, 8);
                at = after;
                unit
            }
            other => other.into(),
        };
        put(unit);
    }
}

/// Bytes in hexadecimal digits, over as many lines as end with a backslash.
fn hex<'a>(mut line: &'a [u8], cursor: &mut Cursor<'a>) -> Result<Vec<u8>, &'static str> {
    let mut data = Vec::with_capacity(line.len() / 3 + 1);
    loop {
        let mut at = 0;
        while let Some(high) = line.get(at).and_then(|&byte| hex_digit(byte.into())) {
            at += 1;
            match line.get(at).and_then(|&byte| hex_digit(byte.into())) {
                Some(low) => {
                    data.push(high << 4 | low);
                    at += 1;
                }
                None => data.push(high),
            }
            while matches!(line.get(at), Some(b',' | b' ' | b'\t')) {
                at += 1;
            }
        }
        match line[at..].trim_ascii() {
            b"" => return Ok(data),
            b"\\" => line = cursor.next_line().ok_or("bytes without an end")?.trim_ascii_start(),
            _ => return Err("bytes that are no hexadecimal digits"),
        }
    }
}
