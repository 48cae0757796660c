//! What Wine's registry text and `.reg` files share: a tree that grows line by line.

use std::collections::HashMap;

use crate::key::{Key, MAX_DEPTH, MAX_KEY_NAME};
use crate::time::FileTime;
use crate::upcase::upcase;
use crate::value::Value;

/// Why a path cannot be a key.
pub(crate) const TOO_DEEP: &str = "keys nest too deep";
/// Why a name cannot be a key's.
pub(crate) const TOO_LONG: &str = "a key name of more than 255 characters";

/// A tree whose keys are made in any order, in time that is linear in their number.
#[derive(Debug)]
pub(crate) struct Builder {
    /// Parents stand before their subkeys.
    nodes: Vec<Node>,
    /// Nodes by parent and name in upper case.
    index: HashMap<(usize, Box<[u16]>), usize>,
    /// The path of the last key: most keys share its beginning.
    last: Vec<usize>,
    /// The first node that the last path made.
    made: usize,
}

#[derive(Debug)]
struct Node {
    parent: usize,
    key: Key,
    values: Vec<Value>,
}

impl Builder {
    pub(crate) fn new() -> Self {
        let root = Node { parent: 0, key: Key::new("ROOT"), values: Vec::new() };
        Self { nodes: vec![root], index: HashMap::new(), last: vec![0], made: 1 }
    }

    /// Finds or makes a key; what is made has the time.
    pub(crate) fn enter(&mut self, path: &[u16], time: FileTime) -> Result<usize, &'static str> {
        self.made = self.nodes.len();
        let mut node = 0;
        let mut depth = 0;
        let mut follows = true;
        for part in path.split(|&unit| unit == u16::from(b'\\')).filter(|part| !part.is_empty()) {
            depth += 1;
            if depth >= MAX_DEPTH {
                return Err(TOO_DEEP);
            }
            if part.len() > MAX_KEY_NAME {
                return Err(TOO_LONG);
            }
            if follows
                && let Some(&known) = self.last.get(depth)
                && self.nodes[known].key.name().units() == part
            {
                node = known;
                continue;
            }
            if follows {
                follows = false;
                self.last.truncate(depth);
            }
            node = self.child(node, part, time);
            self.last.push(node);
        }
        self.last.truncate(depth + 1);
        Ok(node)
    }

    fn child(&mut self, parent: usize, name: &[u16], time: FileTime) -> usize {
        let folded = name.iter().copied().map(upcase).collect();
        *self.index.entry((parent, folded)).or_insert_with(|| {
            let mut key = Key::new(name);
            key.last_write = time;
            self.nodes.push(Node { parent, key, values: Vec::new() });
            self.nodes.len() - 1
        })
    }

    /// Gives a key a time, and those above it that were made with it.
    pub(crate) fn set_time(&mut self, node: usize, time: FileTime) {
        self.nodes[node].key.last_write = time;
        for made in &mut self.nodes[self.made..] {
            made.key.last_write = time;
        }
    }

    pub(crate) fn key(&mut self, node: usize) -> &mut Key {
        &mut self.nodes[node].key
    }

    /// Adds a value; of several with one name the last stays.
    pub(crate) fn value(&mut self, node: usize, value: Value) {
        self.nodes[node].values.push(value);
    }

    /// The root of the tree.
    pub(crate) fn finish(mut self) -> Key {
        let mut subkeys: HashMap<usize, Vec<Key>> = HashMap::new();
        loop {
            let Some(mut node) = self.nodes.pop() else { return Key::default() };
            let ordered = |pair: &[Value]| pair[0].name.order(&pair[1].name).is_lt();
            if !node.values.windows(2).all(ordered) {
                node.values.reverse();
            }
            node.key.set_values(node.values);
            if let Some(mut below) = subkeys.remove(&self.nodes.len()) {
                below.reverse();
                node.key.set_subkeys(below);
            }
            if self.nodes.is_empty() {
                return node.key;
            }
            subkeys.entry(node.parent).or_default().push(node.key);
        }
    }
}

/// The digit's value.
pub(crate) fn hex_digit(unit: u16) -> Option<u8> {
    let digit = char::from_u32(unit.into())?.to_digit(16)?;
    u8::try_from(digit).ok()
}

/// The bytes as two hexadecimal digits each, with commas, broken as registry editors do: a line
/// that has more than `width` characters ends with a backslash. `column` characters are in the
/// line already.
pub(crate) fn write_hex(
    out: &mut Vec<u8>,
    bytes: &[u8],
    mut column: usize,
    width: usize,
    line_end: &[u8],
) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.reserve(3 * bytes.len() + bytes.len() / 8);
    for (index, &byte) in bytes.iter().enumerate() {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
        column += 3;
        if index + 1 < bytes.len() {
            out.push(b',');
            if column > width {
                out.push(b'\\');
                out.extend_from_slice(line_end);
                out.extend_from_slice(b"  ");
                column = 2;
            }
        }
    }
}

/// Whether data is text with a NUL at its end, and no other half character.
pub(crate) fn is_terminated(data: &[u8]) -> bool {
    data.len().is_multiple_of(2) && data.ends_with(&[0, 0])
}
