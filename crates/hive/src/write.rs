//! Writing hive files.
//!
//! The same tree gives the same bytes: keys are written in the order of their names, each
//! followed by its descriptor if it is new, its class, values, subkeys, and last the list of
//! these. Cells follow each other without gaps, except at the end of a bin.

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::Error;
use crate::hive::Hive;
use crate::key::{Key, KeyFlags, MAX_DEPTH, MAX_KEY_NAME, Semantics};
use crate::name::Name;
use crate::read::{BASE, checksum};
use crate::time::FileTime;
use crate::value::{MAX_VALUE_NAME, Value};

/// No cell.
const NONE: u32 = u32::MAX;
/// Unit of bins.
const BIN: usize = 4096;
/// Data above this size is written in pieces of it.
const PIECE: usize = 16_344;
/// Most subkeys in one list.
const LIST: usize = 500;
/// Offsets have 31 bits.
const MAX_SIZE: usize = 0x7FFF_0000;

/// What a file says about itself beside the tree.
#[derive(Debug, Clone, Default)]
pub struct WriteOptions {
    /// When it was written. None: as the hive says.
    pub written: Option<FileTime>,
}

/// Writes a hive file: version 1.5, or 1.6 for a differencing hive. Volatile keys are left out.
/// Keys without a security descriptor get their parent's, and the root one that lets
/// administrators and the system change it and users read it.
///
/// Fails if names are too long, keys nest too deep, or an ordinary hive has tombstones.
pub fn write(hive: &Hive, options: &WriteOptions) -> Result<Vec<u8>, Error> {
    let written = options.written.unwrap_or(hive.last_written);
    let mut writer = Writer {
        out: vec![0; BASE],
        next: BASE,
        written,
        layered: hive.layered,
        descriptors: HashMap::new(),
        order: Vec::new(),
        path: Vec::new(),
    };
    let root = writer.tree(&hive.root)?;
    writer.link_descriptors();
    writer.close_bin();
    writer.base_block(hive, root)?;
    Ok(writer.out)
}

struct Writer<'a> {
    /// The file. The base block is filled in last.
    out: Vec<u8>,
    /// Where the next cell goes. The last bin ends where `out` ends.
    next: usize,
    written: FileTime,
    layered: bool,
    /// Offset and number of users of each descriptor.
    descriptors: HashMap<Arc<[u8]>, (u32, u32)>,
    /// Their contents in the order of the file.
    order: Vec<Arc<[u8]>>,
    /// The names down to the key that is being written, for errors.
    path: Vec<&'a Name>,
}

/// A key whose subkeys are being written.
struct Open<'a> {
    key: &'a Key,
    offset: u32,
    /// The index of the cell's contents.
    at: usize,
    security: Arc<[u8]>,
    /// The subkeys that are still to be written, and those that are.
    rest: std::slice::Iter<'a, Key>,
    written: Vec<(u32, &'a Key)>,
}

impl<'a> Writer<'a> {
    fn unwritable(&self, reason: &'static str) -> Error {
        let names: Vec<String> = self.path.iter().skip(1).map(ToString::to_string).collect();
        Error::Unwritable { path: names.join("\\"), reason }
    }

    /// Makes room for a cell and returns its offset and the index of its contents.
    fn cell(&mut self, length: usize) -> Result<(u32, usize), Error> {
        let size = (length + 4).next_multiple_of(8);
        if self.next + size > self.out.len() {
            self.close_bin();
            self.open_bin(size)?;
        }
        let at = self.next;
        self.next += size;
        let size = i32::try_from(size).map_err(|_| Error::TooLarge)?;
        self.put(at, &(-size).to_le_bytes());
        Ok((u32::try_from(at - BASE).map_err(|_| Error::TooLarge)?, at + 4))
    }

    /// What is left of the last bin becomes a free cell.
    fn close_bin(&mut self) {
        if let Ok(free) = u32::try_from(self.out.len() - self.next)
            && free > 0
        {
            self.put(self.next, &free.to_le_bytes());
        }
    }

