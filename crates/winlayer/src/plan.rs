//! From entries to what is to be done on a file system.
//!
//! A [`Planner`] takes the entries of a layer in the order of its tar and says for each what
//! to make. It keeps the rules that importers on Windows keep by failing: no name twice in
//! whatever case, nothing below what is no directory, streams directly after their owner.
//! Whoever carries the operations out makes every name in a directory that it holds open, and
//! follows no link; no path here ever passes through one.
//!
//! Symbolic links and hard links come last, from [`Planner::finish`], when it is known what
//! lies beneath: their targets, and the names of this layer, are then spelled as there, so
//! that layers merge on a file system that knows case.

use std::collections::{HashMap, HashSet};

use crate::attributes::FileAttributes;
use crate::entry::{Entry, EntryKind, Meaning};
use crate::fold::fold;
use crate::hives::{self, HiveFile};
use crate::path::{LayerPath, Part};
use crate::report::{Finding, Refusal, Reports};
use crate::target;
use crate::time::FileTime;
use crate::tree::{NodeId, NodeKind, Tree};
use crate::{Error, name};

/// What to keep of a file besides its content, as far as a Linux file system has a place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Meta {
    /// Attributes: hidden and system go into Wine's attribute, readonly into the mode.
    pub attributes: FileAttributes,
    /// Time of the last write.
    pub written: FileTime,
}

/// Something to do. Paths are spelled as they are to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Make a directory, if it is not there.
    Directory {
        /// Where.
        path: LayerPath,
        /// What to keep; times are set later, by [`Op::Times`].
        meta: Meta,
    },
    /// Make a file of the record's data.
    File {
        /// Where.
        path: LayerPath,
        /// What to keep.
        meta: Meta,
        /// Whether it is a hive of a base layer.
        hive: Option<HiveFile>,
    },
    /// Keep the record's data as a file of `Hives/`.
    Hive {
        /// Its name.
        name: String,
        /// Which.
        hive: HiveFile,
        /// What to keep.
        meta: Meta,
    },
    /// Keep the record's data as a stream: a file named `OWNER:STREAM`, as Wine has them.
    Stream {
        /// The owner.
        owner: LayerPath,
        /// The stream's name.
        name: String,
        /// What to keep.
        meta: Meta,
    },
    /// Hide what the layers beneath have of this name.
    Whiteout {
        /// The name.
        path: LayerPath,
    },
    /// Hide all that the layers beneath have in this directory.
    Opaque {
        /// The directory.
        path: LayerPath,
    },
    /// The record's data have no place in the tree: keep them elsewhere.
    Elsewhere,
    /// Rename what was made as `from`, which is spelled otherwise beneath.
    Rename {
        /// As made, in a directory as spelled by now.
        from: LayerPath,
        /// As it is to be.
        to: LayerPath,
    },
    /// Rename a stream with its owner.
    RenameStream {
        /// The owner as it was spelled.
        from: LayerPath,
        /// The owner as it is to be.
        to: LayerPath,
        /// The stream's name.
        name: String,
    },
    /// Hide a stream of a file beneath that this layer replaces or removes.
    StreamWhiteout {
        /// The owner.
        owner: LayerPath,
        /// The stream's name.
        name: String,
    },
    /// Make a symbolic link.
    Symlink {
        /// Where.
        path: LayerPath,
        /// Its target for Linux: relative, and inside of the part.
        target: String,
        /// What to keep.
        meta: Meta,
    },
    /// Make another name of a file of this layer.
    HardLink {
        /// The new name.
        path: LayerPath,
        /// The file.
        target: LayerPath,
    },
    /// Make another name of a file of a layer beneath, or a copy where that cannot be.
    LinkBeneath {
        /// The new name.
        path: LayerPath,
        /// The file, spelled as beneath.
        target: LayerPath,
    },
    /// Set the time of a directory. Children come before parents.
    Times {
        /// Which.
        path: LayerPath,
        /// The time.
        written: FileTime,
    },
}

