//! A file tree in the making, and the layer it becomes: the same bytes for the same tree.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;

use silo_archive::{Entry, EntryKind, Error, Time, Writer};

use crate::spool::{Content, Spool};

/// What a path holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A directory, with its permission bits.
    Directory(u32),
    /// A file, with its permission bits.
    File(u32, Content),
    /// A symbolic link and its target.
    Symlink(String),
}

/// Files by path, without a slash in front or behind.
#[derive(Debug, Clone)]
pub struct Tree {
    spool: Arc<Spool>,
    nodes: BTreeMap<String, (Node, i64)>,
}

impl Tree {
    /// An empty tree whose contents are in `spool`.
    pub fn new(spool: Arc<Spool>) -> Self {
        Self { spool, nodes: BTreeMap::new() }
    }

    /// Where its contents are.
    pub fn spool(&self) -> &Spool {
        &self.spool
    }

    /// Puts something at a path, last changed at `time` (seconds since 1970).
    pub fn put(&mut self, path: impl Into<String>, node: Node, time: i64) {
        self.nodes.insert(path.into(), (node, time));
    }

    /// Puts a file there.
    pub fn put_file(&mut self, path: &str, bytes: &[u8], time: i64) -> io::Result<()> {
        let content = self.spool.add(bytes)?;
        self.put(path, Node::File(0o644, content), time);
        Ok(())
    }

    /// What is at a path.
    pub fn get(&self, path: &str) -> Option<&Node> {
        self.nodes.get(path).map(|(node, _)| node)
    }

    /// The content of the file at a path.
    pub fn read(&self, path: &str) -> io::Result<Option<Vec<u8>>> {
        match self.get(path) {
            Some(Node::File(_, content)) => self.spool.get(*content).map(Some),
            _ => Ok(None),
        }
    }

    /// Takes a path out.
    pub fn remove(&mut self, path: &str) -> Option<(Node, i64)> {
        self.nodes.remove(path)
    }

    /// Keeps only what `keep` says.
    pub fn retain(&mut self, mut keep: impl FnMut(&str, &Node) -> bool) {
        self.nodes.retain(|path, (node, _)| keep(path, node));
    }

    /// All paths with what they hold, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.nodes.iter().map(|(path, (node, _))| (path.as_str(), node))
    }

    /// Takes over all of another tree with the same spool.
    pub fn merge(&mut self, other: Self) {
        self.nodes.extend(other.nodes);
    }

    /// When the last change of a file was.
    pub fn newest(&self) -> i64 {
        self.nodes.values().map(|(_, time)| *time).max().unwrap_or(0)
    }

    /// Bytes of all files.
    pub fn size(&self) -> u64 {
        let size = |(node, _): &(Node, i64)| match node {
            Node::File(_, content) => content.size,
            _ => 0,
        };
        self.nodes.values().map(size).sum()
    }

    /// Gives every path the directories above it, as new as the newest file.
    pub fn complete(&mut self) {
        let newest = self.newest();
        let mut missing = Vec::new();
        for path in self.nodes.keys() {
            let mut rest = path.as_str();
            while let Some((parent, _)) = rest.rsplit_once('/') {
                if self.nodes.contains_key(parent) {
                    break;
                }
                missing.push(parent.to_owned());
                rest = parent;
            }
        }
        for path in missing {
            self.nodes.entry(path).or_insert((Node::Directory(0o755), newest));
        }
    }

    /// Writes it as the tar of a Linux layer, in order of paths.
    pub fn write_layer(&self, out: &mut dyn Write) -> Result<(), Error> {
        let mut writer = Writer::new(out);
        for (path, (node, time)) in &self.nodes {
            let mut entry = match node {
                Node::Directory(mode) => {
                    Entry::new(EntryKind::Directory, format!("{path}/"), *mode)
                }
                Node::File(mode, content) => {
                    let mut entry = Entry::new(EntryKind::Regular, path.as_str(), *mode);
                    entry.size = content.size;
                    entry.stored = content.size;
                    entry
                }
                Node::Symlink(target) => {
                    let mut entry = Entry::new(EntryKind::Symlink, path.as_str(), 0o777);
                    entry.link = target.as_bytes().to_vec();
                    entry
                }
            };
            entry.mtime = Time { seconds: *time, nanos: 0 };
            match node {
                Node::File(_, content) => {
                    writer.append(&entry, &mut self.spool.reader(*content))?;
                }
                _ => writer.append_empty(&entry)?,
            }
        }
        writer.finish().map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_sorted_and_complete() {
        let directory = tempfile::tempdir().unwrap();
        let spool = Arc::new(Spool::new(directory.path()).unwrap());
        let mut tree = Tree::new(spool);
        tree.put_file("b/c/file", b"x", 7).unwrap();
        tree.put("a", Node::Symlink("b".into()), 3);
        tree.complete();
        let mut tar = Vec::new();
        tree.write_layer(&mut tar).unwrap();
        let mut reader = silo_archive::Reader::new(&tar[..]);
        let mut seen = Vec::new();
        while let Some(entry) = reader.next_entry().unwrap() {
            seen.push((String::from_utf8(entry.path).unwrap(), entry.mtime.seconds));
        }
        let expected = [("a", 3), ("b/", 7), ("b/c/", 7), ("b/c/file", 7)];
        assert_eq!(seen, expected.map(|(path, time)| (path.to_owned(), time)));
        let mut again = Vec::new();
        tree.write_layer(&mut again).unwrap();
        assert_eq!(tar, again);
        assert_eq!(tree.size(), 1);
    }
}
