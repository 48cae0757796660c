//! From changes on a file system to the records of a layer: the way back from a
//! [plan](crate::plan).
//!
//! Whoever commits a container scans the upper directory of its root and hands over what was
//! found as [`Node`]s. [`records`] puts them in the order that importers want: `Files`, every
//! directory before what it holds, whiteouts directly after their directory, streams after
//! their owner, names in NTFS's order, hard links after their file, then `Hives`. Headers are
//! as Microsoft's exporter writes them. Opaque directories become whiteouts of all that they
//! hide. What a file was beneath it stays, as far as Linux does not say otherwise:
//! attributes, descriptor, time of creation, the target of a link as it was written.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::attributes::FileAttributes;
use crate::descriptor;
use crate::entry::{Entry, EntryKind, key};
use crate::fold::fold;
use crate::header::{DIRECTORY, HARD_LINK, Header, REGULAR, SYMLINK};
use crate::hives::Hive;
use crate::path::{LayerPath, Part};
use crate::report::{Finding, Reports};
use crate::target;
use crate::time::FileTime;
use crate::tree::{NodeId, NodeKind, TooMany, Tree};

const MODE_DIRECTORY: u32 = 0o040_000;
const MODE_REGULAR: u32 = 0o100_000;
const MODE_LINK: u32 = 0o120_000;
const MODE_HARD_LINK: u32 = 0o644;

/// Something that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its path below the root of `C:`, names with `/` between them; empty for the root. A
    /// file named `OWNER:STREAM` is a stream.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Found,
    /// Time of the last write.
    pub written: FileTime,
    /// Attributes that Linux has a place for: readonly, hidden, system.
    pub attributes: FileAttributes,
    /// Its path beneath, if a directory that holds it was moved.
    pub origin: Option<Vec<u8>>,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A directory.
    Directory {
        /// It hides what the layers beneath have in it.
        opaque: bool,
    },
    /// A file.
    File {
        /// Size in bytes.
        size: u64,
        /// Device and inode, if it has several names.
        inode: Option<(u64, u64)>,
    },
    /// A symbolic link.
    Symlink {
        /// Its target.
        target: Vec<u8>,
    },
    /// A whiteout.
    Whiteout,
}

/// What lies beneath.
pub trait Beneath {
    /// The names of all layers beneath together.
    fn tree(&self) -> &Tree;
    /// The entry of a name in the layer that it comes from, spelled as in [`tree`](Self::tree).
    fn entry(&self, path: &LayerPath) -> Option<Entry>;
}

/// Where the data of a record come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// There are none.
    Nothing,
    /// The file of this path below the root of `C:`.
    File(Vec<u8>),
    /// The difference of a hive.
    Hive(Hive),
}

/// A record to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// Its header.
    pub header: Header,
    /// Its data.
    pub source: Source,
}

/// The difference of a hive that goes with a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HiveDelta {
    /// Of which.
    pub hive: Hive,
    /// Size in bytes.
    pub size: u64,
    /// Time of the last write.
    pub written: FileTime,
}

/// The records of a layer for what was found, and what had to be left out. `written` is the
/// time for directories that were not found themselves.
pub fn records(
    nodes: Vec<Node>,
    hives: &[HiveDelta],
    written: FileTime,
    beneath: &impl Beneath,
) -> Result<(Vec<Made>, Reports), TooMany> {
    let mut scan = Scan {
        beneath,
        written,
        tree: Tree::default(),
        found: HashMap::new(),
        streams: HashMap::new(),
        inodes: HashMap::new(),
        made: Vec::new(),
        reports: Reports::default(),
    };
    scan.gather(nodes)?;
    let root = Tree::root(Part::Files);
    scan.directory(root);
    let mut hives_directory = scan.header(DIRECTORY, "Hives".into(), FileAttributes::DIRECTORY);
    hives_directory.mode = MODE_DIRECTORY;
    scan.made.push(Made { header: hives_directory, source: Source::Nothing });
    let mut hives = hives.to_vec();
    hives.sort_by_key(|delta| delta.hive.delta_name());
    for delta in hives {
        let name = format!("Hives/{}", delta.hive.delta_name());
        scan.written = delta.written;
        let mut header = scan.header(REGULAR, name, FileAttributes::ARCHIVE);
        (header.mode, header.size) = (MODE_REGULAR, delta.size);
        scan.made.push(Made { header, source: Source::Hive(delta.hive) });
    }
    Ok((scan.made, scan.reports))
}