/// How to take a layer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rules {
    /// Honour opaque markers, which Windows does not know and Linux builders may write.
    pub opaque: bool,
}

/// A link that is made at the end.
#[derive(Debug, Clone)]
enum Pending {
    Symlink { at: NodeId, names: Vec<String>, meta: Meta },
    HardLink { at: NodeId, target: LayerPath, entry: String },
}

impl Pending {
    fn at(&self) -> NodeId {
        match self {
            Self::Symlink { at, .. } | Self::HardLink { at, .. } => *at,
        }
    }
}

/// Hard links to hard links that are followed.
const MAX_CHAIN: usize = 64;

/// Plans one layer.
#[derive(Debug, Default)]
pub struct Planner {
    rules: Rules,
    tree: Tree,
    reports: Reports,
    /// The last entry that may own streams, and whether it was left out.
    owner: Option<(LayerPath, Option<NodeId>)>,
    /// Names of its streams.
    streams: HashSet<String>,
    pending: Vec<Pending>,
    directories: Vec<(NodeId, FileTime)>,
}

impl Planner {
    /// A planner.
    pub fn new(rules: Rules) -> Self {
        Self { rules, ..Self::default() }
    }

    /// The names so far.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// What was left out so far.
    pub fn reports(&self) -> &Reports {
        &self.reports
    }

    /// Takes the next entry, whose name in the tar is `entry`. The last operation is the one
    /// that the record's data belong to.
    pub fn plan(&mut self, entry: &str, meaning: Meaning) -> Result<Vec<Op>, Error> {
        let Meaning { entry: found, findings } = meaning;
        self.reports.extend(entry, findings);
        let mut ops = Vec::new();
        match found {
            Some(found) => self.take(entry, found, &mut ops)?,
            None => {
                self.owner = None;
                ops.push(Op::Elsewhere);
            }
        }
        Ok(ops)
    }

    fn take(&mut self, name: &str, entry: Entry, ops: &mut Vec<Op>) -> Result<(), Error> {
        if !matches!(entry.kind, EntryKind::Stream { .. }) {
            self.owner = None;
            self.streams.clear();
        }
        let refuse = |reason| Error::Refused { entry: name.to_owned(), reason };
        let meta = Meta { attributes: entry.effective_attributes(), written: entry.times.written };
        let path = &entry.path;
        match &entry.kind {
            EntryKind::Stream { name: stream } => {
                return self.stream(name, path, stream, meta, ops).map_err(refuse);
            }
            EntryKind::Opaque if !self.rules.opaque => {
                self.reports.push(name, Finding::Opaque);
                ops.push(Op::Elsewhere);
                return Ok(());
            }
            EntryKind::Opaque => {
                let at = match self.holder(name, path, ops)? {
                    Ok(at) => at,
                    Err(finding) => {
                        self.leave_out(name, finding, ops);
                        return Ok(());
                    }
                };
                self.tree.set_opaque(at);
                ops.push(Op::Opaque { path: self.tree.path(at) });
                return Ok(());
            }
            _ => {}
        }
        let Some((parent, last)) = path.parent().zip(path.file_name()) else {
            return self.part(name, &entry, meta, ops);
        };
        if path.part() == Part::Hives
            && (entry.kind != EntryKind::File || !parent.inner().is_empty())
        {
            self.leave_out(name, Finding::Kind("thing other than a file in Hives"), ops);
            return Ok(());
        }
        let parent = match self.holder(name, &parent, ops)? {
            Ok(parent) => parent,
            Err(finding) => {
                self.owner = Some((path.clone(), None));
                self.leave_out(name, finding, ops);
                return Ok(());
            }
        };
        let there = self.tree.child(parent, last);
        if let Some(there) = there {
            let again =
                entry.kind == EntryKind::Directory && self.tree.kind(there) == NodeKind::Implied;
            if !again {
                let there = self.tree.path(there).to_tar();
                return Err(refuse(Refusal::Duplicate(there)));
            }
        }
        let limit = |_| Error::Limit("more than 4194304 names");
        let kind = match &entry.kind {
            EntryKind::Directory => NodeKind::Directory,
            EntryKind::Link { .. } => NodeKind::Link,
            EntryKind::Whiteout => NodeKind::Whiteout,
            _ => NodeKind::File,
        };
        let at = match there {
            Some(there) => {
                self.tree.set_kind(there, kind);
                there
            }
            None => self.tree.add(parent, last, kind).map_err(limit)?,
        };
        self.owner = Some((path.clone(), Some(at)));
        let made = self.tree.path(at);
        match entry.kind {
            EntryKind::Directory => {
                self.directories.push((at, meta.written));
                ops.push(Op::Directory { path: made, meta });
            }
            EntryKind::File if made.part() == Part::Hives => {
                let hive = hives::recognise(&made).unwrap_or(HiveFile::Other);
                ops.push(Op::Hive { name: last.to_owned(), hive, meta });
            }
            EntryKind::File => {
                let hive = hives::recognise(&made);
                ops.push(Op::File { path: made, meta, hive });
            }
            EntryKind::Whiteout => ops.push(Op::Whiteout { path: made }),
            EntryKind::Link { target, .. } => match target::resolve(&made, &target) {
                Ok(names) => self.pending.push(Pending::Symlink { at, names, meta }),
                Err(problem) => {
                    self.tree.set_kind(at, NodeKind::Dropped);
                    self.owner = Some((entry.path, None));
                    self.reports.push(name, Finding::Target { target, problem });
                }
            },
            EntryKind::HardLink { target } => {
                let entry = name.to_owned();
                self.pending.push(Pending::HardLink { at, target, entry });
            }
            EntryKind::Stream { .. } | EntryKind::Opaque => {}
        }
        Ok(())
    }

