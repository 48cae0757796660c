//! Keys to text.

use super::Version;
use super::parse::CODE_PAGE;
use crate::key::{Key, KeyFlags, Semantics};
use crate::name::Name;
use crate::text::{is_terminated, write_hex};
use crate::value::{Value, ValueType};

/// Longest line of bytes.
const WIDTH: usize = 76;

/// Writes a key and all below it. `prefix` is the path of the key, `HKEY_LOCAL_MACHINE\SOFTWARE`.
/// Volatile keys are left out; tombstones of a differencing hive become deletions, and so does
/// what a key that supersedes hides.
pub fn render(key: &Key, prefix: &str, version: Version) -> Vec<u8> {
    let mut out = Text { version, bytes: Vec::new() };
    match version {
        Version::Four => out.ascii("REGEDIT4\r\n"),
        Version::Five => {
            out.bytes.extend([0xFF, 0xFE]);
            out.ascii("Windows Registry Editor Version 5.00\r\n");
        }
    }
    let mut path: Vec<u16> = prefix.encode_utf16().collect();
    render_key(&mut out, key, &mut path, false);
    out.ascii("\r\n");
    out.bytes
}

fn render_key(out: &mut Text, key: &Key, path: &mut Vec<u16>, is_replaced: bool) {
    let semantics = key.layer.semantics;
    let replaces = semantics == Semantics::SupersedeTree;
    if semantics == Semantics::Tombstone || replaces && !is_replaced {
        out.ascii("\r\n[-");
        out.units(path);
        out.ascii("]\r\n");
    }
    if semantics == Semantics::Tombstone {
        return;
    }
    out.ascii("\r\n[");
    out.units(path);
    out.ascii("]\r\n");
    for value in key.values() {
        render_value(out, value);
    }
    for subkey in key.subkeys() {
        if subkey.flags.contains(KeyFlags::VOLATILE) {
            continue;
        }
        let length = path.len();
        path.push(u16::from(b'\\'));
        path.extend_from_slice(subkey.name().units());
        render_key(out, subkey, path, replaces);
        path.truncate(length);
    }
}

fn render_value(out: &mut Text, value: &Value) {
    let start = out.column_start();
    if value.name.is_empty() {
        out.ascii("@=");
    } else {
        out.quoted(&value.name);
        out.ascii("=");
    }
    if value.tombstone {
        out.ascii("-\r\n");
        return;
    }
    let (text, _) = value.data.split_at(value.data.len().saturating_sub(2));
    let text: Vec<u16> = text.as_chunks().0.iter().map(|&pair| u16::from_le_bytes(pair)).collect();
    let is_plain = text.iter().all(|unit| !matches!(unit, 0 | 10 | 13));
    match (value.kind, value.number()) {
        (ValueType::SZ, _) if is_terminated(&value.data) && is_plain => {
            out.quoted(&Name::from(text));
            out.ascii("\r\n");
            return;
        }
        (ValueType::DWORD, Some(number)) => {
            out.ascii(&format!("dword:{number:08x}\r\n"));
            return;
        }
        (ValueType::BINARY, _) => out.ascii("hex:"),
        (kind, _) => out.ascii(&format!("hex({:x}):", kind.0)),
    }
    let is_text = matches!(value.kind, ValueType::EXPAND_SZ | ValueType::MULTI_SZ);
    let data = if out.version == Version::Four && is_text {
        value.units().map(narrow).collect()
    } else {
        value.data.clone()
    };
    let mut hex = Vec::new();
    write_hex(&mut hex, &data, out.column_start() - start, WIDTH, b"\r\n");
    out.ascii(&String::from_utf8_lossy(&hex));
    out.ascii("\r\n");
}

/// A character in Windows 1252.
fn narrow(unit: u16) -> u8 {
    match u8::try_from(unit) {
        Ok(byte @ (0..0x80 | 0xA0..)) => byte,
        _ => (0x80..=0x9F_u8)
            .zip(CODE_PAGE)
            .find(|&(_, character)| character == unit)
            .map_or(b'?', |(byte, _)| byte),
    }
}

struct Text {
    version: Version,
    bytes: Vec<u8>,
}

impl Text {
    fn ascii(&mut self, text: &str) {
        match self.version {
            Version::Four => self.bytes.extend_from_slice(text.as_bytes()),
            Version::Five => self.bytes.extend(text.bytes().flat_map(|byte| [byte, 0])),
        }
    }

    fn units(&mut self, units: &[u16]) {
        match self.version {
            Version::Four => self.bytes.extend(units.iter().map(|&unit| narrow(unit))),
            Version::Five => self.bytes.extend(units.iter().flat_map(|unit| unit.to_le_bytes())),
        }
    }

    fn quoted(&mut self, text: &Name) {
        self.ascii("\"");
        for &unit in text.units() {
            if unit == u16::from(b'\\') || unit == u16::from(b'"') {
                self.ascii("\\");
            }
            self.units(&[unit]);
        }
        self.ascii("\"");
    }

    /// Characters written so far.
    fn column_start(&self) -> usize {
        match self.version {
            Version::Four => self.bytes.len(),
            Version::Five => self.bytes.len() / 2,
        }
    }
}
