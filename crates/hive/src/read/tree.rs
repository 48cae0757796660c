//! Cells to keys.

use std::collections::HashMap;
use std::sync::Arc;

use super::base::{BASE, Base};
use super::bytes::{u16_at, u32_at, u64_at};
use crate::error::Error;
use crate::hive::{Hive, Recovery};
use crate::key::{Key, KeyFlags, Layer, MAX_DEPTH, MAX_KEY_NAME, Semantics};
use crate::name::Name;
use crate::time::FileTime;
use crate::value::{Value, ValueType};

/// No cell.
const NONE: u32 = u32::MAX;
/// Data above this size is in pieces of it, from version 1.4 on.
const PIECE: usize = 16_344;
/// Where the name starts in a key's cell.
const KEY_NAME: usize = 76;
/// Where the name starts in a value's cell.
const VALUE_NAME: usize = 20;

/// Reads the tree of a file with this base block.
pub(super) fn read(bytes: &[u8], base: &Base, recovery: Recovery) -> Result<Hive, Error> {
    if base.major != 1 || !(3..=6).contains(&base.minor) {
        return Err(Error::Version { major: base.major, minor: base.minor });
    }
    if base.kind != 0 {
        return Err(Error::NotHive("it is the log of a hive"));
    }
    let bins = bytes.get(BASE..).unwrap_or_default();
    let size = usize::try_from(base.size).unwrap_or(usize::MAX);
    let Some(bins) = bins.get(..size) else {
        return Err(Error::NotHive("it ends before its last bin"));
    };
    check_bins(bins)?;
    let mut reader = Reader {
        bins,
        minor: base.minor,
        layered: base.is_layered(),
        seen: vec![0; bins.len() / 512 + 1],
        budget: 2 * bins.len() + 4096,
        descriptors: HashMap::new(),
        last_descriptor: None,
    };
    let mut root = reader.tree(base.root)?;
    // The kernel sets it for every root.
    root.flags = KeyFlags(root.flags.0 & !KeyFlags::NO_DELETE.0);
    Ok(Hive {
        root,
        layered: reader.layered,
        minor: base.minor,
        name: base.name.clone(),
        last_written: base.written,
        recovery,
    })
}

/// Bins follow each other without a gap.
fn check_bins(bins: &[u8]) -> Result<(), Error> {
    let mut at = 0;
    while at < bins.len() {
        let bad = Error::Bin { offset: BASE + at };
        let size = usize::try_from(u32_at(bins, at + 8)).unwrap_or(usize::MAX);
        if !bins[at..].starts_with(b"hbin") || size == 0 || size % 4096 != 0 {
            return Err(bad);
        }
        at = at.checked_add(size).filter(|&end| end <= bins.len()).ok_or(bad)?;
    }
    Ok(())
}

struct Reader<'a> {
    bins: &'a [u8],
    minor: u32,
    layered: bool,
    /// A bit for each place where a cell can start: keys that were read.
    seen: Vec<u64>,
    /// Bytes that may still be taken out of cells. Without shared cells the bins are enough.
    budget: usize,
    descriptors: HashMap<u32, Arc<[u8]>>,
    /// Most keys have the descriptor of the one before.
    last_descriptor: Option<(u32, Arc<[u8]>)>,
}

/// A key whose subkeys are being read.
struct Open {
    key: Key,
    rest: std::vec::IntoIter<u32>,
    subkeys: Vec<Key>,
}

fn bad(offset: u32, reason: &'static str) -> Error {
    Error::Cell { offset, reason }
}