    fn leave_out(&mut self, name: &str, finding: Finding, ops: &mut Vec<Op>) {
        self.reports.push(name, finding);
        ops.push(Op::Elsewhere);
    }

    /// An entry for a part itself.
    fn part(
        &mut self,
        name: &str,
        entry: &Entry,
        meta: Meta,
        ops: &mut Vec<Op>,
    ) -> Result<(), Error> {
        let at = Tree::root(entry.path.part());
        let refuse = |reason| Error::Refused { entry: name.to_owned(), reason };
        if entry.kind != EntryKind::Directory {
            return Err(refuse(Refusal::Kind("a part of the layer that is no directory")));
        }
        if self.tree.kind(at) == NodeKind::Directory {
            return Err(refuse(Refusal::Duplicate(entry.path.to_tar())));
        }
        self.tree.set_kind(at, NodeKind::Directory);
        self.directories.push((at, meta.written));
        self.owner = Some((entry.path.clone(), Some(at)));
        ops.push(Op::Directory { path: entry.path.clone(), meta });
        Ok(())
    }

    /// The directory of a path. What is missing is made; what is left out, or no directory,
    /// cannot hold anything.
    fn holder(
        &mut self,
        entry: &str,
        path: &LayerPath,
        ops: &mut Vec<Op>,
    ) -> Result<Result<NodeId, Finding>, Error> {
        let mut at = Tree::root(path.part());
        for name in path.names() {
            at = match self.tree.child(at, name) {
                Some(found) => match self.tree.kind(found) {
                    NodeKind::Directory | NodeKind::Implied => found,
                    NodeKind::Dropped => {
                        return Ok(Err(Finding::Beneath(self.tree.path(found).to_tar())));
                    }
                    NodeKind::File | NodeKind::Link | NodeKind::Whiteout => {
                        let reason = Refusal::Beneath(self.tree.path(found).to_tar());
                        return Err(Error::Refused { entry: entry.to_owned(), reason });
                    }
                },
                None => {
                    let limit = |_| Error::Limit("more than 4194304 names");
                    let new = self.tree.add(at, name, NodeKind::Implied).map_err(limit)?;
                    let path = self.tree.path(new);
                    self.reports.push(entry, Finding::Implied(path.to_tar()));
                    ops.push(Op::Directory { path, meta: Meta::default() });
                    new
                }
            };
        }
        Ok(Ok(at))
    }