struct Scan<'a, B> {
    beneath: &'a B,
    /// Time for headers that have none of their own.
    written: FileTime,
    tree: Tree,
    found: HashMap<NodeId, Node>,
    /// Streams by owner: name and node.
    streams: HashMap<NodeId, Vec<(String, Node)>>,
    /// Files with several names: the one that has the data.
    inodes: HashMap<(u64, u64), String>,
    made: Vec<Made>,
    reports: Reports,
}

impl<B: Beneath> Scan<'_, B> {
    /// Puts what was found into the tree; streams wait for their owners.
    fn gather(&mut self, mut nodes: Vec<Node>) -> Result<(), TooMany> {
        nodes.sort_by(|a, b| {
            a.path.split(|byte| *byte == b'/').cmp(b.path.split(|byte| *byte == b'/'))
        });
        let mut streams = Vec::new();
        for node in nodes {
            let shown = String::from_utf8_lossy(&node.path).into_owned();
            let (path, stream) = match LayerPath::parse(&[b"Files/", &node.path[..]].concat()) {
                Ok(found) => found,
                Err(problem) => {
                    self.reports.push(&shown, Finding::Path(problem));
                    continue;
                }
            };
            match (stream, &node.kind) {
                (Some(stream), Found::File { .. }) => streams.push((path, stream, node)),
                (Some(_), _) => self.reports.push(&shown, Finding::Stream),
                (None, _) => self.add(&shown, &path, node)?,
            }
        }
        for (owner, stream, node) in streams {
            match self.tree.find(&owner).filter(|id| self.tree.kind(*id).exists()) {
                Some(id) => self.streams.entry(id).or_default().push((stream, node)),
                None => self.reports.push(&owner.to_tar(), Finding::Stream),
            }
        }
        Ok(())
    }

    fn add(&mut self, shown: &str, path: &LayerPath, node: Node) -> Result<(), TooMany> {
        let mut at = Tree::root(Part::Files);
        let mut names = path.names().peekable();
        while let Some(name) = names.next() {
            let there = self.tree.child(at, name);
            if names.peek().is_some() {
                at = match there {
                    Some(there) if self.tree.kind(there).is_directory() => there,
                    Some(there) => {
                        let holder = self.tree.path(there).to_tar();
                        self.reports.push(shown, Finding::Beneath(holder));
                        return Ok(());
                    }
                    None => self.tree.add(at, name, NodeKind::Implied)?,
                };
                continue;
            }
            let is_directory = matches!(node.kind, Found::Directory { .. });
            if let Some(there) = there {
                if self.tree.kind(there) == NodeKind::Implied && is_directory {
                    self.tree.set_kind(there, NodeKind::Directory);
                    at = there;
                    continue;
                }
                let spelled = self.tree.path(there).to_tar();
                self.reports.push(shown, Finding::Duplicate(spelled));
                return Ok(());
            }
            let kind = match &node.kind {
                Found::Directory { .. } => NodeKind::Directory,
                Found::File { .. } => NodeKind::File,
                Found::Symlink { .. } => NodeKind::Link,
                Found::Whiteout => NodeKind::Whiteout,
            };
            at = self.tree.add(at, name, kind)?;
        }
        self.found.insert(at, node);
        Ok(())
    }

    /// Writes a directory and all that is in it.
    fn directory(&mut self, root: NodeId) {
        // Children of a directory are pushed in reverse, so that they come out in order.
        let mut pending = vec![root];
        while let Some(id) = pending.pop() {
            self.member(id);
            if !self.tree.kind(id).is_directory() {
                continue;
            }
            let mut children: Vec<NodeId> = self.tree.children(id).collect();
            children.sort_by_cached_key(|child| fold(self.tree.name(*child)));
            self.whiteouts(id, &children);
            children.retain(|child| self.tree.kind(*child).exists());
            pending.extend(children.into_iter().rev());
        }
    }

    fn whiteouts(&mut self, id: NodeId, children: &[NodeId]) {
        let directory = self.tree.path(id);
        let gone = children.iter().filter(|child| !self.tree.kind(**child).exists());
        let mut names: Vec<String> = gone.map(|child| self.tree.name(*child).to_owned()).collect();
        let node = self.found.get(&id);
        if node.is_some_and(|node| node.kind == Found::Directory { opaque: true }) {
            let below = self.beneath.tree();
            let hidden = below.find(&directory).into_iter().flat_map(|at| below.children(at));
            let hidden = hidden.map(|child| below.name(child));
            names.extend(
                hidden.filter(|name| self.tree.child(id, name).is_none()).map(str::to_owned),
            );
        }
        names.sort_by_cached_key(|name| fold(name));
        for name in names {
            let header = Header::new(REGULAR, format!("{directory}/.wh.{name}"));
            self.made.push(Made { header, source: Source::Nothing });
        }
    }

    /// A header with times, as the exporter's.
    fn header(&self, kind: u8, name: String, attributes: FileAttributes) -> Header {
        let mut header = Header::new(kind, name);
        header.mtime = self.written.to_unix();
        header.set(key::ATTRIBUTES, attributes.0.to_string());
        for key in [key::CREATED, key::ACCESSED, key::CHANGED] {
            header.set(key, self.written.to_pax());
        }
        header
    }

    fn member(&mut self, id: NodeId) {
        let path = self.tree.path(id);
        let node = self.found.get(&id).cloned();
        let implied = self.written;
        self.written = node.as_ref().map_or(implied, |node| node.written);
        let origin = node.as_ref().and_then(|node| node.origin.as_ref());
        let origin = origin.map_or_else(
            || Some(path.clone()),
            |origin| Some(LayerPath::parse(&[b"Files/", &origin[..]].concat()).ok()?.0),
        );
        let below = origin.and_then(|origin| self.beneath.tree().find(&origin));
        let below = below.and_then(|at| self.beneath.entry(&self.beneath.tree().path(at)));
        let kind = node.as_ref().map_or(&Found::Directory { opaque: false }, |node| &node.kind);
        let header = match kind {
            Found::Directory { .. } => {
                let mut header = self.header(DIRECTORY, path.to_tar(), FileAttributes::DIRECTORY);
                header.mode = MODE_DIRECTORY;
                Some((header, Source::Nothing))
            }
            Found::File { size, inode } => self.file(&path, node.as_ref(), *size, *inode),
            Found::Symlink { target } => self.link(&path, target, below.as_ref()),
            Found::Whiteout => None,
        };
        if let Some((mut header, source)) = header {
            self.carry_over(&mut header, &path, node.as_ref(), below.as_ref());
            let (mode, kind) = (header.mode, header.kind);
            self.made.push(Made { header, source });
            if kind != HARD_LINK {
                self.streams(id, &path, mode);
            }
        }
        self.written = implied;
    }

    fn file(
        &mut self,
        path: &LayerPath,
        node: Option<&Node>,
        size: u64,
        inode: Option<(u64, u64)>,
    ) -> Option<(Header, Source)> {
        let attributes = FileAttributes::ARCHIVE;
        if let Some(first) = inode.and_then(|inode| self.inodes.get(&inode)) {
            let mut header = self.header(HARD_LINK, path.to_tar(), attributes);
            (header.mode, header.link) = (MODE_HARD_LINK, first.clone().into_bytes());
            return Some((header, Source::Nothing));
        }
        if let Some(inode) = inode {
            self.inodes.insert(inode, path.to_tar());
        }
        let mut header = self.header(REGULAR, path.to_tar(), attributes);
        (header.mode, header.size) = (MODE_REGULAR, size);
        Some((header, Source::File(node?.path.clone())))
    }

    fn link(
        &mut self,
        path: &LayerPath,
        posix: &[u8],
        below: Option<&Entry>,
    ) -> Option<(Header, Source)> {
        let shown = String::from_utf8_lossy(posix).into_owned();
        // As it was written, if it leads where it did.
        let same = below.and_then(|entry| match &entry.kind {
            EntryKind::Link { target, junction, directory } => {
                let names = target::resolve(&entry.path, target).ok()?;
                let is_same = target::to_posix(&entry.path, &names).ok()? == shown;
                is_same.then(|| (target.clone(), *junction, *directory))
            }
            _ => None,
        });
        let link = same.map_or_else(
            || {
                let target = target::from_posix(path, &shown)?;
                let names = target::resolve(path, &target)?;
                let at = LayerPath::new(path.part(), &names.join("/"));
                let is_directory = at.is_ok_and(|at| self.is_directory(&at));
                Ok((target, false, is_directory))
            },
            Ok,
        );
        let (target, junction, directory) = match link {
            Ok(link) => link,
            Err(problem) => {
                self.reports.push(&path.to_tar(), Finding::Target { target: shown, problem });
                return None;
            }
        };
        let mut attributes = FileAttributes::REPARSE_POINT;
        if directory {
            attributes = attributes.with(FileAttributes::DIRECTORY);
        }
        let mut header = self.header(SYMLINK, path.to_tar(), attributes);
        (header.mode, header.link) = (MODE_LINK, target.into_bytes());
        if junction {
            header.set(key::MOUNT_POINT, "1");
        }
        Some((header, Source::Nothing))
    }

    /// Whether there is a directory, here or beneath.
    fn is_directory(&self, path: &LayerPath) -> bool {
        match self.tree.find(path) {
            Some(id) => self.tree.kind(id).is_directory(),
            None => {
                let below = self.beneath.tree();
                below.find(path).is_some_and(|id| below.kind(id).is_directory())
            }
        }
    }

    /// Gives a header what the file was beneath.
    fn carry_over(
        &self,
        header: &mut Header,
        path: &LayerPath,
        node: Option<&Node>,
        below: Option<&Entry>,
    ) {
        let kept =
            FileAttributes::READONLY.with(FileAttributes::HIDDEN).with(FileAttributes::SYSTEM);
        let own =
            header.record(key::ATTRIBUTES).and_then(FileAttributes::parse).unwrap_or_default();
        let same_kind = below.filter(|entry| match entry.kind {
            EntryKind::Directory => header.kind == DIRECTORY,
            EntryKind::Link { .. } => header.kind == SYMLINK,
            _ => header.kind == REGULAR || header.kind == HARD_LINK,
        });
        let mut attributes = match (node, same_kind) {
            (Some(node), _) => FileAttributes(node.attributes.0 & kept.0),
            (None, Some(entry)) => entry.effective_attributes(),
            (None, None) => FileAttributes::default(),
        };
        if let Some(entry) = same_kind {
            let old = entry.effective_attributes();
            let gone = kept.with(FileAttributes::NORMAL).with(FileAttributes::REPARSE_POINT);
            attributes = attributes.with(old.without(gone.with(FileAttributes::DIRECTORY)));
            let created = entry.times.created.unwrap_or(entry.times.written);
            header.set(key::CREATED, created.to_pax());
        }
        header.set(key::ATTRIBUTES, own.with(attributes).0.to_string());
        if header.kind == HARD_LINK {
            return;
        }
        match same_kind {
            Some(entry) => {
                if let Some(bytes) = &entry.descriptor {
                    header.set(key::DESCRIPTOR, STANDARD.encode(bytes));
                }
                for (name, value) in &entry.extended {
                    header.set(&format!("{}{name}", key::EXTENDED), STANDARD.encode(value));
                }
            }
            // What is new inherits; where nothing is known of whom, it gets what builders give.
            None if header.kind == DIRECTORY && !self.inherits(path) => {
                header.set(key::DESCRIPTOR, STANDARD.encode(descriptor::default_directory()));
            }
            None if header.kind == REGULAR && !self.inherits(path) => {
                header.set(key::DESCRIPTOR, STANDARD.encode(descriptor::default_file()));
            }
            None => {}
        }
    }

    /// Whether a new file would inherit a descriptor that is known.
    fn inherits(&self, path: &LayerPath) -> bool {
        let below = self.beneath.tree();
        let mut at = path.parent();
        while let Some(holder) = at {
            if let Some(id) = below.find(&holder) {
                let entry = self.beneath.entry(&below.path(id));
                return entry.is_some_and(|entry| entry.descriptor.is_some());
            }
            at = holder.parent();
        }
        false
    }

    fn streams(&mut self, id: NodeId, path: &LayerPath, mode: u32) {
        let mut streams = self.streams.remove(&id).unwrap_or_default();
        streams.sort_by_cached_key(|(name, _)| fold(name));
        streams.dedup_by_key(|(name, _)| fold(name));
        for (name, node) in streams {
            let Found::File { size, .. } = node.kind else {
                continue;
            };
            let mut header =
                self.header(REGULAR, format!("{path}:{name}"), FileAttributes::default());
            header.records.remove(key::ATTRIBUTES.as_bytes());
            header.records.remove(key::CREATED.as_bytes());
            (header.mode, header.size) = (mode, size);
            self.made.push(Made { header, source: Source::File(node.path) });
        }
    }
}
