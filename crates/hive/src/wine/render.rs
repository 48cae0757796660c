//! Keys to text.

use std::cmp::Ordering;
use std::io::Write as _;

use super::{Arch, Registry};
use crate::key::{Key, KeyFlags, Semantics};
use crate::name::Name;
use crate::text::{is_terminated, write_hex};
use crate::value::{Value, ValueType};

/// Longest line of bytes.
const WIDTH: usize = 76;

/// Writes a registry file as Wine does. Volatile keys are left out, and so is what only a
/// differencing hive has: tombstones.
pub fn render(registry: &Registry) -> Vec<u8> {
    let mut out = b"WINE REGISTRY Version 2\n;; All keys relative to ".to_vec();
    // It is a comment of one line.
    let base: String = registry.base.chars().filter(|letter| !letter.is_control()).collect();
    out.extend_from_slice(base.trim_end().replace('\\', "\\\\").as_bytes());
    out.push(b'\n');
    match registry.arch {
        Some(Arch::Win32) => out.extend_from_slice(b"\n#arch=win32\n"),
        Some(Arch::Win64) => out.extend_from_slice(b"\n#arch=win64\n"),
        None => {}
    }
    let mut renderer = Renderer { out, path: Vec::new() };
    renderer.key(&registry.hive.root);
    renderer.out
}

struct Renderer {
    out: Vec<u8>,
    /// The path of the key that is written, in escapes.
    path: Vec<u8>,
}

impl Renderer {
    fn key(&mut self, key: &Key) {
        let subkeys = ordered(key.subkeys(), Key::name);
        let mut subkeys: Vec<&Key> = subkeys;
        subkeys.retain(|key| {
            !key.flags.contains(KeyFlags::VOLATILE) && key.layer.semantics != Semantics::Tombstone
        });
        let is_link = key.flags.contains(KeyFlags::SYMLINK);
        if !key.values().is_empty() || subkeys.is_empty() || !key.class.is_empty() || is_link {
            self.section(key, is_link);
        }
        for subkey in subkeys {
            let length = self.path.len();
            if length > 0 {
                self.path.extend_from_slice(b"\\\\");
            }
            escape(&mut self.path, subkey.name().units(), *b"[]", true);
            self.key(subkey);
            self.path.truncate(length);
        }
    }

    fn section(&mut self, key: &Key, is_link: bool) {
        let out = &mut self.out;
        out.extend_from_slice(b"\n[");
        out.extend_from_slice(&self.path);
        let time = key.last_write;
        // Wine keeps 32 bits of the seconds, and all of the ticks.
        let [a, b, c, d, ..] = time.unix().to_le_bytes();
        let seconds = u32::from_le_bytes([a, b, c, d]);
        let (high, low) = (time.0 >> 32, time.0 & 0xFFFF_FFFF);
        text(out, format_args!("] {seconds}\n#time={high:x}{low:08x}\n"));
        if !key.class.is_empty() {
            out.extend_from_slice(b"#class=\"");
            escape(out, key.class.units(), *b"\"\"", true);
            out.extend_from_slice(b"\"\n");
        }
        if is_link {
            out.extend_from_slice(b"#link\n");
        }
        for item in ordered(key.values(), |value| &value.name) {
            if !item.tombstone {
                value(out, item);
            }
        }
    }
}

fn text(out: &mut Vec<u8>, arguments: std::fmt::Arguments<'_>) {
    // A vector takes everything.
    out.write_fmt(arguments).unwrap_or_default();
}

fn value(out: &mut Vec<u8>, value: &Value) {
    let start = out.len();
    if value.name.is_empty() {
        out.push(b'@');
    } else {
        out.push(b'"');
        escape(out, value.name.units(), *b"\"\"", true);
        out.push(b'"');
    }
    out.push(b'=');
    let is_string =
        matches!(value.kind, ValueType::SZ | ValueType::EXPAND_SZ | ValueType::MULTI_SZ);
    if is_string && is_terminated(&value.data) {
        if value.kind != ValueType::SZ {
            text(out, format_args!("str({:x}):", value.kind.0));
        }
        out.push(b'"');
        let units: Vec<u16> = value.units().collect();
        escape(out, &units, *b"\"\"", false);
        out.extend_from_slice(b"\"\n");
        return;
    }
    match (value.kind, value.number()) {
        (ValueType::DWORD, Some(number)) => {
            text(out, format_args!("dword:{number:08x}\n"));
            return;
        }
        (ValueType::BINARY, _) => out.extend_from_slice(b"hex:"),
        (kind, _) => text(out, format_args!("hex({:x}):", kind.0)),
    }
    write_hex(out, &value.data, out.len() - start, WIDTH, b"\n");
    out.push(b'\n');
}

/// Text in escapes; `special` are escaped with a backslash. A NUL at the end is written only if
/// it belongs to the text.
fn escape(out: &mut Vec<u8>, units: &[u16], special: [u8; 2], with_last_nul: bool) {
    const LETTERS: &[u8; 32] = b".......abtnvfr.............e....";
    for (index, &unit) in units.iter().enumerate() {
        let next = units.get(index + 1).and_then(|&next| u8::try_from(next).ok());
        match u8::try_from(unit) {
            Ok(0) if next.is_none() && index + 1 == units.len() && !with_last_nul => {}
            Ok(byte @ 0..32) if LETTERS[usize::from(byte)] != b'.' => {
                out.extend_from_slice(&[b'\\', LETTERS[usize::from(byte)]]);
            }
            Ok(byte @ 0..32) if next.is_some_and(|next| (b'0'..=b'7').contains(&next)) => {
                text(out, format_args!("\\{byte:03o}"));
            }
            Ok(byte @ 0..32) => text(out, format_args!("\\{byte:o}")),
            Ok(byte @ 32..128) => {
                if byte == b'\\' || special.contains(&byte) {
                    out.push(b'\\');
                }
                out.push(byte);
            }
            _ if next.is_some_and(|next| next.is_ascii_hexdigit()) => {
                text(out, format_args!("\\x{unit:04x}"));
            }
            _ => text(out, format_args!("\\x{unit:x}")),
        }
    }
}

/// The items in Wine's order, which is that of names in lower case.
fn ordered<T>(items: &[T], name: fn(&T) -> &Name) -> Vec<&T> {
    let mut items: Vec<&T> = items.iter().collect();
    let order = |one: &&T, other: &&T| lower_order(name(one), name(other));
    if !items.is_sorted_by(|one, other| order(one, other).is_le()) {
        items.sort_by(order);
    }
    items
}

fn lower_order(one: &Name, other: &Name) -> Ordering {
    let lower = |name: &Name| name.units().iter().map(|&unit| lower(unit)).collect::<Vec<u16>>();
    if one.units().iter().zip(other.units()).all(|(a, b)| a == b) {
        return one.units().len().cmp(&other.units().len());
    }
    lower(one)
        .iter()
        .zip(&lower(other))
        .map(|(a, b)| a.cmp(b))
        .find(|order| order.is_ne())
        .unwrap_or_else(|| one.units().len().cmp(&other.units().len()))
}

/// The lower case of one unit.
fn lower(unit: u16) -> u16 {
    if unit < 0x80 {
        return if (0x41..=0x5A).contains(&unit) { unit + 0x20 } else { unit };
    }
    let Some(letter) = char::from_u32(unit.into()) else { return unit };
    let mut lower = letter.to_lowercase();
    match (lower.next(), lower.next()) {
        (Some(one), None) => u16::try_from(u32::from(one)).unwrap_or(unit),
        _ => unit,
    }
}
