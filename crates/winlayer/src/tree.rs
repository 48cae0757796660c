//! The names of a layer, or of several on top of each other: a tree that is searched without
//! regard to case and keeps how names are spelled.

use std::collections::HashMap;

use crate::fold::fold;
use crate::path::{LayerPath, Part};

/// The most names of a tree.
pub const MAX_NODES: usize = 4 << 20;

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NodeKind {
    /// A directory with an entry of its own.
    Directory,
    /// A directory that only others' paths speak of.
    Implied,
    /// A file, or another name of one.
    File,
    /// A symbolic link or junction.
    Link,
    /// Removed from the layers beneath.
    Whiteout,
    /// Left out.
    Dropped,
}

impl NodeKind {
    /// Whether it is a directory.
    pub fn is_directory(self) -> bool {
        matches!(self, Self::Directory | Self::Implied)
    }

    /// Whether there is something of that name.
    pub fn exists(self) -> bool {
        !matches!(self, Self::Whiteout | Self::Dropped)
    }
}

/// A name in a [`Tree`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(u32);

#[derive(Debug, Clone)]
struct Node {
    parent: NodeId,
    name: Box<str>,
    kind: NodeKind,
    /// Nothing of what is beneath shows through.
    opaque: bool,
    /// Names of its alternate data streams.
    streams: Vec<Box<str>>,
    /// First child and next sibling.
    child: Option<NodeId>,
    next: Option<NodeId>,
    /// Removed from the tree itself.
    gone: bool,
}

/// Names of one or several layers.
#[derive(Debug, Clone)]
pub struct Tree {
    nodes: Vec<Node>,
    index: HashMap<(NodeId, Box<str>), NodeId>,
}

/// More names than [`MAX_NODES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a layer of more than 4194304 names")]
pub struct TooMany;

const PARTS: [Part; 4] = [Part::Files, Part::Hives, Part::Utility, Part::UtilityFiles];

impl Default for Tree {
    fn default() -> Self {
        let mut nodes = Vec::new();
        for (index, part) in (0..).zip(PARTS) {
            nodes.push(Node {
                parent: NodeId(index),
                name: part.name().into(),
                kind: NodeKind::Implied,
                opaque: false,
                streams: Vec::new(),
                child: None,
                next: None,
                gone: false,
            });
        }
        Self { nodes, index: HashMap::new() }
    }
}

