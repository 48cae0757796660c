//! Text to changes.

use super::{Change, Edit, Error, Version, long_root};
use crate::name::Name;
use crate::text::hex_digit;
use crate::value::{MAX_VALUE_NAME, Value, ValueType};

/// What Windows 1252 has in place of the control characters 0x80 to 0x9f.
pub(super) const CODE_PAGE: [u16; 32] = [
    0x20AC, 0x81, 0x201A, 0x0192, 0x201E, 0x2026, 0x2020, 0x2021, 0x02C6, 0x2030, 0x0160, 0x2039,
    0x0152, 0x8D, 0x017D, 0x8F, 0x90, 0x2018, 0x2019, 0x201C, 0x201D, 0x2022, 0x2013, 0x2014,
    0x02DC, 0x2122, 0x0161, 0x203A, 0x0153, 0x9D, 0x017E, 0x0178,
];

/// Reads a file of the registry editor.
pub fn parse(bytes: &[u8]) -> Result<Vec<Edit>, Error> {
    let text = decode(bytes);
    let mut lines = Lines { text: &text, at: 0, line: 0 };
    let version = match lines.next().map(trim).map(String::from_utf16_lossy).as_deref() {
        Some("Windows Registry Editor Version 5.00") => Version::Five,
        Some("REGEDIT4") => Version::Four,
        _ => return Err(Error::NotRegFile),
    };
    let mut edits: Vec<Edit> = Vec::new();
    while let Some(line) = lines.next() {
        let line = trim(line);
        let number = lines.line;
        let error = |reason| Error::Line { line: number, reason };
        match line.first().and_then(|&unit| u8::try_from(unit).ok()) {
            None if line.is_empty() => {}
            Some(b';') => {}
            Some(b'[') => edits.push(section(&line[1..]).map_err(error)?),
            Some(b'"' | b'@') => {
                let change = lines.change(line, version).map_err(error)?;
                match edits.last_mut() {
                    Some(edit) if !edit.delete => edit.changes.push(change),
                    _ => return Err(error("a value without a key")),
                }
            }
            _ => return Err(error("neither a key nor a value")),
        }
    }
    Ok(edits)
}

/// The text of any of the encodings, without a byte order mark.
fn decode(bytes: &[u8]) -> Vec<u16> {
    if let Some(rest) = bytes.strip_prefix(b"\xFF\xFE") {
        return rest.as_chunks().0.iter().map(|&pair| u16::from_le_bytes(pair)).collect();
    }
    let rest = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let is_four = rest.starts_with(b"REGEDIT4");
    match std::str::from_utf8(rest) {
        Ok(text) if !is_four || rest.len() < bytes.len() => text.encode_utf16().collect(),
        _ => rest.iter().map(|&byte| wide(byte)).collect(),
    }
}

/// A character of Windows 1252.
fn wide(byte: u8) -> u16 {
    match byte {
        0x80..=0x9F => CODE_PAGE[usize::from(byte - 0x80)],
        byte => byte.into(),
    }
}

fn trim(mut line: &[u16]) -> &[u16] {
    let is_space = |unit: &u16| matches!(unit, 9 | 13 | 32);
    while line.first().is_some_and(is_space) {
        line = &line[1..];
    }
    while line.last().is_some_and(is_space) {
        line = &line[..line.len() - 1];
    }
    line
}

/// The rest of a line if it starts with a text.
fn strip<'a>(line: &'a [u16], start: &str) -> Option<&'a [u16]> {
    line.split_at_checked(start.len())
        .filter(|(found, _)| found.iter().copied().eq(start.encode_utf16()))
        .map(|(_, rest)| rest)
}

/// A key, to the last bracket of the line: names have brackets too.
fn section(line: &[u16]) -> Result<Edit, &'static str> {
    let end =
        line.iter().rposition(|&unit| unit == u16::from(b']')).ok_or("a key without \"]\"")?;
    let (delete, path) = match strip(&line[..end], "-") {
        Some(path) => (true, path),
        None => (false, &line[..end]),
    };
    let path: Vec<Name> = path
        .split(|&unit| unit == u16::from(b'\\'))
        .filter(|part| !part.is_empty())
        .map(Name::from)
        .collect();
    if path.is_empty() {
        return Err("a key without a name");
    }
    Ok(Edit { path: long_root(path), delete, changes: Vec::new() })
}

struct Lines<'a> {
    text: &'a [u16],
    at: usize,
    line: usize,
}

