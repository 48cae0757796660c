//! A layer of a container's changes, in the form that Windows' own engines write and read.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, BufReader, Write};
use std::path::PathBuf;
use std::sync::Arc;

use rustix::io::Errno;
use silo_archive::Compression;
use silo_oci::image::ImageConfig;
use silo_types::Digest;
use silo_winlayer::hives::Hive;
use silo_winlayer::record::Trailer;
use silo_winlayer::scan::{self, Beneath, Found, HiveDelta, Made, Node, Source};
use silo_winlayer::{
    Entry, EntryKind, FileAttributes, FileTime, LayerPath, Part, Record, SideReader, Tree,
};

use super::find::{self, Changes};
use super::{SIDE, VIEW, known, refused};
use crate::layer::NewLayer;
use crate::load::join;
use crate::{Error, Image, Layer, Lease, Store, WindowsLayer};

/// How often a hard link's target is looked up.
const MAX_CHAIN: usize = 8;

/// What of a container's changes is not among its files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WindowsChanges {
    /// Differences of the registry: names of files in `Hives`, as `System_Delta`, and contents.
    pub hives: Vec<(String, Vec<u8>)>,
    /// Files in place of what the drive has: paths below the root of C:, with `/`, and contents.
    pub files: Vec<(String, Vec<u8>)>,
}

impl Store {
    /// Makes an image of what changed on a container's drive C: and in its registry. `config`
    /// is the whole configuration but for the layers' digests, as for [`Store::commit`].
    pub fn commit_windows(
        &self,
        snapshot: &str,
        more: &WindowsChanges,
        config: ImageConfig,
    ) -> Result<(Image, Lease), Error> {
        let (new, parent) = self.pack_windows(snapshot, more)?;
        self.add_layer(new, parent, config)
    }

    /// Makes a layer of the same, without an image. No time of a file is later than `latest`,
    /// seconds since 1970.
    pub fn commit_windows_layer(
        &self,
        snapshot: &str,
        more: &WindowsChanges,
        latest: Option<i64>,
    ) -> Result<(Arc<Layer>, Lease), Error> {
        if let Some(latest) = latest {
            crate::tree::bound_times(&self.snapshot(snapshot)?.upper, latest)?;
        }
        let (new, parent) = self.pack_windows(snapshot, more)?;
        self.add_layer_alone(new, parent)
    }

    /// The changes as a layer, and what it stands on.
    fn pack_windows(
        &self,
        snapshot: &str,
        more: &WindowsChanges,
    ) -> Result<(NewLayer, Option<Digest>), Error> {
        let snapshot = self.snapshot(snapshot)?;
        let layers = match &snapshot.chain {
            Some(chain) => self.windows_layers(chain)?,
            None => Vec::new(),
        };
        let mut tree = Tree::default();
        for layer in &layers {
            let path = self.layer_path(&layer.chain_id).join(VIEW);
            let names = known(&path, &tree)?;
            tree.overlay(&names).map_err(|error| refused("", &error))?;
        }
        let lowers: Vec<PathBuf> = layers.iter().rev().map(|layer| layer.files.clone()).collect();
        let mut changes = find::changes(&snapshot.upper, &lowers, &tree)?;
        let newest = changes.nodes.iter().map(|node| node.written).max().unwrap_or_default();
        add_files(&mut changes.nodes, &more.files, newest, &tree)?;
        let beneath = Layers { entries: entries(&layers, &changes.nodes)?, tree };
        complete(&mut changes.nodes, &beneath);

        let mut deltas = Vec::new();
        for (name, bytes) in &more.hives {
            let hive = Hive::ALL.into_iter().find(|hive| hive.delta_name() == name);
            let hive = hive.ok_or_else(|| Error::Entry {
                path: format!("Hives/{name}"),
                reason: "not the difference of a hive".to_owned(),
            })?;
            deltas.push(HiveDelta { hive, size: bytes.len() as u64, written: newest });
        }
        let nodes = std::mem::take(&mut changes.nodes);
        let (made, reports) =
            scan::records(nodes, &deltas, newest, &beneath).map_err(|error| refused("", &error))?;
        for path in &changes.left_out {
            tracing::warn!(path = %String::from_utf8_lossy(path), "no part of a Windows layer");
        }
        for report in &reports.first {
            tracing::warn!(%report, "no part of a Windows layer");
        }

        let (thread, mut writer) = self.unpack_in_thread(Compression::None, true)?;
        match write(&made, &changes, more, &mut writer) {
            Ok(()) => writer.finish(),
            Err(Error::Stream(_, error)) if error.kind() == io::ErrorKind::BrokenPipe => {
                drop(writer);
            }
            Err(error) => {
                writer.fail(io::Error::other("the source failed"));
                // It fails because of this, which is the better reason.
                drop(join(thread));
                return Err(error);
            }
        }
        Ok((join(thread)?, snapshot.chain))
    }
}