impl Tree {
    fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.0 as usize]
    }

    /// The root of a part.
    pub fn root(part: Part) -> NodeId {
        let index = PARTS.iter().position(|known| *known == part).unwrap_or(0);
        NodeId(u32::try_from(index).unwrap_or(0))
    }

    /// What a name stands for.
    pub fn kind(&self, id: NodeId) -> NodeKind {
        self.node(id).kind
    }

    /// Its spelling.
    pub fn name(&self, id: NodeId) -> &str {
        &self.node(id).name
    }

    /// The path of a name, spelled as it is here.
    pub fn path(&self, id: NodeId) -> LayerPath {
        let mut names = Vec::new();
        let mut at = id;
        while self.node(at).parent != at {
            names.push(self.name(at));
            at = self.node(at).parent;
        }
        names.reverse();
        LayerPath::of_checked(PARTS[at.0 as usize % PARTS.len()], &names)
    }

    /// The name in a directory.
    pub fn child(&self, parent: NodeId, name: &str) -> Option<NodeId> {
        let id = self.index.get(&(parent, fold(name).into_boxed_str())).copied()?;
        (!self.node(id).gone).then_some(id)
    }

    /// The name at the end of a path in whatever spelling.
    pub fn find(&self, path: &LayerPath) -> Option<NodeId> {
        path.names().try_fold(Self::root(path.part()), |at, name| self.child(at, name))
    }

    /// The names in a directory, those that were added last first.
    pub fn children(&self, parent: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        let next = |id: &NodeId| self.node(*id).next;
        std::iter::successors(self.node(parent).child, next).filter(|id| !self.node(*id).gone)
    }

    /// How many names there are, the parts among them.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is nothing but the parts.
    pub fn is_empty(&self) -> bool {
        self.nodes.len() == PARTS.len()
    }

    /// Adds a name to a directory that does not have it.
    pub(crate) fn add(
        &mut self,
        parent: NodeId,
        name: &str,
        kind: NodeKind,
    ) -> Result<NodeId, TooMany> {
        if self.nodes.len() >= MAX_NODES {
            return Err(TooMany);
        }
        let id = NodeId(u32::try_from(self.nodes.len()).map_err(|_| TooMany)?);
        let next = self.node(parent).child;
        let (name, opaque, gone, streams) = (name.into(), false, false, Vec::new());
        self.nodes.push(Node { parent, name, kind, opaque, streams, child: None, next, gone });
        self.node_mut(parent).child = Some(id);
        let name = fold(self.name(id)).into_boxed_str();
        self.index.insert((parent, name), id);
        Ok(id)
    }

    pub(crate) fn set_kind(&mut self, id: NodeId, kind: NodeKind) {
        self.node_mut(id).kind = kind;
    }

    pub(crate) fn set_opaque(&mut self, id: NodeId) {
        self.node_mut(id).opaque = true;
    }

    /// The names of its alternate data streams.
    pub fn streams(&self, id: NodeId) -> impl Iterator<Item = &str> {
        self.node(id).streams.iter().map(|name| &**name)
    }

    pub(crate) fn add_stream(&mut self, id: NodeId, name: &str) {
        self.node_mut(id).streams.push(name.into());
    }

    /// Whether a directory hides all that the layers beneath have in it.
    pub fn is_opaque(&self, id: NodeId) -> bool {
        self.node(id).opaque
    }

    pub(crate) fn rename(&mut self, id: NodeId, name: &str) {
        self.node_mut(id).name = name.into();
    }

    /// Puts the names of a layer on top of these.
    pub fn overlay(&mut self, upper: &Self) -> Result<(), TooMany> {
        for part in PARTS {
            let root = Self::root(part);
            self.set_kind(root, upper.kind(root));
            let mut pending = vec![(root, root)];
            while let Some((from, to)) = pending.pop() {
                if upper.node(from).opaque {
                    self.clear(to);
                }
                let children: Vec<NodeId> = upper.children(from).collect();
                // In the order in which they were added.
                for child in children.into_iter().rev() {
                    let (name, kind) = (upper.name(child), upper.kind(child));
                    if kind == NodeKind::Dropped {
                        continue;
                    }
                    let there = self.child(to, name);
                    let at = match there {
                        Some(there) => {
                            let keeps = kind.is_directory() && self.kind(there).is_directory();
                            if !keeps {
                                self.clear(there);
                            }
                            if kind != NodeKind::Implied || !keeps {
                                self.set_kind(there, kind);
                            }
                            there
                        }
                        None if kind == NodeKind::Whiteout => continue,
                        None => self.add(to, name, kind)?,
                    };
                    if kind != NodeKind::Implied {
                        self.node_mut(at).streams.clone_from(&upper.node(child).streams);
                    }
                    if kind == NodeKind::Whiteout {
                        self.forget(at);
                    } else if kind.is_directory() {
                        pending.push((child, at));
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes all names out of a directory.
    fn clear(&mut self, parent: NodeId) {
        let mut at = self.node_mut(parent).child.take();
        while let Some(id) = at {
            at = self.node(id).next;
            self.forget(id);
        }
    }

    /// Makes a name and what is below it unreachable; its siblings stay linked through it.
    fn forget(&mut self, id: NodeId) {
        let key = (self.node(id).parent, fold(self.name(id)).into_boxed_str());
        self.index.remove(&key);
        self.node_mut(id).gone = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> LayerPath {
        LayerPath::new(Part::Files, text).unwrap()
    }

    fn tree(names: &[(&str, NodeKind)]) -> Tree {
        let mut tree = Tree::default();
        for (text, kind) in names {
            let path = path(text);
            let parent = tree.find(&path.parent().unwrap()).unwrap();
            tree.add(parent, path.file_name().unwrap(), *kind).unwrap();
        }
        tree
    }

    #[test]
    fn finds_in_any_case() {
        let tree = tree(&[("Windows", NodeKind::Directory), ("Windows/Größe", NodeKind::File)]);
        let id = tree.find(&path("WINDOWS/grÖße")).unwrap();
        assert_eq!(tree.path(id), path("Windows/Größe"));
        assert!(tree.find(&path("windows/x")).is_none());
    }

    #[test]
    fn layers_on_top() {
        use NodeKind as K;
        let mut below = tree(&[
            ("A", K::Directory),
            ("A/x", K::File),
            ("A/y", K::File),
            ("B", K::Directory),
            ("B/z", K::File),
            ("C", K::File),
            ("D", K::Directory),
            ("D/old", K::File),
        ]);
        let mut upper = tree(&[
            ("a", K::Directory),
            ("a/X", K::Whiteout),
            ("a/new", K::File),
            ("b", K::File),
            ("c", K::Directory),
            ("c/in", K::File),
            ("d", K::Implied),
            ("d/young", K::File),
            ("gone", K::Whiteout),
        ]);
        upper.set_opaque(upper.find(&path("d")).unwrap());
        below.overlay(&upper).unwrap();
        let found =
            |text: &str| below.find(&path(text)).map(|id| below.path(id).inner().to_owned());
        for (text, want) in [
            ("a/x", None),
            ("A/Y", Some("A/y")),
            ("a/NEW", Some("A/new")),
            ("B", Some("B")),
            ("B/z", None),
            ("C/in", Some("C/in")),
            ("d/old", None),
            ("d/young", Some("D/young")),
            ("gone", None),
        ] {
            assert_eq!(found(text).as_deref(), want, "{text}");
        }
        let mut names: Vec<_> =
            below.children(Tree::root(Part::Files)).map(|id| below.name(id)).collect();
        names.sort_unstable();
        assert_eq!(names, ["A", "B", "C", "D"]);
        let a = below.find(&path("A")).unwrap();
        let mut names: Vec<_> = below.children(a).map(|id| below.name(id)).collect();
        names.sort_unstable();
        assert_eq!(names, ["new", "y"]);
    }
}
