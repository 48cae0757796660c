//! A reader of registry hives that shares nothing with Silo's own: only as much as is needed to
//! put differences over each other.

use std::collections::BTreeMap;

/// How a key goes with the same one beneath.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layer {
    /// Both together.
    Merge,
    /// There is none.
    Gone,
    /// Its own values alone, but the keys of both.
    Values,
    /// Nothing of what is beneath.
    Tree,
}

#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) layer: Layer,
    pub(crate) keys: BTreeMap<String, Key>,
    /// `None` for one that is gone.
    pub(crate) values: BTreeMap<String, Option<(u32, Vec<u8>)>>,
}

struct Hive<'a>(&'a [u8]);

impl Hive<'_> {
    fn number(&self, at: usize, size: usize) -> usize {
        self.0[at..at + size].iter().rev().fold(0, |sum, &byte| sum << 8 | usize::from(byte))
    }

    /// Where the content of the cell with this offset is.
    fn cell(&self, at: usize) -> usize {
        let offset = self.number(at, 4);
        assert_ne!(offset, 0xffff_ffff, "no cell at {at:#x}");
        4096 + offset + 4
    }

    fn text(&self, at: usize, size: usize, narrow: bool) -> String {
        let bytes = &self.0[at..at + size];
        if narrow {
            return bytes.iter().map(|&byte| char::from(byte)).collect();
        }
        let units: Vec<u16> =
            bytes.chunks_exact(2).map(|two| u16::from_le_bytes([two[0], two[1]])).collect();
        String::from_utf16(&units).expect("a name")
    }

    fn key(&self, at: usize) -> (String, Key) {
        assert_eq!(&self.0[at..at + 2], b"nk");
        let narrow = self.number(at + 2, 2) & 0x20 != 0;
        let name = self.text(at + 76, self.number(at + 72, 2), narrow);
        let layer = match self.0[at + 13] & 3 {
            0 => Layer::Merge,
            1 => Layer::Gone,
            2 => Layer::Values,
            _ => Layer::Tree,
        };
        let mut key = Key { layer, keys: BTreeMap::new(), values: BTreeMap::new() };
        if self.number(at + 20, 4) > 0 {
            self.list(self.cell(at + 28), &mut key.keys);
        }
        for number in 0..self.number(at + 36, 4) {
            let (name, value) = self.value(self.cell(self.cell(at + 40) + 4 * number));
            key.values.insert(name, value);
        }
        (name, key)
    }

    fn list(&self, at: usize, keys: &mut BTreeMap<String, Key>) {
        let size = if matches!(&self.0[at..at + 2], b"lf" | b"lh") { 8 } else { 4 };
        for number in 0..self.number(at + 2, 2) {
            let element = self.cell(at + 4 + size * number);
            if &self.0[at..at + 2] == b"ri" {
                self.list(element, keys);
            } else {
                keys.extend([self.key(element)]);
            }
        }
    }

    fn value(&self, at: usize) -> (String, Option<(u32, Vec<u8>)>) {
        assert_eq!(&self.0[at..at + 2], b"vk");
        let flags = self.number(at + 16, 2);
        let name = self.text(at + 20, self.number(at + 2, 2), flags & 1 != 0);
        if flags & 2 != 0 {
            return (name, None);
        }
        let size = self.number(at + 4, 4);
        let kind = u32::try_from(self.number(at + 12, 4)).expect("a type");
        let data = if size & 0x8000_0000 != 0 {
            self.0[at + 8..at + 8 + (size & 0x7fff_ffff)].to_vec()
        } else if size == 0 {
            Vec::new()
        } else if size <= 16344 {
            let data = self.cell(at + 8);
            self.0[data..data + size].to_vec()
        } else {
            let parts = self.cell(at + 8);
            assert_eq!(&self.0[parts..parts + 2], b"db");
            let mut data = Vec::new();
            for number in 0..self.number(parts + 2, 2) {
                let part = self.cell(self.cell(parts + 4) + 4 * number);
                let rest = (size - data.len()).min(16344);
                data.extend(&self.0[part..part + rest]);
            }
            data
        };
        (name, Some((kind, data)))
    }
}

/// The root of a hive.
pub(crate) fn read(bytes: &[u8]) -> Key {
    let hive = Hive(bytes);
    hive.key(4096 + hive.number(36, 4) + 4).1
}

impl Key {
    /// A key below this one.
    pub(crate) fn get(&self, path: &str) -> Option<&Self> {
        path.split('\\').try_fold(self, |key, name| key.keys.get(name))
    }

    /// Puts a difference over it.
    pub(crate) fn put(&mut self, over: &Self) {
        match over.layer {
            Layer::Tree => {
                self.keys.clear();
                self.values.clear();
            }
            Layer::Values => self.values.clear(),
            Layer::Merge | Layer::Gone => {}
        }
        for (name, value) in &over.values {
            match value {
                Some(_) => drop(self.values.insert(name.clone(), value.clone())),
                None => drop(self.values.remove(name)),
            }
        }
        for (name, key) in &over.keys {
            if key.layer == Layer::Gone {
                self.keys.remove(name);
                continue;
            }
            let empty =
                Self { layer: Layer::Merge, keys: BTreeMap::new(), values: BTreeMap::new() };
            self.keys.entry(name.clone()).or_insert(empty).put(key);
        }
    }
}