    fn stream(
        &mut self,
        name: &str,
        path: &LayerPath,
        stream: &str,
        meta: Meta,
        ops: &mut Vec<Op>,
    ) -> Result<(), Refusal> {
        let owner = self.owner.as_ref().filter(|(owner, _)| owner.folded() == path.folded());
        let Some((_, at)) = owner else {
            self.leave_out(name, Finding::Stream, ops);
            return Ok(());
        };
        let Some(at) = *at else {
            self.leave_out(name, Finding::Beneath(path.to_tar()), ops);
            return Ok(());
        };
        let owner = self.tree.path(at);
        let fits =
            owner.file_name().unwrap_or_default().len() + 1 + stream.len() <= name::MAX_BYTES;
        let is_tree = owner.part().is_tree() && owner.file_name().is_some();
        if !fits || !is_tree || self.tree.kind(at) == NodeKind::Whiteout {
            self.leave_out(name, Finding::Stream, ops);
            return Ok(());
        }
        if !self.streams.insert(fold(stream)) {
            return Err(Refusal::Duplicate(format!("{owner}:{stream}")));
        }
        self.tree.add_stream(at, stream);
        ops.push(Op::Stream { owner, name: stream.to_owned(), meta });
        Ok(())
    }

    /// Ends the layer: renames what is spelled otherwise in `beneath`, the names of all
    /// layers under this one, then links, then the times of directories. Gives the names and
    /// the reports as well.
    pub fn finish(mut self, beneath: &Tree) -> (Vec<Op>, Tree, Reports) {
        let mut ops = Vec::new();
        for part in [Part::Files, Part::UtilityFiles] {
            self.respell(part, beneath, &mut ops);
        }
        for pending in std::mem::take(&mut self.pending) {
            match pending {
                Pending::Symlink { at, names, meta } => {
                    let path = self.tree.path(at);
                    let names = self.spell(path.part(), &names, beneath);
                    match target::to_posix(&path, &names) {
                        Ok(target) => ops.push(Op::Symlink { path, target, meta }),
                        Err(problem) => {
                            self.tree.set_kind(at, NodeKind::Dropped);
                            let finding = Finding::Target { target: names.join("\\"), problem };
                            self.reports.push(&path.to_tar(), finding);
                        }
                    }
                }
                Pending::HardLink { .. } => self.pending.push(pending),
            }
        }
        self.hard_links(beneath, &mut ops);
        for (at, written) in std::mem::take(&mut self.directories).into_iter().rev() {
            ops.push(Op::Times { path: self.tree.path(at), written });
        }
        (ops, self.tree, self.reports)
    }

    /// Spells the names of a part as beneath, directories before what they hold, and hides
    /// streams of what is replaced.
    fn respell(&mut self, part: Part, beneath: &Tree, ops: &mut Vec<Op>) {
        let later: HashSet<NodeId> = self.pending.iter().map(Pending::at).collect();
        let mut pending = vec![(Tree::root(part), Tree::root(part))];
        while let Some((at, below)) = pending.pop() {
            let children: Vec<NodeId> = self.tree.children(at).collect();
            for child in children {
                let kind = self.tree.kind(child);
                let Some(found) = beneath.child(below, self.tree.name(child)) else {
                    continue;
                };
                if kind == NodeKind::Dropped {
                    continue;
                }
                let spelled = beneath.name(found);
                if spelled != self.tree.name(child) {
                    let from = self.tree.path(child);
                    self.tree.rename(child, spelled);
                    let to = self.tree.path(child);
                    for name in self.tree.streams(child) {
                        let (from, to, name) = (from.clone(), to.clone(), name.to_owned());
                        ops.push(Op::RenameStream { from, to, name });
                    }
                    // Links are made later, under the name that they have by then.
                    if !later.contains(&child) {
                        ops.push(Op::Rename { from, to });
                    }
                }
                if kind.is_directory() {
                    pending.push((child, found));
                    continue;
                }
                let own: HashSet<&str> = self.tree.streams(child).collect();
                for name in beneath.streams(found) {
                    if !own.contains(name) {
                        let owner = self.tree.path(child);
                        ops.push(Op::StreamWhiteout { owner, name: name.to_owned() });
                    }
                }
            }
        }
    }