    fn open_bin(&mut self, cell: usize) -> Result<(), Error> {
        let at = self.out.len();
        let size = (cell + 32).next_multiple_of(BIN);
        if at + size > MAX_SIZE {
            return Err(Error::TooLarge);
        }
        self.out.resize(at + size, 0);
        let number = |number: usize| u32::try_from(number).map_err(|_| Error::TooLarge);
        self.put(at, b"hbin");
        self.put(at + 4, &number(at - BASE)?.to_le_bytes());
        self.put(at + 8, &number(size)?.to_le_bytes());
        if at == BASE {
            self.put(at + 20, &self.written.0.to_le_bytes());
        }
        self.next = at + 32;
        Ok(())
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.out[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn put_u32(&mut self, at: usize, number: u32) {
        self.put(at, &number.to_le_bytes());
    }

    /// A cell with these contents.
    fn bytes(&mut self, bytes: &[u8]) -> Result<u32, Error> {
        let (offset, at) = self.cell(bytes.len())?;
        self.put(at, bytes);
        Ok(offset)
    }

    /// Writes a key and all below it. Keys may nest so deep that a function that calls itself
    /// would need a large stack.
    fn tree(&mut self, root: &'a Key) -> Result<u32, Error> {
        let security = root.security.clone().unwrap_or_else(default_security);
        let mut open = vec![self.begin(root, NONE, &security)?];
        loop {
            let Some(node) = open.last_mut() else { return Err(Error::Depth) };
            match node.rest.next() {
                Some(subkey) if subkey.flags.contains(KeyFlags::VOLATILE) => {}
                Some(subkey) => {
                    let (parent, security) = (node.offset, Arc::clone(&node.security));
                    open.push(self.begin(subkey, parent, &security)?);
                }
                None => {
                    let Some(node) = open.pop() else { return Err(Error::Depth) };
                    self.end(&node)?;
                    self.path.pop();
                    let Some(parent) = open.last_mut() else { return Ok(node.offset) };
                    parent.written.push((node.offset, node.key));
                }
            }
        }
    }

    fn begin(
        &mut self,
        key: &'a Key,
        parent: u32,
        inherited: &Arc<[u8]>,
    ) -> Result<Open<'a>, Error> {
        self.path.push(key.name());
        let (offset, at) = self.key(key, parent, inherited)?;
        let security = key.security.as_ref().unwrap_or(inherited);
        let is_tombstone = key.layer.semantics == Semantics::Tombstone;
        let below = if is_tombstone { &[] } else { key.subkeys() };
        Ok(Open {
            key,
            offset,
            at,
            security: Arc::clone(security),
            rest: below.iter(),
            written: Vec::with_capacity(below.len()),
        })
    }

    /// Writes a key with its values, and returns the cell's offset and the index of its contents.
    fn key(
        &mut self,
        key: &Key,
        parent: u32,
        inherited: &Arc<[u8]>,
    ) -> Result<(u32, usize), Error> {
        let is_root = self.path.len() == 1;
        if self.path.len() > MAX_DEPTH {
            return Err(Error::Depth);
        }
        let units = key.name().units();
        if units.len() > MAX_KEY_NAME {
            return Err(self.unwritable("its name is longer than 255 characters"));
        }
        if !is_root && (units.is_empty() || units.contains(&u16::from(b'\\'))) {
            return Err(self.unwritable("its name is empty or has a backslash"));
        }
        let is_tombstone = key.layer.semantics == Semantics::Tombstone;
        if is_tombstone && !self.layered {
            return Err(self.unwritable("only a differencing hive can have deleted keys"));
        }
        let no_name = Name::from("ROOT");
        let name = if is_root && units.is_empty() { &no_name } else { key.name() };
        let (stored, narrow) = stored_name(name);

        let (offset, at) = self.cell(76 + stored.len())?;
        self.put(at, b"nk");
        let own = if is_root { 0x0C } else { 0 } | if narrow { 0x20 } else { 0 };
        let flags = (key.flags & KeyFlags::STORED).0 | own;
        self.put(at + 2, &flags.to_le_bytes());
        self.put(at + 4, &key.last_write.0.to_le_bytes());
        if self.layered {
            self.out[at + 13] = layer_byte(key);
        }
        self.put_u32(at + 16, parent);
        for none in [28, 32, 40, 48] {
            self.put_u32(at + none, NONE);
        }
        self.out[at + 54] = key.user_flags;
        self.put(at + 72, &self.length_u16(stored.len())?.to_le_bytes());
        self.put(at + 76, &stored);

        let security = key.security.as_ref().unwrap_or(inherited);
        let descriptor = self.descriptor(security)?;
        self.put_u32(at + 44, descriptor);
        if is_tombstone {
            return Ok((offset, at));
        }
        if !key.class.is_empty() {
            let class = wide(&key.class);
            self.put(at + 74, &self.length_u16(class.len())?.to_le_bytes());
            let class = self.bytes(&class)?;
            self.put_u32(at + 48, class);
        }
        self.values(key, at)?;
        Ok((offset, at))
    }

    fn length_u16(&self, length: usize) -> Result<u16, Error> {
        u16::try_from(length).map_err(|_| self.unwritable("its class is too long"))
    }

    /// Writes the values of a key, whose contents are at an index.
    fn values(&mut self, key: &Key, at: usize) -> Result<(), Error> {
        let values = key.values();
        if values.is_empty() {
            return Ok(());
        }
        let count = u32::try_from(values.len()).map_err(|_| Error::TooLarge)?;
        let (list, list_at) = self.cell(4 * values.len())?;
        let (mut longest_name, mut longest_data) = (0, 0);
        for (index, value) in values.iter().enumerate() {
            longest_name = longest_name.max(2 * value.name.units().len());
            longest_data = longest_data.max(value.data.len());
            let offset = self.value(value)?;
            self.put_u32(list_at + 4 * index, offset);
        }
        let number = |number: usize| u32::try_from(number).map_err(|_| Error::TooLarge);
        self.put_u32(at + 36, count);
        self.put_u32(at + 40, list);
        self.put_u32(at + 60, number(longest_name)?);
        self.put_u32(at + 64, number(longest_data)?);
        Ok(())
    }

    fn value(&mut self, value: &Value) -> Result<u32, Error> {
        if value.name.units().len() > MAX_VALUE_NAME {
            return Err(self.unwritable("the name of a value is longer than 16383 characters"));
        }
        if value.tombstone && !self.layered {
            return Err(self.unwritable("only a differencing hive can have deleted values"));
        }
        let (stored, narrow) = stored_name(&value.name);
        let (offset, at) = self.cell(20 + stored.len())?;
        self.put(at, b"vk");
        self.put(at + 2, &self.length_u16(stored.len())?.to_le_bytes());
        self.put(at + 20, &stored);
        let flags = u16::from(narrow && !stored.is_empty()) | u16::from(value.tombstone) << 1;
        self.put(at + 16, &flags.to_le_bytes());
        if value.tombstone {
            self.put_u32(at + 8, NONE);
            return Ok(offset);
        }
        self.put_u32(at + 12, value.kind.0);
        let size = u32::try_from(value.data.len()).map_err(|_| Error::TooLarge)?;
        match value.data.len() {
            // Windows writes empty data so, too.
            0..=4 => {
                self.put_u32(at + 4, size | 0x8000_0000);
                self.put(at + 8, &value.data);
            }
            length => {
                let data = if length <= PIECE {
                    self.bytes(&value.data)?
                } else {
                    self.pieces(&value.data)?
                };
                self.put_u32(at + 4, size);
                self.put_u32(at + 8, data);
            }
        }
        Ok(offset)
    }

    fn pieces(&mut self, data: &[u8]) -> Result<u32, Error> {
        let count = data.len().div_ceil(PIECE);
        let short = u16::try_from(count).map_err(|_| self.unwritable("a value is too large"))?;
        let (head, head_at) = self.cell(8)?;
        let (list, list_at) = self.cell(4 * count)?;
        self.put(head_at, b"db");
        self.put(head_at + 2, &short.to_le_bytes());
        self.put_u32(head_at + 4, list);
        for (index, piece) in data.chunks(PIECE).enumerate() {
            // Windows keeps four more bytes in each.
            let (offset, at) = self.cell(piece.len() + 4)?;
            self.put(at, piece);
            self.put_u32(list_at + 4 * index, offset);
        }
        Ok(head)
    }

    /// Writes the list of the subkeys of a key that were written.
    fn end(&mut self, node: &Open<'_>) -> Result<(), Error> {
        let at = node.at;
        let entries = &node.written;
        if entries.is_empty() {
            return Ok(());
        }
        let longest = |length: fn(&Key) -> usize| {
            entries.iter().map(|(_, key)| 2 * length(key)).max().unwrap_or_default()
        };
        let longest_name = longest(|key| key.name().units().len());
        let longest_class = longest(|key| match key.layer.semantics {
            Semantics::Tombstone => 0,
            _ => key.class.units().len(),
        });
        let list = if entries.len() <= LIST {
            self.leaf(entries)?
        } else {
            let leaves: Result<Vec<u32>, Error> =
                entries.chunks(LIST).map(|entries| self.leaf(entries)).collect();
            let leaves = leaves?;
            let (list, list_at) = self.cell(4 + 4 * leaves.len())?;
            self.put(list_at, b"ri");
            let count = u16::try_from(leaves.len()).map_err(|_| Error::TooLarge)?;
            self.put(list_at + 2, &count.to_le_bytes());
            for (index, leaf) in leaves.iter().enumerate() {
                self.put_u32(list_at + 4 + 4 * index, *leaf);
            }
            list
        };
        let number = |number: usize| u32::try_from(number).map_err(|_| Error::TooLarge);
        self.put_u32(at + 20, number(entries.len())?);
        self.put_u32(at + 28, list);
        let longest_name = u16::try_from(longest_name).map_err(|_| Error::TooLarge)?;
        self.put(at + 52, &longest_name.to_le_bytes());
        self.put_u32(at + 56, number(longest_class)?);
        Ok(())
    }

    /// A list of subkeys with the hashes of their names.
    fn leaf(&mut self, entries: &[(u32, &Key)]) -> Result<u32, Error> {
        let (offset, at) = self.cell(4 + 8 * entries.len())?;
        self.put(at, b"lh");
        let count = u16::try_from(entries.len()).map_err(|_| Error::TooLarge)?;
        self.put(at + 2, &count.to_le_bytes());
        for (index, &(offset_of_key, key)) in entries.iter().enumerate() {
            self.put_u32(at + 4 + 8 * index, offset_of_key);
            self.put_u32(at + 8 + 8 * index, key.name().hash37());
        }
        Ok(offset)
    }

    /// The cell of a security descriptor, which gains a user.
    fn descriptor(&mut self, security: &Arc<[u8]>) -> Result<u32, Error> {
        if let Some((offset, users)) = self.descriptors.get_mut(security) {
            *users += 1;
            return Ok(*offset);
        }
        let size = u32::try_from(security.len()).map_err(|_| Error::TooLarge)?;
        let (offset, at) = self.cell(20 + security.len())?;
        self.put(at, b"sk");
        self.put_u32(at + 16, size);
        self.put(at + 20, security);
        self.descriptors.insert(Arc::clone(security), (offset, 1));
        self.order.push(Arc::clone(security));
        Ok(offset)
    }

    /// Descriptors form a ring and count their users.
    fn link_descriptors(&mut self) {
        let cells: Vec<(u32, u32)> = self.order.iter().map(|one| self.descriptors[one]).collect();
        for (index, &(offset, users)) in cells.iter().enumerate() {
            let next = cells[(index + 1) % cells.len()].0;
            let previous = cells[(index + cells.len() - 1) % cells.len()].0;
            let at = BASE + 4 + usize::try_from(offset).unwrap_or_default();
            self.put_u32(at + 4, next);
            self.put_u32(at + 8, previous);
            self.put_u32(at + 12, users);
        }
    }

    fn base_block(&mut self, hive: &Hive, root: u32) -> Result<(), Error> {
        let size = u32::try_from(self.out.len() - BASE).map_err(|_| Error::TooLarge)?;
        let minor = if hive.layered { 6 } else { 5 };
        self.put(0, b"regf");
        self.put(12, &self.written.0.to_le_bytes());
        let flags = if hive.layered { 2 } else { 0 };
        // Both sequence numbers, the version, the format, the root, the size, the cluster.
        for (at, number) in [
            (4, 1),
            (8, 1),
            (20, 1),
            (24, minor),
            (32, 1),
            (36, root),
            (40, size),
            (44, 1),
            (144, flags),
        ] {
            self.put_u32(at, number);
        }
        let units: Vec<u16> = hive.name.encode_utf16().collect();
        let tail = &units[units.len().saturating_sub(31)..];
        for (index, unit) in tail.iter().enumerate() {
            self.put(48 + 2 * index, &unit.to_le_bytes());
        }
        let sum = checksum(&self.out);
        self.put_u32(508, sum);
        Ok(())
    }
}

fn layer_byte(key: &Key) -> u8 {
    let semantics = match key.layer.semantics {
        Semantics::Merge => 0,
        Semantics::Tombstone => 1,
        Semantics::SupersedeLocal => 2,
        Semantics::SupersedeTree => 3,
    };
    semantics | if key.layer.inherit_class { 0x80 } else { 0 }
}

fn wide(name: &Name) -> Vec<u8> {
    name.units().iter().flat_map(|unit| unit.to_le_bytes()).collect()
}

/// A name as it is stored, and whether each character has one byte.
fn stored_name(name: &Name) -> (Vec<u8>, bool) {
    if name.is_narrow() {
        (name.units().iter().map(|unit| unit.to_le_bytes()[0]).collect(), true)
    } else {
        (wide(name), false)
    }
}

/// Owner: administrators; group: system. Both have all rights, users may read, all of it for
/// subkeys too: `O:BAG:SYD:(A;CI;KA;;;SY)(A;CI;KA;;;BA)(A;CI;KR;;;BU)`.
fn default_security() -> Arc<[u8]> {
    /// Account identifiers: revision, number of parts, authority 5 (NT), parts.
    const SYSTEM: &[u8] = &[1, 1, 0, 0, 0, 0, 0, 5, 18, 0, 0, 0];
    const ADMINISTRATORS: &[u8] = &[1, 2, 0, 0, 0, 0, 0, 5, 32, 0, 0, 0, 0x20, 2, 0, 0];
    const USERS: &[u8] = &[1, 2, 0, 0, 0, 0, 0, 5, 32, 0, 0, 0, 0x21, 2, 0, 0];
    const ALL: u32 = 0xF003F;
    const READ: u32 = 0x20019;

    let mut list = Vec::new();
    for (account, mask) in [(SYSTEM, ALL), (ADMINISTRATORS, ALL), (USERS, READ)] {
        let size = u8::try_from(8 + account.len()).unwrap_or_default();
        // Allow, inherited by containers.
        list.extend([0, 2, size, 0]);
        list.extend(mask.to_le_bytes());
        list.extend(account);
    }
    let [list_size, ..] = (8 + list.len()).to_le_bytes();
    let [owner, ..] = (20 + 8 + list.len()).to_le_bytes();
    let [group, ..] = (20 + 8 + list.len() + ADMINISTRATORS.len()).to_le_bytes();
    let mut descriptor = vec![1, 0, 4, 0x80, owner, 0, 0, 0, group, 0, 0, 0];
    descriptor.extend([0, 0, 0, 0, 20, 0, 0, 0]);
    descriptor.extend([2, 0, list_size, 0, 3, 0, 0, 0]);
    descriptor.extend(list);
    descriptor.extend(ADMINISTRATORS);
    descriptor.extend(SYSTEM);
    descriptor.into()
}

#[cfg(test)]
mod tests;