/// Puts files in place of what was found under their names, and the directories that hold them.
fn add_files(
    nodes: &mut Vec<Node>,
    files: &[(String, Vec<u8>)],
    written: FileTime,
    beneath: &Tree,
) -> Result<(), Error> {
    for (path, bytes) in files {
        let parsed = LayerPath::new(Part::Files, path)
            .map_err(|problem| Error::Entry { path: path.clone(), reason: problem.to_string() })?;
        // As it is spelled beneath.
        let (mut at, mut spelled) = (Some(Tree::root(Part::Files)), Vec::new());
        for name in parsed.names() {
            at = at.and_then(|at| beneath.child(at, name));
            spelled.push(at.map_or(name, |at| beneath.name(at)));
        }
        let folded = parsed.folded();
        nodes.retain(|node| {
            LayerPath::parse(&[b"Files/", &node.path[..]].concat())
                .map_or(true, |(path, stream)| stream.is_some() || path.folded() != folded)
        });
        nodes.push(Node {
            path: spelled.join("/").into_bytes(),
            kind: Found::File { size: bytes.len() as u64, inode: None },
            written,
            attributes: FileAttributes::default(),
            origin: None,
        });
    }
    Ok(())
}

/// Gives nodes what Linux has no place for, and the directories that hold files a node of their
/// own if they have one beneath.
fn complete(nodes: &mut Vec<Node>, beneath: &Layers) {
    let there: HashSet<LayerPath> =
        nodes.iter().filter_map(|node| Some(layer_path(node)?.folded())).collect();
    let mut missing = BTreeMap::new();
    for node in nodes.iter_mut() {
        let Some(path) = layer_path(node) else { continue };
        let origin = node.origin.as_ref().and_then(|origin| parsed(origin));
        let entry = beneath.entry(origin.as_ref().unwrap_or(&path));
        let kept =
            FileAttributes::READONLY.with(FileAttributes::HIDDEN).with(FileAttributes::SYSTEM);
        if let Some(entry) = entry
            && entry.kind == EntryKind::Directory
            && matches!(node.kind, Found::Directory { .. })
        {
            let old = FileAttributes(entry.effective_attributes().0 & kept.0);
            node.attributes = node.attributes.with(old);
        }
        let mut holder = path.parent();
        while let Some(at) = holder {
            if !there.contains(&at.folded())
                && let Some(entry) = beneath.entry(&at)
                && entry.kind == EntryKind::Directory
            {
                missing.insert(at.folded(), entry);
            }
            holder = at.parent();
        }
    }
    nodes.extend(missing.into_values().map(|entry| Node {
        path: entry.path.inner().as_bytes().to_vec(),
        kind: Found::Directory { opaque: false },
        written: entry.times.written,
        attributes: entry.effective_attributes(),
        origin: None,
    }));
}

fn parsed(path: &[u8]) -> Option<LayerPath> {
    LayerPath::parse(&[b"Files/", path].concat()).ok().map(|(path, _)| path)
}

/// The path of a node; of a stream, that of its owner.
fn layer_path(node: &Node) -> Option<LayerPath> {
    parsed(&node.path)
}

/// The layers beneath.
struct Layers {
    tree: Tree,
    /// Those entries that may be asked for, by their path's folded form.
    entries: BTreeMap<String, Entry>,
}

impl Beneath for Layers {
    fn tree(&self) -> &Tree {
        &self.tree
    }

    fn entry(&self, path: &LayerPath) -> Option<Entry> {
        let first = self.entries.get(&path.folded().to_tar())?;
        let mut entry = first;
        for _ in 0..MAX_CHAIN {
            let EntryKind::HardLink { target } = &entry.kind else { break };
            match self.entries.get(&target.folded().to_tar()) {
                Some(found) => entry = found,
                None => break,
            }
        }
        Some(Entry { path: first.path.clone(), ..entry.clone() })
    }
}

/// The entries beneath of nodes and of what holds them.
fn entries(layers: &[WindowsLayer], nodes: &[Node]) -> Result<BTreeMap<String, Entry>, Error> {
    let mut wanted: HashSet<String> = HashSet::new();
    let mut want = |path: Option<LayerPath>| {
        let mut next = path;
        while let Some(path) = next {
            if !wanted.insert(path.folded().to_tar()) {
                break;
            }
            next = path.parent();
        }
    };
    for node in nodes {
        want(layer_path(node));
        want(node.origin.as_ref().and_then(|origin| parsed(origin)));
    }
    let mut found = BTreeMap::new();
    for _ in 0..MAX_CHAIN {
        found = wanted_entries(layers, &wanted)?;
        let before = wanted.len();
        for entry in found.values() {
            if let EntryKind::HardLink { target } = &entry.kind {
                wanted.insert(target.folded().to_tar());
            }
        }
        if wanted.len() == before {
            break;
        }
    }
    Ok(found)
}