impl<'a> Reader<'a> {
    /// The contents of a cell that is in use.
    fn cell(&self, offset: u32) -> Result<&'a [u8], Error> {
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        let Some(rest) = self.bins.get(at..).filter(|rest| rest.len() >= 8) else {
            return Err(bad(offset, "a cell beyond the end"));
        };
        let size = i32::from_le_bytes(rest[..4].try_into().unwrap_or_default());
        if at % 8 != 0 {
            return Err(bad(offset, "a cell at no multiple of 8"));
        }
        if size >= 0 {
            return Err(bad(offset, "a cell that is not in use"));
        }
        let size = usize::try_from(size.unsigned_abs()).unwrap_or(usize::MAX);
        match rest.get(4..size) {
            Some(cell) if size % 8 == 0 => Ok(cell),
            _ => Err(bad(offset, "a cell of impossible size")),
        }
    }

    /// The contents of a cell of one kind, which has at least this length.
    fn cell_of(
        &self,
        offset: u32,
        signature: [u8; 2],
        least: usize,
        reason: &'static str,
    ) -> Result<&'a [u8], Error> {
        let cell = self.cell(offset)?;
        if cell.starts_with(&signature) && cell.len() >= least {
            Ok(cell)
        } else {
            Err(bad(offset, reason))
        }
    }

    fn spend(&mut self, bytes: usize) -> Result<(), Error> {
        self.budget = self.budget.checked_sub(bytes).ok_or(Error::Amplified)?;
        Ok(())
    }

    /// Reads a key and all below it. Keys may nest so deep that a function that calls itself
    /// would need a large stack.
    fn tree(&mut self, root: u32) -> Result<Key, Error> {
        let mut open: Vec<Open> = vec![self.key(root, true)?];
        loop {
            let depth = open.len();
            let Some(node) = open.last_mut() else { return Err(Error::Depth) };
            if let Some(offset) = node.rest.next() {
                if depth >= MAX_DEPTH {
                    return Err(Error::Depth);
                }
                open.push(self.key(offset, false)?);
                continue;
            }
            let Some(Open { mut key, subkeys, .. }) = open.pop() else { return Err(Error::Depth) };
            key.set_subkeys(subkeys);
            let Some(parent) = open.last_mut() else { return Ok(key) };
            parent.subkeys.push(key);
        }
    }

    /// Reads a key with its values.
    fn key(&mut self, offset: u32, is_root: bool) -> Result<Open, Error> {
        let cell = self.cell_of(offset, *b"nk", KEY_NAME, "no key")?;
        let slot = usize::try_from(offset).unwrap_or(usize::MAX) / 8;
        let (word, bit) = (&mut self.seen[slot / 64], 1 << (slot % 64));
        if *word & bit != 0 {
            return Err(bad(offset, "a key that is in the tree twice"));
        }
        *word |= bit;

        let flags = u16_at(cell, 2);
        let name_length = usize::from(u16_at(cell, 72));
        let Some(name) = cell.get(KEY_NAME..KEY_NAME + name_length) else {
            return Err(bad(offset, "a key name longer than its cell"));
        };
        let name = self.name(name, flags & 0x20 != 0)?;
        if name.units().len() > MAX_KEY_NAME {
            return Err(bad(offset, "a key name of more than 255 characters"));
        }
        if !is_root && name.units().contains(&u16::from(b'\\')) {
            return Err(bad(offset, "a key name with a backslash"));
        }
        let mut key = Key::new(name);
        key.flags = KeyFlags(flags) & KeyFlags::STORED;
        key.last_write = FileTime(u64_at(cell, 4));
        key.user_flags = cell[54];
        if self.layered {
            key.layer = layer(cell[13]);
        }
        key.security = self.descriptor(u32_at(cell, 44))?;
        if key.layer.semantics == Semantics::Tombstone {
            // Whatever it has does not exist.
            return Ok(Open { key, rest: Vec::new().into_iter(), subkeys: Vec::new() });
        }
        key.class = self.class(u32_at(cell, 48), u16_at(cell, 74))?;

        let values = u32_at(cell, 36);
        // The count of a predefined key is a handle.
        if values > 0 && flags & 0x40 == 0 {
            let list = self.list(u32_at(cell, 40), values)?;
            let values: Result<Vec<Value>, Error> = list.map(|value| self.value(value)).collect();
            key.set_values(values?);
        }
        let mut offsets = Vec::new();
        if u32_at(cell, 20) > 0 {
            self.subkeys(u32_at(cell, 28), true, &mut offsets)?;
        }
        Ok(Open { key, rest: offsets.into_iter(), subkeys: Vec::new() })
    }

    /// The keys in a list of any kind.
    fn subkeys(&mut self, offset: u32, may_nest: bool, into: &mut Vec<u32>) -> Result<(), Error> {
        let cell = self.cell(offset)?;
        let count = usize::from(u16_at(cell, 2));
        let step = match cell {
            [b'l', b'f' | b'h', ..] => 8,
            [b'l', b'i', ..] => 4,
            [b'r', b'i', ..] if may_nest => 4,
            _ => return Err(bad(offset, "no list of keys")),
        };
        let Some(entries) = cell.get(4..4 + step * count) else {
            return Err(bad(offset, "a list of keys longer than its cell"));
        };
        self.spend(entries.len())?;
        let nested = cell[0] == b'r';
        into.reserve(if nested { 0 } else { count });
        for entry in entries.chunks_exact(step) {
            let target = u32_at(entry, 0);
            if nested {
                self.subkeys(target, false, into)?;
            } else {
                into.push(target);
            }
        }
        Ok(())
    }

    /// The offsets in a list cell.
    fn list(
        &mut self,
        offset: u32,
        count: u32,
    ) -> Result<impl Iterator<Item = u32> + use<'a>, Error> {
        let length = usize::try_from(count).unwrap_or(usize::MAX).saturating_mul(4);
        let Some(entries) = self.cell(offset)?.get(..length) else {
            return Err(bad(offset, "a list of offsets longer than its cell"));
        };
        self.spend(length)?;
        Ok(entries.chunks_exact(4).map(|entry| u32_at(entry, 0)))
    }

    fn value(&mut self, offset: u32) -> Result<Value, Error> {
        let cell = self.cell_of(offset, *b"vk", VALUE_NAME, "no value")?;
        let name_length = usize::from(u16_at(cell, 2));
        let flags = u16_at(cell, 16);
        let Some(name) = cell.get(VALUE_NAME..VALUE_NAME + name_length) else {
            return Err(bad(offset, "a value name longer than its cell"));
        };
        // The structure counts as well, for values that are in several lists.
        self.spend(VALUE_NAME)?;
        let name = self.name(name, flags & 1 != 0)?;
        if self.layered && flags & 2 != 0 {
            return Ok(Value::tombstone(name));
        }
        let size = u32_at(cell, 4);
        let data = if size & 0x8000_0000 == 0 {
            self.data(u32_at(cell, 8), usize::try_from(size).unwrap_or(usize::MAX))?
        } else {
            let size = usize::try_from(size & 0x7FFF_FFFF).unwrap_or(usize::MAX);
            cell[8..8 + size.min(4)].to_vec()
        };
        Ok(Value { name, kind: ValueType(u32_at(cell, 12)), data, tombstone: false })
    }

    fn data(&mut self, offset: u32, size: usize) -> Result<Vec<u8>, Error> {
        if size == 0 {
            return Ok(Vec::new());
        }
        let cell = self.cell(offset)?;
        self.spend(size)?;
        if let Some(data) = cell.get(..size) {
            return Ok(data.to_vec());
        }
        if self.minor <= 3 || size <= PIECE || !cell.starts_with(b"db") || cell.len() < 8 {
            return Err(bad(offset, "data longer than its cell"));
        }
        let pieces = u32::from(u16_at(cell, 2));
        let mut data = Vec::with_capacity(size);
        for piece in self.list(u32_at(cell, 4), pieces)? {
            let wanted = PIECE.min(size - data.len());
            let Some(piece_data) = self.cell(piece)?.get(..wanted) else {
                return Err(bad(piece, "a piece of data longer than its cell"));
            };
            data.extend_from_slice(piece_data);
        }
        if data.len() < size {
            return Err(bad(offset, "data with too few pieces"));
        }
        Ok(data)
    }

    fn name(&mut self, bytes: &[u8], narrow: bool) -> Result<Name, Error> {
        self.spend(bytes.len())?;
        let units: Vec<u16> = if narrow {
            bytes.iter().copied().map(u16::from).collect()
        } else {
            bytes.as_chunks().0.iter().map(|&pair| u16::from_le_bytes(pair)).collect()
        };
        Ok(Name::from(units))
    }

    fn class(&mut self, offset: u32, length: u16) -> Result<Name, Error> {
        if offset == NONE || length == 0 {
            return Ok(Name::default());
        }
        match self.cell(offset)?.get(..usize::from(length)) {
            Some(bytes) => self.name(bytes, false),
            None => Err(bad(offset, "a class longer than its cell")),
        }
    }

    fn descriptor(&mut self, offset: u32) -> Result<Option<Arc<[u8]>>, Error> {
        if offset == NONE {
            return Ok(None);
        }
        if let Some((last, descriptor)) = &self.last_descriptor
            && *last == offset
        {
            return Ok(Some(Arc::clone(descriptor)));
        }
        let descriptor = match self.descriptors.get(&offset) {
            Some(descriptor) => Arc::clone(descriptor),
            None => {
                let cell = self.cell_of(offset, *b"sk", 20, "no security descriptor")?;
                let size = usize::try_from(u32_at(cell, 16)).unwrap_or(usize::MAX);
                let Some(bytes) = cell[20..].get(..size) else {
                    return Err(bad(offset, "a security descriptor longer than its cell"));
                };
                self.spend(size)?;
                let descriptor = Arc::from(bytes);
                self.descriptors.insert(offset, Arc::clone(&descriptor));
                descriptor
            }
        };
        self.last_descriptor = Some((offset, Arc::clone(&descriptor)));
        Ok(Some(descriptor))
    }
}

fn layer(byte: u8) -> Layer {
    let semantics = match byte & 3 {
        0 => Semantics::Merge,
        1 => Semantics::Tombstone,
        2 => Semantics::SupersedeLocal,
        _ => Semantics::SupersedeTree,
    };
    Layer { semantics, inherit_class: byte & 0x80 != 0 }
}

#[cfg(test)]
mod tests;