    /// The names of a path as they are spelled here, or beneath, as far as they are known.
    fn spell(&self, part: Part, names: &[String], beneath: &Tree) -> Vec<String> {
        let (mut here, mut below) = (Some(Tree::root(part)), Some(Tree::root(part)));
        let mut spelled = Vec::with_capacity(names.len());
        for name in names {
            here = here.and_then(|at| self.tree.child(at, name));
            below = below.and_then(|at| beneath.child(at, name));
            let known = here.map(|at| self.tree.name(at));
            let known = known.or_else(|| below.map(|at| beneath.name(at)));
            spelled.push(known.unwrap_or(name).to_owned());
        }
        spelled
    }

    /// Hard links in an order in which every target is there before its link.
    fn hard_links(&mut self, beneath: &Tree, ops: &mut Vec<Op>) {
        let mut waiting = Vec::new();
        for pending in std::mem::take(&mut self.pending) {
            if let Pending::HardLink { at, target, entry } = pending {
                waiting.push((at, target, entry));
            }
        }
        let by_node: HashMap<NodeId, usize> =
            waiting.iter().enumerate().map(|(index, (at, _, _))| (*at, index)).collect();
        for (at, first, entry) in &waiting {
            // Through links to links, to the file itself.
            let mut target = first;
            let mut steps = 0;
            let found = loop {
                let Some(found) = self.tree.find(target) else {
                    break None;
                };
                match by_node.get(&found) {
                    Some(_) if steps > MAX_CHAIN => break Some(*at),
                    Some(index) => {
                        steps += 1;
                        target = &waiting[*index].1;
                    }
                    None => break Some(found),
                }
            };
            let path = self.tree.path(*at);
            let is_file = |tree: &Tree, id: NodeId| tree.kind(id) == NodeKind::File;
            match found {
                Some(found) if found != *at && is_file(&self.tree, found) => {
                    ops.push(Op::HardLink { path, target: self.tree.path(found) });
                }
                None => {
                    // Not if this layer hides it, by a whiteout or by what holds it.
                    let found = beneath.find(target).filter(|id| is_file(beneath, *id));
                    match found.filter(|_| self.shows_through(target)) {
                        Some(found) => {
                            ops.push(Op::LinkBeneath { path, target: beneath.path(found) });
                        }
                        None => self.drop_link(*at, entry, first),
                    }
                }
                Some(_) => self.drop_link(*at, entry, first),
            }
        }
    }

    fn drop_link(&mut self, at: NodeId, entry: &str, target: &LayerPath) {
        self.tree.set_kind(at, NodeKind::Dropped);
        self.reports.push(entry, Finding::LinkTarget(target.to_tar()));
    }

    /// Whether a path that this layer does not have is visible through it.
    fn shows_through(&self, path: &LayerPath) -> bool {
        let mut at = Tree::root(path.part());
        for name in path.names() {
            if self.tree.is_opaque(at) {
                return false;
            }
            match self.tree.child(at, name) {
                None => return true,
                Some(found) if self.tree.kind(found).is_directory() => at = found,
                Some(_) => return false,
            }
        }
        false
    }
}