fn wanted_entries(
    layers: &[WindowsLayer],
    wanted: &HashSet<String>,
) -> Result<BTreeMap<String, Entry>, Error> {
    let mut found: BTreeMap<String, Entry> = BTreeMap::new();
    for layer in layers {
        let path = &layer.side;
        let file = fs_err::File::open(path).map_err(Error::io("open", path))?;
        let input = zstd::stream::read::Decoder::new(file).map_err(Error::io("read", path))?;
        let mut side =
            SideReader::new(BufReader::new(input)).map_err(|error| refused(SIDE, &error))?;
        while let Some(record) = side.next_record().map_err(|error| refused(SIDE, &error))? {
            let Ok(meaning) = record.meaning() else { continue };
            let Some(entry) = meaning.entry else { continue };
            if matches!(entry.kind, EntryKind::Stream { .. }) {
                continue;
            }
            let key = entry.path.folded().to_tar();
            if entry.kind != EntryKind::Directory {
                // "0" is what follows "/".
                let within: Vec<String> = found
                    .range(format!("{key}/")..format!("{key}0"))
                    .map(|(key, _)| key.clone())
                    .collect();
                for gone in within {
                    found.remove(&gone);
                }
            }
            match entry.kind {
                EntryKind::Whiteout => drop(found.remove(&key)),
                EntryKind::Opaque => {}
                _ if wanted.contains(&key) => drop(found.insert(key, entry)),
                _ => {}
            }
        }
    }
    Ok(found)
}

fn unwritten(error: io::Error) -> Error {
    Error::Stream("cannot write the layer", error)
}

/// Writes the layer's tar.
fn write(
    made: &[Made],
    changes: &Changes,
    more: &WindowsChanges,
    output: &mut impl Write,
) -> Result<(), Error> {
    let (mut lead, mut before) = (Vec::new(), 0);
    let mut buffer = vec![0; 256 << 10];
    for Made { header, source } in made {
        let shown = || String::from_utf8_lossy(&header.name).into_owned();
        let record = Record::new(header.clone()).map_err(|error| refused(&shown(), &error))?;
        lead.clear();
        record.write(before, &mut lead).map_err(|error| refused(&shown(), &error))?;
        output.write_all(&lead).map_err(unwritten)?;
        before = record.size();
        let given = match source {
            Source::Nothing => continue,
            Source::Hive(hive) => {
                more.hives.iter().find(|(name, _)| name == hive.delta_name()).map(|(_, b)| b)
            }
            Source::File(path) => {
                more.files.iter().find(|(name, _)| same(name.as_bytes(), path)).map(|(_, b)| b)
            }
        };
        match (given, source) {
            (Some(bytes), _) => output.write_all(bytes).map_err(unwritten)?,
            (None, Source::File(path)) => {
                copy(changes, path, before, &mut buffer, output)?;
            }
            (None, _) => {}
        }
    }
    let end = Trailer::standard(before);
    io::copy(&mut io::Read::take(io::repeat(0), end.zeros), output).map_err(unwritten)?;
    Ok(())
}

fn same(one: &[u8], other: &[u8]) -> bool {
    matches!((parsed(one), parsed(other)), (Some(a), Some(b)) if a.folded() == b.folded())
        && !other.contains(&b':')
}

/// Writes the content of a file: as many bytes as its header says.
fn copy(
    changes: &Changes,
    path: &[u8],
    size: u64,
    buffer: &mut [u8],
    output: &mut impl Write,
) -> Result<(), Error> {
    let failed = |operation| {
        let path = String::from_utf8_lossy(path).into_owned();
        move |source: io::Error| Error::Pack { path, operation, source }
    };
    if size == 0 {
        return Ok(());
    }
    let file = changes.open(path).map_err(failed("open"))?;
    let mut left = size;
    while left > 0 {
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let count = match rustix::io::read(&file, &mut buffer[..wanted]) {
            Err(Errno::INTR) => continue,
            result => result.map_err(io::Error::from).map_err(failed("read"))?,
        };
        // Cut short since its size was read: the rest is zeros.
        if count == 0 {
            buffer[..wanted].fill(0);
        }
        let count = if count == 0 { wanted } else { count };
        output.write_all(&buffer[..count]).map_err(unwritten)?;
        left -= count as u64;
    }
    Ok(())
}