impl<'a> Lines<'a> {
    /// The next line without its end.
    fn next(&mut self) -> Option<&'a [u16]> {
        let rest = self.text.get(self.at..).filter(|rest| !rest.is_empty())?;
        let line = rest.split(|&unit| unit == u16::from(b'\n')).next()?;
        self.at += line.len() + 1;
        self.line += 1;
        Some(line)
    }

    /// A change, which may go on in the next lines.
    fn change(&mut self, line: &'a [u16], version: Version) -> Result<Change, &'static str> {
        let (name, rest) = match strip(line, "\"") {
            Some(rest) => self.quoted(rest)?,
            None => (Vec::new(), &line[1..]),
        };
        if name.len() > MAX_VALUE_NAME {
            return Err("a value name of more than 16383 characters");
        }
        let name = Name::from(name);
        let rest = trim(strip(trim(rest), "=").ok_or("no \"=\" after a value name")?);
        if rest == [u16::from(b'-')] {
            return Ok(Change::Delete(name));
        }
        let (kind, data) = if let Some(rest) = strip(rest, "\"") {
            let (text, _) = self.quoted(rest)?;
            let mut data: Vec<u8> = text.into_iter().flat_map(u16::to_le_bytes).collect();
            data.extend([0, 0]);
            (ValueType::SZ, data)
        } else if let Some(digits) = strip(rest, "dword:") {
            (ValueType::DWORD, number(digits)?.to_le_bytes().to_vec())
        } else if let Some(rest) = strip(rest, "hex:") {
            (ValueType::BINARY, self.hex(rest)?)
        } else if let Some(rest) = strip(rest, "hex(") {
            let end = rest.iter().position(|&unit| unit == u16::from(b')'));
            let end = end.ok_or("a value type that is no number")?;
            let kind = ValueType(number(&rest[..end])?);
            let rest = strip(&rest[end..], "):").ok_or("no \":\" after a value type")?;
            let data = self.hex(rest)?;
            let is_text = matches!(kind, ValueType::EXPAND_SZ | ValueType::MULTI_SZ);
            let data = if version == Version::Four && is_text {
                data.into_iter().flat_map(|byte| wide(byte).to_le_bytes()).collect()
            } else {
                data
            };
            (kind, data)
        } else {
            return Err("a value of unknown form");
        };
        Ok(Change::Set(Value::new(name, kind, data)))
    }

    /// Text in quotes, which may have several lines, and the rest of its last line.
    fn quoted(&mut self, mut rest: &'a [u16]) -> Result<(Vec<u16>, &'a [u16]), &'static str> {
        let mut text = Vec::new();
        loop {
            let mut units = rest.iter();
            while let Some(&unit) = units.next() {
                if unit == u16::from(b'"') {
                    return Ok((text, units.as_slice()));
                }
                if unit == u16::from(b'\\') {
                    text.push(*units.next().ok_or("a text without an end")?);
                } else {
                    text.push(unit);
                }
            }
            rest = self.next().ok_or("a text without an end")?;
            // Trimming the line has taken the end of the first line.
            text.extend([13, 10]);
            rest = rest.strip_suffix(&[13]).unwrap_or(rest);
        }
    }

    /// Bytes in hexadecimal digits, over as many lines as end with a backslash.
    fn hex(&mut self, mut line: &'a [u16]) -> Result<Vec<u8>, &'static str> {
        let mut data = Vec::with_capacity(line.len() / 3 + 1);
        loop {
            // The digits of a byte so far, and how many they are.
            let mut byte = (0, 0);
            let mut goes_on = false;
            for &unit in line {
                match (hex_digit(unit), byte, u8::try_from(unit)) {
                    (Some(digit), (high, 0 | 1), _) if !goes_on => {
                        byte = (high << 4 | digit, byte.1 + 1);
                    }
                    (None, (value, digits), Ok(b',')) if !goes_on => {
                        data.extend((digits > 0).then_some(value));
                        byte = (0, 0);
                    }
                    (None, _, Ok(b'\\')) if !goes_on => goes_on = true,
                    (None, _, Ok(b' ' | b'\t' | b'\r')) => {}
                    _ => return Err("bytes that are no hexadecimal digits"),
                }
            }
            data.extend((byte.1 > 0).then_some(byte.0));
            if !goes_on {
                return Ok(data);
            }
            line = trim(self.next().ok_or("bytes without an end")?);
        }
    }
}

fn number(digits: &[u16]) -> Result<u32, &'static str> {
    let text = String::from_utf16_lossy(trim(digits));
    u32::from_str_radix(&text, 16).map_err(|_| "not a hexadecimal number")
}
